// JSON Web Tokens (RFC 7519): RS256 and ES256, keys as a JWK set (RFC 7517). No I/O: the caller
// fetches remote key sets and makes a KeySet of them. Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/result.h"
#include "proxy/http/head.h"
#include "proxy/model/filter.h"

namespace edgemesh::proxy {

// Claims of the verified tokens of one request.
class JwtClaims {
 public:
  // Whether a value of the claim at `path` fits. Texts as they are, numbers and booleans as JSON
  // writes them, each element of a list; "scope" is a list, too. `provider` empty: any.
  bool any(std::string_view provider, const std::vector<std::string>& path,
           const std::function<bool(std::string_view)>& fits) const;
  bool empty() const { return tokens_.empty(); }
  void add(std::string provider, std::string payload);

 private:
  struct Token {
    std::string provider, payload;  // JSON
  };
  std::vector<Token> tokens_;
};

}  // namespace edgemesh::proxy
