#include "proxy/udp/route.h"

#include <gtest/gtest.h>

#include "discovery/registry.h"

namespace edgemesh::proxy {
namespace {

using Places = std::vector<std::pair<std::string, std::string>>;  // address, node

class RouteTest : public testing::Test {
 protected:
  RouteTest() {
    kube::Service service;
    service.ns = "default";
    service.name = "cam";
    service.cluster_ip = "10.96.0.10";
    kube::ServicePort port;
    port.name = "rtp";
    port.protocol = "UDP";
    port.port = 5004;
    service.ports = {port};
    registry_.upsert_service(service);
  }
  void endpoints(const Places& places) {
    kube::EndpointSlice slice;
    slice.ns = "default";
    slice.name = "cam-0";
    slice.service_name = "cam";
    slice.ports = {{"rtp", "UDP", "", 5004}};
    for (const auto& [address, node] : places) {
      kube::SliceEndpoint endpoint;
      endpoint.addresses = {address};
      endpoint.node_name = node;
      slice.endpoints.push_back(endpoint);
    }
    registry_.upsert_slice(slice);
    snapshot_ = registry_.snapshot();
  }
  std::unique_ptr<io::Loop> loop_ = *io::Loop::create();
  discovery::Registry registry_{*loop_};
  std::shared_ptr<const discovery::Snapshot> snapshot_;
  ServiceDirectory directory_{"here", "", snapshot_};
  SockAddr client_ = *SockAddr::parse("10.1.0.1:999");
  SockAddr vip_ = *SockAddr::parse("10.96.0.10:5004");
};

// Sites with overlapping private networks.
TEST_F(RouteTest, StaysOnItsNodeWhenAnotherHasTheSameAddress) {
  endpoints({{"192.168.1.10", "site-b"}});
  auto route = directory_.find(client_, vip_);
  ASSERT_TRUE(route && route->choose());
  EXPECT_EQ(route->node(), "site-b");

  endpoints({{"192.168.1.10", "site-a"}, {"192.168.1.10", "site-b"}});
  ASSERT_TRUE(route->current());
  EXPECT_EQ(route->node(), "site-b");

  endpoints({{"192.168.1.10", "site-a"}});
  EXPECT_FALSE(route->current());
}

}  // namespace
}  // namespace edgemesh::proxy
