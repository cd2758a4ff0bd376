// Signatures of JSON Web Signatures (RFC 7515): RS256 and ES256 (RFC 7518 3.3, 3.4). Thread-safe.
#pragma once

#include <memory>
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

}  // namespace edgemesh::tls
