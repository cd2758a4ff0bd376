#include "cloud/controllers/scheduler.h"

#include "tests/unit/cloud_controllers/controllers_fixture.h"

namespace edgemesh::cloud::controllers {
namespace {

class SchedulerTest : public ControllersTest {
 protected:
  void add_pod(const std::string& name, const json& spec = json::object(),
               const json& labels = json::object()) {
    json whole = spec;
    if (!whole.contains("containers")) whole["containers"] = {{{"name", "c"}, {"image", "v1"}}};
    ASSERT_TRUE(
        create(kube::kPods, "default",
               {{"metadata", {{"name", name}, {"namespace", "default"}, {"labels", labels}}},
                {"spec", whole}}));
  }
  std::string node_of(const std::string& pod) {
    return kube::text_at(get(kube::kPods, pod), "spec", "nodeName");
  }
  std::string placed(const std::string& pod) {
    wait([&] { return !node_of(pod).empty(); });
    return node_of(pod);
  }
  // Why it is not placed.
  std::string why(const std::string& pod) {
    wait([&] { return condition(get(kube::kPods, pod), "PodScheduled") == "False"; });
    return get(kube::kPods, pod)["status"]["conditions"][0]["message"];
  }
  static json near(const char* kind, const char* app,
                   const char* label = "kubernetes.io/hostname") {
    json affinity;
    affinity[kind]["requiredDuringSchedulingIgnoredDuringExecution"] = {
        {{"labelSelector", {{"matchLabels", {{"app", app}}}}}, {"topologyKey", label}}};
    return {{"affinity", affinity}};
  }
  void taint(const char* node, const char* key, const char* effect) {
    patch(kube::kNodes, "", node, kube::PatchKind::kMerge,
          {{"spec", {{"taints", {{{"key", key}, {"value", "v"}, {"effect", effect}}}}}}});
  }
};

TEST_F(SchedulerTest, SaysWhereAPodWentAndWhyAnotherWentNowhere) {
  add_node("edge-1");
  add_node("edge-2");
  add_node("edge-3");
  taint("edge-2", "gpu", "NoSchedule");
  patch(kube::kNodes, "", "edge-3", kube::PatchKind::kMerge, {{"spec", {{"unschedulable", true}}}});
  wait([&] { return get(kube::kNodes, "edge-3")["spec"].contains("taints"); });
  add_pod("small");
  EXPECT_EQ(placed("small"), "edge-1");
  add_pod("big", {{"containers",
                   {{{"name", "c"},
                     {"image", "v1"},
                     {"resources", {{"requests", {{"cpu", "9"}, {"memory", "9Gi"}}}}}}}}});
  EXPECT_EQ(why("big"),
            "0/3 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 node(s) had "
            "untolerated taint {gpu: v}, 1 node(s) were unschedulable.");
  wait([&] {
    bool scheduled = false, failed = false;
    for (const json& event : list(kube::kEvents)) {
      scheduled = scheduled || event["message"] == "Successfully assigned default/small to edge-1";
      failed = failed || (event["reason"] == "FailedScheduling" && event["type"] == "Warning" &&
                          event["involvedObject"]["name"] == "big");
    }
    return scheduled && failed;
  });
}

TEST_F(SchedulerTest, PodsKeepTogetherOrApartAsTheyAsk) {
  for (const char* node : {"edge-1", "edge-2"}) add_node(node, {{"kubernetes.io/hostname", node}});
  add_pod("db", json::object(), {{"app", "db"}});
  const std::string at = placed("db");
  add_pod("near", near("podAffinity", "db"));
  EXPECT_EQ(placed("near"), at);
  add_pod("far", near("podAntiAffinity", "db"), {{"app", "far"}});
  const std::string other = placed("far");
  EXPECT_NE(other, at);
  add_pod("farther", near("podAntiAffinity", "db"));
  EXPECT_EQ(placed("farther"), other);
  // Whoever is there does not want the newcomer.
  add_pod("db2", {{"nodeSelector", {{"kubernetes.io/hostname", other}}}}, {{"app", "db"}});
  EXPECT_EQ(
      why("db2"),
      "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) "
      "didn't satisfy existing pods anti-affinity rules.");
  // The first of a group that wants to be together.
  add_pod("first", near("podAffinity", "group"), {{"app", "group"}});
  placed("first");
  add_pod("lonely", near("podAffinity", "nobody"));
  EXPECT_NE(why("lonely").find("didn't match pod affinity rules"), std::string::npos);
}

TEST_F(SchedulerTest, SpreadsOverZones) {
  add_node("a1", {{"zone", "a"}});
  add_node("a2", {{"zone", "a"}});
  add_node("b1", {{"zone", "b"}}, 2);
  const json spread{{"topologySpreadConstraints",
                     {{{"maxSkew", 1},
                       {"topologyKey", "zone"},
                       {"whenUnsatisfiable", "DoNotSchedule"},
                       {"labelSelector", {{"matchLabels", {{"app", "x"}}}}}}}}};
  std::map<char, int> zones;
  for (const char* name : {"p1", "p2", "p3", "p4"}) {
    add_pod(name, spread, {{"app", "x"}});
    ++zones[placed(name)[0]];
  }
  EXPECT_EQ(zones['a'], 2);
  EXPECT_EQ(zones['b'], 2);
  add_pod("p5", spread, {{"app", "x"}});
  EXPECT_EQ(placed("p5")[0], 'a');
  add_pod("p6", spread, {{"app", "x"}});
  EXPECT_EQ(why("p6"),
            "0/3 nodes are available: 1 Too many pods, 2 node(s) didn't match pod topology spread "
            "constraints.");
}

TEST_F(SchedulerTest, PrefersWhatPodsAndNodesPrefer) {
  add_node("edge-1");
  add_node("edge-2", {{"disk", "ssd"}});
  taint("edge-1", "old", "PreferNoSchedule");
  for (const char* name : {"p1", "p2", "p3"}) {
    add_pod(name);
    EXPECT_EQ(placed(name), "edge-2") << "edge-1 would rather have none";
  }
  taint("edge-1", "other", "NoExecute");
  patch(kube::kNodes, "", "edge-1", kube::PatchKind::kMerge, {{"spec", {{"taints", nullptr}}}});
  json wish;
  wish["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = json::parse(
      R"([{"weight":5,"preference":{"matchExpressions":[{"key":"disk","operator":"Exists"}]}}])");
  add_pod("fast", wish);
  EXPECT_EQ(placed("fast"), "edge-2");
  add_pod("any");
  EXPECT_EQ(placed("any"), "edge-1");
}

TEST_F(SchedulerTest, AmongThoseThatWaitTheMoreImportantIsFirst) {
  // Without it the node opens in one step: all that wait are tried at once.
  auto alone = options();
  alone.node_lifecycle = false;
  begin(alone);
  const kube::ResourceType classes{"scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass",
                                   false};
  ASSERT_TRUE(create(classes, "", {{"metadata", {{"name", "high"}}}, {"value", 1000}}));
  ASSERT_TRUE(create(kube::kNodes, "",
                     {{"metadata", {{"name", "edge-1"}}}, {"spec", {{"unschedulable", true}}}}));
  kube::WriteOptions to_status;
  to_status.subresource = "status";
  patch(kube::kNodes, "", "edge-1", kube::PatchKind::kMerge,
        {{"status",
          {{"allocatable", {{"cpu", "2"}, {"memory", "1Gi"}, {"pods", "1"}}},
           {"conditions", {{{"type", "Ready"}, {"status", "True"}}}}}}},
        to_status);
  add_pod("low-1");
  add_pod("low-2");
  add_pod("high", {{"priorityClassName", "high"}});
  for (const char* name : {"low-1", "low-2", "high"})
    EXPECT_EQ(why(name), "0/1 nodes are available: 1 node(s) were unschedulable.");
  patch(kube::kNodes, "", "edge-1", kube::PatchKind::kMerge,
        {{"spec", {{"unschedulable", false}}}});
  EXPECT_EQ(placed("high"), "edge-1");
  EXPECT_EQ(node_of("low-1") + node_of("low-2"), "");
}

TEST_F(SchedulerTest, APortOfTheNodeIsTakenOnce) {
  add_node("edge-1");
  const json spec{{"containers",
                   {{{"name", "c"},
                     {"image", "v1"},
                     {"ports", {{{"containerPort", 80}, {"hostPort", 8080}}}}}}}};
  add_pod("one", spec);
  placed("one");
  add_pod("two", spec);
  EXPECT_EQ(
      why("two"),
      "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.");
  ApiCore::Deletion at_once;
  at_once.grace_s = 0;
  remove(kube::kPods, "default", "one", at_once);
  EXPECT_EQ(placed("two"), "edge-1");
}

TEST(FitRequests, OfSidecarsAndOverheadCount) {
  const auto pod = nlohmann::json::parse(R"({"spec":{"overhead":{"cpu":"50m","memory":"1Mi"},
    "containers":[{"resources":{"requests":{"cpu":"100m"}}}],
    "initContainers":[{"restartPolicy":"Always","resources":{"requests":{"cpu":"20m","memory":"2Mi"}}},
                      {"resources":{"requests":{"cpu":"300m"}}}]}})");
  EXPECT_EQ(pod_requests(pod).milli_cpu, 370) << "300 beside the sidecar, and the overhead";
  EXPECT_EQ(pod_requests(pod).memory, 3 << 20);
}

}  // namespace
}  // namespace edgemesh::cloud::controllers
