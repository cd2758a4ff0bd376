// The YAML form of a cluster.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "core/config/reader.h"
#include "proxy/model/cluster.h"
#include "proxy/model/config_read.h"

namespace edgemesh::proxy::model {

namespace {

using config::Reader;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kMaxTime = hours(24 * 365);
constexpr uint32_t kMaxLimit = UINT32_MAX;

void read_real(Reader& reader, std::string_view key, double* out, double min, double max) {
  std::string text;
  reader.read(key, &text);
  if (text.empty()) return;
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (*end != '\0' || !std::isfinite(value) || value < min || value > max)
    reader.reject(key,
                  fmt::format("'{}' is not allowed (want a number from {} to {})", text, min, max));
  else
    *out = value;
}

Labels read_labels(Reader& reader, std::string_view key) {
  Labels labels;
  const auto keys = reader.keys(key);
  Reader section = reader.section(key);
  for (const auto& name : keys) {
    Label label{name, {}};
    section.read(name, &label.value);
    labels.push_back(std::move(label));
  }
  std::sort(labels.begin(), labels.end());
  return labels;
}

void read_locality(Reader& reader, Locality& out) {
  reader.read("region", &out.region);
  reader.read("zone", &out.zone);
  reader.read("subzone", &out.subzone);
}

void read_endpoint(Reader reader, Endpoint& out) {
  reader.require("address");
  reader.read("address", &out.addr);
  reader.read("node", &out.node);
  reader.read("hostname", &out.hostname);
  read_locality(reader, out.locality);
  reader.read("priority", &out.priority, 0, kMaxPriority);
  reader.read("weight", &out.weight, 1, kMaxWeight);
  reader.read("healthPort", &out.health_port, 1);
  reader.read_enum("health", &out.health,
                   {{"healthy", Health::kHealthy},
                    {"degraded", Health::kDegraded},
                    {"unhealthy", Health::kUnhealthy},
                    {"draining", Health::kDraining}});
  out.labels = read_labels(reader, "labels");
}

void read_endpoints(Reader& reader, Cluster& out) {
  if (reader.has("endpoints")) out.endpoints.clear();
  for (Reader item : reader.sections("endpoints")) {
    Endpoint endpoint;
    read_endpoint(item, endpoint);
    for (const Endpoint& other : out.endpoints)
      if (other.addr == endpoint.addr && endpoint.addr.port != 0)
        item.reject("address", fmt::format("{} is listed twice", endpoint.addr.to_string()));
    out.endpoints.push_back(std::move(endpoint));
  }
}

void read_dns(Reader reader, DnsOptions& out) {
  config::HostPort host;
  reader.require("host");
  reader.read("host", &host);
  out.host = host.host;
  out.port = host.port;
  reader.read_enum("family", &out.family,
                   {{"any", DnsFamily::kAny}, {"v4", DnsFamily::kV4}, {"v6", DnsFamily::kV6}});
  reader.read("respectTtl", &out.respect_ttl);
  reader.read("refresh", &out.refresh, milliseconds(100), kMaxTime);
  reader.read("minTtl", &out.min_ttl, milliseconds(100), kMaxTime);
  reader.read("maxTtl", &out.max_ttl, milliseconds(100), kMaxTime);
  reader.read("failureRefresh", &out.failure_refresh, milliseconds(100), kMaxTime);
  reader.read("jitterPercent", &out.jitter_percent, 0, 100);
  if (out.min_ttl > out.max_ttl) reader.reject("minTtl", "is longer than maxTtl");
}

void read_service(Reader reader, ServiceRef& out) {
  out.ns = "default";
  reader.read("namespace", &out.ns);
  reader.require("name");
  reader.read("name", &out.name);
  reader.read("port", &out.port);
}

void read_source(Reader& reader, Cluster& out) {
  reader.read_enum("type", &out.type,
                   {{"static", ClusterType::kStatic},
                    {"dns", ClusterType::kDns},
                    {"service", ClusterType::kService},
                    {"originalDst", ClusterType::kOriginalDst}});
  struct Part {
    std::string_view key;
    ClusterType type;
  };
  for (const Part& part : {Part{"endpoints", ClusterType::kStatic}, Part{"dns", ClusterType::kDns},
                           Part{"service", ClusterType::kService}}) {
    if (part.type == out.type) {
      reader.require(part.key);
    } else if (reader.has(part.key)) {
      reader.reject(part.key, fmt::format("does not go with type {}", to_string(out.type)));
    }
  }
  read_endpoints(reader, out);
  // An absent mapping has no wrong keys: it is read only where it belongs.
  if (out.type == ClusterType::kDns) read_dns(reader.section("dns"), out.dns);
  if (out.type == ClusterType::kService) read_service(reader.section("service"), out.service);
}

bool is_prime(uint32_t n) {
  if (n < 2) return false;
  for (uint32_t d = 2; uint64_t{d} * d <= n; ++d)
    if (n % d == 0) return false;
  return true;
}

void read_subsets(Reader reader, SubsetOptions& out) {
  for (Reader item : reader.sections("selectors")) {
    std::vector<std::string> keys;
    item.require("keys");
    item.read("keys", &keys);
    std::sort(keys.begin(), keys.end());
    if (std::adjacent_find(keys.begin(), keys.end()) != keys.end())
      item.reject("keys", "a key is listed twice");
    out.selectors.push_back(std::move(keys));
  }
  if (out.selectors.size() > 16) reader.reject("selectors", "more than 16 are not allowed");
  reader.read_enum("fallback", &out.fallback,
                   {{"none", SubsetFallback::kNone},
                    {"any", SubsetFallback::kAny},
                    {"default", SubsetFallback::kDefault}});
  out.default_labels = read_labels(reader, "defaultLabels");
  if (out.fallback == SubsetFallback::kDefault && out.default_labels.empty())
    reader.reject("fallback", "'default' needs defaultLabels");
}

void read_localities(Reader& reader, LoadBalancing& out) {
  for (Reader item : reader.sections("localityWeights")) {
    LocalityWeight weight;
    read_locality(item, weight.locality);
    item.read("priority", &weight.priority, 0, kMaxPriority);
    item.read("weight", &weight.weight, 1, kMaxWeight);
    out.locality_weights.push_back(std::move(weight));
  }
}

void read_lb(Reader reader, LoadBalancing& out) {
  reader.read_enum("policy", &out.policy,
                   {{"roundRobin", LbPolicy::kRoundRobin},
                    {"random", LbPolicy::kRandom},
                    {"leastRequest", LbPolicy::kLeastRequest},
                    {"ringHash", LbPolicy::kRingHash},
                    {"maglev", LbPolicy::kMaglev}});
  reader.read("choices", &out.choices, 2, 16);
  reader.read("ringMin", &out.ring_min, 1, 8'388'608);
  reader.read("ringMax", &out.ring_max, 1, 8'388'608);
  if (out.ring_min > out.ring_max) reader.reject("ringMin", "is more than ringMax");
  reader.read("maglevSize", &out.maglev_size, 3, 5'000'011);
  if (!is_prime(out.maglev_size)) reader.reject("maglevSize", "is no prime number");
  reader.read("panicPercent", &out.panic_percent, 0, 100);
  reader.read("overprovisioningPercent", &out.overprovisioning_percent, 100, 1000);
  reader.read_enum("locality", &out.locality,
                   {{"ignore", LocalityMode::kIgnore},
                    {"weighted", LocalityMode::kWeighted},
                    {"nearest", LocalityMode::kNearest}});
  read_localities(reader, out);
  read_subsets(reader.section("subsets"), out.subsets);
  Reader slow = reader.section("slowStart");
  slow.read("window", &out.slow_start.window, Duration::zero(), hours(24));
  read_real(slow, "aggression", &out.slow_start.aggression, 0.01, 100);
  slow.read("minWeightPercent", &out.slow_start.min_weight_percent, 1, 100);
  reader.read("clientIpAffinity", &out.client_ip_affinity, Duration::zero(), hours(24 * 7));
}

void read_breaker(Reader reader, CircuitBreaker& out) {
  reader.read("maxConnections", &out.max_connections, 0, kMaxLimit);
  reader.read("maxPending", &out.max_pending, 0, kMaxLimit);
  reader.read("maxRequests", &out.max_requests, 0, kMaxLimit);
  reader.read("maxRetries", &out.max_retries, 0, kMaxLimit);
  reader.read("retryBudgetPercent", &out.retry_budget_percent, 0, 100);
  reader.read("minRetryConcurrency", &out.min_retry_concurrency, 0, kMaxLimit);
}

void read_outlier(Reader reader, OutlierDetection& out) {
  reader.read("consecutive5xx", &out.consecutive_5xx, 0, 1'000'000);
  reader.read("consecutiveGateway", &out.consecutive_gateway, 0, 1'000'000);
  reader.read("consecutiveLocalOrigin", &out.consecutive_local_origin, 0, 1'000'000);
  reader.read("splitLocalOrigin", &out.split_local_origin);
  reader.read("successRateMinHosts", &out.success_rate_min_hosts, 1, 1'000'000);
  reader.read("successRateMinRequests", &out.success_rate_min_requests, 1, 1'000'000'000);
  read_real(reader, "successRateStdevFactor", &out.success_rate_stdev_factor, 0, 100);
  reader.read("enforce5xx", &out.enforce_consecutive_5xx, 0, 100);
  reader.read("enforceGateway", &out.enforce_gateway, 0, 100);
  reader.read("enforceLocalOrigin", &out.enforce_local_origin, 0, 100);
  reader.read("enforceSuccessRate", &out.enforce_success_rate, 0, 100);
  reader.read("interval", &out.interval, milliseconds(10), hours(24));
  reader.read("baseEjection", &out.base_ejection, milliseconds(1), hours(24));
  out.max_ejection = std::max(out.max_ejection, out.base_ejection);
  reader.read("maxEjection", &out.max_ejection, milliseconds(1), hours(24 * 7));
  if (out.max_ejection < out.base_ejection)
    reader.reject("maxEjection", "is shorter than baseEjection");
  reader.read("maxEjectionPercent", &out.max_ejection_percent, 0, 100);
}

// "200", "200-299".
bool parse_status(std::string_view text, StatusRange* out) {
  const auto dash = text.find('-');
  const auto number = [](std::string_view part, uint16_t* value) {
    if (part.size() != 3 || part[0] < '1' || part[0] > '5') return false;
    unsigned sum = 0;
    for (char c : part) {
      if (c < '0' || c > '9') return false;
      sum = sum * 10 + static_cast<unsigned>(c - '0');
    }
    *value = static_cast<uint16_t>(sum);
    return true;
  };
  if (dash == std::string_view::npos) return number(text, &out->first) && number(text, &out->last);
  return number(text.substr(0, dash), &out->first) && number(text.substr(dash + 1), &out->last) &&
         out->first <= out->last;
}

// Goes into a request as it is: nothing may end the line or the word.
void check_word(Reader& reader, std::string_view key, std::string_view text) {
  for (unsigned char c : text)
    if (c <= ' ' || c == 127) return reader.reject(key, "has a space or a control character");
}

void read_check(Reader reader, HealthCheck& out) {
  reader.require("kind");
  reader.read_enum("kind", &out.kind,
                   {{"tcp", HealthCheck::Kind::kTcp},
                    {"http", HealthCheck::Kind::kHttp},
                    {"grpc", HealthCheck::Kind::kGrpc}});
  reader.read("interval", &out.interval, milliseconds(10), hours(24));
  reader.read("unhealthyInterval", &out.unhealthy_interval, milliseconds(10), hours(24));
  reader.read("timeout", &out.timeout, milliseconds(1), hours(1));
  reader.read("initialJitter", &out.initial_jitter, Duration::zero(), hours(1));
  reader.read("jitterPercent", &out.jitter_percent, 0, 100);
  reader.read("healthyThreshold", &out.healthy_threshold, 1, 1000);
  reader.read("unhealthyThreshold", &out.unhealthy_threshold, 1, 1000);
  reader.read("host", &out.host);
  check_word(reader, "host", out.host);
  reader.read("path", &out.path);
  check_word(reader, "path", out.path);
  if (out.path.empty() || out.path[0] != '/') reader.reject("path", "must begin with '/'");
  reader.read_enum("method", &out.method,
                   {{"GET", "GET"}, {"HEAD", "HEAD"}, {"OPTIONS", "OPTIONS"}});
  std::vector<std::string> expected;
  reader.read("expectedStatuses", &expected);
  for (const auto& text : expected) {
    StatusRange range;
    if (!parse_status(text, &range))
      reader.reject("expectedStatuses",
                    fmt::format("'{}' is not allowed (want 200 or 200-299)", text));
    out.expected.push_back(range);
  }
  reader.read("http2", &out.http2);
  reader.read("grpcService", &out.grpc_service);
  reader.read("send", &out.send);
  reader.read("expect", &out.expect);
}

void read_tls(Reader reader, TlsOrigination& out) {
  reader.read("sni", &out.sni);
  read_text_or_file(reader, "ca", "caFile", &out.ca_pem, &out.ca_file);
  read_text_or_file(reader, "cert", "certFile", &out.cert_pem, &out.cert_file);
  read_text_or_file(reader, "key", "keyFile", &out.key_pem, &out.key_file);
  if (out.cert_pem.empty() != out.key_pem.empty())
    reader.reject(out.cert_pem.empty() ? "key" : "cert", "certificate and key go together");
  reader.read("alpn", &out.alpn);
  reader.read("verifySans", &out.verify_sans);
  reader.read("insecureSkipVerify", &out.insecure_skip_verify);
  if (out.insecure_skip_verify && !out.verify_sans.empty())
    reader.reject("verifySans", "cannot be checked with insecureSkipVerify");
  reader.read_enum("minVersion", &out.min_version, {{"1.2", 0x0303}, {"1.3", 0x0304}});
}

void read_connections(Reader& reader, Cluster& out) {
  reader.read_enum("protocol", &out.protocol,
                   {{"http1", UpstreamProtocol::kHttp1},
                    {"http2", UpstreamProtocol::kHttp2},
                    {"auto", UpstreamProtocol::kAuto}});
  reader.read_enum("proxyProtocol", &out.proxy_protocol,
                   {{"none", ProxyProtocolOut::kNone},
                    {"v1", ProxyProtocolOut::kV1},
                    {"v2", ProxyProtocolOut::kV2}});
  if (out.proxy_protocol != ProxyProtocolOut::kNone && out.protocol != UpstreamProtocol::kHttp1)
    reader.reject("proxyProtocol",
                  "goes with protocol http1 only: a connection belongs to one client");
  reader.read("connectTimeout", &out.connect_timeout, milliseconds(1), hours(1));
  reader.read("idleTimeout", &out.idle_timeout, milliseconds(1), hours(24 * 7));
  reader.read("maxConnectionAge", &out.max_connection_age, Duration::zero(), kMaxTime);
  reader.read("maxRequestsPerConnection", &out.max_requests_per_connection, 0, kMaxLimit);
  reader.read("maxStreams", &out.max_streams, 1, 65'536);
  reader.read("http2Connections", &out.http2_connections, 1, 64);
  reader.read("closeOnUnhealthy", &out.close_on_unhealthy);
}

}  // namespace

void read_cluster(Reader reader, Cluster* out) {
  reader.require("name");
  reader.read("name", &out->name);
  read_source(reader, *out);
  // What L4 connections do too: the nearest endpoints of a service first.
  if (out->type == ClusterType::kService) out->lb.locality = LocalityMode::kNearest;
  read_lb(reader.section("loadBalancer"), out->lb);
  Reader breakers = reader.section("circuitBreakers");
  read_breaker(breakers.section("default"), out->breaker[0]);
  read_breaker(breakers.section("high"), out->breaker[1]);
  if (reader.has("outlierDetection")) {
    auto outlier = std::make_shared<OutlierDetection>();
    read_outlier(reader.section("outlierDetection"), *outlier);
    out->outlier = std::move(outlier);
  }
  for (Reader item : reader.sections("healthChecks")) {
    HealthCheck check;
    read_check(item, check);
    out->health_checks.push_back(std::move(check));
  }
  if (out->health_checks.size() > 4) reader.reject("healthChecks", "more than 4 are not allowed");
  if (reader.has("tls")) {
    auto tls = std::make_shared<TlsOrigination>();
    read_tls(reader.section("tls"), *tls);
    out->tls = std::move(tls);
  }
  read_connections(reader, *out);
}

std::string_view to_string(LbPolicy policy) {
  switch (policy) {
    case LbPolicy::kRoundRobin: return "roundRobin";
    case LbPolicy::kRandom: return "random";
    case LbPolicy::kLeastRequest: return "leastRequest";
    case LbPolicy::kRingHash: return "ringHash";
    case LbPolicy::kMaglev: return "maglev";
  }
  return "";
}

std::string_view to_string(ClusterType type) {
  switch (type) {
    case ClusterType::kStatic: return "static";
    case ClusterType::kDns: return "dns";
    case ClusterType::kService: return "service";
    case ClusterType::kOriginalDst: return "originalDst";
  }
  return "";
}

std::string_view to_string(Health health) {
  switch (health) {
    case Health::kHealthy: return "healthy";
    case Health::kDegraded: return "degraded";
    case Health::kUnhealthy: return "unhealthy";
    case Health::kDraining: return "draining";
  }
  return "";
}

}  // namespace edgemesh::proxy::model
