#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/proxy_upstream/cluster_fixture.h"

namespace edgemesh::proxy {
namespace {

using model::LbPolicy;
using std::chrono::seconds;

TEST(LoadBalancerTest, RoundRobinTakesTurns) {
  TestCluster cluster;
  cluster.set(endpoints(4));

  auto counts = cluster.count(400);

  for (int n = 1; n <= 4; ++n) EXPECT_EQ(counts[n], 100);
}

TEST(LoadBalancerTest, WeightedRoundRobinIsExactAndSmooth) {
  TestCluster cluster;
  cluster.set({endpoint(1, 5), endpoint(2, 2), endpoint(3, 1)});

  std::map<int, int> counts;
  int run = 0;
  int longest = 0;
  int before = 0;
  for (int i = 0; i < 800; ++i) {
    const int n = number_of(*cluster.pick());
    ++counts[n];
    run = n == before ? run + 1 : 1;
    if (n != 1) longest = std::max(longest, run);
    before = n;
  }

  EXPECT_NEAR(counts[1], 500, 2);
  EXPECT_NEAR(counts[2], 200, 2);
  EXPECT_NEAR(counts[3], 100, 2);
  EXPECT_EQ(longest, 1);  // light hosts never twice in a row
}

TEST(LoadBalancerTest, RandomIsEvenOrByWeight) {
  TestCluster cluster;
  cluster.config.lb.policy = LbPolicy::kRandom;
  cluster.set(endpoints(10));
  for (auto [n, count] : cluster.count(20'000)) EXPECT_NEAR(count, 2000, 250) << n;

  cluster.set({endpoint(1, 1), endpoint(2, 3), endpoint(3, 6)});
  auto counts = cluster.count(20'000);
  EXPECT_NEAR(counts[1], 2000, 250);
  EXPECT_NEAR(counts[2], 6000, 400);
  EXPECT_NEAR(counts[3], 12'000, 500);
}

TEST(LoadBalancerTest, LeastRequestPrefersWhoHasFewer) {
  TestCluster cluster;
  cluster.config.lb.policy = LbPolicy::kLeastRequest;
  cluster.set(endpoints(3));
  std::vector<RequestTicket> held;
  for (int i = 0; i < 10; ++i)
    held.push_back(RequestTicket::take(cluster.host(2), model::RequestPriority::kDefault));

  auto counts = cluster.count(3000);

  // Two different draws of three: host 2 comes only when both draws were it.
  EXPECT_LT(counts[2], 60);
  EXPECT_GT(counts[1], 1200);
  EXPECT_GT(counts[3], 1200);
}

TEST(LoadBalancerTest, LeastRequestEvensOutLoadByWeight) {
  TestCluster cluster;
  cluster.config.lb.policy = LbPolicy::kLeastRequest;
  cluster.config.breaker[0].max_requests = UINT32_MAX;
  cluster.set({endpoint(1, 1), endpoint(2, 3)});
  std::vector<RequestTicket> held;
  for (int i = 0; i < 400; ++i)
    held.push_back(RequestTicket::take(*cluster.pick(), model::RequestPriority::kDefault));

  EXPECT_NEAR(cluster.host(1).active(), 100, 10);
  EXPECT_NEAR(cluster.host(2).active(), 300, 10);
}

class HashPolicyTest : public testing::TestWithParam<LbPolicy> {};

TEST_P(HashPolicyTest, SameKeySameHostAndSharesFollowWeights) {
  TestCluster cluster;
  cluster.config.lb.policy = GetParam();
  cluster.config.lb.ring_min = 8192;
  cluster.set({endpoint(1, 1), endpoint(2, 2), endpoint(3, 1)});

  std::map<int, int> counts;
  for (uint64_t key = 0; key < 20'000; ++key) {
    Host* host = cluster.pick_hash(key);
    EXPECT_EQ(cluster.pick_hash(key), host);
    ++counts[number_of(*host)];
  }

  EXPECT_NEAR(counts[1], 5000, 600);
  EXPECT_NEAR(counts[2], 10'000, 800);
  EXPECT_NEAR(counts[3], 5000, 600);
}

TEST_P(HashPolicyTest, RemovalMovesFewOtherKeys) {
  TestCluster cluster;
  cluster.config.lb.policy = GetParam();
  cluster.set(endpoints(20));
  std::map<uint64_t, int> before;
  for (uint64_t key = 0; key < 10'000; ++key) before[key] = number_of(*cluster.pick_hash(key));
  auto list = endpoints(20);
  list.erase(list.begin() + 6);  // host 7

  cluster.set(list);

  int moved = 0;
  int orphans = 0;
  for (auto [key, n] : before) {
    const int now = number_of(*cluster.pick_hash(key));
    if (n == 7)
      ++orphans;
    else if (now != n)
      ++moved;
  }
  EXPECT_NEAR(orphans, 500, 200);
  EXPECT_LT(moved, GetParam() == LbPolicy::kMaglev ? 300 : 1);
}

TEST_P(HashPolicyTest, IllHostsKeysSpreadAndComeBack) {
  TestCluster cluster;
  cluster.config.lb.policy = GetParam();
  cluster.set(endpoints(10));
  std::map<uint64_t, int> before;
  for (uint64_t key = 0; key < 10'000; ++key) before[key] = number_of(*cluster.pick_hash(key));

  cluster.fail(3);
  std::map<int, int> heirs;
  for (auto [key, n] : before) {
    const int now = number_of(*cluster.pick_hash(key));
    if (n == 3)
      ++heirs[now];
    else
      EXPECT_EQ(now, n);
  }
  EXPECT_EQ(heirs.count(3), 0u);
  EXPECT_GE(heirs.size(), 8u);

  cluster.fail(3, false);
  for (auto [key, n] : before) EXPECT_EQ(number_of(*cluster.pick_hash(key)), n);
}

INSTANTIATE_TEST_SUITE_P(All, HashPolicyTest,
                         testing::Values(LbPolicy::kRingHash, LbPolicy::kMaglev),
                         [](const auto& test) {
                           return test.param == LbPolicy::kRingHash ? "Ring" : "Maglev";
                         });

TEST(LoadBalancerTest, AllWorkersHashAlike) {
  TestCluster cluster;
  cluster.config.lb.policy = LbPolicy::kRingHash;
  cluster.set(endpoints(10));
  auto other = ClusterState::create(cluster.hosts, 1, cluster.clock, 7);
  for (uint64_t key = 0; key < 1000; ++key) {
    PickContext context;
    context.has_hash = true;
    context.hash = key;
    EXPECT_EQ(other->pick(context)->addr(), cluster.pick_hash(key)->addr());
  }
  other->retire();
}

TEST(LoadBalancerTest, PrioritiesSpillOverAsDocumented) {
  TestCluster cluster;
  std::vector<model::Endpoint> list;
  for (int i = 1; i <= 10; ++i) list.push_back(endpoint(i, 1, 0));
  for (int i = 11; i <= 20; ++i) list.push_back(endpoint(i, 1, 1));
  cluster.set(list);
  auto first_share = [&] {
    int first = 0;
    for (auto [n, count] : cluster.count(10'000)) first += n <= 10 ? count : 0;
    return first / 100;
  };
  EXPECT_EQ(first_share(), 100);

  for (int i = 1; i <= 2; ++i) cluster.fail(i);
  EXPECT_EQ(first_share(), 100);  // 80 % times 1.4

  for (int i = 3; i <= 5; ++i) cluster.fail(i);
  EXPECT_NEAR(first_share(), 70, 2);  // 50 % times 1.4

  for (int i = 6; i <= 10; ++i) cluster.fail(i);
  EXPECT_EQ(first_share(), 0);
}

TEST(LoadBalancerTest, PanicUsesAllWhenTooFewAreHealthy) {
  TestCluster cluster;
  cluster.set(endpoints(10));
  for (int i = 1; i <= 5; ++i) cluster.fail(i);
  EXPECT_EQ(cluster.count(1000).size(), 5u);  // half: not yet

  cluster.fail(6);
  EXPECT_EQ(cluster.count(1000).size(), 10u);

  cluster.fail(6, false);
  EXPECT_EQ(cluster.count(1000).size(), 5u);
}

TEST(LoadBalancerTest, WithoutPanicNothingIsPickedWhenAllAreIll) {
  TestCluster cluster;
  cluster.config.lb.panic_percent = 0;
  cluster.set(endpoints(2));
  cluster.fail(1);
  EXPECT_EQ(cluster.count(100)[2], 100);
  cluster.fail(2);
  EXPECT_EQ(cluster.pick(), nullptr);
  EXPECT_EQ(cluster.state->stats().no_host.value(), 1u);
}

TEST(LoadBalancerTest, DegradedOnesHelpWhenHealthyOnesAreTooFew) {
  TestCluster cluster;
  auto list = endpoints(4);
  list[2].health = list[3].health = model::Health::kDegraded;
  cluster.set(list);

  auto counts = cluster.count(10'000);

  EXPECT_NEAR(counts[1] + counts[2], 7000, 200);  // 50 % times 1.4
  EXPECT_NEAR(counts[3] + counts[4], 3000, 200);
}

TEST(LoadBalancerTest, DrainingIsNeverPicked) {
  TestCluster cluster;
  auto list = endpoints(3);
  list[0].health = model::Health::kDraining;
  cluster.set(list);
  cluster.fail(2);
  cluster.fail(3);
  EXPECT_EQ(cluster.count(100).count(1), 0u);
}

TEST(LoadBalancerTest, LocalitiesShareByWeightTimesHealth) {
  TestCluster cluster;
  cluster.config.lb.locality = model::LocalityMode::kWeighted;
  cluster.config.lb.locality_weights = {{{"r", "a", ""}, 0, 3}, {{"r", "b", ""}, 0, 1}};
  auto list = endpoints(8);
  for (int i = 0; i < 8; ++i) list[static_cast<size_t>(i)].locality = {"r", i < 4 ? "a" : "b", ""};
  cluster.set(list);
  auto share_of_a = [&] {
    int a = 0;
    for (auto [n, count] : cluster.count(8000)) a += n <= 4 ? count : 0;
    return a;
  };
  EXPECT_NEAR(share_of_a(), 6000, 10);

  for (int i = 1; i <= 2; ++i) cluster.fail(i);
  // a: 3 * min(1, 0.5 * 1.4) = 2.1 of 3.1
  EXPECT_NEAR(share_of_a(), 8000 * 2.1 / 3.1, 10);
}

TEST(LoadBalancerTest, NearestEndpointsFirst) {
  TestCluster cluster;
  cluster.config.lb.locality = model::LocalityMode::kNearest;
  cluster.place = {"edge-1", {"eu", "a", ""}};
  auto list = endpoints(4);
  list[0].node = "edge-1";
  list[1].locality = {"eu", "a", ""};
  list[2].locality = {"eu", "b", ""};
  list[3].locality = {"us", "a", ""};
  cluster.set(list);

  for (int n = 1; n <= 4; ++n) {
    EXPECT_EQ(cluster.count(100)[n], 100);
    cluster.fail(n);
  }
}

PickContext labelled(const std::vector<LabelView>& labels) {
  PickContext context;
  context.labels = labels;
  return context;
}

TEST(LoadBalancerTest, SubsetsAndTheirFallbacks) {
  const std::vector<LabelView> v1{{"version", "v1"}};
  const std::vector<LabelView> v2_prod{{"stage", "prod"}, {"version", "v2"}};
  const std::vector<LabelView> unknown{{"version", "v9"}};
  auto list = endpoints(4);
  list[0].labels = {{"stage", "prod"}, {"version", "v1"}};
  list[1].labels = {{"stage", "test"}, {"version", "v1"}};
  list[2].labels = {{"stage", "prod"}, {"version", "v2"}};
  TestCluster cluster;
  cluster.config.lb.subsets.selectors = {{"version"}, {"stage", "version"}};

  cluster.config.lb.subsets.fallback = model::SubsetFallback::kNone;
  cluster.set(list);
  auto counts = cluster.count(100, labelled(v1));
  EXPECT_EQ(counts[1], 50);
  EXPECT_EQ(counts[2], 50);
  EXPECT_EQ(cluster.count(100, labelled(v2_prod))[3], 100);
  EXPECT_EQ(cluster.pick(labelled(unknown)), nullptr);
  EXPECT_EQ(cluster.pick(), nullptr);

  cluster.config.lb.subsets.fallback = model::SubsetFallback::kAny;
  cluster.set(list);
  EXPECT_EQ(cluster.count(100, labelled(unknown)).size(), 4u);

  cluster.config.lb.subsets.fallback = model::SubsetFallback::kDefault;
  cluster.config.lb.subsets.default_labels = {{"stage", "test"}};
  cluster.set(list);
  EXPECT_EQ(cluster.count(100, labelled(unknown))[2], 100);
}

TEST(LoadBalancerTest, SlowStartRaisesShareWithTime) {
  TestCluster cluster;
  cluster.config.lb.slow_start.window = seconds(100);
  cluster.set(endpoints(3));
  EXPECT_EQ(cluster.count(300)[1], 100);

  cluster.set(endpoints(4));
  cluster.clock.advance(seconds(1));
  EXPECT_NEAR(cluster.count(3100)[4], 100, 10);  // at least 10 % of a full share

  cluster.clock.advance(seconds(49));
  EXPECT_NEAR(cluster.count(3500)[4], 500, 30);

  cluster.clock.advance(seconds(51));
  EXPECT_NEAR(cluster.count(4000)[4], 1000, 2);
}

TEST(LoadBalancerTest, SlowStartHoldsForEveryPolicy) {
  for (auto policy : {LbPolicy::kRandom, LbPolicy::kLeastRequest}) {
    TestCluster cluster;
    cluster.config.lb.policy = policy;
    cluster.config.lb.slow_start.window = seconds(100);
    cluster.set(endpoints(3));
    cluster.set(endpoints(4));
    cluster.clock.advance(seconds(50));
    EXPECT_NEAR(cluster.count(35'000)[4], 5000, 500);
  }
}

TEST(LoadBalancerTest, ClientKeepsItsEndpoint) {
  TestCluster cluster;
  cluster.config.lb.client_ip_affinity = seconds(60);
  cluster.set(endpoints(5));
  std::map<int, int> first;
  std::map<int, int> spread;
  auto pick_for = [&](int client) {
    const IpAddr ip = IpAddr::v4(0xc0a80000u + static_cast<uint32_t>(client));
    PickContext context;
    context.client = &ip;
    return number_of(*cluster.pick(context));
  };
  for (int client = 0; client < 1000; ++client) ++spread[first[client] = pick_for(client)];
  for (auto [n, count] : spread) EXPECT_NEAR(count, 200, 60) << n;

  auto list = endpoints(7);
  list.erase(list.begin());
  cluster.set(list);
  for (int client = 0; client < 1000; ++client) {
    if (first[client] == 1)
      EXPECT_NE(pick_for(client), 1);
    else
      EXPECT_EQ(pick_for(client), first[client]);
  }
  cluster.fail(3);
  for (int client = 0; client < 1000; ++client) EXPECT_NE(pick_for(client), 3);
}

TEST(LoadBalancerTest, RetryGoesToAnotherHostWhileThereIsOne) {
  for (auto policy : {LbPolicy::kRoundRobin, LbPolicy::kRandom, LbPolicy::kLeastRequest,
                      LbPolicy::kRingHash, LbPolicy::kMaglev}) {
    TestCluster cluster;
    cluster.config.lb.policy = policy;
    cluster.set({endpoint(1, 1000), endpoint(2, 1), endpoint(3, 1)});
    for (int i = 0; i < 100; ++i) {
      std::vector<const Host*> tried;
      for (int attempt = 0; attempt < 3; ++attempt) {
        PickContext context;
        context.has_hash = true;
        context.hash = static_cast<uint64_t>(i);
        context.tried = tried;
        Host* host = cluster.pick(context);
        ASSERT_NE(host, nullptr);
        EXPECT_EQ(std::count(tried.begin(), tried.end(), host), 0);
        tried.push_back(host);
      }
      PickContext context;
      context.tried = tried;
      EXPECT_NE(cluster.pick(context), nullptr);  // better the same than none
    }
  }
}

TEST(LoadBalancerTest, UpdateKeepsWhatIsKnownOfHosts) {
  TestCluster cluster;
  cluster.set(endpoints(3));
  auto ticket = RequestTicket::take(cluster.host(2), model::RequestPriority::kDefault);
  Host* two = &cluster.host(2);
  two->shared().set(SharedHost::kEjected, true);

  auto list = endpoints(5);
  list.erase(list.begin());
  list[0].weight = 7;
  cluster.set(list);

  EXPECT_EQ(&cluster.host(2), two);
  EXPECT_EQ(two->active(), 1u);
  EXPECT_EQ(two->endpoint().weight, 7u);
  EXPECT_TRUE(two->shared().has(SharedHost::kEjected));

  cluster.set({endpoint(3)});
  EXPECT_TRUE(two->removed());
  EXPECT_EQ(two->active(), 1u);  // the ticket still holds it
}

TEST(LoadBalancerTest, OriginalDestination) {
  TestCluster cluster;
  cluster.config.type = model::ClusterType::kOriginalDst;
  cluster.set({});
  const SockAddr to{IpAddr::v4(0x01020304), 443};
  PickContext context;
  context.destination = &to;
  Host* host = cluster.pick(context);
  ASSERT_NE(host, nullptr);
  EXPECT_EQ(host->addr(), to);
  EXPECT_EQ(cluster.pick(context), host);
  EXPECT_EQ(cluster.pick(), nullptr);
  for (uint32_t i = 1; i < 10'000; ++i) {
    const SockAddr many{IpAddr::v4(i), 1};
    context.destination = &many;
    ASSERT_NE(cluster.pick(context), nullptr);
  }
}

TEST(LoadBalancerTest, EmptyClusterGivesNothing) {
  TestCluster cluster;
  cluster.set({});
  EXPECT_EQ(cluster.pick(), nullptr);
  cluster.set(endpoints(1));
  EXPECT_NE(cluster.pick(), nullptr);
  cluster.state->retire();
  EXPECT_EQ(cluster.pick(), nullptr);
}

TEST(BreakersTest, LimitsHoldForAllWorkersTogether) {
  TestCluster cluster;
  cluster.config.breaker[0].max_requests = 3;
  cluster.config.breaker[0].max_connections = 1;
  cluster.set(endpoints(1));
  auto other = ClusterState::create(cluster.hosts, 1, cluster.clock, 7);
  const auto priority = model::RequestPriority::kDefault;
  {
    auto a = RequestTicket::take(cluster.host(1), priority);
    auto b = RequestTicket::take(*other->hosts()[0], priority);
    auto c = RequestTicket::take(cluster.host(1), priority);
    EXPECT_TRUE(a && b && c);
    EXPECT_FALSE(RequestTicket::take(*other->hosts()[0], priority));
    EXPECT_TRUE(RequestTicket::take(cluster.host(1), model::RequestPriority::kHigh));
    EXPECT_EQ(other->stats().request_overflow.value(), 1u);
  }
  EXPECT_EQ(cluster.hosts->shared()->breakers[0].requests, 0u);
  EXPECT_TRUE(cluster.state->take_connection(priority));
  EXPECT_FALSE(other->take_connection(priority));
  cluster.state->give_connection(priority);
  EXPECT_TRUE(other->take_connection(priority));
  other->give_connection(priority);
  other->retire();
}

TEST(BreakersTest, LargeLimitIsNeverPassedAndAlmostReached) {
  TestCluster cluster;
  cluster.config.breaker[0].max_requests = 1024;
  cluster.set(endpoints(1));
  auto other = ClusterState::create(cluster.hosts, 1, cluster.clock, 7);
  std::vector<RequestTicket> held;
  int refused = 0;
  for (int i = 0; i < 2000; ++i) {
    auto& host = i % 2 == 0 ? cluster.host(1) : *other->hosts()[0];
    auto ticket = RequestTicket::take(host, model::RequestPriority::kDefault);
    if (ticket)
      held.push_back(std::move(ticket));
    else
      ++refused;
  }
  EXPECT_EQ(held.size(), 1024u);
  held.clear();
  EXPECT_LE(cluster.hosts->shared()->breakers[0].requests, 16u);
  other->retire();
}

TEST(BreakersTest, RetryBudgetFollowsOpenRequests) {
  TestCluster cluster;
  cluster.config.breaker[0].retry_budget_percent = 20;
  cluster.config.breaker[0].min_retry_concurrency = 2;
  cluster.set(endpoints(1));
  const auto priority = model::RequestPriority::kDefault;
  EXPECT_TRUE(cluster.state->take_retry(priority));
  EXPECT_TRUE(cluster.state->take_retry(priority));
  EXPECT_FALSE(cluster.state->take_retry(priority));
  std::vector<RequestTicket> held;
  for (int i = 0; i < 15; ++i) held.push_back(RequestTicket::take(cluster.host(1), priority));
  EXPECT_TRUE(cluster.state->take_retry(priority));
  EXPECT_FALSE(cluster.state->take_retry(priority));
}

}  // namespace
}  // namespace edgemesh::proxy
