// Certificates: keys, signing requests, a small CA, and reading of certificates. EC P-256 with
// SHA-256 throughout. Pure functions; thread-safe. Times are Unix seconds.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace edgemesh::tls {

struct Subject {
  std::string common_name;
  std::vector<std::string> organizations;
  std::string country, locality, province;  // left out when empty
};

struct SubjectAltNames {
  std::vector<std::string> uri, dns, ip;
  bool empty() const { return uri.empty() && dns.empty() && ip.empty(); }
};

enum class KeyUse { kClientAuth, kServerAuth };

struct CertInfo {
  std::string common_name;
  std::vector<std::string> organizations;
  SubjectAltNames sans;
  std::string serial;  // upper-case hex
  std::string issuer_common_name;
  int64_t not_before = 0;
  int64_t not_after = 0;
  bool is_ca = false;
};

struct CsrInfo {
  Subject subject;
  SubjectAltNames sans;
};

struct CaPair {
  std::string cert_pem;
  std::string key_pem;
};

// PKCS#8 PEM.
Result<std::string> generate_key_pem();
// PKCS#10 DER, signed by the key.
Result<std::string> make_csr_der(std::string_view key_pem, const Subject& subject,
                                 const SubjectAltNames& sans = {});
// The key as SEC1 "EC PRIVATE KEY" DER (RFC 5915): KubeEdge's files and token signing use this
// form. PEM of it: der_to_pem(der, "EC PRIVATE KEY").
Result<std::string> key_pem_to_sec1_der(std::string_view key_pem);
// Reads a CSR and checks its signature (proof that the requester holds the key).
Result<CsrInfo> parse_csr_der(std::string_view csr_der);

// A root like KubeEdge's (CN "KubeEdge" by default there): CA:TRUE, key usage certSign and cRLSign.
Result<CaPair> self_signed_ca(const Subject& subject, int64_t not_before, int64_t not_after);

struct SignOptions {
  Subject subject;  // what the certificate says, whatever the CSR asks
  SubjectAltNames sans;
  std::vector<KeyUse> uses{KeyUse::kClientAuth};
  int64_t not_before = 0;
  int64_t not_after = 0;
};
// Signs the public key of the CSR (whose signature is checked). Returns the certificate as DER. Key
// usage is digitalSignature and keyEncipherment.
Result<std::string> sign_csr(const CaPair& ca, std::string_view csr_der,
                             const SignOptions& options);
// Key, CSR and certificate in one step: for server certificates and tests.
struct KeyAndCert {
  std::string key_pem;
  std::string cert_pem;
};
Result<KeyAndCert> issue(const CaPair& ca, const SignOptions& options);

Result<CertInfo> parse_cert_pem(std::string_view cert_pem);  // the first of the text
Result<CertInfo> parse_cert_der(std::string_view cert_der);
// Fails when the leaf was not issued by (a chain to) the CA. Validity times are not looked at.
Result<> verify_issued_by(std::string_view cert_der, std::string_view ca_pem);
// True when the private key belongs to the certificate.
bool key_matches(std::string_view key_pem, std::string_view cert_pem);

Result<std::string> cert_pem_to_der(std::string_view pem);
Result<std::string> cert_der_to_pem(std::string_view der);
// DER of any PEM block with that label ("CERTIFICATE REQUEST", ...), and back.
Result<std::string> pem_to_der(std::string_view pem, std::string_view label);
std::string der_to_pem(std::string_view der, std::string_view label);

std::string sha256(std::string_view data);      // 32 bytes
std::string sha256_hex(std::string_view data);  // lower case
std::string hmac_sha256(std::string_view key, std::string_view data);
std::string base64_encode(std::string_view data);
Result<std::string> base64_decode(std::string_view text);
std::string base64url_encode(std::string_view data);  // no padding (JWT)
Result<std::string> base64url_decode(std::string_view text);
std::string random_bytes(size_t n);  // from the system's secure source
bool constant_time_equal(std::string_view a, std::string_view b);

// "spiffe://<trust domain>/node/<name>" and back (empty when `uri` is not of that form or domain).
std::string node_spiffe_id(std::string_view trust_domain, std::string_view node);
std::string trust_domain_of(std::string_view spiffe_id);  // empty when it is none
std::string node_from_spiffe_id(std::string_view uri, std::string_view trust_domain);

}  // namespace edgemesh::tls
