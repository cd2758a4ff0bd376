#include "cloud/edge/edge_controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/fake_kube.h"
#include "tests/unit/cloud/fake_link.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

Json object(const std::string& name, const std::string& uid) {
  return {{"metadata", {{"namespace", "default"}, {"name", name}, {"uid", uid}}}};
}

Json config(const std::string& name, const std::string& uid, const std::string& value) {
  Json out = object(name, uid);
  out["data"] = {{"key", value}};
  return out;
}

Json pod(const std::string& name, const std::string& node, const std::string& config = "") {
  Json out = object(name, "pod-" + name);
  out["spec"] = {{"nodeName", node}, {"containers", Json::array()}};
  if (!config.empty()) {
    out["spec"]["volumes"] = Json::array({{{"name", "v"}, {"configMap", {{"name", config}}}}});
  }
  return out;
}

class EdgeControllerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*io::Loop::create(clock_));
    kube_ = std::make_unique<test::FakeKube>(*loop_);
    make();
  }
  void make(EdgeController::Options options = {}) {
    edge_.reset();
    edge_ = std::make_unique<EdgeController>(*loop_, *kube_, link_, options, registry_);
    edge_->start();
    settle();
  }
  void settle() {
    for (int i = 0; i < 40; ++i) loop_->run_once();
  }
  void pass(Duration time) {
    clock_.advance(time);
    settle();
  }
  void connect(const std::string& node = "edge-1") {
    link_.nodes.insert(node);
    edge_->on_connected(node);
    settle();
  }
  void disconnect(const std::string& node = "edge-1") {
    link_.nodes.erase(node);
    edge_->on_disconnected(node);
  }
  std::vector<channel::Message> take(const std::string& node = "edge-1") {
    settle();
    return std::exchange(link_.sent[node], {});
  }
  void confirm(const std::vector<channel::Message>& messages, const std::string& node = "edge-1") {
    for (const auto& message : messages) {
      EXPECT_TRUE(edge_->on_answer(node, message.id, false)) << message.resource;
    }
    settle();
  }
  // What the node was told of which pods it has.
  std::vector<std::string> lists() {
    std::vector<std::string> out;
    for (const auto& message : link_.sent["edge-1"])
      if (message.resource == "null/podlist/edge-1") out.push_back(message.content);
    return out;
  }
  // "insert default/pod/web" of each, sorted.
  static std::vector<std::string> words(const std::vector<channel::Message>& messages) {
    std::vector<std::string> out;
    for (const auto& message : messages) out.push_back(message.operation + " " + message.resource);
    std::sort(out.begin(), out.end());
    return out;
  }
  using Words = std::vector<std::string>;

  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_;
  obs::Registry registry_;
  std::unique_ptr<test::FakeKube> kube_;
  test::FakeLink link_;
  std::unique_ptr<EdgeController> edge_;
};

TEST_F(EdgeControllerTest, ANodeGetsItsPodsAndWhatTheyName) {
  kube_->put(kube::kConfigMaps, config("settings", "c1", "1"));
  kube_->put(kube::kConfigMaps, config("of-others", "c2", "1"));
  kube_->put(kube::kPods, pod("web", "edge-1", "settings"));
  kube_->put(kube::kPods, pod("other", "edge-2", "of-others"));
  settle();
  connect();
  const auto sent = take();
  ASSERT_EQ(words(sent), (Words{"insert default/configmap/settings", "insert default/pod/web"}));
  EXPECT_EQ(sent[0].resource, "default/configmap/settings") << "what a pod needs comes first";
  EXPECT_EQ(sent[1].source, "edgecontroller");
  EXPECT_EQ(sent[1].group, "resource");
  EXPECT_FALSE(sent[1].resource_version.empty());
  EXPECT_EQ(Json::parse(sent[1].content)["metadata"]["uid"], "pod-web");
  EXPECT_EQ(Json::parse(sent[1].content)["kind"], "Pod");
}

TEST_F(EdgeControllerTest, WhatWasConfirmedIsNotSentAgainAfterAReconnectOrARestart) {
  kube_->put(kube::kPods, pod("web", "edge-1"));
  settle();
  connect();
  confirm(take());
  EXPECT_EQ(edge_->sender().unconfirmed(), 0U);
  const Json* sync = kube_->find(kObjectSyncs, "default", "edge-1.pod-web");
  ASSERT_NE(sync, nullptr);
  EXPECT_EQ((*sync)["spec"]["objectKind"], "Pod");
  EXPECT_EQ((*sync)["spec"]["objectName"], "web");
  EXPECT_EQ((*sync)["status"]["objectResourceVersion"],
            (*kube_->find(kube::kPods, "default", "web"))["metadata"]["resourceVersion"]);
  disconnect();
  connect();
  EXPECT_TRUE(take().empty());
  disconnect();
  make();  // the cloud is started again: the book comes from the API
  connect();
  EXPECT_TRUE(take().empty());
}

TEST_F(EdgeControllerTest, WhatIsNotConfirmedIsSentAgainAndHoldsUpNothing) {
  kube_->put(kube::kPods, pod("a", "edge-1"));
  kube_->put(kube::kPods, pod("b", "edge-1"));
  settle();
  connect();
  auto sent = take();
  ASSERT_EQ(sent.size(), 2U);
  const auto lost = sent[0].resource == "default/pod/a" ? sent[0] : sent[1];
  const auto heard = sent[0].resource == "default/pod/a" ? sent[1] : sent[0];
  confirm({heard});
  pass(seconds(4));
  EXPECT_TRUE(take().empty());
  pass(seconds(2));
  sent = take();
  EXPECT_EQ(words(sent), (Words{"insert default/pod/a"}))
      << "book says 0, so the node may not have it";
  // The answer to the first sending counts, too.
  confirm({lost});
  EXPECT_EQ(edge_->sender().unconfirmed(), 0U);
  pass(seconds(60));
  EXPECT_TRUE(take().empty());
}

TEST_F(EdgeControllerTest, StatusIsNotSentDownAndManyChangesAreSentOnce) {
  kube_->put(kube::kPods, pod("web", "edge-1"));
  settle();
  connect();
  confirm(take());
  Json changed = pod("web", "edge-1");
  changed["status"] = {{"phase", "Running"}};
  kube_->put(kube::kPods, changed);
  EXPECT_TRUE(take().empty());
  for (int i = 0; i < 10; ++i) {
    changed["metadata"]["labels"] = {{"round", std::to_string(i)}};
    kube_->put(kube::kPods, changed);
  }
  const auto first = take();
  ASSERT_EQ(words(first), (Words{"update default/pod/web"}));
  changed["metadata"]["labels"] = {{"round", "last"}};
  kube_->put(kube::kPods, changed);
  EXPECT_TRUE(take().empty()) << "one message an object is in flight";
  confirm(first);
  const auto second = take();
  ASSERT_EQ(words(second), (Words{"update default/pod/web"}));
  EXPECT_EQ(Json::parse(second[0].content)["metadata"]["labels"]["round"], "last");
  confirm(second);
  EXPECT_EQ(edge_->sender().unconfirmed(), 0U);
}

TEST_F(EdgeControllerTest, WhatVanishedWhileTheNodeWasAwayIsDeletedThere) {
  kube_->put(kube::kConfigMaps, config("settings", "c1", "1"));
  kube_->put(kube::kPods, pod("web", "edge-1", "settings"));
  settle();
  connect();
  confirm(take());
  disconnect();
  kube_->erase(kube::kPods, "default", "web");
  settle();
  connect();
  const auto sent = take();
  ASSERT_EQ(words(sent), (Words{"delete default/configmap/settings", "delete default/pod/web"}));
  EXPECT_EQ(Json::parse(sent[0].content)["metadata"].value("namespace", ""), "default");
  confirm(sent);
  EXPECT_EQ(kube_->find(kObjectSyncs, "default", "edge-1.pod-web"), nullptr);
  EXPECT_EQ(edge_->book().find("edge-1", "pod-web"), nullptr);
}

TEST_F(EdgeControllerTest, ConfigsFollowThePodsThatNameThem) {
  kube_->put(kube::kPods, pod("web", "edge-1", "settings"));
  settle();
  connect();
  confirm(take());
  kube_->put(kube::kConfigMaps, config("settings", "c1", "1"));
  auto sent = take();
  ASSERT_EQ(words(sent), (Words{"insert default/configmap/settings"}));
  confirm(sent);
  kube_->put(kube::kConfigMaps, config("settings", "c1", "2"));
  sent = take();
  ASSERT_EQ(words(sent), (Words{"update default/configmap/settings"}));
  confirm(sent);
  // Deleted and made anew while nothing was confirmed: the new one is another object.
  kube_->erase(kube::kConfigMaps, "default", "settings");
  kube_->put(kube::kConfigMaps, config("settings", "c9", "3"));
  sent = take();
  ASSERT_EQ(words(sent),
            (Words{"delete default/configmap/settings", "insert default/configmap/settings"}));
  EXPECT_EQ(sent[0].operation, "delete") << "in this order";
  confirm(sent);
  // Another node's pod names it: only that node gets it.
  connect("edge-2");
  kube_->put(kube::kPods, pod("other", "edge-2", "settings"));
  EXPECT_TRUE(take().empty());
  EXPECT_EQ(words(take("edge-2")),
            (Words{"insert default/configmap/settings", "insert default/pod/other"}));
}

TEST_F(EdgeControllerTest, ASecretsFirstMessageIsAnUpdate) {
  kube_->put(kube::kSecrets, object("key", "s1"));
  Json with_secret = pod("web", "edge-1");
  with_secret["spec"]["imagePullSecrets"] = Json::array({{{"name", "key"}}});
  kube_->put(kube::kPods, with_secret);
  settle();
  connect();
  EXPECT_EQ(words(take()), (Words{"insert default/pod/web", "update default/secret/key"}));
}

TEST_F(EdgeControllerTest, AnInventoryReplacesTheBook) {
  kube_->put(kube::kPods, pod("web", "edge-1"));
  kube_->put(kube::kPods, pod("db", "edge-1"));
  settle();
  connect();
  confirm(take());
  disconnect();
  connect();
  ASSERT_TRUE(take().empty());
  const std::string version =
      (*kube_->find(kube::kPods, "default", "db"))["metadata"]["resourceVersion"];
  // Its disk was replaced: it has db, it lacks web, and has one that was deleted long ago.
  ASSERT_TRUE(edge_->on_inventory(
      "edge-1",
      {{"objects",
        {{{"resource", "default/pod/db"}, {"uid", "pod-db"}, {"resourceVersion", version}},
         {{"resource", "default/pod/old"}, {"uid", "pod-old"}, {"resourceVersion", "3"}},
         {{"resource", "junk"}, {"uid", "x"}}}}}));
  EXPECT_EQ(words(take()), (Words{"delete default/pod/old", "insert default/pod/web",
                                  "update null/podlist/edge-1"}));
  EXPECT_FALSE(edge_->on_inventory("edge-1", Json::object()));
}

// The node ends what it runs beside these: they are told when they are known, to who asked.
TEST_F(EdgeControllerTest, ThePodsOfANodeAreToldOnceTheyAreKnown) {
  kube_->put(kube::kPods, pod("web", "edge-1"));
  kube_->put(kube::kPods, pod("other", "edge-2"));
  edge_.reset();
  edge_ =
      std::make_unique<EdgeController>(*loop_, *kube_, link_, EdgeController::Options(), registry_);
  link_.nodes.insert("edge-1");
  edge_->on_connected("edge-1");
  ASSERT_TRUE(edge_->on_inventory("edge-1", {{"objects", Json::array()}}));
  EXPECT_THAT(lists(), IsEmpty()) << "nothing is known yet";
  edge_->start();
  settle();
  EXPECT_THAT(lists(), ElementsAre(R"({"uids":["pod-web"]})"));
}

// Each may cost many writes to the API.
TEST_F(EdgeControllerTest, AnInventoryIsTakenOncePerConnection) {
  const Json nothing{{"objects", Json::array()}};
  connect();
  EXPECT_TRUE(edge_->on_inventory("edge-1", nothing));
  EXPECT_EQ(edge_->on_inventory("edge-1", nothing).error().code, ErrorCode::kResourceExhausted);
  disconnect();
  EXPECT_TRUE(edge_->on_inventory("edge-1", nothing));  // too late: nothing comes of it
  connect();
  EXPECT_TRUE(edge_->on_inventory("edge-1", nothing));
}

TEST_F(EdgeControllerTest, WhatTheApiWillNeverTakeIsNotTriedForEver) {
  kube_->put(kube::kPods, pod("web", "edge-1"));
  settle();
  connect();
  kube_->fail_with = Error{ErrorCode::kInvalidArgument, "the name is too long"};
  confirm(take());
  EXPECT_EQ(edge_->book().unwritten(), 0U);
  const int writes = kube_->writes;
  pass(seconds(120));
  EXPECT_EQ(kube_->writes, writes);
}

TEST_F(EdgeControllerTest, TheWindowBoundsWhatIsInFlight) {
  EdgeController::Options options;
  options.sender.max_in_flight = 3;
  make(options);
  for (int i = 0; i < 10; ++i) kube_->put(kube::kPods, pod("p" + std::to_string(i), "edge-1"));
  settle();
  connect();
  size_t total = 0;
  for (int round = 0; round < 10; ++round) {
    const auto sent = take();
    EXPECT_LE(sent.size(), 3U);
    total += sent.size();
    confirm(sent);
  }
  EXPECT_EQ(total, 10U);
  EXPECT_EQ(edge_->sender().unconfirmed(), 0U);
}

TEST_F(EdgeControllerTest, AnErrorIsTriedAgainLater) {
  kube_->put(kube::kPods, pod("web", "edge-1"));
  settle();
  connect();
  const auto sent = take();
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_TRUE(edge_->on_answer("edge-1", sent[0].id, true));
  EXPECT_FALSE(edge_->on_answer("edge-1", "unknown", true));
  EXPECT_TRUE(take().empty());
  pass(seconds(11));
  EXPECT_EQ(take().size(), 1U);
}

TEST_F(EdgeControllerTest, ABurstReachesANodeThatDropsHalf) {
  for (int i = 0; i < 1000; ++i) {
    const std::string n = std::to_string(i);
    kube_->put(kube::kPods, pod("p" + n, "edge-1"));
  }
  settle();
  connect();
  std::set<std::string> held;
  int turn = 0;
  for (int round = 0; round < 2000 && held.size() < 1000; ++round) {
    for (const auto& message : take()) {
      if (++turn % 2 == 0) continue;  // lost on the way
      held.insert(message.resource);
      edge_->on_answer("edge-1", message.id, false);
    }
    pass(seconds(1));
  }
  EXPECT_EQ(held.size(), 1000U);
}

TEST_F(EdgeControllerTest, WithoutTheResourcesInTheApiTheBookIsInMemory) {
  edge_.reset();
  kube_->missing_types = {kObjectSyncs.plural, kClusterObjectSyncs.plural};
  make();
  ASSERT_TRUE(edge_->ready());
  kube_->put(kube::kPods, pod("web", "edge-1"));
  settle();
  connect();
  confirm(take());
  disconnect();
  connect();
  EXPECT_TRUE(take().empty());
}

TEST_F(EdgeControllerTest, ANodesOwnObjectComesWithLabelsAndTaints) {
  Json node{{"metadata", {{"name", "edge-1"}, {"uid", "n1"}, {"labels", {{"zone", "a"}}}}}};
  kube_->put(kube::kNodes, node);
  settle();
  connect();
  auto sent = take();
  ASSERT_EQ(words(sent), (Words{"insert null/node/edge-1"}));
  confirm(sent);
  EXPECT_NE(kube_->find(kClusterObjectSyncs, "", "edge-1.n1"), nullptr);
  node["status"] = {{"phase", "x"}};
  kube_->put(kube::kNodes, node);
  EXPECT_TRUE(take().empty());
  node["spec"]["unschedulable"] = true;
  kube_->put(kube::kNodes, node);
  EXPECT_EQ(words(take()), (Words{"update null/node/edge-1"}));
}

}  // namespace
}  // namespace edgemesh::cloud
