#include "cloud/edge/pod_view.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cloud/edge/object_ref.h"
#include "kube/objects.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

const PodReference kSettings{&kube::kConfigMaps, "settings"};
const PodReference kPassword{&kube::kSecrets, "password"};

TEST(PodReferences, OfVolumesEnvAndPullSecretsEachOnce) {
  const Json pod = Json::parse(R"({"spec":{
    "volumes":[{"name":"a","configMap":{"name":"settings"}},
               {"name":"b","secret":{"secretName":"password"}},
               {"name":"c","projected":{"sources":[{"configMap":{"name":"extra"}},{"secret":{"name":"key"}}]}}],
    "containers":[{"env":[{"name":"X","valueFrom":{"configMapKeyRef":{"name":"settings","key":"x"}}}],
                   "envFrom":[{"secretRef":{"name":"env"}}]}],
    "imagePullSecrets":[{"name":"registry"},{"name":"password"}]}})");
  const auto references = pod_references(pod);
  auto has = [&](const kube::ResourceType& type, const char* name) {
    return std::count(references.begin(), references.end(), PodReference{&type, name});
  };
  EXPECT_EQ(has(kube::kConfigMaps, "settings"), 1);
  EXPECT_EQ(has(kube::kConfigMaps, "extra"), 1);
  EXPECT_EQ(has(kube::kSecrets, "password"), 1);
  EXPECT_EQ(has(kube::kSecrets, "key"), 1);
  EXPECT_EQ(has(kube::kSecrets, "env"), 1);
  EXPECT_EQ(has(kube::kSecrets, "registry"), 1);
  EXPECT_EQ(references.size(), 6U);
}

TEST(PodReferences, OfBrokenPodsAreNone) {
  EXPECT_TRUE(pod_references(Json()).empty());
  EXPECT_TRUE(
      pod_references(Json::parse(R"({"spec":{"volumes":[{"configMap":7},{"secret":null}]}})"))
          .empty());
}

TEST(PodMeaning, LeavesOutWhatTheNodeReported) {
  Json pod = Json::parse(R"({"metadata":{"uid":"u","resourceVersion":"1","labels":{"a":"b"}},
                             "spec":{"nodeName":"n"},"status":{"phase":"Pending"}})");
  const uint64_t before = pod_meaning(pod);
  pod["status"]["phase"] = "Running";
  pod["metadata"]["resourceVersion"] = "2";
  pod["metadata"]["managedFields"] = Json::array({1});
  EXPECT_EQ(pod_meaning(pod), before);
  pod["metadata"]["deletionTimestamp"] = "2026-11-23T00:00:00Z";
  EXPECT_NE(pod_meaning(pod), before);
}

TEST(NodeMeaning, IsLabelsAndTaints) {
  Json node = Json::parse(
      R"({"metadata":{"uid":"u","labels":{"a":"b"},"annotations":{"x":"1"}},"spec":{}})");
  const uint64_t before = node_meaning(node);
  node["status"]["conditions"] = Json::array();
  node["metadata"]["annotations"]["x"] = "2";
  EXPECT_EQ(node_meaning(node), before);
  node["spec"]["unschedulable"] = true;
  EXPECT_NE(node_meaning(node), before);
}

TEST(ObjectRef, IsSpelledAsKubeEdgeDoes) {
  EXPECT_EQ((ObjectRef{&kube::kPods, "default", "web", "u"}.resource()), "default/pod/web");
  EXPECT_EQ((ObjectRef{&kube::kNodes, "", "edge-1", "u"}.resource()), "null/node/edge-1");
  EXPECT_EQ(type_of_word("configmap"), &kube::kConfigMaps);
  EXPECT_EQ(type_of_word("podlist"), nullptr);
}

TEST(Versions, AreComparedAsNumbers) {
  EXPECT_TRUE(kube::version_at_least("10", "9"));
  EXPECT_FALSE(kube::version_at_least("9", "10"));
  EXPECT_TRUE(kube::version_at_least("x", "x"));
  EXPECT_FALSE(kube::version_at_least("x", "9"));
}

}  // namespace
}  // namespace edgemesh::cloud
