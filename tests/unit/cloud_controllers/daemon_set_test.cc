#include "cloud/controllers/daemon_set.h"

#include "tests/unit/cloud_controllers/controllers_fixture.h"

namespace edgemesh::cloud::controllers {
namespace {

class DaemonSetTest : public ControllersTest {
 protected:
  static json daemon_set(const std::string& image = "v1") {
    return {{"apiVersion", "apps/v1"},
            {"kind", "DaemonSet"},
            {"metadata", {{"name", "log"}, {"namespace", "default"}}},
            {"spec",
             {{"selector", {{"matchLabels", {{"app", "log"}}}}},
              {"template",
               {{"metadata", {{"labels", {{"app", "log"}}}}},
                {"spec", {{"containers", {{{"name", "c"}, {"image", image}}}}}}}}}}};
  }
  int64_t status(const char* field) {
    return ControllersTest::status(get(kDaemonSets, "log"), field);
  }
  void set_image(const std::string& image) {
    json spec = get(kDaemonSets, "log")["spec"]["template"];
    spec["spec"]["containers"][0]["image"] = image;
    patch(kDaemonSets, "default", "log", kube::PatchKind::kMerge, {{"spec", {{"template", spec}}}});
  }
  std::map<std::string, std::string> images() {  // by node
    std::map<std::string, std::string> out;
    for (const json& pod : list(kube::kPods))
      out[kube::text_at(pod, "spec", "nodeName")] += pod["spec"]["containers"][0]["image"];
    return out;
  }
  void set_ready(const std::string& node, const char* value) {
    kube::WriteOptions status;
    status.subresource = "status";
    patch(kube::kNodes, "", node, kube::PatchKind::kMerge,
          {{"status", {{"conditions", {{{"type", "Ready"}, {"status", value}}}}}}}, status);
  }
};

TEST_F(DaemonSetTest, EveryNodeGetsOnePodAndTheOnesThatComeLater) {
  add_node("edge-1");
  add_node("edge-2");
  ASSERT_TRUE(create(kDaemonSets, "default", daemon_set()));
  wait([&] { return status("numberAvailable") == 2; });
  EXPECT_EQ(images(), (std::map<std::string, std::string>{{"edge-1", "v1"}, {"edge-2", "v1"}}));
  add_node("edge-3");
  wait([&] { return status("numberAvailable") == 3; });
  const json set = get(kDaemonSets, "log");
  EXPECT_EQ(ControllersTest::status(set, "desiredNumberScheduled"), 3);
  EXPECT_EQ(ControllersTest::status(set, "updatedNumberScheduled"), 3);
  EXPECT_EQ(ControllersTest::status(set, "numberUnavailable"), 0);
  EXPECT_EQ(ControllersTest::status(set, "observedGeneration"), 1);
  remove(kube::kPods, "default", list(kube::kPods)[0]["metadata"]["name"]);
  wait([&] { return list(kube::kPods).size() == 3 && status("numberAvailable") == 3; });
}

TEST_F(DaemonSetTest, TaintsAndSelectorsChooseTheNodes) {
  add_node("edge-1", {{"zone", "a"}});
  add_node("edge-2", {{"zone", "b"}});
  add_node("edge-3", {{"zone", "a"}});
  const auto taint = [&](const char* node, const char* key, const char* effect) {
    patch(kube::kNodes, "", node, kube::PatchKind::kMerge,
          {{"spec", {{"taints", {{{"key", key}, {"effect", effect}}}}}}});
  };
  taint("edge-3", "gpu", "NoSchedule");
  json set = daemon_set();
  set["spec"]["template"]["spec"]["nodeSelector"] = {{"zone", "a"}};
  ASSERT_TRUE(create(kDaemonSets, "default", set));
  wait([&] { return status("numberAvailable") == 1; });
  EXPECT_EQ(images(), (std::map<std::string, std::string>{{"edge-1", "v1"}}));
  // A cordoned node, and one in trouble, is one for daemons.
  taint("edge-3", "node.kubernetes.io/memory-pressure", "NoSchedule");
  wait([&] { return status("numberAvailable") == 2; });
  // What keeps new ones away does not end the old one; what is not for running pods does.
  taint("edge-1", "gpu", "NoSchedule");
  wait([&] { return status("numberMisscheduled") == 1; });
  EXPECT_EQ(list(kube::kPods).size(), 2U);
  taint("edge-1", "gpu", "NoExecute");
  wait([&] { return list(kube::kPods).size() == 1; });
  EXPECT_EQ(status("desiredNumberScheduled"), 1);
}

TEST_F(DaemonSetTest, AnUpdateGoesNodeByNodeAndBackByItsRevision) {
  for (const char* node : {"edge-1", "edge-2", "edge-3"}) add_node(node);
  ASSERT_TRUE(create(kDaemonSets, "default", daemon_set()));
  wait([&] { return status("numberAvailable") == 3; });
  set_image("v2");
  wait([&] {
    EXPECT_GE(status("numberAvailable"), 2);
    return status("observedGeneration") == 2 && status("updatedNumberScheduled") == 3 &&
           status("numberAvailable") == 3;
  });
  for (const auto& [node, image] : images()) EXPECT_EQ(image, "v2") << node;
  auto revisions = list(kControllerRevisions);
  ASSERT_EQ(revisions.size(), 2U);
  const json& first = revisions[0]["revision"] == 1 ? revisions[0] : revisions[1];
  EXPECT_EQ(first["metadata"]["labels"]["app"], "log");
  // kubectl rollout undo sends the revision's data as it is.
  ASSERT_TRUE(patch(kDaemonSets, "default", "log", kube::PatchKind::kStrategic, first["data"]));
  wait([&] {
    auto now = images();
    return now.size() == 3 && now["edge-1"] + now["edge-2"] + now["edge-3"] == "v1v1v1";
  });
  revisions = list(kControllerRevisions);
  EXPECT_EQ(revisions.size(), 2U) << "the old version has a new number";
  EXPECT_EQ(revisions[0]["revision"].get<int>() + revisions[1]["revision"].get<int>(), 5);
}

TEST_F(DaemonSetTest, AVersionThatDoesNotStartStopsAtTheLimit) {
  for (const char* node : {"edge-1", "edge-2", "edge-3"}) add_node(node);
  ASSERT_TRUE(create(kDaemonSets, "default", daemon_set()));
  wait([&] { return status("numberAvailable") == 3; });
  set_image("broken");
  wait([&] { return status("observedGeneration") == 2 && status("updatedNumberScheduled") == 1; });
  for (int i = 0; i < 30; ++i) {
    run_pods();
    turn_once();
    EXPECT_GE(status("numberAvailable"), 2);
  }
  set_image("v3");  // pods that serve nobody do not wait for the limit
  wait([&] {
    return status("observedGeneration") == 3 && status("updatedNumberScheduled") == 3 &&
           status("numberAvailable") == 3;
  });
}

TEST_F(DaemonSetTest, OnDeleteLeavesOldPodsToTheirUser) {
  add_node("edge-1");
  json set = daemon_set();
  set["spec"]["updateStrategy"] = {{"type", "OnDelete"}};
  ASSERT_TRUE(create(kDaemonSets, "default", set));
  wait([&] { return status("numberAvailable") == 1; });
  set_image("v2");
  wait([&] { return status("observedGeneration") == 2; });
  EXPECT_EQ(status("updatedNumberScheduled"), 0);
  EXPECT_EQ(images()["edge-1"], "v1");
  remove(kube::kPods, "default", list(kube::kPods)[0]["metadata"]["name"]);
  wait([&] { return status("updatedNumberScheduled") == 1; });
  EXPECT_EQ(images()["edge-1"], "v2");
}

TEST_F(DaemonSetTest, ASurgeStartsTheNewPodBeforeTheOldOneGoes) {
  add_node("edge-1");
  add_node("edge-2");
  json set = daemon_set();
  set["spec"]["updateStrategy"] = {{"type", "RollingUpdate"},
                                   {"rollingUpdate", {{"maxSurge", 1}, {"maxUnavailable", 0}}}};
  ASSERT_TRUE(create(kDaemonSets, "default", set));
  wait([&] { return status("numberAvailable") == 2; });
  set_image("v2");
  ptrdiff_t most = 0;
  wait([&] {
    EXPECT_EQ(status("numberAvailable"), 2);
    const auto pods = list(kube::kPods);
    const auto stay = std::count_if(pods.begin(), pods.end(), [](const json& pod) {
      return !pod["metadata"].contains("deletionTimestamp");
    });
    most = std::max(most, stay);
    return status("observedGeneration") == 2 && status("updatedNumberScheduled") == 2 &&
           list(kube::kPods).size() == 2;
  });
  EXPECT_EQ(most, 3);
}

TEST_F(DaemonSetTest, ANodeThatDoesNotAnswerIsLeftAloneAndDoesNotHoldAnUpdate) {
  for (const char* node : {"edge-1", "edge-2", "edge-3"}) add_node(node);
  ASSERT_TRUE(create(kDaemonSets, "default", daemon_set()));
  wait([&] { return status("numberAvailable") == 3; });
  set_ready("edge-2", "Unknown");
  set_image("v2");
  wait([&] { return status("observedGeneration") == 2 && status("updatedNumberScheduled") == 2; });
  for (int i = 0; i < 10; ++i) turn_once();
  EXPECT_EQ(images(), (std::map<std::string, std::string>{
                          {"edge-1", "v2"}, {"edge-2", "v1"}, {"edge-3", "v2"}}));
  for (const json& pod : list(kube::kPods))
    EXPECT_FALSE(pod["metadata"].contains("deletionTimestamp"));
  set_ready("edge-2", "True");
  wait([&] { return status("updatedNumberScheduled") == 3; });
}

TEST_F(DaemonSetTest, AFailedPodIsReplacedAndARestartMakesNoSecondOne) {
  add_node("edge-1");
  ASSERT_TRUE(create(kDaemonSets, "default", daemon_set()));
  wait([&] { return status("numberAvailable") == 1; });
  const std::string name = list(kube::kPods)[0]["metadata"]["name"];
  begin({});
  for (int i = 0; i < 10; ++i) turn_once();
  ASSERT_EQ(list(kube::kPods).size(), 1U);
  kube::WriteOptions to_status;
  to_status.subresource = "status";
  patch(kube::kPods, "default", name, kube::PatchKind::kMerge, {{"status", {{"phase", "Failed"}}}},
        to_status);
  wait([&] {
    const auto pods = list(kube::kPods);
    return pods.size() == 1 && pods[0]["metadata"]["name"] != name &&
           status("numberAvailable") == 1;
  });
  const auto events = list(kube::kEvents);
  EXPECT_TRUE(std::any_of(events.begin(), events.end(), [](const json& event) {
    return event["reason"] == "FailedDaemonPod" && event["involvedObject"]["name"] == "log";
  }));
}

}  // namespace
}  // namespace edgemesh::cloud::controllers
