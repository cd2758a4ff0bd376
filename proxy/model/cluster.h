// Cluster: a named set of endpoints that serve the same thing, and how to choose one and talk to
// it. Immutable once made; shared by shared_ptr<const Cluster> between threads. It holds what was
// asked for; what is learned while running (health, ejections, addresses of a DNS name) is
// proxy/upstream's.
//
// Numbers follow what Envoy documents for the same settings, so that a configuration means the same
// here and there. Percentages are 0 to 100.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/clock.h"
#include "core/base/net_addr.h"

namespace edgemesh::config {
class Reader;
}

namespace edgemesh::proxy::model {

struct Locality {
  std::string region, zone, subzone;
  bool empty() const { return region.empty() && zone.empty() && subzone.empty(); }
  friend bool operator==(const Locality&, const Locality&) = default;
  friend auto operator<=>(const Locality&, const Locality&) = default;
};

struct Label {
  std::string key, value;
  friend bool operator==(const Label&, const Label&) = default;
  friend auto operator<=>(const Label&, const Label&) = default;
};
using Labels = std::vector<Label>;  // sorted by key, a key once

// What the source of an endpoint says about it, before any check of ours.
enum class Health : uint8_t {
  kHealthy,
  kDegraded,   // used when the healthy ones of its priority are too few
  kUnhealthy,  // not used, but in a panic
  kDraining,   // no new requests, not even in a panic
};

struct Endpoint {
  SockAddr addr;
  std::string node;      // node it runs on; empty: reachable from everywhere alike
  std::string hostname;  // for `:authority` of health checks and SNI; may be empty
  Locality locality;
  uint32_t priority = 0;  // 0 is used first
  uint32_t weight = 1;    // 1 to kMaxWeight
  Health health = Health::kHealthy;
  uint16_t health_port = 0;  // 0: that of addr
  Labels labels;
  friend bool operator==(const Endpoint&, const Endpoint&) = default;
};
// What tells endpoints of a cluster apart: an address alone does not, as two nodes may be in private
// networks that use the same one.
inline bool same(const Endpoint& a, const Endpoint& b) {
  return a.addr == b.addr && a.node == b.node;
}
inline bool before(const Endpoint& a, const Endpoint& b) {
  if (a.addr != b.addr) return a.addr < b.addr;
  return a.node < b.node;
}
inline constexpr uint32_t kMaxWeight = 1'000'000;
inline constexpr uint32_t kMaxPriority = 127;

enum class ClusterType : uint8_t {
  kStatic,       // `endpoints`
  kDns,          // addresses of `dns.host`
  kService,      // endpoints of a service that discovery knows
  kOriginalDst,  // where the client's connection was sent to
};

struct ServiceRef {
  std::string ns, name;
  std::string port;  // name or number; empty: the service's only port
  friend bool operator==(const ServiceRef&, const ServiceRef&) = default;
};

enum class DnsFamily : uint8_t { kAny, kV4, kV6 };

struct DnsOptions {
  std::string host;
  uint16_t port = 0;
  DnsFamily family = DnsFamily::kAny;
  bool respect_ttl = true;
  Duration refresh = std::chrono::seconds(30);  // without respect_ttl, or the answer has no TTL
  Duration min_ttl = std::chrono::seconds(1);   // shorter ones count as this
  Duration max_ttl = std::chrono::hours(1);
  Duration failure_refresh = std::chrono::seconds(2);  // doubles up to `refresh`
  uint32_t jitter_percent = 10;
  friend bool operator==(const DnsOptions&, const DnsOptions&) = default;
};

enum class LbPolicy : uint8_t { kRoundRobin, kRandom, kLeastRequest, kRingHash, kMaglev };

enum class LocalityMode : uint8_t {
  kIgnore,    // all endpoints of a priority alike
  kWeighted,  // a locality by `locality_weights` first, then an endpoint in it
  kNearest,   // same node, same zone, same region, the rest: each is a priority after the other
};

struct LocalityWeight {
  Locality locality;
  uint32_t priority = 0;
  uint32_t weight = 1;
  friend bool operator==(const LocalityWeight&, const LocalityWeight&) = default;
};

enum class SubsetFallback : uint8_t {
  kNone,     // no endpoint
  kAny,      // any endpoint
  kDefault,  // the endpoints with `default_labels`
};

struct SubsetOptions {
  std::vector<std::vector<std::string>> selectors;  // keys, each list sorted
  SubsetFallback fallback = SubsetFallback::kAny;
  Labels default_labels;
  bool enabled() const { return !selectors.empty(); }
  friend bool operator==(const SubsetOptions&, const SubsetOptions&) = default;
};

struct SlowStart {
  Duration window{};  // 0: off
  double aggression = 1.0;
  uint32_t min_weight_percent = 10;
  bool enabled() const { return window > Duration::zero(); }
  friend bool operator==(const SlowStart&, const SlowStart&) = default;
};

struct LoadBalancing {
  LbPolicy policy = LbPolicy::kRoundRobin;
  uint32_t choices = 2;      // least request
  uint32_t ring_min = 1024;  // entries of a ring
  uint32_t ring_max = 65'536;
  uint32_t maglev_size = 65'537;  // a prime
  uint32_t panic_percent = 50;    // fewer healthy than this: all are used; 0: never
  uint32_t overprovisioning_percent = 140;
  LocalityMode locality = LocalityMode::kIgnore;
  std::vector<LocalityWeight> locality_weights;  // a locality that is not listed: 1
  SubsetOptions subsets;
  SlowStart slow_start;
  Duration
      client_ip_affinity{};  // 0: off; else how long a client keeps its endpoint after its last
  friend bool operator==(const LoadBalancing&, const LoadBalancing&) = default;
};

// Limits of one cluster in the whole process. UINT32_MAX: none.
struct CircuitBreaker {
  uint32_t max_connections = 1024;
  uint32_t max_pending = 1024;        // requests that wait for a connection
  uint32_t max_requests = 1024;       // open at the same time
  uint32_t max_retries = 3;           // open at the same time; not looked at with a budget
  uint32_t retry_budget_percent = 0;  // of the open requests; 0: no budget
  uint32_t min_retry_concurrency = 3;
  friend bool operator==(const CircuitBreaker&, const CircuitBreaker&) = default;
};
enum class RequestPriority : uint8_t { kDefault, kHigh };

struct OutlierDetection {
  uint32_t consecutive_5xx = 5;           // 0: off; local origin failures count, too, unless split
  uint32_t consecutive_gateway = 0;       // 502, 503, 504; 0: off
  uint32_t consecutive_local_origin = 5;  // connect failures, timeouts, resets; with split only
  bool split_local_origin = false;
  uint32_t success_rate_min_hosts = 5;       // with fewer, success rates are not compared
  uint32_t success_rate_min_requests = 100;  // in an interval
  double success_rate_stdev_factor = 1.9;
  uint32_t enforce_consecutive_5xx = 100;
  uint32_t enforce_gateway = 100;
  uint32_t enforce_local_origin = 100;
  uint32_t enforce_success_rate = 0;  // 0: off
  Duration interval = std::chrono::seconds(10);
  Duration base_ejection = std::chrono::seconds(30);  // times the number of ejections in a row
  Duration max_ejection = std::chrono::minutes(5);
  uint32_t max_ejection_percent = 10;  // one endpoint may always be ejected, unless 0
  friend bool operator==(const OutlierDetection&, const OutlierDetection&) = default;
};

struct StatusRange {
  uint16_t first = 200, last = 200;  // both included
  friend bool operator==(const StatusRange&, const StatusRange&) = default;
};

struct HealthCheck {
  enum class Kind : uint8_t { kTcp, kHttp, kGrpc };
  Kind kind = Kind::kTcp;
  Duration interval = std::chrono::seconds(10);
  Duration unhealthy_interval{};  // 0: interval
  Duration timeout = std::chrono::seconds(2);
  Duration initial_jitter = std::chrono::seconds(1);
  uint32_t jitter_percent = 10;
  uint32_t healthy_threshold = 2;  // the first check of an endpoint counts alone
  uint32_t unhealthy_threshold = 3;
  // HTTP and gRPC.
  std::string host;            // authority; empty: the endpoint's hostname, else the cluster's name
  std::string path = "/";      // HTTP
  std::string method = "GET";  // HTTP
  std::vector<StatusRange> expected;  // empty: 200
  bool http2 = false;                 // HTTP over cleartext HTTP/2 (prior knowledge)
  std::string grpc_service;           // gRPC
  // TCP: what to send, and what must come; both empty: to connect is enough.
  std::string send, expect;
  friend bool operator==(const HealthCheck&, const HealthCheck&) = default;
};

enum class UpstreamProtocol : uint8_t {
  kHttp1,
  kHttp2,  // over TLS by ALPN, else with prior knowledge
  kAuto,   // what ALPN agrees on; HTTP/1 without TLS
};

enum class ProxyProtocolOut : uint8_t { kNone, kV1, kV2 };

struct TlsOrigination {
  std::string sni;  // empty: the endpoint's hostname, else none is sent
  // PEM. No CA: the system's store.
  std::string ca_pem, cert_pem, key_pem;
  // Where they were read from; empty: given in place.
  std::string ca_file, cert_file, key_file;
  std::vector<std::string> alpn;  // empty: what `protocol` needs
  // The certificate must have one of these (DNS names, addresses, URIs such as SPIFFE ids). Empty:
  // it must be good for `sni`.
  std::vector<std::string> verify_sans;
  bool insecure_skip_verify = false;
  int min_version = 0x0303;
  friend bool operator==(const TlsOrigination&, const TlsOrigination&) = default;
};

// A part that clusters may share; compared by what it says.
template <class T>
class Part : public std::shared_ptr<const T> {
 public:
  using std::shared_ptr<const T>::shared_ptr;
  friend bool operator==(const Part& a, const Part& b) {
    return a.get() == b.get() || (a.get() != nullptr && b.get() != nullptr && *a == *b);
  }
  friend bool operator==(const Part& a, std::nullptr_t) { return a.get() == nullptr; }
};

struct Cluster {
  std::string name;
  ClusterType type = ClusterType::kStatic;
  std::vector<Endpoint> endpoints;  // kStatic
  DnsOptions dns;
  ServiceRef service;

  LoadBalancing lb;
  CircuitBreaker breaker[2];       // by RequestPriority
  Part<OutlierDetection> outlier;  // null: off
  std::vector<HealthCheck> health_checks;

  UpstreamProtocol protocol = UpstreamProtocol::kHttp1;
  Part<TlsOrigination> tls;  // null: cleartext
  ProxyProtocolOut proxy_protocol = ProxyProtocolOut::kNone;

  Duration connect_timeout = std::chrono::seconds(5);
  Duration idle_timeout = std::chrono::minutes(1);  // of a pooled connection
  Duration max_connection_age{};                    // 0: none
  uint32_t max_requests_per_connection = 0;         // 0: no limit
  uint32_t max_streams = 100;       // of an HTTP/2 connection, if its peer allows as many
  uint32_t http2_connections = 1;   // to an endpoint, before streams are shared
  bool close_on_unhealthy = false;  // drop connections of an endpoint whose check fails

  const CircuitBreaker& limits(RequestPriority priority) const {
    return breaker[static_cast<int>(priority)];
  }
  friend bool operator==(const Cluster&, const Cluster&) = default;
};

// Reads one cluster's mapping:
//   name: reviews
//   type: static            # static, dns, service, originalDst
//   endpoints:
//   - {address: "10.0.0.1:80", weight: 2, zone: a, labels: {version: v1}}
//   loadBalancer: {policy: leastRequest, choices: 2}
//   circuitBreakers: {default: {maxConnections: 100}}
//   outlierDetection: {consecutive5xx: 5}
//   healthChecks: [{kind: http, path: /healthz}]
// What is wrong is reported by the reader's document. Files named under `tls` are read here.
void read_cluster(config::Reader reader, Cluster* out);

std::string_view to_string(LbPolicy policy);
std::string_view to_string(ClusterType type);
std::string_view to_string(Health health);

}  // namespace edgemesh::proxy::model
