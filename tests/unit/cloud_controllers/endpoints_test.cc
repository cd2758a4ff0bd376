#include "controllers_fixture.h"

namespace edgemesh::cloud::controllers {
namespace {

class EndpointsTest : public ControllersTest {
 protected:
  void SetUp() override {
    ControllersTest::SetUp();
    add_node("edge-1");
  }
  void serve(const json& more = json::object()) {
    json spec{{"selector", {{"app", "web"}}}, {"ports", {{{"port", 80}, {"targetPort", "http"}}}}};
    spec.merge_patch(more);
    ASSERT_TRUE(
        create(kube::kServices, "default",
               {{"metadata", {{"name", "web"}, {"namespace", "default"}}}, {"spec", spec}}));
  }
  json endpoints() { return get(kube::kEndpoints, "web"); }
  size_t count(const char* kind) {
    const json object = endpoints();
    size_t sum = 0;
    if (!object.is_object() || !object.contains("subsets")) return 0;
    for (const json& subset : object["subsets"])
      if (subset.contains(kind)) sum += subset[kind].size();
    return sum;
  }
};

TEST_F(EndpointsTest, SayWhatTheSlicesSay) {
  serve();
  ASSERT_TRUE(create(kDeployments, "default", deployment(2, "v1")));
  wait([&] { return count("addresses") == 2; });
  const json object = endpoints();
  EXPECT_EQ(object["subsets"].size(), 1U);
  EXPECT_EQ(object["subsets"][0]["ports"], json::parse(R"([{"port":8080,"protocol":"TCP"}])"));
  const json& first = object["subsets"][0]["addresses"][0];
  EXPECT_EQ(first["nodeName"], "edge-1");
  EXPECT_EQ(first["targetRef"]["kind"], "Pod");
  EXPECT_FALSE(object["metadata"].contains("labels")) << "the service has none";

  patch(kDeployments, "default", "web", kube::PatchKind::kMerge, {{"spec", {{"replicas", 1}}}});
  wait([&] { return count("addresses") == 1; });
  const std::string version = endpoints()["metadata"]["resourceVersion"];
  for (int i = 0; i < 20; ++i) turn_once();
  EXPECT_EQ(endpoints()["metadata"]["resourceVersion"], version)
      << "nothing is written for nothing";

  remove(kube::kServices, "default", "web");
  wait([&] { return endpoints().is_null(); });
}

TEST_F(EndpointsTest, PodsThatAreNotReadyAreNamedApart) {
  serve();
  json pod{{"metadata", {{"name", "slow"}, {"namespace", "default"}, {"labels", {{"app", "web"}}}}},
           {"spec",
            {{"nodeName", "edge-2"},
             {"containers",
              {{{"name", "c"},
                {"image", "v1"},
                {"ports", {{{"name", "http"}, {"containerPort", 8080}}}}}}}}}};
  ASSERT_TRUE(create(kube::kPods, "default", pod));
  patch(kube::kPods, "default", "slow", kube::PatchKind::kMerge,
        {{"status", {{"phase", "Running"}, {"podIP", "10.0.0.9"}}}}, {.subresource = "status"});
  wait([&] { return count("notReadyAddresses") == 1; });
  EXPECT_EQ(count("addresses"), 0U);

  patch(kube::kServices, "default", "web", kube::PatchKind::kMerge,
        {{"spec", {{"publishNotReadyAddresses", true}}}});
  wait([&] { return count("addresses") == 1; });
  EXPECT_EQ(count("notReadyAddresses"), 0U);
}

TEST_F(EndpointsTest, AHeadlessServiceIsMarked) {
  serve({{"clusterIP", "None"}});
  ASSERT_TRUE(create(kDeployments, "default", deployment(1, "v1")));
  wait([&] { return count("addresses") == 1; });
  EXPECT_EQ(endpoints()["metadata"]["labels"],
            json::parse(R"({"service.kubernetes.io/headless":""})"));
}

TEST_F(EndpointsTest, ThoseOfUsersAreLeftAlone) {
  serve({{"selector", nullptr}});
  const json own{
      {"metadata", {{"name", "web"}, {"namespace", "default"}}},
      {"subsets", {{{"addresses", {{{"ip", "192.0.2.7"}}}}, {"ports", {{{"port", 80}}}}}}}};
  ASSERT_TRUE(create(kube::kEndpoints, "default", own));
  for (int i = 0; i < 20; ++i) turn_once();
  EXPECT_EQ(count("addresses"), 1U);
  remove(kube::kServices, "default", "web");
  for (int i = 0; i < 20; ++i) turn_once();
  EXPECT_EQ(count("addresses"), 1U);
}

}  // namespace
}  // namespace edgemesh::cloud::controllers
