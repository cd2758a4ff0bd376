// JwtGate: which tokens requests must bring, compiled from a chain's `jwt`. Immutable and thread-safe;
// no I/O: key sets that must be fetched are the caller's.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "proxy/model/filter.h"
#include "proxy/route/jwt.h"
#include "proxy/route/matchers.h"

namespace edgemesh::proxy {

class JwtGate {
 public:
  static Result<std::shared_ptr<const JwtGate>> make(model::Part<model::Jwt> spec);

  // Fields that only a verified token may set are taken out of what the client sent. Before check().
  void clean(Head* request) const;
  // What this request must bring; null: nothing. `own`: the route's, null: the first rule that
  // matches counts.
  const model::JwtRequirement* requirement(const model::JwtRequirement* own, const Head& request,
                                           const Facts& facts) const;

  struct Verdict {
    enum class Kind : uint8_t { kPass, kRefuse, kFetch } kind = Kind::kPass;
    const model::JwtProvider* fetch = nullptr;  // whose keys are needed; ask again then
    bool missing = false;                       // no token came
    std::string why;                            // of a refusal
  };
  // Keys of a provider whose set is remote. Null: not known yet. An empty set: they cannot be had.
  using RemoteKeys = std::function<const KeySet*(const model::JwtProvider&)>;
  // On a pass the request's fields are changed as the providers ask, and `claims` is filled.
  Verdict check(const model::JwtRequirement& requirement, Head* request, JwtClaims* claims,
                int64_t now, const RemoteKeys& remote) const;
  const model::Jwt& spec() const { return *spec_; }

 private:
  struct Provider {
    const model::JwtProvider* spec = nullptr;
    bool has_keys = false;
    KeySet keys;
  };
  struct Call {
    Head* request;
    JwtClaims* claims;
    int64_t now;
    const RemoteKeys& remote;
    std::vector<const model::JwtProvider*> good;  // their tokens were verified
  };
  Verdict check_one(const Provider& provider, const std::vector<std::string>& audiences,
                    Call& call) const;
  Verdict check_tree(const model::JwtRequirement& requirement, Call& call) const;
  // Tokens that are there must be good; `all_fine` lets bad ones pass, too.
  Verdict check_present(Call& call, bool all_fine) const;
  static void apply(const model::JwtProvider& provider, Call& call);

  model::Part<model::Jwt> spec_;
  std::map<std::string, Provider, std::less<>> providers_;
  std::vector<RequestMatcher> rules_;  // as spec_->rules
};

}  // namespace edgemesh::proxy
