#include "discovery/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/discovery/dns_support.h"

namespace edgemesh::discovery {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;
using namespace testing_parts;

SockAddr addr(std::string_view text) { return *SockAddr::parse(text); }
IpAddr ip(std::string_view text) { return *IpAddr::parse(text); }

class RegistryTest : public testing::Test {
 protected:
  std::vector<std::string> endpoints_at(std::string_view vip, uint16_t port = 80) {
    auto snapshot = registry_.snapshot();
    auto target = snapshot->find(ip(vip), port);
    std::vector<std::string> list;
    if (!target) return {"no target"};
    for (const auto& e : target->port->endpoints) list.push_back(e.addr.to_string());
    return list;
  }
  std::unique_ptr<io::Loop> loop_ = *io::Loop::create();
  Registry registry_{*loop_};
};

TEST_F(RegistryTest, FindsServiceByAddressNameAndEndpoint) {
  registry_.upsert_service(service("hello", {"10.96.0.10", "fd00::10"}));
  registry_.upsert_slice(slice("hello", {{"10.1.0.1", "node-a", "", "z1"}}));

  auto s = registry_.snapshot();
  EXPECT_THAT(endpoints_at("10.96.0.10"), ElementsAre("10.1.0.1:8080"));
  EXPECT_THAT(endpoints_at("fd00::10"), ElementsAre("10.1.0.1:8080"));
  EXPECT_FALSE(s->find(ip("10.96.0.10"), 81));
  EXPECT_FALSE(s->find(ip("10.96.0.10"), 80, "UDP"));
  ASSERT_NE(s->by_name("default", "hello"), nullptr);
  EXPECT_EQ(s->by_name("default", "hell"), nullptr);
  EXPECT_EQ(s->by_vip(ip("10.96.0.10"))->name, "hello");
  ASSERT_NE(s->endpoint(addr("10.1.0.1:8080")), nullptr);
  EXPECT_EQ(s->endpoint(addr("10.1.0.1:8080"))->node, "node-a");
  EXPECT_FALSE(s->is_endpoint(addr("10.1.0.1:8081")));
  EXPECT_FALSE(s->is_endpoint(addr("10.96.0.10:80")));
}

TEST_F(RegistryTest, JoinsSeveralSlices) {
  registry_.upsert_slice(slice("hello", {{"10.1.0.1"}}, 0));
  registry_.upsert_slice(slice("hello", {{"10.1.0.1"}, {"10.1.0.2"}}, 1));
  EXPECT_EQ(registry_.snapshot()->services(), 0u);

  registry_.upsert_service(service("hello", {"10.96.0.10"}));
  EXPECT_THAT(endpoints_at("10.96.0.10"), ElementsAre("10.1.0.1:8080", "10.1.0.2:8080"));

  registry_.remove_slice("default", "hello-1");
  EXPECT_THAT(endpoints_at("10.96.0.10"), ElementsAre("10.1.0.1:8080"));
}

TEST_F(RegistryTest, FallsBackToServingTerminatingEndpoints) {
  registry_.upsert_service(service("hello", {"10.96.0.10"}));
  Pod ready{"10.1.0.1"};
  Pod not_ready{"10.1.0.2", "", "", "", false, false, false};
  Pod ending{"10.1.0.3", "", "", "", false, true, true};
  registry_.upsert_slice(slice("hello", {ready, not_ready, ending}));
  EXPECT_THAT(endpoints_at("10.96.0.10"), ElementsAre("10.1.0.1:8080"));

  registry_.upsert_slice(slice("hello", {not_ready, ending}));
  EXPECT_THAT(endpoints_at("10.96.0.10"), ElementsAre("10.1.0.3:8080"));

  registry_.upsert_slice(slice("hello", {not_ready}));
  EXPECT_THAT(endpoints_at("10.96.0.10"), IsEmpty());
}

TEST_F(RegistryTest, KeepsEndpointWhileAnotherServiceHasIt) {
  registry_.upsert_service(service("one", {"10.96.0.1"}));
  registry_.upsert_service(service("two", {"10.96.0.2"}));
  registry_.upsert_slice(slice("one", {{"10.1.0.1"}}));
  registry_.upsert_slice(slice("two", {{"10.1.0.1"}}));
  registry_.remove_service("default", "one");
  EXPECT_TRUE(registry_.snapshot()->is_endpoint(addr("10.1.0.1:8080")));

  registry_.remove_slice("default", "two-0");
  EXPECT_FALSE(registry_.snapshot()->is_endpoint(addr("10.1.0.1:8080")));
  EXPECT_EQ(registry_.snapshot()->endpoints(), 0u);
}

// Sites with overlapping private networks.
TEST_F(RegistryTest, TellsTheSameAddressOnTwoNodesApart) {
  registry_.upsert_service(service("cam", {"10.96.0.10"}));
  registry_.upsert_slice(slice("cam", {{"192.168.1.10", "site-a"}, {"192.168.1.10", "site-a"}}, 0));
  registry_.upsert_slice(slice("cam", {{"192.168.1.10", "site-b"}}, 1));
  auto both = registry_.snapshot();

  EXPECT_THAT(endpoints_at("10.96.0.10"), ElementsAre("192.168.1.10:8080", "192.168.1.10:8080"));
  for (const char* node : {"site-a", "site-b"}) {
    const Endpoint* found = both->endpoint_on(addr("192.168.1.10:8080"), node);
    ASSERT_NE(found, nullptr) << node;
    EXPECT_EQ(found->node, node);
  }
  EXPECT_EQ(both->endpoint_on(addr("192.168.1.10:8080"), "site-c"), nullptr);
  EXPECT_TRUE(both->is_endpoint(addr("192.168.1.10:8080")));

  registry_.remove_slice("default", "cam-0");
  auto one = registry_.snapshot();
  EXPECT_EQ(one->endpoint_on(addr("192.168.1.10:8080"), "site-a"), nullptr);
  EXPECT_NE(one->endpoint_on(addr("192.168.1.10:8080"), "site-b"), nullptr);
}

// Each node reaches it by itself: no other one may be asked for it.
TEST_F(RegistryTest, AnEndpointOfNoNodeIsOnNone) {
  registry_.upsert_service(service("ext", {"10.96.0.10"}));
  registry_.upsert_slice(slice("ext", {{"192.168.1.10", ""}}));
  EXPECT_EQ(registry_.snapshot()->endpoint_on(addr("192.168.1.10:8080"), "site-a"), nullptr);
  EXPECT_TRUE(registry_.snapshot()->is_endpoint(addr("192.168.1.10:8080")));
}

TEST_F(RegistryTest, LongListsKeepOneEndpointANode) {
  registry_.upsert_service(service("cam", {"10.96.0.10"}));
  std::vector<Pod> pods;
  for (int copy = 0; copy < 2; ++copy)
    for (int node = 0; node < 3; ++node)
      for (int i = 0; i < 50; ++i)
        pods.push_back({"10.1.0." + std::to_string(i), "n" + std::to_string(node)});
  registry_.upsert_slice(slice("cam", pods));

  EXPECT_EQ(endpoints_at("10.96.0.10").size(), 150u);
  auto snapshot = registry_.snapshot();
  auto list = snapshot->find(ip("10.96.0.10"), 80)->port->endpoints;
  EXPECT_EQ(std::count_if(list.begin(), list.end(), [](auto& e) { return e.same_ip; }), 100);
}

TEST_F(RegistryTest, MatchesPortsByNameAndProtocol) {
  auto s = service("multi", {"10.96.0.3"});
  s.ports.push_back(s.ports[0]);
  s.ports[1].name = "admin";
  s.ports[1].port = 81;
  s.ports.push_back(s.ports[0]);
  s.ports[2].protocol = "UDP";
  auto e = slice("multi", {{"10.1.0.1"}});
  e.ports.push_back({"admin", "TCP", "", 9000});
  registry_.upsert_service(s);
  registry_.upsert_slice(e);

  EXPECT_THAT(endpoints_at("10.96.0.3", 80), ElementsAre("10.1.0.1:8080"));
  EXPECT_THAT(endpoints_at("10.96.0.3", 81), ElementsAre("10.1.0.1:9000"));
  EXPECT_TRUE(registry_.snapshot()->find(ip("10.96.0.3"), 80, "UDP")->port->endpoints.empty());
}

TEST_F(RegistryTest, SliceMovesWithItsLabel) {
  registry_.upsert_service(service("one", {"10.96.0.1"}));
  registry_.upsert_service(service("two", {"10.96.0.2"}));
  auto e = slice("one", {{"10.1.0.1"}});
  registry_.upsert_slice(e);
  e.service_name = "two";
  registry_.upsert_slice(e);

  EXPECT_THAT(endpoints_at("10.96.0.1"), IsEmpty());
  EXPECT_THAT(endpoints_at("10.96.0.2"), ElementsAre("10.1.0.1:8080"));
}

TEST_F(RegistryTest, MovesServiceToItsNewAddress) {
  registry_.upsert_service(service("hello", {"10.96.0.10"}));
  registry_.snapshot();
  registry_.upsert_service(service("hello", {"10.96.0.20"}));

  EXPECT_THAT(endpoints_at("10.96.0.10"), ElementsAre("no target"));
  EXPECT_THAT(endpoints_at("10.96.0.20"), IsEmpty());
  EXPECT_EQ(registry_.snapshot()->services(), 1u);
}

TEST_F(RegistryTest, OldSnapshotsDoNotChange) {
  registry_.upsert_service(service("hello", {"10.96.0.10"}));
  auto before = registry_.snapshot();
  registry_.remove_service("default", "hello");
  auto after = registry_.snapshot();

  EXPECT_NE(before->by_name("default", "hello"), nullptr);
  EXPECT_EQ(after->by_name("default", "hello"), nullptr);
  EXPECT_TRUE(before->has_namespace("default"));
  EXPECT_FALSE(after->has_namespace("default"));
  EXPECT_LT(before->version(), after->version());
}

TEST_F(RegistryTest, TellsChangesOnceATurn) {
  int calls = 0;
  size_t services = 0;
  registry_.subscribe([&](std::shared_ptr<const Snapshot> s) {
    ++calls;
    services = s->services();
  });
  for (int i = 0; i < 10; ++i) registry_.upsert_service(service("s" + std::to_string(i), {}));
  ASSERT_TRUE(loop_->run_until([&] { return calls > 0; }, std::chrono::seconds(2)));

  EXPECT_EQ(calls, 1);
  EXPECT_EQ(services, 10u);
}

TEST_F(RegistryTest, HeadlessServiceWithoutPortsHasAddresses) {
  auto s = service("db", {});
  s.ports.clear();
  auto e = slice("db", {{"10.1.0.5"}, {"10.1.0.6"}});
  e.ports.clear();
  registry_.upsert_service(s);
  registry_.upsert_slice(e);

  EXPECT_EQ(registry_.snapshot()->by_name("default", "db")->portless_endpoints.size(), 2u);
  EXPECT_EQ(registry_.snapshot()->by_endpoint_ip(ip("10.1.0.6"))->service->name, "db");
}

}  // namespace
}  // namespace edgemesh::discovery
