#include "core/tls/openssl_util.h"

#include <openssl/err.h>
#include <openssl/pem.h>

#include <ctime>

#include "core/base/net_addr.h"
#include "core/tls/x509.h"

namespace edgemesh::tls {

std::string openssl_reason() {
  unsigned long code = ERR_get_error();
  ERR_clear_error();
  if (code == 0) return "unknown reason";
  const char* reason = ERR_reason_error_string(code);
  if (reason != nullptr) return reason;
  char text[160];
  ERR_error_string_n(code, text, sizeof text);
  return text;
}

tl::unexpected<Error> fail_openssl(std::string_view what, ErrorCode code) {
  return fail(code, "{}: {}", what, openssl_reason());
}

BioPtr bio_over(std::string_view data) {
  return BioPtr(BIO_new_mem_buf(data.data(), static_cast<int>(data.size())));
}

std::string bio_text(BIO* bio) {
  char* data = nullptr;
  long size = BIO_get_mem_data(bio, &data);
  return size > 0 ? std::string(data, static_cast<size_t>(size)) : std::string();
}

int no_pass_phrase(char*, int, int, void*) {
  return 0;
}

Result<KeyPtr> read_key(std::string_view pem) {
  BioPtr bio = bio_over(pem);
  KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_pass_phrase, nullptr));
  if (!key) return fail_openssl("private key is not readable PEM (or is encrypted)");
  return key;
}

Result<X509Ptr> read_cert_pem(std::string_view pem) {
  BioPtr bio = bio_over(pem);
  X509Ptr cert(PEM_read_bio_X509(bio.get(), nullptr, no_pass_phrase, nullptr));
  if (!cert) return fail_openssl("certificate is not readable PEM");
  return cert;
}

Result<X509Ptr> read_cert_der(std::string_view der) {
  const auto* p = reinterpret_cast<const unsigned char*>(der.data());  // NOLINT
  const unsigned char* end = p + der.size();
  X509Ptr cert(d2i_X509(nullptr, &p, static_cast<long>(der.size())));
  if (!cert || p != end) return fail_openssl("certificate is not valid DER");
  return cert;
}

Result<std::string> cert_to_der(X509* cert) {
  unsigned char* der = nullptr;
  int n = i2d_X509(cert, &der);
  if (n < 0) return fail_openssl("certificate to DER", ErrorCode::kInternal);
  std::string out(reinterpret_cast<char*>(der), static_cast<size_t>(n));  // NOLINT
  OPENSSL_free(der);
  return out;
}

int64_t asn1_to_unix(const ASN1_TIME* time) {
  std::tm parts{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) return 0;
  return static_cast<int64_t>(timegm(&parts));
}

namespace {
std::string utf8(const ASN1_STRING* text) {
  unsigned char* data = nullptr;
  int n = ASN1_STRING_to_UTF8(&data, text);
  if (n < 0) return {};
  std::string out(reinterpret_cast<char*>(data), static_cast<size_t>(n));  // NOLINT
  OPENSSL_free(data);
  return out;
}
}  // namespace

std::vector<std::string> name_entries(const X509_NAME* name, int nid) {
  std::vector<std::string> out;
  for (int at = X509_NAME_get_index_by_NID(name, nid, -1); at >= 0;
       at = X509_NAME_get_index_by_NID(name, nid, at)) {
    std::string text = utf8(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    // A NUL inside a name is an old trick to be taken for a shorter one.
    if (text.find('\0') == std::string::npos) out.push_back(std::move(text));
  }
  return out;
}

SanLists san_lists(const GENERAL_NAMES* names) {
  SanLists out;
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
    int type = 0;
    const auto* value = static_cast<const ASN1_STRING*>(GENERAL_NAME_get0_value(name, &type));
    if (type != GEN_URI && type != GEN_DNS && type != GEN_IPADD) continue;
    const unsigned char* data = ASN1_STRING_get0_data(value);
    auto size = static_cast<size_t>(ASN1_STRING_length(value));
    if (type == GEN_IPADD) {
      if (size == 4) out.ip.push_back(IpAddr::v4(static_cast<const void*>(data)).to_string());
      if (size == 16) out.ip.push_back(IpAddr::v6(data).to_string());
      continue;
    }
    std::string text(reinterpret_cast<const char*>(data), size);  // NOLINT
    if (text.find('\0') != std::string::npos) continue;
    (type == GEN_URI ? out.uri : out.dns).push_back(std::move(text));
  }
  return out;
}

PeerIdentity identity_of(X509* cert) {
  PeerIdentity id;
  const X509_NAME* subject = X509_get_subject_name(cert);
  auto names = name_entries(subject, NID_commonName);
  if (!names.empty()) id.common_name = names.front();
  id.organizations = name_entries(subject, NID_organizationName);
  if (!id.organizations.empty()) id.organization = id.organizations.front();
  GeneralNamesPtr sans(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(cert, NID_subject_alt_name, nullptr, nullptr)));
  SanLists lists = san_lists(sans.get());
  id.uri_sans = std::move(lists.uri);
  id.dns_sans = std::move(lists.dns);
  id.ip_sans = std::move(lists.ip);
  if (auto der = cert_to_der(cert)) id.der = std::move(*der);
  id.sha256 = sha256_hex(id.der);
  id.not_before = asn1_to_unix(X509_get0_notBefore(cert));
  id.not_after = asn1_to_unix(X509_get0_notAfter(cert));
  id.expired = id.not_after < static_cast<int64_t>(std::time(nullptr));
  ERR_clear_error();
  return id;
}

Result<ReqPtr> read_csr_der(std::string_view csr_der) {
  const auto* p = reinterpret_cast<const unsigned char*>(csr_der.data());  // NOLINT
  const unsigned char* end = p + csr_der.size();
  ReqPtr request(d2i_X509_REQ(nullptr, &p, static_cast<long>(csr_der.size())));
  if (!request || p != end) return fail_openssl("signing request is not valid PKCS#10 DER");
  EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
  if (key == nullptr || X509_REQ_verify(request.get(), key) != 1)
    return fail_openssl("signing request: its signature does not verify");
  return request;
}

}  // namespace edgemesh::tls
