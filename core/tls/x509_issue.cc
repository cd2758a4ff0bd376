// Making of keys, signing requests and certificates.
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>

#include "core/base/net_addr.h"
#include "core/tls/openssl_util.h"
#include "core/tls/x509.h"

namespace edgemesh::tls {

namespace {

Result<KeyPtr> new_key() {
  KeyPtr key(EVP_EC_gen("P-256"));
  if (!key) return fail_openssl("making a P-256 key", ErrorCode::kInternal);
  return key;
}

Result<std::string> key_to_pem(EVP_PKEY* key) {
  BioPtr bio(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return fail_openssl("private key to PEM", ErrorCode::kInternal);
  return bio_text(bio.get());
}

Result<std::string> cert_to_pem(X509* cert) {
  EM_TRY(std::string der, cert_to_der(cert));
  return der_to_pem(der, "CERTIFICATE");
}

Result<> add_entry(X509_NAME* name, int nid, std::string_view value) {
  if (value.empty()) return {};
  const auto* data = reinterpret_cast<const unsigned char*>(value.data());  // NOLINT
  if (X509_NAME_add_entry_by_NID(name, nid, MBSTRING_UTF8, data, static_cast<int>(value.size()), -1,
                                 0) != 1)
    return fail_openssl(fmt::format("subject field '{}'", value));
  return {};
}

Result<NamePtr> make_name(const Subject& subject) {
  NamePtr name(X509_NAME_new());
  EM_TRY_VOID(add_entry(name.get(), NID_countryName, subject.country));
  EM_TRY_VOID(add_entry(name.get(), NID_stateOrProvinceName, subject.province));
  EM_TRY_VOID(add_entry(name.get(), NID_localityName, subject.locality));
  for (const std::string& org : subject.organizations)
    EM_TRY_VOID(add_entry(name.get(), NID_organizationName, org));
  EM_TRY_VOID(add_entry(name.get(), NID_commonName, subject.common_name));
  return name;
}

Result<> add_general_name(GENERAL_NAMES* names, int type, std::string_view value) {
  OpensslPtr<GENERAL_NAME, GENERAL_NAME_free> name(GENERAL_NAME_new());
  ASN1_STRING* text = nullptr;
  bool ok = false;
  if (type == GEN_IPADD) {
    EM_TRY(IpAddr ip, IpAddr::parse(value));
    text = ASN1_OCTET_STRING_new();
    ok = ASN1_STRING_set(text, ip.bytes(), static_cast<int>(ip.size())) == 1;
  } else {
    text = ASN1_IA5STRING_new();
    ok = ASN1_STRING_set(text, value.data(), static_cast<int>(value.size())) == 1;
  }
  GENERAL_NAME_set0_value(name.get(), type, text);
  if (!ok || sk_GENERAL_NAME_push(names, name.get()) == 0)
    return fail_openssl("subject alternative name", ErrorCode::kInternal);
  static_cast<void>(name.release());
  return {};
}

Result<GeneralNamesPtr> make_sans(const SubjectAltNames& sans) {
  GeneralNamesPtr names(sk_GENERAL_NAME_new_null());
  for (const auto& uri : sans.uri) EM_TRY_VOID(add_general_name(names.get(), GEN_URI, uri));
  for (const auto& dns : sans.dns) EM_TRY_VOID(add_general_name(names.get(), GEN_DNS, dns));
  for (const auto& ip : sans.ip) EM_TRY_VOID(add_general_name(names.get(), GEN_IPADD, ip));
  return names;
}

Result<> add_extension(X509* cert, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, cert, nullptr, nullptr, 0);
  OpensslPtr<X509_EXTENSION, X509_EXTENSION_free> extension(
      X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  if (!extension || X509_add_ext(cert, extension.get(), -1) != 1)
    return fail_openssl(fmt::format("certificate extension {}", value), ErrorCode::kInternal);
  return {};
}

Result<> set_basics(X509* cert, const X509_NAME* subject, const X509_NAME* issuer, int64_t from,
                    int64_t to) {
  // 63 random bits, positive: unique without a counter (RFC 5280 4.1.2.2).
  uint64_t serial = 0;
  if (RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof serial) != 1)  // NOLINT
    return fail_openssl("random serial", ErrorCode::kInternal);
  serial = (serial >> 1) | 1;
  bool ok = X509_set_version(cert, X509_VERSION_3) == 1 &&
            ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), serial) == 1 &&
            X509_set_subject_name(cert, subject) == 1 && X509_set_issuer_name(cert, issuer) == 1 &&
            ASN1_TIME_adj(X509_getm_notBefore(cert), from, 0, 0) != nullptr &&
            ASN1_TIME_adj(X509_getm_notAfter(cert), to, 0, 0) != nullptr;
  if (!ok) return fail_openssl("certificate fields", ErrorCode::kInternal);
  return {};
}

std::string key_uses(const std::vector<KeyUse>& uses) {
  std::string out;
  for (KeyUse use : uses) {
    if (!out.empty()) out += ',';
    out += use == KeyUse::kClientAuth ? "clientAuth" : "serverAuth";
  }
  return out;
}

Result<X509Ptr> sign_leaf(const CaPair& ca, EVP_PKEY* public_key, const SignOptions& options) {
  EM_TRY(X509Ptr ca_cert, read_cert_pem(ca.cert_pem));
  EM_TRY(KeyPtr ca_key, read_key(ca.key_pem));
  if (X509_check_private_key(ca_cert.get(), ca_key.get()) != 1)
    return fail_openssl("CA key does not belong to the CA certificate");
  X509Ptr cert(X509_new());
  EM_TRY(NamePtr name, make_name(options.subject));
  EM_TRY_VOID(set_basics(cert.get(), name.get(), X509_get_subject_name(ca_cert.get()),
                         options.not_before, options.not_after));
  if (X509_set_pubkey(cert.get(), public_key) != 1)
    return fail_openssl("public key of the request");
  EM_TRY_VOID(add_extension(cert.get(), ca_cert.get(), NID_basic_constraints, "critical,CA:FALSE"));
  EM_TRY_VOID(add_extension(cert.get(), ca_cert.get(), NID_key_usage,
                            "critical,digitalSignature,keyEncipherment"));
  if (!options.uses.empty())
    EM_TRY_VOID(add_extension(cert.get(), ca_cert.get(), NID_ext_key_usage,
                              key_uses(options.uses).c_str()));
  EM_TRY_VOID(add_extension(cert.get(), ca_cert.get(), NID_subject_key_identifier, "hash"));
  EM_TRY_VOID(add_extension(cert.get(), ca_cert.get(), NID_authority_key_identifier, "keyid"));
  if (!options.sans.empty()) {
    EM_TRY(GeneralNamesPtr sans, make_sans(options.sans));
    if (X509_add1_ext_i2d(cert.get(), NID_subject_alt_name, sans.get(), 0, 0) != 1)
      return fail_openssl("subject alternative names");
  }
  if (X509_sign(cert.get(), ca_key.get(), EVP_sha256()) == 0)
    return fail_openssl("signing the certificate", ErrorCode::kInternal);
  ERR_clear_error();
  return cert;
}

}  // namespace

Result<std::string> generate_key_pem() {
  EM_TRY(KeyPtr key, new_key());
  return key_to_pem(key.get());
}

Result<std::string> key_pem_to_sec1_der(std::string_view key_pem) {
  EM_TRY(KeyPtr key, read_key(key_pem));
  BioPtr bio(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_PrivateKey_traditional(bio.get(), key.get(), nullptr, nullptr, 0, nullptr,
                                           nullptr) != 1)
    return fail_openssl("private key to SEC1 form");
  return pem_to_der(bio_text(bio.get()), "EC PRIVATE KEY");
}

Result<std::string> make_csr_der(std::string_view key_pem, const Subject& subject,
                                 const SubjectAltNames& sans) {
  EM_TRY(KeyPtr key, read_key(key_pem));
  EM_TRY(NamePtr name, make_name(subject));
  ReqPtr request(X509_REQ_new());
  if (X509_REQ_set_version(request.get(), X509_REQ_VERSION_1) != 1 ||
      X509_REQ_set_subject_name(request.get(), name.get()) != 1 ||
      X509_REQ_set_pubkey(request.get(), key.get()) != 1)
    return fail_openssl("signing request", ErrorCode::kInternal);
  if (!sans.empty()) {
    EM_TRY(GeneralNamesPtr names, make_sans(sans));
    STACK_OF(X509_EXTENSION)* raw = nullptr;
    int added = X509V3_add1_i2d(&raw, NID_subject_alt_name, names.get(), 0, 0);
    ExtensionsPtr extensions(raw);
    if (added != 1 || X509_REQ_add_extensions(request.get(), raw) != 1)
      return fail_openssl("signing request: alternative names", ErrorCode::kInternal);
  }
  if (X509_REQ_sign(request.get(), key.get(), EVP_sha256()) == 0)
    return fail_openssl("signing request", ErrorCode::kInternal);
  unsigned char* der = nullptr;
  int n = i2d_X509_REQ(request.get(), &der);
  if (n < 0) return fail_openssl("signing request to DER", ErrorCode::kInternal);
  std::string out(reinterpret_cast<char*>(der), static_cast<size_t>(n));  // NOLINT
  OPENSSL_free(der);
  return out;
}

Result<CaPair> self_signed_ca(const Subject& subject, int64_t not_before, int64_t not_after) {
  EM_TRY(KeyPtr key, new_key());
  EM_TRY(NamePtr name, make_name(subject));
  X509Ptr cert(X509_new());
  EM_TRY_VOID(set_basics(cert.get(), name.get(), name.get(), not_before, not_after));
  if (X509_set_pubkey(cert.get(), key.get()) != 1)
    return fail_openssl("CA certificate", ErrorCode::kInternal);
  X509* self = cert.get();
  EM_TRY_VOID(add_extension(self, self, NID_basic_constraints, "critical,CA:TRUE"));
  EM_TRY_VOID(add_extension(self, self, NID_key_usage,
                            "critical,digitalSignature,keyEncipherment,keyCertSign,cRLSign"));
  EM_TRY_VOID(add_extension(self, self, NID_ext_key_usage, "clientAuth,serverAuth"));
  EM_TRY_VOID(add_extension(self, self, NID_subject_key_identifier, "hash"));
  if (X509_sign(self, key.get(), EVP_sha256()) == 0)
    return fail_openssl("signing the CA certificate", ErrorCode::kInternal);
  CaPair out;
  EM_TRY(out.cert_pem, cert_to_pem(self));
  EM_TRY(out.key_pem, key_to_pem(key.get()));
  return out;
}

Result<std::string> sign_csr(const CaPair& ca, std::string_view csr_der,
                             const SignOptions& options) {
  EM_TRY(ReqPtr request, read_csr_der(csr_der));
  EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
  EM_TRY(X509Ptr cert, sign_leaf(ca, key, options));
  return cert_to_der(cert.get());
}

Result<KeyAndCert> issue(const CaPair& ca, const SignOptions& options) {
  EM_TRY(KeyPtr key, new_key());
  EM_TRY(X509Ptr cert, sign_leaf(ca, key.get(), options));
  KeyAndCert out;
  EM_TRY(out.key_pem, key_to_pem(key.get()));
  EM_TRY(out.cert_pem, cert_to_pem(cert.get()));
  return out;
}

}  // namespace edgemesh::tls
