#include "tests/unit/cloud_controllers/controllers_fixture.h"

namespace edgemesh::cloud::controllers {
namespace {

TEST_F(ControllersTest, ADeploymentBecomesPodsOnNodes) {
  add_node("edge-1");
  add_node("edge-2");
  ASSERT_TRUE(create(kDeployments, "default", deployment(4, "v1")));
  wait([&] { return status(get(kDeployments, "web"), "availableReplicas") == 4; });
  const auto pods = list(kube::kPods);
  ASSERT_EQ(pods.size(), 4U);
  std::map<std::string, int> by_node;
  for (const json& pod : pods) {
    ++by_node[pod["spec"]["nodeName"]];
    EXPECT_TRUE(pod["metadata"]["name"].get<std::string>().starts_with("web-"));
  }
  EXPECT_EQ(by_node["edge-1"], 2) << "pods of one owner are spread";
  EXPECT_EQ(by_node["edge-2"], 2);
  const json web = get(kDeployments, "web");
  EXPECT_EQ(status(web, "observedGeneration"), 1);
  EXPECT_EQ(condition(web, "Available"), "True");
  EXPECT_EQ(web["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
}

TEST_F(ControllersTest, ScalesUpAndDown) {
  add_node("edge-1");
  ASSERT_TRUE(create(kDeployments, "default", deployment(1, "v1")));
  wait([&] { return status(get(kDeployments, "web"), "availableReplicas") == 1; });
  patch(kDeployments, "default", "web", kube::PatchKind::kMerge, {{"spec", {{"replicas", 3}}}});
  wait([&] { return status(get(kDeployments, "web"), "availableReplicas") == 3; });
  patch(kDeployments, "default", "web", kube::PatchKind::kMerge, {{"spec", {{"replicas", 0}}}});
  wait([&] { return list(kube::kPods).empty(); });
  EXPECT_EQ(list(kReplicaSets).size(), 1U);
}

TEST_F(ControllersTest, RollsToANewVersionAndBack) {
  add_node("edge-1");
  ASSERT_TRUE(create(kDeployments, "default", deployment(3, "v1")));
  wait([&] { return status(get(kDeployments, "web"), "availableReplicas") == 3; });
  const json spec_v1 = get(kDeployments, "web")["spec"]["template"];
  auto all_run = [&](const std::string& image) {
    const auto pods = list(kube::kPods);
    return pods.size() == 3 && std::all_of(pods.begin(), pods.end(), [&](const json& pod) {
             return pod["spec"]["containers"][0]["image"] == image;
           });
  };
  json next = spec_v1;
  next["spec"]["containers"][0]["image"] = "v2";
  patch(kDeployments, "default", "web", kube::PatchKind::kMerge, {{"spec", {{"template", next}}}});
  wait([&] { return all_run("v2") && status(get(kDeployments, "web"), "updatedReplicas") == 3; });
  EXPECT_EQ(list(kReplicaSets).size(), 2U);
  EXPECT_EQ(
      get(kDeployments, "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
      "2");
  // kubectl rollout undo puts the old template back.
  patch(kDeployments, "default", "web", kube::PatchKind::kMerge,
        {{"spec", {{"template", spec_v1}}}});
  wait([&] { return all_run("v1"); });
  EXPECT_EQ(list(kReplicaSets).size(), 2U) << "the old set is taken again";
  wait([&] {
    return get(kDeployments,
               "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3";
  });
}

TEST_F(ControllersTest, AVersionThatDoesNotStartTakesNothingDown) {
  add_node("edge-1");
  ASSERT_TRUE(create(kDeployments, "default", deployment(4, "v1")));
  wait([&] { return status(get(kDeployments, "web"), "availableReplicas") == 4; });
  json next = get(kDeployments, "web")["spec"]["template"];
  next["spec"]["containers"][0]["image"] = "broken";
  patch(kDeployments, "default", "web", kube::PatchKind::kMerge, {{"spec", {{"template", next}}}});
  wait([&] { return status(get(kDeployments, "web"), "updatedReplicas") > 0; });
  for (int i = 0; i < 30; ++i) {
    run_pods();
    turn_once();
    EXPECT_GE(status(get(kDeployments, "web"), "availableReplicas"), 3);
  }
}

TEST_F(ControllersTest, APodThatFitsNowhereSaysWhyAndWaitsForANode) {
  add_node("edge-1", {{"zone", "a"}});
  json pod{
      {"metadata", {{"name", "picky"}, {"namespace", "default"}}},
      {"spec",
       {{"nodeSelector", {{"zone", "b"}}}, {"containers", {{{"name", "c"}, {"image", "v1"}}}}}}};
  ASSERT_TRUE(create(kube::kPods, "default", pod));
  wait([&] { return condition(get(kube::kPods, "picky"), "PodScheduled") == "False"; });
  const json conditions = get(kube::kPods, "picky")["status"]["conditions"];
  EXPECT_EQ(conditions[0]["message"],
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.");
  add_node("edge-2", {{"zone", "b"}});
  wait([&] { return kube::text_at(get(kube::kPods, "picky"), "spec", "nodeName") == "edge-2"; });
}

TEST_F(ControllersTest, ANodeTakesNoMoreThanItHas) {
  add_node("edge-1", json::object(), 2);
  ASSERT_TRUE(create(kDeployments, "default", deployment(3, "v1")));
  wait([&] { return status(get(kDeployments, "web"), "availableReplicas") == 2; });
  for (int i = 0; i < 20; ++i) turn_once();
  int bound = 0;
  for (const json& pod : list(kube::kPods))
    bound += kube::text_at(pod, "spec", "nodeName").empty() ? 0 : 1;
  EXPECT_EQ(bound, 2);
  patch(kDeployments, "default", "web", kube::PatchKind::kMerge, {{"spec", {{"replicas", 2}}}});
  wait([&] { return list(kube::kPods).size() == 2; });
}

TEST_F(ControllersTest, ServicesFindTheirPods) {
  add_node("edge-1", {{"topology.kubernetes.io/zone", "hall"}});
  ASSERT_TRUE(create(
      kube::kServices, "default",
      {{"metadata", {{"name", "web"}, {"namespace", "default"}}},
       {"spec",
        {{"selector", {{"app", "web"}}}, {"ports", {{{"port", 80}, {"targetPort", "http"}}}}}}}));
  ASSERT_TRUE(create(kDeployments, "default", deployment(2, "v1")));
  auto endpoints = [&]() -> json {
    const auto slices = list(kube::kEndpointSlices);
    return slices.size() == 1 ? slices[0] : json();
  };
  wait([&] { return endpoints().is_object() && endpoints()["endpoints"].size() == 2; });
  wait([&] { return endpoints()["endpoints"][0]["conditions"]["ready"] == true; });
  const json slice = endpoints();
  EXPECT_EQ(slice["ports"][0]["port"], 8080);
  EXPECT_EQ(slice["endpoints"][0]["nodeName"], "edge-1");
  EXPECT_EQ(slice["endpoints"][0]["zone"], "hall");
  EXPECT_EQ(slice["metadata"]["labels"]["kubernetes.io/service-name"], "web");
  patch(kDeployments, "default", "web", kube::PatchKind::kMerge, {{"spec", {{"replicas", 1}}}});
  wait([&] { return endpoints().is_object() && endpoints()["endpoints"].size() == 1; });
  const auto select = [&](const json& selector) {
    patch(kube::kServices, "default", "web", kube::PatchKind::kMerge,
          {{"spec", {{"selector", selector}}}});
  };
  select({{"app", "none"}});
  wait([&] { return list(kube::kEndpointSlices).empty(); });
  const std::string pod = list(kube::kPods)[0]["metadata"]["name"];
  patch(kube::kPods, "default", pod, kube::PatchKind::kMerge,
        {{"metadata", {{"labels", {{"stage", "blue"}}}}}});
  select({{"app", nullptr}, {"stage", "blue"}});
  wait([&] { return endpoints().is_object() && endpoints()["endpoints"].size() == 1; });
  patch(kube::kPods, "default", pod, kube::PatchKind::kMerge,
        {{"metadata", {{"labels", {{"stage", "green"}}}}}});
  wait([&] { return list(kube::kEndpointSlices).empty(); });
  select({{"stage", "green"}});
  wait([&] { return endpoints().is_object() && endpoints()["endpoints"].size() == 1; });
  remove(kube::kServices, "default", "web");
  wait([&] { return list(kube::kEndpointSlices).empty(); });
}

TEST_F(ControllersTest, WhatADeletedOwnerOwnedGoesToo) {
  add_node("edge-1");
  ASSERT_TRUE(create(kDeployments, "default", deployment(2, "v1")));
  wait([&] { return status(get(kDeployments, "web"), "availableReplicas") == 2; });
  ApiCore::Deletion deletion;
  deletion.propagation = "Foreground";
  remove(kDeployments, "default", "web", deletion);
  wait([&] { return get(kDeployments, "web").is_null(); });
  EXPECT_TRUE(list(kReplicaSets).empty());
  wait([&] { return list(kube::kPods).empty(); });
}

TEST_F(ControllersTest, OrphansStay) {
  add_node("edge-1");
  ASSERT_TRUE(create(kDeployments, "default", deployment(1, "v1")));
  wait([&] { return status(get(kDeployments, "web"), "availableReplicas") == 1; });
  ApiCore::Deletion deletion;
  deletion.propagation = "Orphan";
  remove(kDeployments, "default", "web", deletion);
  wait([&] { return get(kDeployments, "web").is_null(); });
  EXPECT_EQ(list(kReplicaSets).size(), 1U);
  EXPECT_EQ(list(kube::kPods).size(), 1U);
}

}  // namespace
}  // namespace edgemesh::cloud::controllers
