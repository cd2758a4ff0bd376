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
#include "core/tls/jws.h"
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

// The keys of one provider.
class KeySet {
 public:
  static constexpr size_t kMaxKeys = 100;
  // Keys of other kinds, and those for encryption, are passed over; none left is an error.
  static Result<KeySet> parse(std::string_view json);

 private:
  friend Result<std::string> verify_jwt(const model::JwtProvider&, const KeySet&, std::string_view,
                                        int64_t);
  struct Entry {
    std::string id;
    tls::JwsKey key;
  };
  std::vector<Entry> keys_;
};

inline constexpr size_t kMaxJwtBytes = 16 << 10;
// The payload (JSON) of a token whose signature, issuer, audience, times and required claims are
// right; `now` are Unix seconds. The error is for the log and the answer's WWW-Authenticate.
Result<std::string> verify_jwt(const model::JwtProvider& provider, const KeySet& keys,
                               std::string_view token, int64_t now);
// Where the provider looks for it; empty: the request brings none. Valid as long as the head.
std::string_view find_jwt(const model::JwtProvider& provider, const Head& request);

}  // namespace edgemesh::proxy
