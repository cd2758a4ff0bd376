// Policies on requests, compiled; evaluated without I/O. All are thread-safe; what they count is
// atomic and shared by all workers.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/clock.h"
#include "core/base/result.h"
#include "proxy/model/filter.h"
#include "proxy/model/listener.h"
#include "proxy/model/route.h"
#include "proxy/route/matchers.h"

namespace edgemesh::proxy {

class CorsRules {
 public:
  static Result<std::shared_ptr<const CorsRules>> make(model::Part<model::Cors> spec);
  enum class Verdict : uint8_t {
    kNone,       // no CORS request, or an origin that is not allowed: forward as it is
    kAllowed,    // forward, and add_fields() to the answer
    kPreflight,  // answer here: 200 without a body, with preflight_fields()
  };
  Verdict check(const Head& request) const;
  void preflight_fields(const Head& request, Head* answer) const;
  void add_fields(std::string_view origin, Head* answer) const;

 private:
  model::Part<model::Cors> spec_;
  std::vector<TextMatcher> origins_;
};

class FaultRules {
 public:
  static Result<std::shared_ptr<const FaultRules>> make(model::Part<model::Fault> spec);
  struct Decision {
    Duration delay{};
    int abort_status = 0;  // 0: none
    int abort_grpc = -1;   // answer 200 with this grpc-status
    bool any() const { return delay > Duration::zero() || abort_status != 0 || abort_grpc >= 0; }
  };
  Decision decide(const Head& request, uint64_t random) const;
  // Around a request with a fault; false: max_active is reached, it goes without.
  bool begin() const;
  void end() const { active_.fetch_sub(1, std::memory_order_relaxed); }

 private:
  model::Part<model::Fault> spec_;
  std::vector<FieldMatcher> headers_;
  mutable std::atomic<uint32_t> active_{0};
};

// A token bucket in one atomic number: the time when it is full.
class TokenBucket {
 public:
  TokenBucket(uint32_t max_tokens, uint32_t per_fill, Duration interval);
  bool take(TimePoint now);
  uint32_t left(TimePoint now) const;
  Duration until_full(TimePoint now) const;

 private:
  int64_t full_span() const { return per_token_ * max_; }
  int64_t max_, per_token_;  // ns a token
  std::atomic<int64_t> full_at_{INT64_MIN};
};

class RateLimiter {
 public:
  explicit RateLimiter(model::Part<model::LocalRateLimit> spec);
  enum class Verdict : uint8_t { kPass, kOver, kOverNotEnforced };
  // With per_connection the caller keeps a bucket of its own and gives it.
  Verdict check(TimePoint now, uint64_t random, TokenBucket* own = nullptr) const;
  const model::LocalRateLimit& spec() const { return *spec_; }
  const TokenBucket& bucket() const { return bucket_; }
  std::unique_ptr<TokenBucket> make_bucket() const;
  // x-ratelimit-*, where they are asked for; and the refusal's own fields.
  void add_fields(TimePoint now, bool refused, Head* answer) const;

 private:
  model::Part<model::LocalRateLimit> spec_;
  mutable TokenBucket bucket_;
};

class RbacEngine {
 public:
  static Result<std::shared_ptr<const RbacEngine>> make(model::Part<model::Rbac> spec);
  struct Verdict {
    bool allowed = true;
    std::string_view policy;  // that decided; empty: none matched
    bool shadow_allowed = true;
    std::string_view shadow_policy;
  };
  Verdict check(const Head& request, const Facts& facts) const;
  // For a connection without a request: rules about a request do not match.
  Verdict check(const Facts& facts) const;

 private:
  struct Node {
    const model::RbacRule* spec;
    std::vector<Node> rules;
    TextMatcher text;
    FieldMatcher field;
  };
  struct Policy {
    const model::RbacPolicy* spec;
    std::vector<Node> permissions, principals;
  };
  struct Set {
    model::RbacRules::Action action;
    std::vector<Policy> policies;
  };
  static Result<Node> compile(const model::RbacRule& rule, int depth);
  static Result<std::vector<Node>> compile(const std::vector<model::RbacRule>& rules, int depth);
  static Result<std::vector<Set>> compile(const std::vector<model::RbacRules>& sets);
  static bool matches(const Node& node, const Head& head, const Facts& facts);
  static bool matches_request(const Node& node, const Head& head);
  static bool matches_peer(const Node& node, const Facts& facts);
  static bool any(const std::vector<Node>& nodes, const Head& head, const Facts& facts);
  static bool allows(const std::vector<Set>& sets, const Head& head, const Facts& facts,
                     std::string_view* policy);
  model::Part<model::Rbac> spec_;
  std::vector<Set> rules_, shadow_;
};

// External authorization's lists of fields, compiled.
class AuthzRules {
 public:
  static Result<std::shared_ptr<const AuthzRules>> make(model::Part<model::ExtAuthz> spec);
  const model::ExtAuthz& spec() const { return *spec_; }
  bool sends(std::string_view field) const { return any_matches(request_, field); }
  bool takes_upstream(std::string_view field) const { return any_matches(upstream_, field); }
  bool gives_client(std::string_view field) const {
    return client_.empty() || any_matches(client_, field);
  }

 private:
  model::Part<model::ExtAuthz> spec_;
  std::vector<TextMatcher> request_, upstream_, client_;
};

// What a route, or a listener, has of them. Null: none.
struct Policies {
  std::shared_ptr<const CorsRules> cors;
  std::shared_ptr<const FaultRules> fault;
  std::shared_ptr<const RateLimiter> rate_limit;
  std::shared_ptr<const RbacEngine> rbac;
  model::Part<model::JwtRequirement> jwt;
  std::shared_ptr<const AuthzRules> ext_authz;
  model::Part<model::Compression> compression;
  bool no_ext_authz = false, no_jwt = false, no_rbac = false, no_compression = false;

  // What `spec` lacks is taken from `outer`. Counters go on from `previous`, which may be null,
  // where the policy is the same. Null when there is nothing.
  static Result<std::shared_ptr<const Policies>> make(const model::RoutePolicies& spec,
                                                      const model::RoutePolicies& outer,
                                                      const Policies* previous);
  static Result<std::shared_ptr<const Policies>> make(const model::HttpChain& chain,
                                                      const Policies* previous);
};

// The hash for session affinity; absent: no policy gave a value. With a cookie policy that makes
// cookies, *set_cookie gets the Set-Cookie field's value when the request had none.
std::optional<uint64_t> request_hash(const std::vector<model::HashPolicy>& policies,
                                     const Head& request, const Facts& facts,
                                     std::string* set_cookie);

// RFC 3986 6.2.2 and what HttpChain says about slashes. In place in the head's arena.
enum class PathResult : uint8_t { kOk, kReject, kRedirect };
PathResult normalize_path(const model::HttpChain& chain, Head* request);

}  // namespace edgemesh::proxy
