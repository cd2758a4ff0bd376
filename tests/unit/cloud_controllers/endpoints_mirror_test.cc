#include "controllers_fixture.h"

namespace edgemesh::cloud::controllers {
namespace {

class EndpointsMirrorTest : public ControllersTest {
 protected:
  void SetUp() override {
    ControllersTest::SetUp();
    ASSERT_TRUE(create(kube::kServices, "default",
                       {{"metadata", {{"name", "old"}, {"namespace", "default"}}},
                        {"spec", {{"ports", {{{"port", 5432}}}}}}}));
  }
  void endpoints(const json& subsets, const json& more = json::object()) {
    json object{{"metadata", {{"name", "old"}, {"namespace", "default"}}}, {"subsets", subsets}};
    object.merge_patch(more);
    ASSERT_TRUE(create(kube::kEndpoints, "default", object));
  }
  void change(const kube::ResourceType& type, const json& merge) {
    patch(type, "default", "old", kube::PatchKind::kMerge, merge);
  }
  size_t slices() { return list(kube::kEndpointSlices).size(); }
  const json subsets_ = json::parse(R"([{"addresses":[{"ip":"192.0.2.7"},{"ip":"192.0.2.8"}],
    "notReadyAddresses":[{"ip":"192.0.2.9"}],"ports":[{"port":15432,"name":"db"}]}])");
};

TEST_F(EndpointsMirrorTest, BecomeSlicesAndFollow) {
  endpoints(subsets_);
  wait([&] { return slices() == 1; });
  json slice = list(kube::kEndpointSlices)[0];
  EXPECT_EQ(slice["addressType"], "IPv4");
  EXPECT_EQ(slice["endpoints"].size(), 3U);
  EXPECT_EQ(slice["endpoints"][0]["addresses"][0], "192.0.2.7");
  EXPECT_EQ(slice["endpoints"][0]["conditions"]["ready"], true);
  EXPECT_EQ(slice["endpoints"][2]["conditions"]["ready"], false);
  EXPECT_EQ(slice["ports"][0]["port"], 15432);
  EXPECT_EQ(slice["ports"][0]["name"], "db");
  EXPECT_EQ(slice["metadata"]["labels"]["kubernetes.io/service-name"], "old");

  const std::string name = slice["metadata"]["name"];
  change(kube::kEndpoints, {{"subsets", json::parse(R"([{"addresses":[{"ip":"192.0.2.7"}],
    "ports":[{"port":15432,"name":"db"}]}])")}});
  wait([&] { return list(kube::kEndpointSlices)[0]["endpoints"].size() == 1; });
  EXPECT_EQ(list(kube::kEndpointSlices)[0]["metadata"]["name"], name) << "changed, not made anew";
  const std::string version = list(kube::kEndpointSlices)[0]["metadata"]["resourceVersion"];
  for (int i = 0; i < 20; ++i) turn_once();
  EXPECT_EQ(list(kube::kEndpointSlices)[0]["metadata"]["resourceVersion"], version);

  remove(kube::kEndpoints, "default", "old");
  wait([&] { return slices() == 0; });
}

TEST_F(EndpointsMirrorTest, AServiceThatSelectsPodsHasItsOwn) {
  endpoints(subsets_);
  wait([&] { return slices() == 1; });
  change(kube::kServices, {{"spec", {{"selector", {{"app", "web"}}}}}});
  wait([&] { return slices() == 0; });
}

TEST_F(EndpointsMirrorTest, NotWhereTheySayNo) {
  endpoints(subsets_,
            {{"metadata", {{"labels", {{"endpointslice.kubernetes.io/skip-mirror", "true"}}}}}});
  for (int i = 0; i < 20; ++i) turn_once();
  EXPECT_EQ(slices(), 0U);
  change(kube::kEndpoints,
         {{"metadata", {{"labels", {{"endpointslice.kubernetes.io/skip-mirror", nullptr}}}}}});
  wait([&] { return slices() == 1; });
}

}  // namespace
}  // namespace edgemesh::cloud::controllers
