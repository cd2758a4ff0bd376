// Join tokens in KubeEdge's form:
//   <hex SHA-256 of the CA certificate's DER> "." <JWT, HS256, the claim "exp", maybe "node", "replace">
// The edge compares the first part with the CA it was given and sends only the JWT. The JWT's key
// is the CA's private key as DER (RFC 5915), so that nothing but the CA has to be kept.
// Thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace edgemesh::cloud {

// What the holder of a token may do.
struct TokenRights {
  std::string node;      // the one node that it is for; empty: any
  bool replace = false;  // also where a node of that name has joined already; only with `node`
};

// `expires` in Unix seconds.
std::string make_jwt(std::string_view key, int64_t expires, const TokenRights& rights = {});
// Compares the signature in constant time; only then reads the claims. The error says what is wrong
// (malformed, signature, expired) in words that may be shown to the peer.
Result<TokenRights> verify_jwt(std::string_view jwt, std::string_view key, int64_t now);

}  // namespace edgemesh::cloud
