#include "cloud/mesh_controller.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/fake_kube.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/cloud/fake_link.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;
using std::chrono::hours;
using std::chrono::seconds;

Json service(const std::string& name, int port = 80) {
  return {{"metadata",
           {{"namespace", "default"},
            {"name", name},
            {"managedFields", Json::array({{{"manager", "kubectl"}}})},
            {"annotations", {{"kubectl.kubernetes.io/last-applied-configuration", "{}"}}}}},
          {"spec", {{"clusterIP", "10.96.0.1"}, {"ports", {{{"port", port}}}}}}};
}

class MeshControllerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*io::Loop::create(clock_));
    kube_ = std::make_unique<test::FakeKube>(*loop_);
    link_.nodes = {"edge-1"};
    MeshOptions options;
    options.turn = {.host = "203.0.113.10", .port = 3478, .secret = "s", .lifetime = hours(24)};
    mesh_ = std::make_unique<MeshController>(*loop_, *kube_, link_, options, registry_);
  }
  void settle() {
    for (int i = 0; i < 20; ++i) loop_->run_once();
  }
  void request_sync(const std::string& epoch = "", const std::string& version = "") {
    channel::Message message;
    message.id = "request-1";
    message.group = "mesh";
    message.operation = "get";
    message.resource = "sync";
    message.content = Json{{"epoch", epoch}, {"resourceVersion", version}}.dump();
    mesh_->on_sync_request("edge-1", message);
  }
  std::vector<channel::Message> drain() {
    std::vector<channel::Message> out;
    while (const Frame frame = mesh_->next_frame("edge-1")) {
      out.push_back(*channel::decode(*frame, 1 << 20));
    }
    return out;
  }
  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_;
  obs::Registry registry_;
  std::unique_ptr<test::FakeKube> kube_;
  test::FakeLink link_;
  std::unique_ptr<MeshController> mesh_;
};

TEST_F(MeshControllerTest, NodesHearOnlyWhatIsNewInTheListOfRevokedOnes) {
  mesh_->set_revoked({{"a", 10}, {"b", 20}, {"d", 40}});
  mesh_->on_connected("edge-1");
  ASSERT_EQ(link_.sent["edge-1"].size(), 1U);
  EXPECT_EQ(Json::parse(link_.sent["edge-1"][0].content)["revoked"].size(), 3U);
  link_.sent.clear();

  mesh_->set_revoked({{"a", 10}, {"b", 25}, {"c", 30}});
  ASSERT_EQ(link_.sent["edge-1"].size(), 1U);
  const channel::Message& told = link_.sent["edge-1"][0];
  EXPECT_EQ(told.operation + " " + told.resource + " " + told.group, "update revoked mesh");
  EXPECT_EQ(Json::parse(told.content),
            Json::parse(R"({"changed":[{"node":"b","before":25},{"node":"c","before":30}],)"
                        R"("removed":["d"]})"));
  link_.sent.clear();
  mesh_->set_revoked({{"a", 10}, {"b", 25}, {"c", 30}});
  EXPECT_TRUE(link_.sent.empty());
}

TEST_F(MeshControllerTest, SaysNothingBeforeTheListsAreComplete) {
  kube_->put(kube::kServices, service("web"));
  mesh_->on_connected("edge-1");
  request_sync();
  EXPECT_TRUE(drain().empty());

  mesh_->start();
  settle();

  EXPECT_TRUE(mesh_->ready());
  EXPECT_EQ(drain().size(), 3U);
}

TEST_F(MeshControllerTest, SendsAFullSyncThenChanges) {
  kube_->put(kube::kServices, service("web"));
  mesh_->start();
  settle();
  mesh_->on_connected("edge-1");
  request_sync("other", "17");

  const auto sync = drain();
  ASSERT_EQ(sync.size(), 3U);
  EXPECT_EQ(sync[0].resource, "sync/begin");
  EXPECT_EQ(sync[0].parent_id, "request-1");
  EXPECT_EQ(Json::parse(sync[0].content)["full"], true);
  EXPECT_EQ(sync[1].operation, "insert");
  EXPECT_EQ(sync[1].source, "meshcontroller");
  EXPECT_EQ(sync[1].group, "mesh");
  EXPECT_EQ(sync[1].resource, "default/service/web");
  const Json object = Json::parse(sync[1].content);
  EXPECT_EQ(object["kind"], "Service");
  EXPECT_EQ(object["apiVersion"], "v1");
  EXPECT_FALSE(object["metadata"].contains("managedFields"));
  EXPECT_FALSE(object["metadata"].contains("annotations"));
  EXPECT_EQ(sync[2].resource, "sync/end");
  const Json end = Json::parse(sync[2].content);
  EXPECT_EQ(end["resourceVersion"], sync[1].resource_version);

  kube_->put(kube::kServices, service("web", 81));
  kube_->put(kube::kEndpointSlices, {{"metadata", {{"namespace", "default"}, {"name", "web-1"}}},
                                     {"endpoints", Json::array()}});
  settle();
  kube_->erase(kube::kServices, "default", "web");
  settle();
  const auto changes = drain();
  ASSERT_EQ(changes.size(), 2U);
  EXPECT_EQ(changes[0].resource, "default/endpointslice/web-1");
  EXPECT_EQ(changes[1].operation, "delete");
  EXPECT_EQ(changes[1].resource, "default/service/web");
  EXPECT_EQ(Json::parse(changes[1].content)["metadata"]["name"], "web");

  // Comes back where it was: nothing is sent again.
  mesh_->on_disconnected("edge-1");
  mesh_->on_connected("edge-1");
  request_sync(end["epoch"], changes[1].resource_version);
  const auto again = drain();
  ASSERT_EQ(again.size(), 2U);
  EXPECT_EQ(Json::parse(again[0].content)["full"], false);
  EXPECT_EQ(again[1].resource, "sync/end");

  // Comes back from before the last two changes.
  mesh_->on_disconnected("edge-1");
  mesh_->on_connected("edge-1");
  request_sync(end["epoch"], end["resourceVersion"]);
  EXPECT_EQ(drain().size(), 4U);
}

TEST_F(MeshControllerTest, ANodeNeedsOnlyWhatChangedWhileTheCloudWasDown) {
  test::TempDir dir;
  MeshOptions options;
  options.log_path = dir.path() + "/mesh-log";
  mesh_ = std::make_unique<MeshController>(*loop_, *kube_, link_, options, registry_);
  kube_->put(kube::kServices, service("a"));
  kube_->put(kube::kServices, service("b"));
  mesh_->start();
  settle();
  mesh_->on_connected("edge-1");
  request_sync();
  const Json end = Json::parse(drain().back().content);

  mesh_.reset();
  kube_->erase(kube::kServices, "default", "a");
  kube_->put(kube::kServices, service("c"));
  mesh_ = std::make_unique<MeshController>(*loop_, *kube_, link_, options, registry_);
  mesh_->start();
  settle();
  mesh_->on_connected("edge-1");
  request_sync(end["epoch"], end["resourceVersion"]);

  const auto delta = drain();
  ASSERT_EQ(delta.size(), 4U);
  EXPECT_EQ(Json::parse(delta[0].content)["full"], false);
  EXPECT_EQ(delta[1].resource, "default/service/c");
  EXPECT_EQ(delta[2].resource, "default/service/a");
  EXPECT_EQ(delta[2].operation, "delete");
}

TEST_F(MeshControllerTest, ThousandsOfNodesShareOneEncoding) {
  kube_->put(kube::kServices, service("web"));
  mesh_->start();
  settle();
  mesh_->on_connected("edge-1");
  mesh_->on_connected("edge-2");
  channel::Message request;
  request.content = "{}";
  mesh_->on_sync_request("edge-1", request);
  mesh_->on_sync_request("edge-2", request);
  mesh_->next_frame("edge-1");
  mesh_->next_frame("edge-2");

  EXPECT_EQ(mesh_->next_frame("edge-1").get(), mesh_->next_frame("edge-2").get());
}

TEST_F(MeshControllerTest, SendsCredentialsAtOnceAndBeforeTheyRunOut) {
  mesh_->start();
  mesh_->on_connected("edge-1");

  ASSERT_EQ(link_.sent["edge-1"].size(), 1U);
  const channel::Message& first = link_.sent["edge-1"][0];
  EXPECT_EQ(first.resource, "config");
  EXPECT_EQ(first.operation, "update");
  const Json config = Json::parse(first.content);
  EXPECT_EQ(config["trustDomain"], "edgemesh.local");
  EXPECT_EQ(config["clusterDomain"], "cluster.local");
  EXPECT_EQ(config["serviceCidrs"], Json::array({"10.96.0.0/12"}));
  EXPECT_EQ(config["turn"]["host"], "203.0.113.10");
  const int64_t expires = config["turn"]["expires"];
  EXPECT_EQ(config["turn"]["username"], std::to_string(expires) + ":edge-1");

  clock_.advance(hours(11));
  settle();
  EXPECT_EQ(link_.sent["edge-1"].size(), 1U);
  clock_.advance(hours(1) + seconds(31));
  settle();
  ASSERT_EQ(link_.sent["edge-1"].size(), 2U);
  EXPECT_GT(Json::parse(link_.sent["edge-1"][1].content)["turn"]["expires"], expires);
}

TEST_F(MeshControllerTest, IgnoresRequestsThatAreNotReadable) {
  mesh_->start();
  settle();
  mesh_->on_connected("edge-1");
  for (const char* content : {"", "null", "[]", R"({"epoch":1,"resourceVersion":{}})", "{"}) {
    channel::Message request;
    request.content = content;
    mesh_->on_sync_request("edge-1", request);
    EXPECT_EQ(drain().size(), 2U) << content;
  }
}

}  // namespace
}  // namespace edgemesh::cloud
