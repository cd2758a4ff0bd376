// Policies on requests: what a listener, a virtual host or a route may carry. Immutable
// configuration; proxy/route evaluates them without I/O, the exchange acts.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/clock.h"
#include "core/base/net_addr.h"
#include "proxy/model/cluster.h"
#include "proxy/model/match.h"

namespace edgemesh::proxy::model {

struct Cors {
  std::vector<TextMatch> origins;        // {kPrefix, ""}: all
  std::string methods, headers, expose;  // as the fields say them: "GET, PUT"
  std::string max_age;                   // seconds
  bool credentials = false;
  bool private_network = false;
  bool forward_unmatched_preflight = true;  // else it is answered here, without CORS fields
  friend bool operator==(const Cors&, const Cors&) = default;
};

struct Fault {
  // Percentages are of the requests that the rest matches; delay and abort are drawn separately.
  PerMillion delay_share = 0;
  Duration delay{};
  PerMillion abort_share = 0;
  int abort_status = 0;             // 0: none, but see abort_grpc
  int abort_grpc = -1;              // gRPC status; -1: none
  std::vector<FieldMatch> headers;  // all must match; empty: all requests
  // x-envoy-fault-delay-request, x-envoy-fault-abort-request and ...-abort-grpc-request say delay
  // (milliseconds) and status; the shares above limit how often.
  bool by_header = false;
  uint32_t max_active = UINT32_MAX;
  std::string off_header;  // a request with this field gets no fault
  friend bool operator==(const Fault&, const Fault&) = default;
};

struct LocalRateLimit {
  uint32_t max_tokens = 1;
  uint32_t tokens_per_fill = 1;
  Duration fill_interval = std::chrono::seconds(1);
  PerMillion enabled = kAlways;   // requests that take a token
  PerMillion enforced = kAlways;  // of those without a token: refused, the rest only counted
  int status = 429;
  bool per_connection = false;
  bool draft_headers = false;  // x-ratelimit-limit, -remaining, -reset on the answer
  std::vector<std::pair<std::string, std::string>> response_headers;  // of the refusal
  friend bool operator==(const LocalRateLimit&, const LocalRateLimit&) = default;
};

// A rule is a tree: what a request (permissions) or its sender (principals) must be. One struct for
// both; configuration readers see to it that each is used where it makes sense.
struct RbacRule {
  enum class Kind : uint8_t {
    kAny,
    kAnd,  // `rules`
    kOr,
    kNot,        // rules[0]
    kPrincipal,  // `text`: one of the peer's URI SANs, else DNS SANs, else the subject; any
                 // verified peer when authenticated_any
    kHeader,           // `field`
    kPath,             // `text`, without the query
    kMethod,           // `text`
    kDestinationIp,    // `cidr`
    kDestinationPort,  // first_port to last_port
    kSni,              // `text`
    kDirectSourceIp,   // of the connection
    kSourceIp,         // the client's, as x-forwarded-for or the PROXY protocol says, if trusted
    kJwtClaim,         // `claim` (a path of names) has a value that `text` matches
    kLabel,            // the source's label `claim[0]` matches `text`
  };
  Kind kind = Kind::kAny;
  std::vector<RbacRule> rules;
  TextMatch text;
  bool authenticated_any = false;
  FieldMatch field;
  Cidr cidr;
  uint16_t first_port = 0, last_port = 0;
  std::string jwt_provider;  // kJwtClaim: whose token; empty: any
  std::vector<std::string> claim;
  friend bool operator==(const RbacRule&, const RbacRule&) = default;
};

struct RbacPolicy {
  std::string name;
  std::vector<RbacRule> permissions;  // any of them,
  std::vector<RbacRule> principals;   // and any of these
  friend bool operator==(const RbacPolicy&, const RbacPolicy&) = default;
};

// kAllow: refused unless a policy matches. kDeny: refused when one does. kLog: never refused.
struct RbacRules {
  enum class Action : uint8_t { kAllow, kDeny, kLog };
  Action action = Action::kAllow;
  std::vector<RbacPolicy> policies;  // kAllow without a policy: nobody
  friend bool operator==(const RbacRules&, const RbacRules&) = default;
};

// In this order; the first that refuses decides.
struct Rbac {
  std::vector<RbacRules> rules;
  std::vector<RbacRules> shadow;  // only counted
  friend bool operator==(const Rbac&, const Rbac&) = default;
};

struct JwtProvider {
  std::string name;
  std::string issuer;                  // empty: any
  std::vector<std::string> audiences;  // one of them must be in "aud"; empty: not looked at
  std::string jwks;                    // in place, or what was read from jwks_file
  std::string jwks_file;
  std::string jwks_url, jwks_cluster;  // fetched through the cluster
  Duration jwks_refresh = std::chrono::minutes(5);
  Duration jwks_timeout = std::chrono::seconds(1);
  struct Header {
    std::string name, prefix;  // "authorization", "Bearer "
    friend bool operator==(const Header&, const Header&) = default;
  };
  // Where the token is looked for. All empty: "authorization: Bearer x", then "access_token" of the
  // query.
  std::vector<Header> from_headers;
  std::vector<std::string> from_query, from_cookies;
  bool forward = false;        // the token goes on to the endpoint
  std::string payload_header;  // gets the payload, base64url
  bool pad_payload_header = false;
  std::vector<std::pair<std::string, std::string>> claim_to_headers;  // claim, field
  std::vector<std::pair<std::string, TextMatch>> required_claims;     // "a.b" nests
  Duration leeway = std::chrono::seconds(60);
  bool require_expiration = false;
  friend bool operator==(const JwtProvider&, const JwtProvider&) = default;
};

// Which tokens a request must bring: a tree.
struct JwtRequirement {
  enum class Kind : uint8_t {
    kProvider,             // `provider`
    kAny,                  // of `all`
    kAll,                  // of `all`
    kAllowMissing,         // no token is fine, a bad one is not
    kAllowMissingOrFailed  // anything goes; claims are there when a token is good
  };
  Kind kind = Kind::kProvider;
  std::string provider;
  std::vector<std::string> audiences;  // instead of the provider's
  std::vector<JwtRequirement> all;
  friend bool operator==(const JwtRequirement&, const JwtRequirement&) = default;
};

struct JwtRule {
  RouteMatch match;
  std::optional<JwtRequirement> requires_token;  // absent: none is needed
  friend bool operator==(const JwtRule&, const JwtRule&) = default;
};

struct Jwt {
  std::vector<JwtProvider> providers;
  std::vector<JwtRule> rules;  // the first that matches; none: no token is needed
  bool bypass_cors_preflight = true;
  friend bool operator==(const Jwt&, const Jwt&) = default;
};

struct ExtAuthz {
  std::string cluster;
  std::string host;         // authority of the check
  std::string path_prefix;  // before the request's path
  Duration timeout = std::chrono::milliseconds(200);
  std::vector<TextMatch> request_headers;   // sent to the check, beside method, path, authority,
                                            // authorization
  std::vector<TextMatch> upstream_headers;  // of its 200 answer, go on to the endpoint (replacing)
  std::vector<TextMatch> client_headers;    // of its refusal, go to the client; empty: all
  std::vector<std::pair<std::string, std::string>> add_headers;  // to the check
  uint32_t max_body = 0;       // so much of the body goes along; 0: none
  bool allow_partial = false;  // else a longer body is refused with 413
  bool failure_allow = false;  // the service does not answer: let pass
  int failure_status = 403;
  friend bool operator==(const ExtAuthz&, const ExtAuthz&) = default;
};

struct Compression {
  bool gzip = true, zstd = true;  // what is offered; zstd first
  int gzip_level = 6, zstd_level = 3;
  uint32_t min_size = 1024;        // of a body whose length is known
  std::vector<std::string> types;  // media types; empty: the usual texts
  bool weaken_etag = true;         // a strong ETag is made weak, else such an answer is left alone
  friend bool operator==(const Compression&, const Compression&) = default;
};

}  // namespace edgemesh::proxy::model
