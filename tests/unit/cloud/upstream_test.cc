#include "cloud/upstream.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "cloud/dispatcher.h"
#include "tests/support/fake_kube.h"
#include "tests/unit/cloud/fake_link.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

class UpstreamTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*io::Loop::create(clock_));
    kube_ = std::make_unique<test::FakeKube>(*loop_);
    link_.nodes = {"edge-1"};
    mesh_ = std::make_unique<MeshController>(*loop_, *kube_, link_, MeshOptions{}, registry_);
    nodes_ = std::make_unique<NodeController>(*loop_, *kube_, NodeOptions{});
    rendezvous_ = std::make_unique<Rendezvous>(*loop_, link_, RendezvousOptions{}, registry_);
    upstream_ = std::make_unique<Upstream>(*kube_, link_);
    dispatcher_ = std::make_unique<Dispatcher>(
        Dispatcher::Parts{link_, *mesh_, *nodes_, *rendezvous_, *upstream_, "CA PEM"}, registry_);
  }
  void settle() {
    for (int i = 0; i < 20; ++i) loop_->run_once();
  }
  // Sends as edge-1 and returns what came back.
  std::vector<channel::Message> ask(const std::string& operation, const std::string& resource,
                                    const Json& content = nullptr,
                                    const std::string& source = "edged") {
    channel::Message message;
    message.id = "q-" + std::to_string(++asked_);
    message.source = source;
    message.group = "meta";
    message.operation = operation;
    message.resource = resource;
    message.content = content.dump();
    return send(message);
  }
  std::vector<channel::Message> send(const channel::Message& message) {
    link_.sent.clear();
    dispatcher_->on_message("edge-1", message);
    settle();
    return link_.sent["edge-1"];
  }
  Json answer(const std::string& operation, const std::string& resource,
              const Json& content = nullptr) {
    const auto got = ask(operation, resource, content);
    EXPECT_EQ(got.size(), 1U) << operation << " " << resource;
    if (got.empty()) return {};
    EXPECT_EQ(got[0].parent_id, "q-" + std::to_string(asked_));
    EXPECT_EQ(got[0].operation, "response");
    EXPECT_EQ(got[0].source, "edgecontroller");
    EXPECT_EQ(got[0].group, "resource");
    EXPECT_EQ(got[0].resource, resource);
    return Json::parse(got[0].content);
  }
  void put_pod(const std::string& name, const std::string& node, Json spec = Json::object()) {
    spec["nodeName"] = node;
    kube_->put(kube::kPods,
               {{"metadata", {{"namespace", "default"}, {"name", name}, {"uid", "u-" + name}}},
                {"spec", spec}});
  }
  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_;
  obs::Registry registry_;
  std::unique_ptr<test::FakeKube> kube_;
  test::FakeLink link_;
  std::unique_ptr<MeshController> mesh_;
  std::unique_ptr<NodeController> nodes_;
  std::unique_ptr<Rendezvous> rendezvous_;
  std::unique_ptr<Upstream> upstream_;
  std::unique_ptr<Dispatcher> dispatcher_;
  int asked_ = 0;
};

TEST_F(UpstreamTest, ANodeThatWasDeletedDoesNotMakeItselfAgain) {
  bool may = false;
  UpstreamOptions options;
  options.may_create = [&](const std::string&) { return may; };
  upstream_ = std::make_unique<Upstream>(*kube_, link_, options);
  dispatcher_ = std::make_unique<Dispatcher>(
      Dispatcher::Parts{link_, *mesh_, *nodes_, *rendezvous_, *upstream_, "CA PEM"}, registry_);
  const Json node{{"metadata", {{"name", "edge-1"}}}};
  EXPECT_EQ(answer("insert", "null/node/edge-1", node)["Err"]["ErrStatus"]["code"], 403);
  EXPECT_EQ(answer("insert", "default/nodestatus/edge-1", node)["ErrStatus"]["code"], 403);
  EXPECT_EQ(kube_->find(kube::kNodes, "", "edge-1"), nullptr);
  may = true;
  EXPECT_TRUE(answer("insert", "null/node/edge-1", node)["Err"].is_null());
  EXPECT_NE(kube_->find(kube::kNodes, "", "edge-1"), nullptr);
}

TEST_F(UpstreamTest, InsertsQueriesAndUpdatesItsNode) {
  const Json node{{"metadata", {{"name", "edge-1"}, {"labels", {{"a", "b"}}}}},
                  {"status", Json::object()}};

  const Json made = answer("insert", "null/node/edge-1", node);
  EXPECT_EQ(made["Object"]["metadata"]["name"], "edge-1");
  EXPECT_TRUE(made["Err"].is_null());
  const Json twice = answer("insert", "null/node/edge-1", node);
  EXPECT_TRUE(twice["Object"].is_null());
  EXPECT_EQ(twice["Err"]["ErrStatus"]["reason"], "AlreadyExists");
  EXPECT_EQ(twice["Err"]["ErrStatus"]["code"], 409);

  EXPECT_EQ(answer("query", "null/node/edge-1")["kind"], "Node");
  const Json update{
      {"metadata", {{"labels", {{"c", "d"}, {"node-restriction.kubernetes.io/x", "1"}}}}},
      {"spec", {{"unschedulable", true}}}};
  EXPECT_EQ(answer("update", "null/node/edge-1", update), "OK");
  const Json* object = kube_->find(kube::kNodes, "", "edge-1");
  EXPECT_EQ((*object)["metadata"]["labels"], (Json{{"a", "b"}, {"c", "d"}}));
  EXPECT_FALSE(object->contains("spec"));

  const auto patched = ask("patch", "null/nodepatch/edge-1", R"({"status":{"phase":"Running"}})");
  ASSERT_EQ(patched.size(), 1U);
  EXPECT_FALSE(patched[0].resource_version.empty());
  EXPECT_EQ(Json::parse(patched[0].content)["Object"]["status"]["phase"], "Running");
}

TEST_F(UpstreamTest, MayNotTouchWhatIsNotItsOwn) {
  kube_->put(kube::kNodes, {{"metadata", {{"name", "edge-2"}}}});
  put_pod("theirs", "edge-2", {{"volumes", {{{"secret", {{"secretName", "s"}}}}}}});
  kube_->put(kube::kSecrets, {{"metadata", {{"namespace", "default"}, {"name", "s"}}}});
  const int writes = kube_->writes;
  const Json named{{"metadata", {{"name", "edge-2"}}}};

  EXPECT_EQ(answer("insert", "null/node/edge-2", named)["Err"]["ErrStatus"]["code"], 403);
  EXPECT_EQ(answer("insert", "null/node/edge-1", named)["Err"]["ErrStatus"]["code"], 403);
  EXPECT_EQ(answer("query", "null/node/edge-2")["ErrStatus"]["code"], 404);
  EXPECT_EQ(answer("update", "null/node/edge-2", named)["ErrStatus"]["code"], 403);
  EXPECT_EQ(answer("patch", "null/nodepatch/edge-2", "{}")["Err"]["ErrStatus"]["code"], 403);
  EXPECT_EQ(answer("update", "kube-node-lease/lease/edge-2", named)["Err"]["ErrStatus"]["code"],
            403);
  EXPECT_EQ(answer("insert", "default/lease/edge-1", named)["Err"]["ErrStatus"]["code"], 403);
  EXPECT_EQ(answer("query", "default/secret/s")["ErrStatus"]["code"], 404);
  EXPECT_EQ(answer("patch", "default/podpatch/theirs", "{}")["Err"]["ErrStatus"]["code"], 404);
  EXPECT_EQ(answer("delete", "default/pod/theirs", Json::object()), "OK");
  EXPECT_NE(kube_->find(kube::kPods, "default", "theirs"), nullptr);
  const Json mirror{{"metadata", {{"name", "m"}}}, {"spec", {{"nodeName", "edge-2"}}}};
  EXPECT_EQ(answer("insert", "default/pod/m", mirror)["Err"]["ErrStatus"]["code"], 403);
  EXPECT_EQ(kube_->writes, writes);
}

TEST_F(UpstreamTest, RefusesMetadataThatIsNoObject) {
  for (const Json& metadata : {Json("x"), Json::array(), Json(1)}) {
    const Json bad{{"metadata", metadata}};
    EXPECT_EQ(answer("insert", "null/nodestatus/edge-1", bad)["ErrStatus"]["code"], 403);
    for (const char* operation : {"insert", "update"})
      EXPECT_EQ(answer(operation, "kube-node-lease/lease/edge-1", bad)["Err"]["ErrStatus"]["code"], 403);
  }
}

TEST_F(UpstreamTest, MirrorPodsGiveNoRightToRead) {
  const Json annotated{{"name", "m"}, {"annotations", {{"kubernetes.io/config.mirror", "hash"}}}};
  Json spec{{"nodeName", "edge-1"}, {"containers", {{{"name", "c"}, {"image", "i"}}}}};
  EXPECT_EQ(answer("insert", "default/pod/m", {{"metadata", {{"name", "m"}}}, {"spec", spec}})["Err"]["ErrStatus"]["code"],
            403);
  EXPECT_TRUE(answer("insert", "default/pod/m", {{"metadata", annotated}, {"spec", spec}})["Err"].is_null());
  for (const Json& volume : {Json{{"secret", {{"secretName", "s"}}}}, Json{{"configMap", {{"name", "s"}}}},
                             Json{{"projected", {{"sources", Json::array()}}}}}) {
    Json reading = spec;
    reading["volumes"] = Json::array({volume});
    EXPECT_EQ(answer("insert", "default/pod/m", {{"metadata", annotated}, {"spec", reading}})["Err"]["ErrStatus"]["code"],
              403);
  }
  // One that came into the store by another way is not looked at.
  kube_->put(kube::kSecrets, {{"metadata", {{"namespace", "default"}, {"name", "s"}}}});
  Json stored{{"metadata", annotated}, {"spec", spec}};
  stored["metadata"]["namespace"] = "default";
  stored["spec"]["volumes"] = Json::array({{{"secret", {{"secretName", "s"}}}}});
  kube_->put(kube::kPods, stored);
  EXPECT_EQ(answer("query", "default/secret/s")["ErrStatus"]["code"], 404);
}

TEST_F(UpstreamTest, OfAPatchOnlyTheStatusIsPassedOn) {
  kube_->put(kube::kNodes, {{"metadata", {{"name", "edge-1"}}}});
  const Json patch{{"metadata", {{"labels", {{"node-restriction.kubernetes.io/trusted", "yes"}}}}},
                   {"status", {{"phase", "Running"}}}};
  answer("patch", "null/nodepatch/edge-1", patch.dump());
  const Json* node = kube_->find(kube::kNodes, "", "edge-1");
  ASSERT_NE(node, nullptr);
  EXPECT_EQ((*node)["status"]["phase"], "Running");
  EXPECT_FALSE((*node)["metadata"].contains("labels"));
}

TEST_F(UpstreamTest, ReadsConfigMapsAndSecretsThatItsPodsName) {
  put_pod("p", "edge-1",
          {{"volumes", {{{"configMap", {{"name", "cm1"}}}}}},
           {"imagePullSecrets", {{{"name", "pull"}}}},
           {"containers", {{{"envFrom", {{{"secretRef", {{"name", "env"}}}}}}}}}});
  for (const char* name : {"cm1", "cm2"}) {
    kube_->put(kube::kConfigMaps, {{"metadata", {{"namespace", "default"}, {"name", name}}}});
  }
  for (const char* name : {"pull", "env", "other"}) {
    kube_->put(kube::kSecrets, {{"metadata", {{"namespace", "default"}, {"name", name}}}});
  }

  EXPECT_EQ(answer("query", "default/configmap/cm1")["kind"], "ConfigMap");
  EXPECT_EQ(answer("query", "default/configmap/cm2")["ErrStatus"]["code"], 404);
  EXPECT_EQ(answer("query", "default/secret/pull")["kind"], "Secret");
  EXPECT_EQ(answer("query", "default/secret/env")["kind"], "Secret");
  EXPECT_EQ(answer("query", "default/secret/other")["ErrStatus"]["code"], 404);
}

TEST_F(UpstreamTest, TakesPodStatusAndEndsPodsThatAreNotThere) {
  put_pod("mine", "edge-1");
  const auto ok = ask("update", "default/podstatus/mine",
                      {{"UID", "u-mine"}, {"Name", "mine"}, {"Status", {{"phase", "Running"}}}});
  ASSERT_EQ(ok.size(), 1U);
  EXPECT_EQ(ok[0].content, "\"OK\"");
  EXPECT_EQ((*kube_->find(kube::kPods, "default", "mine"))["status"]["phase"], "Running");

  const auto gone = ask("update", "default/podstatus",
                        {{{"UID", "u-x"}, {"Name", "x"}, {"Status", {{"phase", "Running"}}}}});
  ASSERT_EQ(gone.size(), 2U);
  EXPECT_EQ(gone[1].operation, "delete");
  EXPECT_EQ(gone[1].resource, "default/pod/x");
  EXPECT_EQ(answer("delete", "default/pod/mine", Json::object()), "OK");
  EXPECT_EQ(kube_->last_deletion.grace_s, 0);
  EXPECT_EQ(kube_->find(kube::kPods, "default", "mine"), nullptr);
}

// Its sandbox was made anew: the address of the one before is no longer the pod's.
TEST_F(UpstreamTest, WhatAPodsStatusLeavesOutIsOver) {
  put_pod("mine", "edge-1");
  const auto tell = [&](const Json& status) {
    ask("update", "default/podstatus/mine",
        {{"UID", "u-mine"}, {"Name", "mine"}, {"Status", status}});
    return (*kube_->find(kube::kPods, "default", "mine"))["status"];
  };
  const Json first{{"phase", "Failed"},
                   {"reason", "Evicted"},
                   {"podIP", "10.0.0.1"},
                   {"podIPs", Json::array({{{"ip", "10.0.0.1"}}})},
                   {"conditions", Json::array({{{"type", "Ready"}, {"status", "False"}}})}};
  EXPECT_EQ(tell(first), first);
  const Json second{{"phase", "Running"},
                    {"podIP", "10.0.0.2"},
                    {"podIPs", Json::array({{{"ip", "10.0.0.2"}}})},
                    {"conditions", Json::array({{{"type", "Ready"}, {"status", "True"}}})}};
  EXPECT_EQ(tell(second), second);
  const Json third = tell({{"phase", "Pending"}});
  EXPECT_FALSE(third.contains("podIP"));
  EXPECT_FALSE(third.contains("podIPs"));
  EXPECT_TRUE(third.contains("conditions"));
}

TEST_F(UpstreamTest, AnswersControlMessagesAndTheCa) {
  channel::Message ping;
  ping.id = "x";
  ping.operation = "ping";
  ping.resource = "/control/ping";
  const auto ack = send(ping);
  ASSERT_EQ(ack.size(), 1U);
  EXPECT_EQ(ack[0].parent_id, "x");
  EXPECT_EQ(ack[0].content, "\"ack\"");
  EXPECT_TRUE(ack[0].source.empty());

  const auto ca = ask("query", "k8s/ca.crt", nullptr, "edgehub");
  ASSERT_EQ(ca.size(), 1U);
  EXPECT_EQ(ca[0].source, "cloudhub");
  EXPECT_EQ(ca[0].content, "\"CA PEM\"");
}

TEST_F(UpstreamTest, LeavesUnansweredWhatNoControllerHereKnows) {
  EXPECT_TRUE(ask("query", "null/node/edge-1", nullptr, "edgecontroller").empty());
  EXPECT_TRUE(ask("get", "membership/detail", "{}", "twin").empty());
  EXPECT_TRUE(ask("response", "default/pod/p", "OK").empty());
  EXPECT_TRUE(ask("error", "default/pod/p", "why").empty());
  EXPECT_TRUE(ask("update", "default/rulestatus/x", Json::object()).empty());
  EXPECT_TRUE(ask("frobnicate", "a/b/c/d/e", Json::array()).empty());
  EXPECT_TRUE(ask("insert", "", nullptr).empty());
  EXPECT_TRUE(ask("insert", "/", nullptr).empty());
}

TEST_F(UpstreamTest, StopsReadingFromANodeWithManyRequestsInWork) {
  for (int i = 0; i < 64; ++i) {
    channel::Message message;
    message.operation = "query";
    message.source = "edged";
    message.resource = "null/node/edge-1";
    message.content = "null";
    dispatcher_->on_message("edge-1", message);
  }
  EXPECT_TRUE(link_.paused.contains("edge-1"));
  settle();
  EXPECT_FALSE(link_.paused.contains("edge-1"));
}

// Keys that the recorded cloud has and ours must have too, with the same values where they do not
// depend on time or on that cluster.
void expect_like(const Json& want, const Json& got, const std::string& at) {
  if (want.is_object()) {
    ASSERT_TRUE(got.is_object()) << at << ": " << got.dump();
    for (const auto& [key, value] : want.items()) {
      static const std::set<std::string> kVarying{
          "msg_id",          "timestamp",       "uid",
          "resourceVersion", "resourceversion", "creationTimestamp",
          "cloudcore",       "annotations",     "spec",
          "daemonEndpoints", "nodeInfo",        "conditions",
          "labels"};
      if (kVarying.contains(key)) continue;
      if (value.is_object() && value.empty()) continue;
      ASSERT_TRUE(got.contains(key)) << at << "/" << key << " in " << got.dump();
      expect_like(value, got[key], at + "/" + key);
    }
    return;
  }
  EXPECT_EQ(want, got) << at;
}

// The recorded run of an edge against KubeEdge's own cloud, sent again to ours. That edge called
// itself edge-2 (and asked for edge-1's objects, which a node may not here): all of it is edge-1
// here.
TEST_F(UpstreamTest, ANodeGetsTokensOnlyForItsOwnPods) {
  put_pod("mine", "edge-1", {{"serviceAccountName", "bot"}});
  put_pod("theirs", "edge-2", {{"serviceAccountName", "bot"}});
  const auto tokens = [&](const std::string& account, const std::string& pod, const std::string& uid) {
    return answer("query", "default/serviceaccounttoken/" + account,
                  {{"metadata", Json::object()},
                   {"spec",
                    {{"audiences", {"me"}},
                     {"expirationSeconds", 3600},
                     {"boundObjectRef",
                      {{"kind", "Pod"}, {"apiVersion", "v1"}, {"name", pod}, {"uid", uid}}}}}});
  };

  const Json got = tokens("bot", "mine", "u-mine");
  EXPECT_EQ(got["kind"], "TokenRequest");
  EXPECT_EQ(got["metadata"], Json({{"name", "bot"}, {"namespace", "default"}}));
  EXPECT_EQ(got["spec"]["audiences"][0], "me");
  EXPECT_EQ(got["status"]["token"], "a.b.c");
  EXPECT_EQ(tokens("bot", "theirs", "u-theirs")["ErrStatus"]["code"], 404);
  EXPECT_EQ(tokens("bot", "none", "u")["ErrStatus"]["code"], 404);
  EXPECT_EQ(tokens("bot", "mine", "u-other")["ErrStatus"]["code"], 403);
  EXPECT_EQ(tokens("admin", "mine", "u-mine")["ErrStatus"]["code"], 403);
  EXPECT_EQ(answer("query", "default/serviceaccounttoken/bot", Json::object())["ErrStatus"]["code"], 403);
}

TEST_F(UpstreamTest, AnswersTheRecordedEdgeAsKubeEdgesCloudDid) {
  put_pod("p1", "edge-1", {{"volumes", {{{"configMap", {{"name", "cm1"}}}}}}});
  kube_->put(kube::kConfigMaps, {{"metadata", {{"namespace", "default"}, {"name", "cm1"}}},
                                 {"data", {{"k", "v<1>&"}}}});
  std::ifstream file(std::string(EDGEMESH_SOURCE_DIR) +
                     "/tests/data/kubeedge/edge-joins-cloudcore.log");
  ASSERT_TRUE(file);
  std::string line;
  std::vector<channel::Message> got;
  int compared = 0;
  while (std::getline(file, line)) {
    const bool sent = line.starts_with("-> ");
    if (!sent && !line.starts_with("<- ")) continue;
    std::string text = line.substr(3);
    for (size_t at; (at = text.find("edge-2")) != std::string::npos;) text.replace(at, 6, "edge-1");
    if (sent) {
      const auto message = channel::decode(text, 1 << 20);
      ASSERT_TRUE(message) << message.error().message << text;
      if (message->operation != "keepalive") got = send(*message);
      continue;
    }
    const Json want = Json::parse(text, nullptr, false);
    if (want.is_discarded()) continue;                        // cut in the recording
    if (want["route"]["resource"] == "k8s/ca.crt") continue;  // empty there: that cluster had none
    if (got.empty() || !want["header"].contains("parent_msg_id") ||
        want["header"]["parent_msg_id"] != got[0].parent_id) {
      continue;  // volumes (another issue) and a repeated reply
    }
    expect_like(want, Json::parse(channel::encode(got[0])), want["route"]["resource"]);
    ++compared;
  }
  EXPECT_GE(compared, 9);
}

}  // namespace
}  // namespace edgemesh::cloud
