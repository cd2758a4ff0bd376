#include "proxy/upstream/cluster_manager.h"

#include <gtest/gtest.h>

#include "core/config/reader.h"
#include "discovery/registry.h"
#include "proxy/upstream/cluster_report.h"
#include "proxy/upstream/outlier.h"
#include "proxy/upstream/worker_clusters.h"
#include "tests/unit/discovery/dns_support.h"

namespace edgemesh::proxy {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

std::shared_ptr<model::Cluster> static_cluster(const std::string& name, int n) {
  auto made = std::make_shared<model::Cluster>();
  made->name = name;
  for (int i = 1; i <= n; ++i) {
    model::Endpoint endpoint;
    endpoint.addr = {IpAddr::v4(0x0a000000u + static_cast<uint32_t>(i)), 80};
    made->endpoints.push_back(endpoint);
  }
  return made;
}

class ClusterManagerTest : public testing::Test {
 protected:
  ClusterManagerTest() : worker_(0, clock_) {
    loop_ = std::move(io::Loop::create(clock_)).value();
    ClusterManagerOptions options{*loop_};
    options.lookup = [this](const std::string& name, model::DnsFamily,
                            io::Resolver::OnResolved done) {
      ++lookups_;
      asked_ = name;
      answer_ = std::move(done);
    };
    options.publish = [this](ClusterUpdates updates) {
      ++publishes_;
      published_ += updates->size();
      worker_.apply(updates);
    };
    manager_ = std::make_unique<ClusterManager>(std::move(options));
  }
  void turn() {
    for (int i = 0; i < 3; ++i) loop_->run_once();
  }
  void advance(Duration by) {
    clock_.advance(by);
    turn();
  }
  void answer(std::vector<uint32_t> ips, Duration ttl) {
    ASSERT_TRUE(answer_);
    std::vector<IpAddr> list;
    for (uint32_t ip : ips) list.push_back(IpAddr::v4(ip));
    std::exchange(answer_, nullptr)(list, ttl);
  }
  void fail_lookup() {
    ASSERT_TRUE(answer_);
    std::exchange(answer_, nullptr)(fail(ErrorCode::kTimeout, "no server"), {});
  }
  size_t hosts(std::string_view name) { return worker_.find(name)->hosts().size(); }

  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_;
  WorkerClusters worker_;
  std::unique_ptr<ClusterManager> manager_;
  int lookups_ = 0;
  std::string asked_;
  io::Resolver::OnResolved answer_;
  int publishes_ = 0;
  size_t published_ = 0;
};

TEST_F(ClusterManagerTest, OnlyWhatChangedIsBuiltAndTold) {
  std::vector<std::shared_ptr<const model::Cluster>> list;
  for (int i = 0; i < 1000; ++i) list.push_back(static_cluster(fmt::format("c{}", i), 2));
  ASSERT_TRUE(manager_->apply(list));
  EXPECT_EQ(publishes_, 1);
  EXPECT_EQ(published_, 1000u);
  EXPECT_EQ(worker_.size(), 1000u);
  ClusterState* kept = worker_.find("c7");
  Host* host = kept->pick({});

  list[7] = static_cluster("c7", 3);
  list[8] = static_cluster("c8", 2);  // the same again
  list.pop_back();
  ASSERT_TRUE(manager_->apply(list));
  EXPECT_EQ(published_, 1002u);
  EXPECT_EQ(worker_.size(), 999u);
  EXPECT_EQ(worker_.find("c7"), kept);
  EXPECT_EQ(hosts("c7"), 3u);
  EXPECT_EQ(kept->hosts()[static_cast<size_t>(host->addr().ip.bytes()[3] - 1)].get(), host);
  EXPECT_EQ(worker_.find("c999"), nullptr);
}

TEST_F(ClusterManagerTest, RefusesWhatIsWrongAndChangesNothing) {
  ASSERT_TRUE(manager_->apply({static_cluster("a", 1)}));
  auto twice = manager_->apply({static_cluster("b", 1), static_cluster("b", 2)});
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().message, "cluster b is there twice");
  auto bad = static_cluster("c", 1);
  auto tls = std::make_shared<model::TlsOrigination>();
  tls->ca_pem = "rubbish";
  bad->tls = tls;
  auto refused = manager_->apply({bad});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("cluster c: tls"), std::string::npos);
  EXPECT_EQ(manager_->size(), 1u);
  EXPECT_NE(worker_.find("a"), nullptr);
}

TEST_F(ClusterManagerTest, RemovedWhileARequestIsOpen) {
  ASSERT_TRUE(manager_->apply({static_cluster("a", 1)}));
  auto ticket = RequestTicket::take(*worker_.find("a")->pick({}), model::RequestPriority::kDefault);
  ASSERT_TRUE(manager_->apply({}));
  EXPECT_EQ(worker_.find("a"), nullptr);
  EXPECT_TRUE(ticket.host()->removed());
  EXPECT_EQ(ticket.host()->cluster().pick({}), nullptr);
}

TEST_F(ClusterManagerTest, DnsFollowsTtlAndKeepsTheLastGoodAnswer) {
  auto config = std::make_shared<model::Cluster>();
  config->name = "d";
  config->type = model::ClusterType::kDns;
  config->dns.host = "svc.test";
  config->dns.port = 8080;
  config->dns.jitter_percent = 0;
  config->dns.failure_refresh = seconds(2);
  config->dns.refresh = seconds(5);
  ASSERT_TRUE(manager_->apply({config}));
  EXPECT_EQ(hosts("d"), 0u);
  turn();
  EXPECT_EQ(asked_, "svc.test");
  answer({1, 2, 2}, seconds(20));
  EXPECT_EQ(hosts("d"), 2u);
  EXPECT_EQ(worker_.find("d")->pick({})->addr().port, 8080);

  advance(seconds(19));
  EXPECT_EQ(lookups_, 1);
  advance(seconds(1));
  EXPECT_EQ(lookups_, 2);
  const int before = publishes_;
  answer({2, 1}, milliseconds(1));  // the same, in another order
  EXPECT_EQ(publishes_, before);
  advance(seconds(1));  // minTtl
  EXPECT_EQ(lookups_, 3);

  for (int wait : {2, 4, 5, 5}) {  // doubles up to refresh
    fail_lookup();
    EXPECT_EQ(hosts("d"), 2u);
    const int asked = lookups_;
    advance(seconds(wait) - milliseconds(1));
    EXPECT_EQ(lookups_, asked);
    advance(milliseconds(1));
    EXPECT_EQ(lookups_, asked + 1);
  }
  answer({3}, seconds(1));
  EXPECT_EQ(hosts("d"), 1u);

  // Other settings keep the addresses; another name does not.
  auto changed = std::make_shared<model::Cluster>(*config);
  changed->connect_timeout = seconds(1);
  ASSERT_TRUE(manager_->apply({changed}));
  EXPECT_EQ(hosts("d"), 1u);
  changed = std::make_shared<model::Cluster>(*config);
  changed->dns.host = "other.test";
  ASSERT_TRUE(manager_->apply({changed}));
  EXPECT_EQ(hosts("d"), 0u);
  ASSERT_TRUE(manager_->apply({}));
  if (answer_) answer({9}, seconds(1));  // an answer after the end is not heard
}

TEST_F(ClusterManagerTest, ServicesFollowDiscovery) {
  using discovery::testing_parts::service;
  using discovery::testing_parts::slice;
  discovery::Registry registry(*loop_);
  auto config = std::make_shared<model::Cluster>();
  config->name = "s";
  config->type = model::ClusterType::kService;
  config->service = {"default", "hello", ""};
  config->lb.locality = model::LocalityMode::kNearest;
  auto absent = std::make_shared<model::Cluster>(*config);
  absent->name = "absent";
  absent->service.name = "nobody";
  ASSERT_TRUE(manager_->apply({config, absent}));
  EXPECT_EQ(hosts("s"), 0u);

  registry.upsert_service(service("hello", {"10.96.0.10"}));
  registry.upsert_slice(slice("hello", {{"10.1.0.1"}, {"10.1.0.2"}}));
  manager_->set_snapshot(registry.snapshot());
  EXPECT_EQ(hosts("s"), 2u);
  Host* host = worker_.find("s")->hosts()[0].get();

  const int before = publishes_;
  registry.upsert_service(service("another", {"10.96.0.11"}));
  manager_->set_snapshot(registry.snapshot());
  EXPECT_EQ(publishes_, before);  // not ours

  registry.upsert_slice(slice("hello", {{"10.1.0.1"}, {"10.1.0.3"}, {"10.1.0.4"}}));
  manager_->set_snapshot(registry.snapshot());
  EXPECT_EQ(hosts("s"), 3u);
  EXPECT_EQ(worker_.find("s")->hosts()[0].get(), host);

  auto sticky = service("hello", {"10.96.0.10"});
  sticky.session_affinity = "ClientIP";
  registry.upsert_service(sticky);
  manager_->set_snapshot(registry.snapshot());
  EXPECT_GT(worker_.find("s")->config().lb.client_ip_affinity, Duration::zero());

  registry.remove_service("default", "hello");
  manager_->set_snapshot(registry.snapshot());
  EXPECT_EQ(hosts("s"), 0u);
}

TEST_F(ClusterManagerTest, DnsJitterSpreads) {
  model::DnsOptions options;
  options.host = "j.test";
  options.jitter_percent = 50;
  std::set<int64_t> seen;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    io::Resolver::OnResolved done;
    TimePoint asked{};
    int times = 0;
    DnsCluster dns(
        *loop_, options,
        [&](const std::string&, model::DnsFamily, io::Resolver::OnResolved d) {
          done = std::move(d);
          asked = clock_.now();
          ++times;
        },
        seed, [](const auto&) {});
    turn();
    const TimePoint start = clock_.now();
    done(std::vector<IpAddr>{IpAddr::v4(1)}, seconds(10));
    while (times < 2) advance(milliseconds(100));
    EXPECT_GE(asked - start, seconds(10));
    EXPECT_LE(asked - start, seconds(15) + milliseconds(100));
    seen.insert((asked - start).count());
  }
  EXPECT_GT(seen.size(), 10u);
}

TEST_F(ClusterManagerTest, SweepsBringEjectedEndpointsBack) {
  auto config = static_cluster("o", 4);
  auto outlier = std::make_shared<model::OutlierDetection>();
  outlier->consecutive_5xx = 1;
  config->outlier = outlier;
  ASSERT_TRUE(manager_->apply({config}));
  Host* host = worker_.find("o")->pick({});
  report_outcome(*host, Outcome::kServerError);
  EXPECT_TRUE(host->shared().has(SharedHost::kEjected));
  for (int i = 0; i < 4; ++i) advance(seconds(10));
  EXPECT_FALSE(host->shared().has(SharedHost::kEjected));
}

TEST_F(ClusterManagerTest, ReportsAreComplete) {
  auto config = static_cluster("web \"x\"", 2);
  ASSERT_TRUE(manager_->apply({config, static_cluster("idle", 1)}));
  Host* host = worker_.find(config->name)->pick({});
  auto ticket = RequestTicket::take(*host, model::RequestPriority::kDefault);
  report_outcome(*host, Outcome::kSuccess);
  const auto sets = manager_->sets();

  std::string text;
  append_clusters_text(text, sets);
  EXPECT_NE(text.find(fmt::format("web \"x\"::{}::rq_total::1\n", host->addr().to_string())),
            std::string::npos);
  EXPECT_NE(text.find("web \"x\"::rq_active::1\n"), std::string::npos);
  EXPECT_NE(text.find("::health_flags::healthy\n"), std::string::npos);

  std::string json;
  append_clusters_json(json, sets);
  EXPECT_NE(json.find(R"("name":"web \"x\"","type":"static","policy":"roundRobin")"),
            std::string::npos);
  EXPECT_EQ(std::count(json.begin(), json.end(), '{'), std::count(json.begin(), json.end(), '}'));

  std::string metrics;
  append_clusters_prometheus(metrics, sets);
  EXPECT_NE(metrics.find("edgemesh_cluster_requests_total{cluster=\"web \\\"x\\\"\"} 1\n"),
            std::string::npos);
  EXPECT_EQ(metrics.find("cluster=\"idle\""), std::string::npos);
}

TEST_F(ClusterManagerTest, MetricsHaveBoundedCardinality) {
  std::vector<std::shared_ptr<const model::Cluster>> list;
  for (int i = 0; i < 50; ++i) list.push_back(static_cluster(fmt::format("c{}", i), 1));
  ASSERT_TRUE(manager_->apply(list));
  for (int i = 0; i < 50; ++i)
    for (int n = 0; n <= i; ++n) {
      Host* host = worker_.find(fmt::format("c{}", i))->pick({});
      RequestTicket::take(*host, model::RequestPriority::kDefault);
    }
  std::string metrics;
  append_clusters_prometheus(metrics, manager_->sets(), 10);
  EXPECT_NE(metrics.find("edgemesh_cluster_requests_total{cluster=\"c49\"} 50\n"),
            std::string::npos);
  EXPECT_NE(metrics.find("edgemesh_cluster_requests_total{cluster=\"_other\"} 820\n"),
            std::string::npos);
  EXPECT_EQ(metrics.find("cluster=\"c39\""), std::string::npos);
}

Result<model::Cluster> parse(std::string_view yaml) {
  EM_TRY(auto document, config::Document::from_text(yaml, "c.yaml"));
  model::Cluster cluster;
  read_cluster(document.root(), &cluster);
  EM_TRY_VOID(document.finish());
  return cluster;
}

TEST(ClusterConfigTest, ReadsEverything) {
  auto cluster = parse(R"(
name: reviews
endpoints:
- {address: "10.0.0.1:80", weight: 3, zone: a, node: edge-1, labels: {version: v1, app: x}}
- {address: "10.0.0.2:80", priority: 1, health: degraded, healthPort: 8081}
loadBalancer:
  policy: ringHash
  ringMin: 2048
  panicPercent: 0
  locality: weighted
  localityWeights: [{zone: a, weight: 3}]
  subsets: {selectors: [{keys: [version, app]}], fallback: default, defaultLabels: {version: v1}}
  slowStart: {window: 30s, aggression: 1.5}
  clientIpAffinity: 1h
circuitBreakers: {default: {maxConnections: 7, maxRetries: 1}, high: {maxRequests: 9}}
outlierDetection: {consecutive5xx: 3, successRateStdevFactor: 2.5, maxEjectionPercent: 50}
healthChecks:
- {kind: http, path: /healthz, expectedStatuses: [200, 301-302], interval: 5s}
- {kind: grpc, grpcService: shop.Cart}
protocol: auto
tls: {sni: reviews.test, verifySans: ["spiffe://x/y"], alpn: [h2]}
connectTimeout: 250ms
maxRequestsPerConnection: 1000
)");
  ASSERT_TRUE(cluster) << cluster.error().message;
  EXPECT_EQ(cluster->endpoints[0].labels, (model::Labels{{"app", "x"}, {"version", "v1"}}));
  EXPECT_EQ(cluster->endpoints[1].health, model::Health::kDegraded);
  EXPECT_EQ(cluster->lb.policy, model::LbPolicy::kRingHash);
  EXPECT_EQ(cluster->lb.slow_start.aggression, 1.5);
  EXPECT_EQ(cluster->lb.subsets.selectors[0], (std::vector<std::string>{"app", "version"}));
  EXPECT_EQ(cluster->breaker[0].max_connections, 7u);
  EXPECT_EQ(cluster->breaker[1].max_requests, 9u);
  EXPECT_EQ(cluster->outlier->success_rate_stdev_factor, 2.5);
  EXPECT_EQ(cluster->health_checks[0].expected[1].last, 302);
  EXPECT_EQ(cluster->tls->sni, "reviews.test");
  EXPECT_EQ(cluster->connect_timeout, milliseconds(250));
}

TEST(ClusterConfigTest, SaysWhatIsWrong) {
  const auto error = [](std::string_view yaml) {
    auto cluster = parse(yaml);
    return cluster ? std::string("fine") : cluster.error().message;
  };
  EXPECT_EQ(error("name: a\nendpoints: [{address: \"10.0.0.1:80\"}]\n"), "fine");
  EXPECT_NE(error("name: a\n").find("endpoints"), std::string::npos);
  EXPECT_NE(error("name: a\ntype: dns\ndns: {host: \"a.test:80\"}\nendpoints: []\n")
                .find("does not go with"),
            std::string::npos);
  const std::string base = "name: a\nendpoints: [{address: \"10.0.0.1:80\"}]\n";
  for (std::string_view wrong :
       {"loadBalancer: {maglevSize: 100}", "loadBalancer: {policy: best}", "connectTimeout: 0s",
        "healthChecks: [{kind: http, expectedStatuses: [900]}]", "healthChecks: [{path: /}]",
        "healthChecks: [{kind: http, path: \"/a b\"}]", "tls: {cert: x}",
        "proxyProtocol: v2\nprotocol: http2", "unknown: 1",
        "loadBalancer: {slowStart: {window: 1s, aggression: x}}",
        "loadBalancer: {subsets: {selectors: [{keys: [a]}], fallback: default}}"})
    EXPECT_NE(error(base + std::string(wrong) + "\n"), "fine") << wrong;
  EXPECT_NE(error("name: a\nendpoints: [{address: \"10.0.0.1:80\"}, {address: \"10.0.0.1:80\"}]\n"),
            "fine");
}

}  // namespace
}  // namespace edgemesh::proxy
