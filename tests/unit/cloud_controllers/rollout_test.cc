#include "cloud/controllers/rollout.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cloud/controllers/fit.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

TEST(RolloutLimits, AreNumbersOrPercentagesAndNeverBothNone) {
  const Json given{{"maxSurge", "25%"}, {"maxUnavailable", "25%"}};
  EXPECT_EQ(rollout_limits(&given, 10).surge, 3);
  EXPECT_EQ(rollout_limits(&given, 10).unavailable, 2);
  EXPECT_EQ(rollout_limits(nullptr, 4).surge, 1);
  const Json numbers{{"maxSurge", 0}, {"maxUnavailable", 2}};
  EXPECT_EQ(rollout_limits(&numbers, 10).surge, 0);
  EXPECT_EQ(rollout_limits(&numbers, 10).unavailable, 2);
  const Json none{{"maxSurge", 0}, {"maxUnavailable", "10%"}};
  EXPECT_EQ(rollout_limits(&none, 3).unavailable, 1);
}

// Plays a whole rollout: pods become available a step after they were asked for.
TEST(RollingStep, NeverPassesItsLimitsAndEnds) {
  for (const int64_t wanted : {1, 2, 5, 10}) {
    for (const RolloutLimits limits :
         {RolloutLimits{1, 0}, RolloutLimits{0, 1}, RolloutLimits{3, 2}}) {
      SetSize fresh, old{wanted, wanted};
      int steps = 0;
      while ((fresh.available < wanted || old.replicas > 0) && ++steps < 100) {
        const RolloutStep step = rolling_step(wanted, limits, fresh, {old});
        ASSERT_LE(step.fresh + step.old[0],
                  std::max(wanted + limits.surge, fresh.replicas + old.replicas));
        ASSERT_GE(std::min(step.old[0], old.available) + fresh.available,
                  wanted - limits.unavailable)
            << "wanted " << wanted << " step " << steps;
        fresh.replicas = step.fresh;
        old.replicas = step.old[0];
        old.available = std::min(old.available, old.replicas);
        ASSERT_LE(fresh.replicas + old.replicas, wanted + limits.surge);
        fresh.available = fresh.replicas;
      }
      EXPECT_EQ(fresh.replicas, wanted);
      EXPECT_EQ(old.replicas, 0);
    }
  }
}

TEST(RollingStep, BrokenPodsOfOldSetsGoFirstAndANewSetThatDoesNotStartHoldsTheRest) {
  const RolloutStep step = rolling_step(4, {1, 1}, {2, 0}, {{2, 0}, {3, 3}});
  EXPECT_EQ(step.old[0], 0) << "its pods served nobody";
  EXPECT_EQ(step.old[1], 3) << "three have to stay";
}

TEST(RecreateStep, TheNewSetWaitsForTheLastOldPod) {
  EXPECT_EQ(recreate_step(3, {}, {{3, 3}}, true).fresh, 0);
  EXPECT_EQ(recreate_step(3, {}, {{3, 3}}, true).old[0], 0);
  EXPECT_EQ(recreate_step(3, {}, {{0, 0}}, true).fresh, 0);
  EXPECT_EQ(recreate_step(3, {}, {{0, 0}}, false).fresh, 3);
}

TEST(Quantity, IsReadAsKubernetesWritesIt) {
  auto read = [](const char* text) {
    const Json json = text;
    return parse_quantity(&json);
  };
  EXPECT_EQ(read("500m"), 500);
  EXPECT_EQ(read("2"), 2000);
  EXPECT_EQ(read("1.5"), 1500);
  EXPECT_EQ(read("1Ki"), 1024000);
  EXPECT_EQ(read("1e3"), 1000000);
  EXPECT_EQ(read("128Mi"), 134217728000);
  EXPECT_EQ(read("x"), -1);
  EXPECT_EQ(read("1Q"), -1);
}

ClusterObject node(const Json& json) {
  ClusterObject out{};
  out.type = &kube::kNodes;
  out.name = "edge-1";
  out.value = std::make_shared<const Json>(json);
  return out;
}

TEST(Fit, NodeSelectorAndAffinity) {
  const ClusterObject one = node({{"metadata", {{"labels", {{"zone", "a"}, {"size", "7"}}}}}});
  EXPECT_TRUE(affinity_allows(Json::object(), one));
  EXPECT_TRUE(affinity_allows({{"spec", {{"nodeSelector", {{"zone", "a"}}}}}}, one));
  EXPECT_FALSE(affinity_allows({{"spec", {{"nodeSelector", {{"zone", "b"}}}}}}, one));
  auto with = [&](const char* terms) {
    Json pod;
    pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
       ["nodeSelectorTerms"] = Json::parse(terms);
    return affinity_allows(pod, one);
  };
  EXPECT_TRUE(
      with(R"([{"matchExpressions":[{"key":"zone","operator":"In","values":["a","b"]}]}])"));
  EXPECT_FALSE(
      with(R"([{"matchExpressions":[{"key":"zone","operator":"NotIn","values":["a"]}]}])"));
  EXPECT_TRUE(with(R"([{"matchExpressions":[{"key":"none","operator":"Exists"}]},
                       {"matchExpressions":[{"key":"size","operator":"Gt","values":["5"]}]}])"));
  EXPECT_TRUE(
      with(R"([{"matchFields":[{"key":"metadata.name","operator":"In","values":["edge-1"]}]}])"));
  EXPECT_FALSE(with(R"([{}])"));
}

TEST(Fit, TaintsKeepPodsAwayThatDoNotTolerateThem) {
  const Json tainted =
      Json::parse(R"({"spec":{"taints":[{"key":"gpu","value":"yes","effect":"NoSchedule"},
                                                        {"key":"soft","effect":"PreferNoSchedule"}]}})");
  EXPECT_EQ(untolerated_taint(Json::object(), tainted), "gpu");
  auto with = [&](const char* tolerations) {
    return untolerated_taint({{"spec", {{"tolerations", Json::parse(tolerations)}}}}, tainted);
  };
  EXPECT_EQ(with(R"([{"key":"gpu","operator":"Equal","value":"yes","effect":"NoSchedule"}])"), "");
  EXPECT_EQ(with(R"([{"key":"gpu","value":"no"}])"), "gpu");
  EXPECT_EQ(with(R"([{"key":"gpu","operator":"Exists"}])"), "");
  EXPECT_EQ(with(R"([{"operator":"Exists"}])"), "");
  EXPECT_EQ(with(R"([{"operator":"Exists","effect":"NoExecute"}])"), "gpu");
}

TEST(Fit, RequestsOfInitContainersCountWhereTheyAreMore) {
  const Json pod = Json::parse(R"({"spec":{
    "containers":[{"resources":{"requests":{"cpu":"100m","memory":"1Mi"}}},{"resources":{"limits":{"cpu":"1"}}}],
    "initContainers":[{"resources":{"requests":{"memory":"5Mi"}}}]}})");
  const Resources asked = pod_requests(pod);
  EXPECT_EQ(asked.milli_cpu, 1100);
  EXPECT_EQ(asked.memory, 5 << 20);
  EXPECT_EQ(node_allocatable(Json::object()).pods, 0);
}

}  // namespace
}  // namespace edgemesh::cloud::controllers
