#include "cloud/controllers/node_lifecycle.h"

#include "cloud/controllers/pod_collector.h"
#include "kube/time.h"
#include "tests/unit/cloud_controllers/controllers_fixture.h"

namespace edgemesh::cloud::controllers {
namespace {

class NodeLifecycleTest : public ControllersTest {
 protected:
  ControllerOptions options() const override {
    ControllerOptions out;
    out.node_options.grace = std::chrono::milliseconds(300);
    out.pod_collector_options = {.node_gone_for = std::chrono::milliseconds(50), .max_ended = 2};
    return out;
  }
  void set_ready(const std::string& node, const char* value) {
    kube::WriteOptions status;
    status.subresource = "status";
    patch(kube::kNodes, "", node, kube::PatchKind::kMerge,
          {{"status", {{"conditions", {{{"type", "Ready"}, {"status", value}}}}}}}, status);
  }
  std::string taints(const std::string& node) {
    std::string out;
    const json object = get(kube::kNodes, node);
    for (const json& taint : object["spec"].value("taints", json::array()))
      out += kube::text_at(taint, "key") + ":" + kube::text_at(taint, "effect") + " ";
    return out;
  }
  int ready_endpoints() {
    int out = 0;
    for (const json& slice : list(kube::kEndpointSlices)) {
      for (const json& endpoint : slice["endpoints"])
        out += endpoint["conditions"]["ready"] == true;
    }
    return out;
  }
  void two_pods_and_a_service() {
    add_node("edge-1");
    add_node("edge-2");
    ASSERT_TRUE(create(kube::kServices, "default",
                       {{"metadata", {{"name", "web"}, {"namespace", "default"}}},
                        {"spec", {{"selector", {{"app", "web"}}}, {"ports", {{{"port", 80}}}}}}}));
    ASSERT_TRUE(create(kDeployments, "default", deployment(2, "v1")));
    wait([&] { return status(get(kDeployments, "web"), "availableReplicas") == 2; });
    wait([&] { return ready_endpoints() == 2; });
  }
};

TEST_F(NodeLifecycleTest, ANodeThatDoesNotAnswerKeepsItsPodsAndServesNobody) {
  two_pods_and_a_service();
  std::set<std::string> before;
  for (const json& pod : list(kube::kPods)) before.insert(pod["metadata"]["uid"]);
  set_ready("edge-2", "Unknown");
  wait([&] { return taints("edge-2") == "node.kubernetes.io/unreachable:NoSchedule "; });
  wait([&] { return ready_endpoints() == 1; });
  wait([&] { return status(get(kDeployments, "web"), "availableReplicas") == 1; });
  std::set<std::string> now;
  for (const json& pod : list(kube::kPods)) {
    now.insert(pod["metadata"]["uid"]);
    EXPECT_FALSE(pod["metadata"].contains("deletionTimestamp"));
    EXPECT_EQ(pod["status"]["phase"], "Running");
  }
  EXPECT_EQ(now, before);
  set_ready("edge-2", "True");
  wait([&] { return taints("edge-2").empty() && ready_endpoints() == 2; });
  wait([&] { return status(get(kDeployments, "web"), "availableReplicas") == 2; });
}

TEST_F(NodeLifecycleTest, WhatANodeSaysOfAPodItselfIsNotTakenBack) {
  two_pods_and_a_service();
  const json pod = list(kube::kPods)[0];
  const std::string node = pod["spec"]["nodeName"];
  set_ready(node, "Unknown");
  wait([&] { return condition(get(kube::kPods, pod["metadata"]["name"]), "Ready") == "False"; });
  kube::WriteOptions to_status;
  to_status.subresource = "status";
  const json broken{{"type", "Ready"}, {"status", "False"}, {"reason", "ContainersNotReady"}};
  patch(kube::kPods, "default", pod["metadata"]["name"], kube::PatchKind::kMerge,
        {{"status", {{"conditions", {broken}}}}}, to_status);
  set_ready(node, "True");
  wait([&] { return taints(node).empty(); });
  for (int i = 0; i < 10; ++i) turn_once();
  EXPECT_EQ(ready_endpoints(), 1);
}

TEST_F(NodeLifecycleTest, ALeaseThatStandsStillMakesItsNodeUnknown) {
  add_node("edge-1");
  ASSERT_TRUE(create(kube::kLeases, "kube-node-lease",
                     {{"metadata", {{"name", "edge-1"}}},
                      {"spec", {{"renewTime", "2020-01-01T00:00:00.000000Z"}}}}));
  for (int i = 0; i < 5; ++i) turn_once();
  EXPECT_EQ(condition(get(kube::kNodes, "edge-1"), "Ready"), "True") << "clocks do not matter";
  wait([&] { return condition(get(kube::kNodes, "edge-1"), "Ready") == "Unknown"; });
  EXPECT_EQ(condition(get(kube::kNodes, "edge-1"), "MemoryPressure"), "Unknown");
  wait([&] { return !taints("edge-1").empty(); });
}

TEST_F(NodeLifecycleTest, TroublesAndCordonsAreTaintsNextToTheUsersOwn) {
  add_node("edge-1");
  patch(kube::kNodes, "", "edge-1", kube::PatchKind::kMerge,
        {{"spec",
          {{"unschedulable", true}, {"taints", {{{"key", "mine"}, {"effect", "NoSchedule"}}}}}}});
  wait([&] {
    return taints("edge-1") == "mine:NoSchedule node.kubernetes.io/unschedulable:NoSchedule ";
  });
  kube::WriteOptions to_status;
  to_status.subresource = "status";
  patch(kube::kNodes, "", "edge-1", kube::PatchKind::kMerge,
        {{"status",
          {{"conditions",
            {{{"type", "Ready"}, {"status", "True"}},
             {{"type", "DiskPressure"}, {"status", "True"}}}}}}},
        to_status);
  wait([&] { return taints("edge-1").find("disk-pressure") != std::string::npos; });
  patch(kube::kNodes, "", "edge-1", kube::PatchKind::kMerge,
        {{"spec", {{"unschedulable", false}}}});
  set_ready("edge-1", "True");
  wait([&] { return taints("edge-1") == "mine:NoSchedule "; });
}

TEST_F(NodeLifecycleTest, ATaintForRunningPodsEndsThoseThatDoNotBearIt) {
  two_pods_and_a_service();
  patch(kube::kNodes, "", "edge-2", kube::PatchKind::kMerge,
        {{"spec", {{"taints", {{{"key", "repair"}, {"effect", "NoExecute"}}}}}}});
  wait([&] {
    const auto pods = list(kube::kPods);
    return pods.size() == 2 && pods[0]["spec"].value("nodeName", "") == "edge-1" &&
           pods[1]["spec"].value("nodeName", "") == "edge-1";
  });
}

TEST_F(NodeLifecycleTest, OnlyIfItShallAPodIsTakenFromANodeThatDoesNotAnswer) {
  auto with = options();
  with.node_options.evicts = true;
  begin(with);
  add_node("edge-1");
  json pod{{"metadata", {{"name", "p"}, {"namespace", "default"}}},
           {"spec", {{"containers", {{{"name", "c"}, {"image", "v1"}}}}}}};
  ASSERT_TRUE(create(kube::kPods, "default", pod));
  pod["metadata"]["name"] = "q";
  pod["spec"]["tolerations"] = {{{"key", "node.kubernetes.io/unreachable"},
                                 {"operator", "Exists"},
                                 {"effect", "NoExecute"},
                                 {"tolerationSeconds", 1}}};
  ASSERT_TRUE(create(kube::kPods, "default", pod));
  wait([&] { return condition(get(kube::kPods, "q"), "Ready") == "True"; });
  set_ready("edge-1", "Unknown");
  wait([&] { return taints("edge-1").find("NoExecute") != std::string::npos; });
  wait([&] { return get(kube::kPods, "q").is_null(); });
  EXPECT_FALSE(get(kube::kPods, "p")["metadata"].contains("deletionTimestamp")) << "five minutes";
}

TEST_F(NodeLifecycleTest, PodsOfANodeThatIsGoneGo) {
  two_pods_and_a_service();
  remove(kube::kNodes, "", "edge-2");
  wait([&] {
    const auto pods = list(kube::kPods);
    return pods.size() == 2 && std::all_of(pods.begin(), pods.end(), [](const json& pod) {
             return pod["spec"].value("nodeName", "") == "edge-1";
           });
  });
}

TEST_F(NodeLifecycleTest, OfManyPodsThatHaveEndedTheOldestGo) {
  run_ = false;
  add_node("edge-1");
  kube::WriteOptions to_status;
  to_status.subresource = "status";
  for (const char* name : {"a", "b", "c", "d"}) {
    ASSERT_TRUE(create(
        kube::kPods, "default",
        {{"metadata", {{"name", name}, {"namespace", "default"}}},
         {"spec", {{"nodeName", "edge-1"}, {"containers", {{{"name", "c"}, {"image", "v1"}}}}}}}));
    patch(kube::kPods, "default", name, kube::PatchKind::kMerge,
          {{"status", {{"phase", "Succeeded"}}}}, to_status);
  }
  wait([&] { return list(kube::kPods).size() == 2; });
  EXPECT_EQ(list(kube::kPods)[0]["metadata"]["name"], "c");
}

}  // namespace
}  // namespace edgemesh::cloud::controllers
