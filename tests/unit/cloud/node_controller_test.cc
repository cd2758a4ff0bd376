#include "cloud/node_controller.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "kube/time.h"
#include "tests/support/fake_kube.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;
using std::chrono::seconds;

class NodeControllerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*io::Loop::create(clock_));
    kube_ = std::make_unique<test::FakeKube>(*loop_);
    nodes_ = std::make_unique<NodeController>(*loop_, *kube_, NodeOptions{});
    nodes_->start();
  }
  void settle() {
    for (int i = 0; i < 30; ++i) loop_->run_once();
  }
  void wait(int n) {
    for (int i = 0; i < n; ++i) {
      clock_.advance(seconds(1));
      settle();
    }
  }
  void report(const std::string& node, const Json& info) {
    channel::Message message;
    message.content = info.dump();
    nodes_->on_node_info(node, message);
    settle();
  }
  const Json* node(const std::string& name) { return kube_->find(kube::kNodes, "", name); }
  std::string ready(const std::string& name) {
    for (const Json& c : (*node(name))["status"]["conditions"]) {
      if (c["type"] == "Ready") return c["status"];
    }
    return "none";
  }
  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<test::FakeKube> kube_;
  std::unique_ptr<NodeController> nodes_;
};

TEST_F(NodeControllerTest, MakesTheNodeFromWhatTheAgentSays) {
  nodes_->on_connected("edge-1");
  EXPECT_EQ(node("edge-1"), nullptr);

  report("edge-1", {{"name", "edge-9"},
                    {"addresses", {"10.1.0.5", "fd00::5", "rubbish"}},
                    {"zone", "site-a"},
                    {"directPort", 15008}});

  ASSERT_NE(node("edge-1"), nullptr);
  const Json& object = *node("edge-1");
  EXPECT_EQ(ready("edge-1"), "True");
  EXPECT_EQ(object["metadata"]["labels"]["edgemesh.io/node"], "true");
  EXPECT_EQ(object["metadata"]["labels"]["topology.kubernetes.io/zone"], "site-a");
  const Json info =
      Json::parse(object["metadata"]["annotations"][kMeshAnnotation].get<std::string>());
  EXPECT_EQ(info["name"], "edge-1");
  EXPECT_EQ(info["directPort"], 15008);
  ASSERT_EQ(object["status"]["addresses"].size(), 3U);
  EXPECT_EQ(object["status"]["addresses"][1]["address"], "fd00::5");
}

TEST_F(NodeControllerTest, ANodeThatWasDeletedThisMomentIsNotMadeAgain) {
  bool may = false;
  NodeOptions options;
  options.may_create = [&may](const std::string&) { return may; };
  nodes_ = std::make_unique<NodeController>(*loop_, *kube_, std::move(options));
  nodes_->start();
  nodes_->on_connected("edge-1");
  report("edge-1", {{"zone", "a"}});
  wait(5);
  EXPECT_EQ(node("edge-1"), nullptr);

  may = true;  // it was no deletion
  wait(2);
  EXPECT_NE(node("edge-1"), nullptr);
}

TEST_F(NodeControllerTest, WritesOnlyWhatDiffers) {
  nodes_->on_connected("edge-1");
  report("edge-1", {{"zone", "a"}});
  const int writes = kube_->writes;

  report("edge-1", {{"zone", "a"}});
  EXPECT_EQ(kube_->writes, writes);
  report("edge-1", {{"zone", "b"}});
  EXPECT_EQ(kube_->writes, writes + 1);
  EXPECT_EQ((*node("edge-1"))["metadata"]["labels"]["topology.kubernetes.io/zone"], "b");
}

TEST_F(NodeControllerTest, KeepsWhatOthersWroteOnTheNode) {
  kube_->put(kube::kNodes,
             {{"metadata", {{"name", "edge-1"}, {"labels", {{"mine", "1"}}}}},
              {"status", {{"conditions", {{{"type", "DiskPressure"}, {"status", "False"}}}}}}});
  nodes_->on_connected("edge-1");
  report("edge-1", Json::object());

  EXPECT_EQ((*node("edge-1"))["metadata"]["labels"]["mine"], "1");
  EXPECT_EQ((*node("edge-1"))["status"]["conditions"].size(), 2U);
  EXPECT_EQ(ready("edge-1"), "True");
}

TEST_F(NodeControllerTest, IsNotReadyAfterFortySecondsAway) {
  nodes_->on_connected("edge-1");
  report("edge-1", Json::object());

  nodes_->on_disconnected("edge-1");
  wait(38);
  EXPECT_EQ(ready("edge-1"), "True");
  wait(4);
  EXPECT_EQ(ready("edge-1"), "Unknown");
  EXPECT_FALSE(nodes_->knows("edge-1"));

  nodes_->on_connected("edge-1");
  report("edge-1", Json::object());
  EXPECT_EQ(ready("edge-1"), "True");
}

TEST_F(NodeControllerTest, AShortAbsenceChangesNothing) {
  nodes_->on_connected("edge-1");
  report("edge-1", Json::object());
  const int writes = kube_->writes;

  nodes_->on_disconnected("edge-1");
  wait(20);
  nodes_->on_connected("edge-1");
  wait(60);

  EXPECT_EQ(kube_->writes, writes);
  EXPECT_EQ(ready("edge-1"), "True");
}

TEST_F(NodeControllerTest, TriesAgainWhenTheApiFails) {
  kube_->fail_with = Error{.code = ErrorCode::kUnavailable, .message = "down"};
  nodes_->on_connected("edge-1");
  report("edge-1", Json::object());
  EXPECT_EQ(node("edge-1"), nullptr);

  kube_->fail_with.reset();
  wait(5);

  ASSERT_NE(node("edge-1"), nullptr);
  EXPECT_EQ(ready("edge-1"), "True");
}

TEST_F(NodeControllerTest, FindsNodesThatAnEarlierRunLeftReady) {
  const Json condition{{"type", "Ready"}, {"status", "True"}};
  for (const char* name : {"old", "back"}) {
    kube_->put(kube::kNodes, {{"metadata", {{"name", name}, {"labels", {{kNodeLabel, "true"}}}}},
                              {"status", {{"conditions", {condition}}}}});
  }
  kube_->put(kube::kNodes,
             {{"metadata", {{"name", "other"}}}, {"status", {{"conditions", {condition}}}}});
  nodes_->on_connected("back");

  wait(42);

  EXPECT_EQ(ready("old"), "Unknown");
  EXPECT_EQ(ready("back"), "True");
  EXPECT_EQ(ready("other"), "True");
}

TEST_F(NodeControllerTest, SetsRightWhatAnotherProgramSetToUnknown) {
  nodes_->on_connected("edge-1");
  report("edge-1", Json::object());
  Json object = *node("edge-1");
  object["status"]["conditions"][0]["status"] = "Unknown";
  object["status"]["conditions"][0]["reason"] = "NodeStatusUnknown";
  kube_->put(kube::kNodes, object);

  wait(400);

  EXPECT_EQ(ready("edge-1"), "True");
}

TEST_F(NodeControllerTest, LeavesAConditionThatAKubeletKeeps) {
  const Json condition{{"type", "Ready"}, {"status", "False"}, {"reason", "KubeletNotReady"}};
  kube_->put(kube::kNodes,
             {{"metadata", {{"name", "edge-1"}}}, {"status", {{"conditions", {condition}}}}});
  nodes_->on_connected("edge-1");
  report("edge-1", Json::object());
  wait(400);

  EXPECT_EQ(ready("edge-1"), "False");
}

// With the embedded API nobody else would say it.
TEST_F(NodeControllerTest, SaysThatAKubeletsNodeIsGone) {
  nodes_ = std::make_unique<NodeController>(*loop_, *kube_, NodeOptions{.judges_all = true});
  nodes_->start();
  const Json condition{{"type", "Ready"}, {"status", "True"}, {"reason", "KubeletReady"}};
  for (const char* name : {"edge-1", "old"}) {
    kube_->put(kube::kNodes, {{"metadata", {{"name", name}, {"labels", {{kNodeLabel, "true"}}}}},
                              {"status", {{"conditions", {condition}}}}});
  }
  nodes_->on_connected("edge-1");
  report("edge-1", Json::object());
  wait(42);
  EXPECT_EQ(ready("edge-1"), "True");
  EXPECT_EQ(ready("old"), "Unknown") << "it did not come back after a restart of the cloud";
  nodes_->on_disconnected("edge-1");
  wait(38);
  EXPECT_EQ(ready("edge-1"), "True");
  wait(4);
  EXPECT_EQ(ready("edge-1"), "Unknown");
  nodes_->on_connected("edge-1");
  report("edge-1", Json::object());
  wait(2);
  EXPECT_EQ(ready("edge-1"), "True");
}

// With a real kube-apiserver: leases, and other clouds.
class NodeLeaseTest : public NodeControllerTest {
 protected:
  void SetUp() override {
    NodeControllerTest::SetUp();
    nodes_ = std::make_unique<NodeController>(*loop_, *kube_,
                                              NodeOptions{.lease_interval = seconds(10)});
    nodes_->start();
    nodes_->on_connected("edge-1");
    report("edge-1", Json::object());
  }
  const Json* lease(const std::string& name) {
    return kube_->find(kube::kLeases, "kube-node-lease", name);
  }
  // What another cloud, whose clock is `skew` ahead, does in n seconds.
  void renew_elsewhere(int n, seconds skew) {
    for (int i = 0; i < n; ++i) {
      if (i % 10 == 0) {
        kube_->put(kube::kLeases,
                   {{"metadata", {{"name", "edge-1"}, {"namespace", "kube-node-lease"}}},
                    {"spec", {{"renewTime", kube::rfc3339(clock_.wall_now() + skew, true)}}}});
      }
      wait(1);
    }
  }
};

TEST_F(NodeLeaseTest, RenewsWhileConnected) {
  wait(11);
  ASSERT_NE(lease("edge-1"), nullptr);
  const Json first = (*lease("edge-1"))["spec"]["renewTime"];
  wait(10);
  EXPECT_NE((*lease("edge-1"))["spec"]["renewTime"], first);
}

TEST_F(NodeLeaseTest, IsUnknownWhenNobodyRenewsTheLease) {
  wait(15);
  nodes_->on_disconnected("edge-1");
  wait(70);
  EXPECT_EQ(ready("edge-1"), "Unknown");
}

TEST_F(NodeLeaseTest, StaysReadyWhileAnotherCloudHasIt) {
  wait(15);
  nodes_->on_disconnected("edge-1");
  renew_elsewhere(600, seconds(0));
  EXPECT_EQ(ready("edge-1"), "True");

  wait(400);  // then that one went, too
  EXPECT_EQ(ready("edge-1"), "Unknown");
}

TEST_F(NodeLeaseTest, ClocksNeedNotAgree) {
  wait(15);
  nodes_->on_disconnected("edge-1");
  renew_elsewhere(600, seconds(-3600));
  EXPECT_EQ(ready("edge-1"), "True");
}

TEST_F(NodeLeaseTest, ThousandsOfLeasesGoOutAFewAtATime) {
  NodeLeases leases(*loop_, *kube_, {.max_in_flight = 16});
  size_t most = 0;
  for (int i = 0; i < 3000; ++i) {
    leases.renew("n" + std::to_string(i));
    leases.renew("n" + std::to_string(i));
    most = std::max(most, leases.in_flight());
  }
  while (leases.in_flight() > 0) {
    loop_->run_once();
    most = std::max(most, leases.in_flight());
  }

  EXPECT_EQ(most, 16U);
  EXPECT_NE(lease("n2999"), nullptr);
  EXPECT_EQ(leases.failures(), 0U);
}

TEST_F(NodeLeaseTest, FailuresAreCountedAndTriedAgain) {
  kube_->fail_with = Error{.code = ErrorCode::kUnavailable, .message = "down"};
  NodeLeases leases(*loop_, *kube_, {});
  leases.renew("a");
  settle();
  EXPECT_EQ(leases.failures(), 1U);
  kube_->fail_with.reset();
  leases.renew("a");
  settle();
  EXPECT_NE(lease("a"), nullptr);
}

TEST_F(NodeControllerTest, IgnoresReportsThatAreNotReadable) {
  nodes_->on_connected("edge-1");
  for (const std::string& content :
       {std::string("[]"), std::string("{"), std::string(100'000, ' ')}) {
    channel::Message message;
    message.content = content;
    nodes_->on_node_info("edge-1", message);
  }
  settle();
  EXPECT_EQ(node("edge-1"), nullptr);
}

}  // namespace
}  // namespace edgemesh::cloud
