// Routes: which requests go where, and what is done to them on the way. Immutable once made; shared
// by shared_ptr<const RouteConfig>. proxy/route compiles a RouteConfig into a RouteTable.
//
// Meanings and defaults follow what Envoy documents for the same settings, so that a configuration
// means the same here and there, but where a comment says so. A virtual host is shared between the
// versions of a configuration: a change to one of 10,000 hosts builds one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/base/clock.h"
#include "proxy/model/cluster.h"
#include "proxy/model/filter.h"
#include "proxy/model/match.h"

namespace edgemesh::proxy::model {

// ---- Changes of the head.

struct HeaderValue {
  enum class Mode : uint8_t {
    kAppend,           // one more field
    kSet,              // replaces those of that name
    kAddIfAbsent,      // unless there is one
    kReplaceIfExists,  // only when there is one
  };
  std::string name;   // lower case
  std::string value;  // a format: %PROTOCOL%, %REQ(name)%, ...; see proxy/route/format.h
  Mode mode = Mode::kAppend;
  bool keep_empty = false;  // add it even if the value turned out empty
  friend bool operator==(const HeaderValue&, const HeaderValue&) = default;
};

struct HeaderMutations {
  std::vector<HeaderValue> add;
  std::vector<std::string> remove;  // lower case; done before `add`
  bool empty() const { return add.empty() && remove.empty(); }
  friend bool operator==(const HeaderMutations&, const HeaderMutations&) = default;
};

struct RegexRewrite {
  std::string pattern;       // RE2; all matches in the path (without the query) are replaced
  std::string substitution;  // \0 to \9
  friend bool operator==(const RegexRewrite&, const RegexRewrite&) = default;
};

struct Rewrite {
  std::optional<std::string> prefix;  // instead of what the path match says; the query stays
  std::optional<RegexRewrite> regex;
  std::string path;  // the whole path; the query stays
  std::string host;
  std::string host_from_header;  // the value of that field, when there is one
  bool host_from_endpoint = false;
  bool append_forwarded_host = false;  // x-forwarded-host with the old one
  bool empty() const {
    return !prefix && !regex && path.empty() && host.empty() && host_from_header.empty() &&
           !host_from_endpoint;
  }
  friend bool operator==(const Rewrite&, const Rewrite&) = default;
};

// ---- What is done with a request. One of these.

struct WeightedCluster {
  std::string name;
  uint32_t weight = 1;
  Labels subset;  // the endpoints of the cluster that have them
  Part<HeaderMutations> request_headers, response_headers;
  friend bool operator==(const WeightedCluster&, const WeightedCluster&) = default;
};

struct Forward {
  std::vector<WeightedCluster> clusters;  // one at least, unless cluster_header is given
  std::string cluster_header;             // the field that names the cluster
  int missing_status = 503;               // when there is no such cluster
  friend bool operator==(const Forward&, const Forward&) = default;
};

struct Redirect {
  int status = 301;  // 301, 302, 303, 307, 308
  std::string scheme;
  std::string host;
  uint16_t port = 0;                  // 0: the request's, unless the scheme or host was replaced
  std::string path;                   // may have a query, which replaces the old one
  std::optional<std::string> prefix;  // instead of what the path match says
  std::optional<RegexRewrite> regex;
  bool strip_query = false;
  friend bool operator==(const Redirect&, const Redirect&) = default;
};

struct DirectResponse {
  int status = 200;  // 200 to 599
  std::string body;
  std::string content_type;  // empty: text/plain when there is a body
  friend bool operator==(const DirectResponse&, const DirectResponse&) = default;
};

// ---- Forwarding in detail.

namespace retry_on {                          // bits
inline constexpr uint32_t k5xx = 1;           // any 5xx, reset, connect failure, timeout of a try
inline constexpr uint32_t kGatewayError = 2;  // 502, 503, 504
inline constexpr uint32_t kConnectFailure = 4;
inline constexpr uint32_t kRefusedStream = 8;
inline constexpr uint32_t kReset = 16;               // no answer at all
inline constexpr uint32_t kResetBeforeRequest = 32;  // nothing of the request was sent
inline constexpr uint32_t kRetriable4xx = 64;        // 409
inline constexpr uint32_t kStatuses = 128;           // `statuses`
inline constexpr uint32_t kHeaders = 256;            // `headers` of the answer
inline constexpr uint32_t kGrpcCancelled = 512;
inline constexpr uint32_t kGrpcDeadline = 1024;
inline constexpr uint32_t kGrpcInternal = 2048;
inline constexpr uint32_t kGrpcExhausted = 4096;
inline constexpr uint32_t kGrpcUnavailable = 8192;
}  // namespace retry_on

struct RetryPolicy {
  uint32_t on = 0;                  // retry_on bits
  uint32_t attempts = 1;            // after the first
  Duration per_try_timeout{};       // 0: the route's
  Duration per_try_idle_timeout{};  // 0: none
  Duration base_interval = std::chrono::milliseconds(25);
  Duration max_interval{};                  // 0: 10 times base_interval
  bool other_host = true;                   // not one that was tried already
  uint32_t host_attempts = 5;               // picks to find one
  std::vector<uint16_t> statuses;           // sorted
  std::vector<FieldMatch> headers;          // of the answer; any of them
  std::vector<FieldMatch> request_headers;  // any of them must match to retry; empty: always
  friend bool operator==(const RetryPolicy&, const RetryPolicy&) = default;
};

struct HedgePolicy {
  uint32_t initial_requests = 1;
  PerMillion additional_chance = 0;
  bool on_per_try_timeout = false;  // a try that is late goes on while the next begins
  friend bool operator==(const HedgePolicy&, const HedgePolicy&) = default;
};

struct Timeouts {
  Duration route = std::chrono::seconds(15);  // until the answer is complete; 0: none
  std::optional<Duration> idle;  // nothing in either direction; 0: none; absent: the chain's
  std::optional<Duration> max_stream;         // of the stream as a whole; takes the place of route
  // grpc-timeout of a request counts instead of `route`, at most this; 0: any; absent: ignored.
  std::optional<Duration> max_grpc;
  Duration grpc_offset{};  // taken off grpc-timeout, so that our error comes first
  friend bool operator==(const Timeouts&, const Timeouts&) = default;
};

struct Mirror {
  std::string cluster;
  PerMillion share = kAlways;
  friend bool operator==(const Mirror&, const Mirror&) = default;
};

struct HashPolicy {
  enum class Kind : uint8_t { kHeader, kCookie, kSourceIp, kQuery };
  Kind kind = Kind::kHeader;
  std::string name;
  std::string cookie_path;
  std::optional<Duration> cookie_ttl;  // given: a missing cookie is made; 0: for the session
  bool terminal = false;               // when it gave a value the next ones are not looked at
  friend bool operator==(const HashPolicy&, const HashPolicy&) = default;
};

// Policies that a route has of its own; null: those of the virtual host, then the listener's.
struct RoutePolicies {
  Part<Cors> cors;
  Part<Fault> fault;
  Part<LocalRateLimit> rate_limit;
  Part<Rbac> rbac;
  Part<JwtRequirement> jwt;
  Part<ExtAuthz> ext_authz;
  Part<Compression> compression;
  bool no_ext_authz = false, no_jwt = false, no_rbac = false, no_compression = false;
  friend bool operator==(const RoutePolicies&, const RoutePolicies&) = default;
};

struct Route {
  std::string name;
  RouteMatch match;
  std::variant<Forward, Redirect, DirectResponse> action;
  Rewrite rewrite;
  HeaderMutations request_headers, response_headers;
  Timeouts timeouts;
  Part<RetryPolicy> retry;  // null: the virtual host's
  Part<HedgePolicy> hedge;
  std::vector<Mirror> mirrors;
  std::vector<HashPolicy> hash;
  RequestPriority priority = RequestPriority::kDefault;
  // Allowed; "CONNECT" for CONNECT requests, "*" for all.
  std::vector<std::string> upgrades{"websocket"};
  RoutePolicies policies;
  std::string operation;  // of the trace span; empty: the route's name
  friend bool operator==(const Route&, const Route&) = default;
};

struct VirtualHost {
  enum class RequireTls : uint8_t { kNone, kAll, kExternalOnly };
  std::string name;
  // "a.example", "a.example:8080", "*.example", "a.*", "*"; in lower case. Exact before the longest
  // suffix before the longest prefix before "*". A domain once a RouteConfig.
  std::vector<std::string> domains;
  std::vector<Route> routes;  // the first that matches
  RequireTls require_tls = RequireTls::kNone;
  HeaderMutations request_headers, response_headers;
  Part<RetryPolicy> retry;
  RoutePolicies policies;
  bool attempt_count_header = false;  // x-envoy-attempt-count to the endpoint
  friend bool operator==(const VirtualHost&, const VirtualHost&) = default;
};
using VirtualHostPtr = std::shared_ptr<const VirtualHost>;

struct RouteConfig {
  std::string name;
  std::vector<VirtualHostPtr> hosts;
  HeaderMutations request_headers, response_headers;
  bool most_specific_mutations_last = false;  // else the route's, the host's, then these
  bool ignore_port = false;                   // of the authority when looking for the host
  // Hosts are equal when they are the same object.
  friend bool operator==(const RouteConfig&, const RouteConfig&) = default;
};
using RouteConfigPtr = std::shared_ptr<const RouteConfig>;

}  // namespace edgemesh::proxy::model
