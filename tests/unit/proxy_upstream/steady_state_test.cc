// What holds in the steady state: a pick allocates nothing; workers and the main loop may do their
// part at the same time.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <thread>

#include "core/base/log.h"
#include "proxy/upstream/cluster_report.h"
#include "proxy/upstream/outlier.h"
#include "tests/unit/proxy_upstream/cluster_fixture.h"

namespace {
thread_local size_t allocations = 0;
}

// Sanitizers have an allocator of their own: there nothing is counted.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Not inlined: the compiler would take malloc for a mismatch.
[[gnu::noinline]] void* operator new(size_t n) {
  ++allocations;
  if (void* p = std::malloc(n)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept {
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept {
  std::free(p);
}
#endif

namespace edgemesh::proxy {
namespace {

using model::LbPolicy;

class NoAllocationTest : public testing::TestWithParam<std::tuple<LbPolicy, bool>> {};

TEST_P(NoAllocationTest, PickAndTicket) {
  const auto [policy, weighted] = GetParam();
  TestCluster cluster;
  cluster.config.lb.policy = policy;
  cluster.config.lb.subsets.selectors = {{"version"}};
  cluster.config.lb.client_ip_affinity = std::chrono::seconds(60);
  cluster.config.outlier = std::make_shared<model::OutlierDetection>();
  auto list = endpoints(50);
  for (auto& endpoint : list) {
    endpoint.labels = {{"version", endpoint.addr.ip.bytes()[3] % 2 == 0 ? "v1" : "v2"}};
    if (weighted) endpoint.weight = endpoint.addr.ip.bytes()[3];
  }
  cluster.set(list);
  const LabelView v1{"version", "v1"};
  const IpAddr client = IpAddr::v4(7);
  const auto run = [&](int times) {
    for (int i = 0; i < times; ++i) {
      PickContext context;
      context.has_hash = true;
      context.hash = static_cast<uint64_t>(i);
      context.labels = {&v1, i % 2 == 0 ? 1u : 0u};
      if (i % 3 == 0) context.client = &client;
      Host* host = cluster.pick(context);
      ASSERT_NE(host, nullptr);
      const Host* tried[] = {host};
      context.tried = tried;
      auto ticket = RequestTicket::take(*cluster.pick(context), model::RequestPriority::kDefault);
      report_outcome(*host, Outcome::kSuccess);
    }
  };
  run(100);
  cluster.fail(2);
  run(100);
  const size_t before = allocations;
  run(1000);
  cluster.fail(2, false);
  run(1000);
  cluster.fail(2);
  run(1000);
  EXPECT_EQ(allocations, before);
}

INSTANTIATE_TEST_SUITE_P(All, NoAllocationTest,
                         testing::Combine(testing::Values(LbPolicy::kRoundRobin, LbPolicy::kRandom,
                                                          LbPolicy::kLeastRequest,
                                                          LbPolicy::kRingHash, LbPolicy::kMaglev),
                                          testing::Bool()));

TEST(ThreadsTest, WorkersPickWhileTheMainLoopSweepsChecksAndReports) {
  log::set_level("upstream", log::Level::kError);  // thousands of ejections
  model::Cluster config;
  config.name = "c";
  config.lb.policy = LbPolicy::kLeastRequest;
  config.breaker[0].max_requests = 1024;
  model::OutlierDetection outlier;
  outlier.consecutive_5xx = 2;
  outlier.base_ejection = outlier.max_ejection = Duration(1);
  outlier.max_ejection_percent = 50;
  config.outlier = std::make_shared<model::OutlierDetection>(outlier);
  const auto set =
      HostSet::build(std::make_shared<model::Cluster>(config), endpoints(10), {{}, 2, {}, nullptr});
  std::atomic<int> left{2};
  std::vector<std::thread> workers;
  for (int worker = 0; worker < 2; ++worker)
    workers.emplace_back([&, worker] {
      auto state = ClusterState::create(set, worker, system_clock(), 5);
      for (int i = 0; i < 20'000; ++i) {
        Host* host = state->pick({});
        if (host == nullptr) continue;
        auto ticket = RequestTicket::take(*host, model::RequestPriority::kDefault);
        report_outcome(*host, number_of(*host) <= 2 ? Outcome::kServerError : Outcome::kSuccess);
      }
      state->retire();
      --left;
    });
  uint64_t rounds = 0;
  while (left > 0) {
    sweep_outliers(*set, system_clock().now());
    set->entries()[5].shared->set(SharedHost::kCheckFailed, rounds++ % 2 == 0);
    set->shared()->raise_epoch();
    std::string text;
    append_clusters_text(text, {{set}});
  }
  for (auto& worker : workers) worker.join();
  log::set_level("upstream", log::Level::kInfo);
  uint64_t requests = 0;
  set->shared()->stats.for_each([&](const ClusterStats& stats) {
    requests += stats.requests.value();
    EXPECT_EQ(stats.active_requests.value(), 0u);
  });
  EXPECT_EQ(requests, 40'000u);
  EXPECT_EQ(set->shared()->breakers[0].requests, 0u);
}

}  // namespace
}  // namespace edgemesh::proxy
