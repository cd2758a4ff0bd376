// Signatures of JSON Web Signatures (RFC 7515): RS256 and ES256 (RFC 7518 3.3, 3.4). Thread-safe.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace edgemesh::tls {

class JwsKey {
 public:
  // Big-endian numbers, as a JWK has them after base64url. RSA: 2048 to 8192 bits.
  static Result<JwsKey> rsa(std::string_view modulus, std::string_view exponent);
  static Result<JwsKey> p256(std::string_view x, std::string_view y);  // 32 bytes each
  // RS256 or ES256, by the kind of key.
  bool verify(std::string_view text, std::string_view signature) const;
  std::string_view algorithm() const { return rsa_ ? "RS256" : "ES256"; }

 private:
  std::shared_ptr<void> key_;
  bool rsa_ = false;
};

// Signs with ES256 (RFC 7518 3.4) by a private key on P-256.
class JwsSigner {
 public:
  static Result<JwsSigner> p256(std::string_view key_pem);
  Result<std::string> sign(std::string_view text) const;  // 64 bytes
  // The public key, for verifiers: coordinates as in a JWK, and SubjectPublicKeyInfo as DER.
  const std::string& x() const { return x_; }
  const std::string& y() const { return y_; }
  const std::string& public_der() const { return public_der_; }

 private:
  std::shared_ptr<void> key_;
  std::string x_, y_, public_der_;
};

}  // namespace edgemesh::tls
