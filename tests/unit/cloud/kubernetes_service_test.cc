#include "cloud/api/kubernetes_service.h"

#include "tests/unit/cloud/api_fixture.h"

namespace edgemesh::cloud {
namespace {

class KubernetesServiceTest : public ApiFixture {
 protected:
  void start(const std::string& endpoint = "203.0.113.10:6443") {
    service_ = std::make_unique<KubernetesService>(
        *core_, KubernetesService::Options{kubernetes_service_ip(*Cidr::parse("10.96.0.0/16")),
                                           SockAddr::parse(endpoint).value()});
    service_->start();
  }
  void TearDown() override {
    service_.reset();
    ApiFixture::TearDown();
  }
  json get(const kube::ResourceType& type) {
    ObjectPtr object = store_->get(info(type), "default", "kubernetes");
    return object == nullptr ? json() : json::parse(object->text);
  }
  std::string address() {
    const json slice = get(kube::kEndpointSlices);
    return slice.is_object() ? slice["endpoints"][0]["addresses"][0].get<std::string>() : "";
  }
  bool complete() {
    return get(kube::kServices).is_object() && get(kube::kEndpoints).is_object() &&
           !address().empty();
  }
  std::unique_ptr<KubernetesService> service_;
};

TEST_F(KubernetesServiceTest, LeadsToTheApi) {
  start();
  settle([&] { return complete(); });

  const json service = get(kube::kServices);
  EXPECT_EQ(service["spec"]["clusterIP"], "10.96.0.1");
  EXPECT_EQ(service["spec"]["type"], "ClusterIP");
  EXPECT_EQ(service["spec"]["ports"], json::parse(R"([{"name": "https", "port": 443,
            "protocol": "TCP", "targetPort": 6443}])"));
  const json slice = get(kube::kEndpointSlices);
  EXPECT_EQ(slice["addressType"], "IPv4");
  EXPECT_EQ(slice["metadata"]["labels"]["kubernetes.io/service-name"], "kubernetes");
  EXPECT_EQ(slice["endpoints"].size(), 1U);
  EXPECT_EQ(slice["endpoints"][0]["addresses"], json({"203.0.113.10"}));
  EXPECT_EQ(slice["ports"][0]["port"], 6443);
  EXPECT_EQ(get(kube::kEndpoints)["subsets"][0]["addresses"][0]["ip"], "203.0.113.10");
}

TEST_F(KubernetesServiceTest, ComesBackAndFollowsTheAddress) {
  start();
  settle([&] { return complete(); });
  ASSERT_TRUE(remove(kube::kServices, "default", "kubernetes"));
  ASSERT_TRUE(remove(kube::kEndpointSlices, "default", "kubernetes"));
  settle([&] { return complete(); });
  ASSERT_TRUE(patch(kube::kEndpointSlices, "default", "kubernetes", kube::PatchKind::kMerge,
                    {{"endpoints", {{{"addresses", {"192.0.2.9"}}}}}}));
  settle([&] { return address() == "203.0.113.10"; });

  service_.reset();
  start("198.51.100.4:6443");

  settle([&] { return address() == "198.51.100.4"; });
}

TEST_F(KubernetesServiceTest, WritesOnlyWhatDiffers) {
  start();
  settle([&] { return complete(); });
  ASSERT_TRUE(create(kube::kConfigMaps, "default", config_map("a")));
  const uint64_t version = store_->version();
  service_.reset();
  start();
  int turns = 0;
  settle([&] { return ++turns > 20; });
  EXPECT_EQ(store_->version(), version);
}

}  // namespace
}  // namespace edgemesh::cloud
