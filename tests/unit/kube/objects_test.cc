#include "kube/objects.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "kube/types.h"

namespace edgemesh::kube {
namespace {

TEST(TypesTest, BuildsPaths) {
  EXPECT_EQ(kServices.path("default", "web"), "/api/v1/namespaces/default/services/web");
  EXPECT_EQ(kServices.path(), "/api/v1/services");
  EXPECT_EQ(kNodes.path("ignored", "n1", "status"), "/api/v1/nodes/n1/status");
  EXPECT_EQ(kEndpointSlices.path("a"), "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices");
}

TEST(ServiceTest, ReadsAllFields) {
  auto service = parse_service(R"({
    "metadata": {"namespace": "default", "name": "web", "uid": "u", "resourceVersion": "5",
                 "labels": {"a": "b"}, "annotations": {"edgemesh.io/lb": "random"}},
    "spec": {"clusterIP": "10.96.1.2", "type": "ClusterIP", "selector": {"app": "web"},
             "sessionAffinity": "ClientIP", "publishNotReadyAddresses": true,
             "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
             "ports": [{"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "h2c"},
                       {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns-udp"}]}})");

  ASSERT_TRUE(service) << service.error().message;
  EXPECT_EQ(service->ns, "default");
  EXPECT_EQ(service->annotations.at("edgemesh.io/lb"), "random");
  EXPECT_EQ(service->cluster_ips, std::vector<std::string>{"10.96.1.2"});
  EXPECT_EQ(service->affinity_timeout_s, 60);
  EXPECT_TRUE(service->publish_not_ready);
  ASSERT_EQ(service->ports.size(), 2U);
  EXPECT_EQ(service->ports[0].target_port, 8080);
  EXPECT_EQ(service->ports[0].app_protocol, "h2c");
  EXPECT_EQ(service->ports[1].target_port_name, "dns-udp");
  EXPECT_EQ(service->ports[1].protocol, "UDP");
}

TEST(ServiceTest, HeadlessHasNoAddresses) {
  auto service = parse_service(
      R"({"metadata":{"name":"a"},"spec":{"clusterIP":"None","clusterIPs":["None"]}})");

  ASSERT_TRUE(service);
  EXPECT_TRUE(service->headless());
  EXPECT_TRUE(service->cluster_ips.empty());
}

TEST(ServiceTest, NamesTheFieldThatIsWrong) {
  auto port = parse_service(R"({"metadata":{"name":"a"},"spec":{"ports":[{"port":99999}]}})");
  ASSERT_FALSE(port);
  EXPECT_NE(port.error().message.find("spec.ports[0].port: want 1 to 65535"), std::string::npos)
      << port.error().message;

  auto list = parse_service(R"({"metadata":{"name":"a"},"spec":{"ports":{}}})");
  ASSERT_FALSE(list);
  EXPECT_NE(list.error().message.find("spec.ports"), std::string::npos);

  EXPECT_FALSE(parse_service("{}"));
  EXPECT_FALSE(parse_service("[]"));
  EXPECT_FALSE(parse_service("nonsense"));
}

TEST(EndpointSliceTest, UnsetConditionsMeanReady) {
  auto slice = parse_endpoint_slice(R"({
    "metadata": {"namespace": "d", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
    "addressType": "IPv4",
    "endpoints": [
      {"addresses": ["10.0.0.1"], "nodeName": "n1", "zone": "z", "targetRef": {"name": "p"}},
      {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true,
       "terminating": true}},
      {"addresses": ["10.0.0.3"], "conditions": {"ready": null}}],
    "ports": [{"name": "", "port": 80}]})");

  ASSERT_TRUE(slice) << slice.error().message;
  EXPECT_EQ(slice->service_name, "web");
  ASSERT_EQ(slice->endpoints.size(), 3U);
  EXPECT_TRUE(slice->endpoints[0].ready);
  EXPECT_EQ(slice->endpoints[0].target_name, "p");
  EXPECT_FALSE(slice->endpoints[1].ready);
  EXPECT_TRUE(slice->endpoints[1].serving);
  EXPECT_TRUE(slice->endpoints[1].terminating);
  EXPECT_TRUE(slice->endpoints[2].ready);
  EXPECT_EQ(slice->ports[0].protocol, "TCP");
}

TEST(NodeTest, ReadsAddressesAndReadiness) {
  auto node = parse_node(R"({"metadata":{"name":"n"},"spec":{"unschedulable":true},
    "status":{"addresses":[{"type":"InternalIP","address":"10.0.0.9"}],
    "conditions":[{"type":"Ready","status":"True"}]}})");

  ASSERT_TRUE(node);
  EXPECT_TRUE(node->ready);
  EXPECT_TRUE(node->unschedulable);
  EXPECT_EQ(node->addresses[0].address, "10.0.0.9");
}

TEST(JsonTest, RefusesDeepNestingAndSaysWhereItBreaks) {
  EXPECT_FALSE(parse_json(std::string(100, '[')));
  EXPECT_TRUE(parse_json(R"({"a":"[[[[[[{{{{\"["})"));
  auto broken = parse_json(R"({"a": x})");
  ASSERT_FALSE(broken);
  EXPECT_NE(broken.error().message.find("at byte"), std::string::npos);
}

}  // namespace
}  // namespace edgemesh::kube
