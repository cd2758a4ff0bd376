#include "discovery/picker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "discovery/registry.h"
#include "tests/unit/discovery/dns_support.h"

namespace edgemesh::discovery {
namespace {

using namespace testing_parts;
using namespace std::chrono_literals;

class PickerTest : public testing::Test {
 protected:
  void make(std::vector<Pod> pods, const char* policy = "", bool affinity = false) {
    auto s = service("svc", {"10.96.0.1"});
    if (*policy != 0) s.annotations[kLbAnnotation] = policy;
    if (affinity) s.session_affinity = "ClientIP";
    s.affinity_timeout_s = 60;
    registry_.upsert_service(s);
    registry_.upsert_slice(slice("svc", pods));
    snapshot_ = registry_.snapshot();
    target_ = *snapshot_->find(*IpAddr::parse("10.96.0.1"), 80);
  }
  const Endpoint* pick(const char* client = "10.9.0.1", const std::vector<const Endpoint*>& exclude = {}) {
    return picker_.pick(target_, *IpAddr::parse(client), exclude);
  }
  std::map<std::string, int> picks(int n) {
    std::map<std::string, int> counts;
    for (int i = 0; i < n; ++i) ++counts[pick()->addr.ip.to_string()];
    return counts;
  }
  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_ = *io::Loop::create();
  Registry registry_{*loop_};
  std::shared_ptr<const Snapshot> snapshot_;
  Snapshot::Target target_;
  Picker picker_{"here", "z1", clock_};
};

TEST_F(PickerTest, TakesTurns) {
  make({{"10.1.0.1"}, {"10.1.0.2"}, {"10.1.0.3"}});
  EXPECT_THAT(picks(30), testing::UnorderedElementsAre(testing::Pair("10.1.0.1", 10),
                                                       testing::Pair("10.1.0.2", 10),
                                                       testing::Pair("10.1.0.3", 10)));
}

TEST_F(PickerTest, PicksAtRandom) {
  make({{"10.1.0.1"}, {"10.1.0.2"}}, "random");
  auto counts = picks(1000);
  EXPECT_GT(counts["10.1.0.1"], 400);
  EXPECT_GT(counts["10.1.0.2"], 400);
}

TEST_F(PickerTest, LeastRequestAvoidsTheBusy) {
  make({{"10.1.0.1"}, {"10.1.0.2"}}, "least_request");
  const Endpoint* busy = pick();
  picker_.on_start(*busy);
  for (int i = 0; i < 20; ++i) EXPECT_NE(pick(), busy);
  picker_.on_end(*busy);
  EXPECT_EQ(picks(200).size(), 2u);
}

TEST_F(PickerTest, PrefersTheNearest) {
  make({{"10.1.0.1", "far", "", "z2"}, {"10.1.0.2", "near", "", "z1"}, {"10.1.0.3", "here", "", "z1"}});
  const Endpoint* local = pick();
  EXPECT_EQ(local->node, "here");

  picker_.on_failure(*local);
  const Endpoint* near = pick();
  EXPECT_EQ(near->node, "near");
  EXPECT_EQ(pick("10.9.0.1", {near})->node, "far");
}

TEST_F(PickerTest, SkipsFailedEndpointForAWhileThatGrows) {
  make({{"10.1.0.1"}, {"10.1.0.2"}});
  const Endpoint* bad = pick();
  picker_.on_failure(*bad);
  EXPECT_EQ(picks(10).size(), 1u);
  clock_.advance(1100ms);
  EXPECT_EQ(picks(10).size(), 2u);

  picker_.on_failure(*bad);
  clock_.advance(1100ms);
  EXPECT_EQ(picks(10).size(), 1u);
  picker_.on_success(*bad);
  EXPECT_EQ(picks(10).size(), 2u);
}

TEST_F(PickerTest, ForgetsFailuresOfEndpointsThatAreNotPickedAnyMore) {
  make({{"10.1.0.1"}, {"10.1.0.2"}, {"10.1.0.3"}});
  Endpoint gone = *pick();
  picker_.on_failure(gone);
  picker_.on_failure(gone);
  Endpoint other = *pick();
  picker_.on_failure(other);
  EXPECT_EQ(picker_.failed(), 2u);
  picker_.on_success(other);
  EXPECT_EQ(picker_.failed(), 1u);
  picker_.on_success(other);
  EXPECT_EQ(picker_.failed(), 1u);

  clock_.advance(60s);
  pick();
  EXPECT_EQ(picker_.failed(), 1u) << "its block ended 58 s ago";
  clock_.advance(3s);
  pick();
  EXPECT_EQ(picker_.failed(), 0u);

  picker_.on_failure(gone);  // the time begins at 1 s again
  clock_.advance(1100ms);
  EXPECT_EQ(picks(10).size(), 3u);
}

TEST_F(PickerTest, RemembersABoundedNumberOfFailures) {
  make({{"10.1.0.1"}});
  Endpoint e = *pick();
  for (uint32_t i = 0; i < 40'000; ++i) {
    e.addr.ip = IpAddr::v4(0x0b000000 + i);
    picker_.on_failure(e);
  }
  EXPECT_LE(picker_.failed(), 16'384u);
  EXPECT_GT(picker_.failed(), 0u);
}

TEST_F(PickerTest, UsesFailedEndpointsWhenAllFailed) {
  make({{"10.1.0.1"}});
  picker_.on_failure(*pick());
  EXPECT_NE(pick(), nullptr);
  EXPECT_EQ(pick("10.9.0.1", {pick()}), nullptr);
}

TEST_F(PickerTest, KeepsClientsAtTheirEndpoint) {
  make({{"10.1.0.1"}, {"10.1.0.2"}, {"10.1.0.3"}}, "random", true);
  const Endpoint* first = pick("10.9.0.1");
  for (int i = 0; i < 50; ++i) EXPECT_EQ(pick("10.9.0.1"), first);
  for (int i = 0; i < 9; ++i) {  // each use starts the time anew
    clock_.advance(50s);
    EXPECT_EQ(pick("10.9.0.1"), first);
  }
  clock_.advance(61s);
  bool moved = false;
  for (int i = 0; i < 40 && !moved; ++i) {
    moved = pick("10.9.0.1") != first;
    clock_.advance(61s);
  }
  EXPECT_TRUE(moved);
}

TEST_F(PickerTest, AffinityMovesOnFromAFailedEndpoint) {
  make({{"10.1.0.1"}, {"10.1.0.2"}}, "", true);
  const Endpoint* first = pick("10.9.0.1");
  picker_.on_failure(*first);
  const Endpoint* second = pick("10.9.0.1");
  EXPECT_NE(second, first);
  clock_.advance(2s);
  EXPECT_EQ(pick("10.9.0.1"), second);
}

TEST_F(PickerTest, AFailureOnOneNodeSaysNothingOfTheSameAddressOnAnother) {
  make({{"192.168.1.10", "site-a"}, {"192.168.1.10", "site-b"}});
  const Endpoint* bad = pick();
  picker_.on_failure(*bad);
  for (int i = 0; i < 5; ++i) {
    ASSERT_NE(pick(), bad);
    EXPECT_NE(pick()->node, bad->node);
  }
}

TEST_F(PickerTest, CountsConnectionsOfTheSameAddressByNode) {
  make({{"192.168.1.10", "site-a"}, {"192.168.1.10", "site-b"}}, "least_request");
  const Endpoint* busy = pick();
  picker_.on_start(*busy);
  for (int i = 0; i < 20; ++i) EXPECT_NE(pick(), busy);
}

TEST_F(PickerTest, AffinityIsToTheNodeToo) {
  make({{"192.168.1.10", "site-a"}, {"192.168.1.10", "site-b"}}, "", true);
  for (int client = 1; client < 20; ++client) {
    std::string ip = "10.9.0." + std::to_string(client);
    const Endpoint* first = pick(ip.c_str());
    for (int i = 0; i < 4; ++i) EXPECT_EQ(pick(ip.c_str()), first);
  }
}

TEST_F(PickerTest, HasNothingForAServiceWithoutEndpoints) {
  make({});
  EXPECT_EQ(pick(), nullptr);
}

}  // namespace
}  // namespace edgemesh::discovery
