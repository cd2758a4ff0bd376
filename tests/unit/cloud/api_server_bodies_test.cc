// What comes and goes over HTTP in other forms than the stored one.
#include "tests/unit/cloud/api_server_fixture.h"

namespace edgemesh::cloud {
namespace {

TEST_F(ApiServerTest, EventsAreTheSameInBothGroups) {
  json event = json::parse(
      R"({"metadata":{"name":"e"},"regarding":{"kind":"Pod","name":"p","namespace":"default"},
    "note":"it runs","reason":"Started","type":"Normal","reportingController":"agent","eventTime":"2026-01-01T00:00:00.000000Z"})");
  const std::string named = "/apis/events.k8s.io/v1/namespaces/default/events";
  auto made = send("POST", named, event.dump());
  ASSERT_EQ(made.status, 201) << made.body;
  EXPECT_EQ(json::parse(made.body)["note"], "it runs");
  json core = get("/api/v1/namespaces/default/events/e");
  EXPECT_EQ(core["message"], "it runs");
  EXPECT_EQ(core["involvedObject"]["name"], "p");
  EXPECT_EQ(core["apiVersion"], "v1");
  auto patched =
      send("PATCH", named + "/e", R"({"apiVersion":"events.k8s.io/v1","note":"it walks"})",
           "application/merge-patch+json");
  EXPECT_EQ(patched.status, 200) << patched.body;
  json list = get(named);
  EXPECT_EQ(list["apiVersion"], "events.k8s.io/v1");
  EXPECT_EQ(list["items"][0]["note"], "it walks");
  EXPECT_EQ(list["items"][0]["apiVersion"], "events.k8s.io/v1");
  watch(named + "?watch=1&timeoutSeconds=1");
  settle([&] { return !frames_.empty(); });
  EXPECT_EQ(frames_[0]["object"]["regarding"]["name"], "p");
}

TEST_F(ApiServerTest, BodiesInProtobufAndScales) {
  using namespace std::string_literals;
  // ConfigMap{metadata=1{name=1 "pb"}, data=2{"a":"b"}}
  std::string body =
      "k8s\0\x0a\x0f\x0a\x02v1\x12\x09"
      "ConfigMap\x12\x0e\x0a\x04\x0a\x02pb\x12\x06\x0a\x01"
      "a\x12\x01"
      "b"s;
  const char* protobuf = "application/vnd.kubernetes.protobuf";
  auto made = send("POST", "/api/v1/namespaces/default/configmaps", body, protobuf);
  ASSERT_EQ(made.status, 201) << made.body;
  EXPECT_EQ(json::parse(made.body)["data"], json::parse(R"({"a":"b"})"));
  EXPECT_EQ(
      send("POST", "/api/v1/namespaces/default/configmaps", "k8s\0\x0a\xff"s, protobuf).status,
      400);
  json deployment = json::parse(
      R"({"metadata":{"name":"d"},"spec":{"replicas":2,"selector":{"matchLabels":{"a":"b"}},
    "template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}})");
  const std::string deployments = "/apis/apps/v1/namespaces/default/deployments";
  ASSERT_EQ(send("POST", deployments, deployment.dump()).status, 201);
  json scale = get(deployments + "/d/scale");
  EXPECT_EQ(scale["kind"], "Scale");
  EXPECT_EQ(scale["spec"]["replicas"], 2);
  EXPECT_EQ(
      send("PATCH", deployments + "/d/scale",
           R"([{"op":"replace","path":"/spec/replicas","value":4}])", "application/json-patch+json")
          .status,
      200);
  EXPECT_EQ(get(deployments + "/d")["spec"]["replicas"], 4);
}

}  // namespace
}  // namespace edgemesh::cloud
