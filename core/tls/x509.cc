// Reading of certificates and requests, PEM and DER, SPIFFE ids.
#include "core/tls/x509.h"

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include "core/tls/openssl_util.h"

namespace edgemesh::tls {

namespace {

std::string serial_hex(const X509* cert) {
  OpensslPtr<BIGNUM, BN_free> number(ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), nullptr));
  char* text = number ? BN_bn2hex(number.get()) : nullptr;
  std::string out = text != nullptr ? text : "";
  OPENSSL_free(text);
  return out;
}

SubjectAltNames to_sans(SanLists lists) {
  return {std::move(lists.uri), std::move(lists.dns), std::move(lists.ip)};
}

CertInfo info_of(X509* cert) {
  CertInfo info;
  const X509_NAME* subject = X509_get_subject_name(cert);
  auto names = name_entries(subject, NID_commonName);
  if (!names.empty()) info.common_name = names.front();
  info.organizations = name_entries(subject, NID_organizationName);
  auto issuers = name_entries(X509_get_issuer_name(cert), NID_commonName);
  if (!issuers.empty()) info.issuer_common_name = issuers.front();
  GeneralNamesPtr sans(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(cert, NID_subject_alt_name, nullptr, nullptr)));
  info.sans = to_sans(san_lists(sans.get()));
  info.serial = serial_hex(cert);
  info.not_before = asn1_to_unix(X509_get0_notBefore(cert));
  info.not_after = asn1_to_unix(X509_get0_notAfter(cert));
  info.is_ca = X509_check_ca(cert) > 0;
  ERR_clear_error();
  return info;
}

std::string first_entry(const X509_NAME* name, int nid) {
  auto entries = name_entries(name, nid);
  return entries.empty() ? std::string() : entries.front();
}

}  // namespace

Result<CertInfo> parse_cert_pem(std::string_view cert_pem) {
  EM_TRY(X509Ptr cert, read_cert_pem(cert_pem));
  return info_of(cert.get());
}

Result<CertInfo> parse_cert_der(std::string_view cert_der) {
  EM_TRY(X509Ptr cert, read_cert_der(cert_der));
  return info_of(cert.get());
}

Result<CsrInfo> parse_csr_der(std::string_view csr_der) {
  EM_TRY(ReqPtr request, read_csr_der(csr_der));
  CsrInfo info;
  const X509_NAME* subject = X509_REQ_get_subject_name(request.get());
  info.subject.common_name = first_entry(subject, NID_commonName);
  info.subject.organizations = name_entries(subject, NID_organizationName);
  info.subject.country = first_entry(subject, NID_countryName);
  info.subject.locality = first_entry(subject, NID_localityName);
  info.subject.province = first_entry(subject, NID_stateOrProvinceName);
  ExtensionsPtr extensions(X509_REQ_get_extensions(request.get()));
  if (extensions) {
    GeneralNamesPtr sans(static_cast<GENERAL_NAMES*>(
        X509V3_get_d2i(extensions.get(), NID_subject_alt_name, nullptr, nullptr)));
    info.sans = to_sans(san_lists(sans.get()));
  }
  ERR_clear_error();
  return info;
}

Result<> verify_issued_by(std::string_view cert_der, std::string_view ca_pem) {
  EM_TRY(X509Ptr cert, read_cert_der(cert_der));
  EM_TRY(X509Ptr ca, read_cert_pem(ca_pem));
  StorePtr store(X509_STORE_new());
  StoreCtxPtr context(X509_STORE_CTX_new());
  if (!store || !context || X509_STORE_add_cert(store.get(), ca.get()) != 1 ||
      X509_STORE_CTX_init(context.get(), store.get(), cert.get(), nullptr) != 1)
    return fail_openssl("certificate check", ErrorCode::kInternal);
  X509_STORE_CTX_set_flags(context.get(), X509_V_FLAG_NO_CHECK_TIME);
  if (X509_verify_cert(context.get()) == 1) return {};
  int reason = X509_STORE_CTX_get_error(context.get());
  ERR_clear_error();
  return fail(ErrorCode::kUnauthenticated, "certificate was not issued by this CA: {}",
              X509_verify_cert_error_string(reason));
}

bool key_matches(std::string_view key_pem, std::string_view cert_pem) {
  auto key = read_key(key_pem);
  auto cert = read_cert_pem(cert_pem);
  bool matches = key && cert && X509_check_private_key(cert->get(), key->get()) == 1;
  ERR_clear_error();
  return matches;
}

Result<std::string> cert_pem_to_der(std::string_view pem) {
  EM_TRY(X509Ptr cert, read_cert_pem(pem));
  return cert_to_der(cert.get());
}

Result<std::string> cert_der_to_pem(std::string_view der) {
  EM_TRY(X509Ptr cert, read_cert_der(der));
  return der_to_pem(der, "CERTIFICATE");
}

Result<std::string> pem_to_der(std::string_view pem, std::string_view label) {
  BioPtr bio = bio_over(pem);
  char* name = nullptr;
  char* header = nullptr;
  unsigned char* data = nullptr;
  long size = 0;
  while (PEM_read_bio(bio.get(), &name, &header, &data, &size) == 1) {
    bool wanted = label == name;
    std::string out = wanted ? std::string(reinterpret_cast<char*>(data),  // NOLINT
                                           static_cast<size_t>(size))
                             : std::string();
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_free(data);
    if (wanted) return out;
  }
  ERR_clear_error();
  return fail(ErrorCode::kInvalidArgument, "no PEM block '{}' in the text", label);
}

std::string der_to_pem(std::string_view der, std::string_view label) {
  std::string out = fmt::format("-----BEGIN {}-----\n", label);
  std::string body = base64_encode(der);
  for (size_t at = 0; at < body.size(); at += 64) {
    out += std::string_view(body).substr(at, 64);
    out += '\n';
  }
  return out + fmt::format("-----END {}-----\n", label);
}

std::string node_spiffe_id(std::string_view trust_domain, std::string_view node) {
  return fmt::format("spiffe://{}/node/{}", trust_domain, node);
}

std::string trust_domain_of(std::string_view spiffe_id) {
  constexpr std::string_view kScheme = "spiffe://";
  if (!spiffe_id.starts_with(kScheme)) return {};
  spiffe_id.remove_prefix(kScheme.size());
  return std::string(spiffe_id.substr(0, spiffe_id.find('/')));
}

std::string node_from_spiffe_id(std::string_view uri, std::string_view trust_domain) {
  std::string prefix = node_spiffe_id(trust_domain, "");
  if (uri.size() <= prefix.size() || uri.substr(0, prefix.size()) != prefix) return {};
  std::string_view node = uri.substr(prefix.size());
  return node.find_first_of("/?#%") == std::string_view::npos ? std::string(node) : std::string();
}

}  // namespace edgemesh::tls
