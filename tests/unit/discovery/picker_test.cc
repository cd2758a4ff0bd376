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

TEST_F(PickerTest, PickersAgreeOnTheEndpointOfAClient) {
  make({{"10.1.0.1"}, {"10.1.0.2"}, {"10.1.0.3"}, {"10.1.0.4"}}, "random", true);
  Picker other("here", "z1", clock_);
  std::map<const Endpoint*, int> counts;
  for (uint32_t i = 0; i < 400; ++i) {
    IpAddr client = IpAddr::v4(0x0a090000 + i);
    const Endpoint* e = picker_.pick(target_, client);
    EXPECT_EQ(other.pick(target_, client), e);
    ++counts[e];
  }
  EXPECT_EQ(counts.size(), 4u);
  for (auto [e, n] : counts) EXPECT_GT(n, 60) << "clients are spread";
}

TEST_F(PickerTest, AClientStaysWhereItIsUntilTheTimeoutWhenEndpointsCome) {
  std::vector<Pod> pods = {{"10.1.0.1"}, {"10.1.0.2"}};
  make(pods, "", true);
  std::map<uint32_t, SockAddr> had;
  for (uint32_t i = 0; i < 100; ++i) had[i] = picker_.pick(target_, IpAddr::v4(i))->addr;
  pods.push_back({"10.1.0.3"});
  make(pods, "", true);

  clock_.advance(50s);
  for (auto& [i, addr] : had) EXPECT_EQ(picker_.pick(target_, IpAddr::v4(i))->addr, addr);
  clock_.advance(50s);  // each use starts the time anew
  for (auto& [i, addr] : had) EXPECT_EQ(picker_.pick(target_, IpAddr::v4(i))->addr, addr);
  clock_.advance(61s);
  int moved = 0;
  for (auto& [i, addr] : had) {
    SockAddr now = picker_.pick(target_, IpAddr::v4(i))->addr;
    if (now == addr) continue;
    ++moved;
    EXPECT_EQ(now.ip.to_string(), "10.1.0.3") << "nobody moves between the others";
  }
  EXPECT_GT(moved, 15);
  EXPECT_LT(moved, 55);
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
