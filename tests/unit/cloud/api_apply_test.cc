// Server-side apply: who owns which fields.
#include "tests/unit/cloud/api_fixture.h"

namespace edgemesh::cloud {
namespace {

using nlohmann::json;

const kube::ResourceType kDeployments{"apps", "v1", "deployments", "Deployment", true};

class ApiApplyTest : public ApiFixture {
 protected:
  ApiResult<ApiCore::Written> apply(const std::string& manager, json body, bool force = false) {
    kube::WriteOptions options;
    options.field_manager = manager;
    options.force = force;
    body["metadata"]["name"] = "web";
    return patch(kDeployments, "default", "web", kube::PatchKind::kApply, body, options);
  }
  static json deployment(int replicas, const std::string& image = "i:1") {
    json out = json::parse(R"({"spec":{"selector":{"matchLabels":{"app":"web"}},"template":{
      "metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"c","ports":[{"containerPort":80}]}]}}}})");
    if (replicas > 0) out["spec"]["replicas"] = replicas;
    out["spec"]["template"]["spec"]["containers"][0]["image"] = image;
    return out;
  }
  json object() { return json::parse(store_->get(info(kDeployments), "default", "web")->text); }
  json fields_of(const std::string& manager) {
    for (const json& entry : object()["metadata"].value("managedFields", json::array())) {
      if (entry["manager"] == manager) return entry["fieldsV1"];
    }
    return nullptr;
  }
};

TEST_F(ApiApplyTest, OwnsWhatItAppliesInTheFormOfKubernetes) {
  auto made = apply("one", deployment(2));
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_TRUE(made->created);
  EXPECT_EQ(fields_of("one"),
            json::parse(R"({"f:spec":{"f:replicas":{},"f:selector":{},"f:template":{
    "f:metadata":{"f:labels":{"f:app":{}}},
    "f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:name":{},"f:image":{},
      "f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}}}}}})"));
  uint64_t version = store_->get(info(kDeployments), "default", "web")->version;
  ASSERT_TRUE(apply("one", deployment(2)));
  EXPECT_EQ(store_->get(info(kDeployments), "default", "web")->version, version)
      << "nothing changed";
}

TEST_F(ApiApplyTest, AnotherManagersFieldIsAConflict) {
  ASSERT_TRUE(apply("one", deployment(2)));
  auto refused = apply("two", deployment(3));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, 409);
  ASSERT_EQ(refused.error().causes.size(), 1U);
  EXPECT_EQ(refused.error().causes[0].field, ".spec.replicas");
  EXPECT_EQ(refused.error().causes[0].reason, "FieldManagerConflict");
  ASSERT_TRUE(apply("two", deployment(2))) << "the same value is shared";
  ASSERT_TRUE(apply("two", deployment(3), true));
  EXPECT_EQ(object()["spec"]["replicas"], 3);
  EXPECT_FALSE(fields_of("one")["f:spec"].contains("f:replicas"));
  // It is no longer the first manager's: leaving it out changes nothing.
  ASSERT_TRUE(apply("one", deployment(0)));
  EXPECT_EQ(object()["spec"]["replicas"], 3);
  // The second one's own: it falls back to the default.
  ASSERT_TRUE(apply("two", deployment(0)));
  EXPECT_EQ(object()["spec"]["replicas"], 1);
}

TEST_F(ApiApplyTest, OtherWritesAreRemembered) {
  kube::WriteOptions creator;
  creator.field_manager = "kubectl-create";
  json body = deployment(2);
  body["metadata"]["name"] = "web";
  ASSERT_TRUE(create(kDeployments, "default", body, creator));
  EXPECT_TRUE(fields_of("kubectl-create")["f:spec"].contains("f:replicas"));
  auto refused = apply("one", deployment(5));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("conflict with \"kubectl-create\" using apps/v1"),
            std::string::npos);
  ASSERT_TRUE(apply("one", deployment(5), true));
  // A patch by another takes the field over.
  kube::WriteOptions scaler;
  scaler.field_manager = "scaler";
  ASSERT_TRUE(patch(kDeployments, "default", "web", kube::PatchKind::kMerge,
                    json::parse(R"({"spec":{"replicas":7}})"), scaler));
  EXPECT_FALSE(fields_of("one")["f:spec"].contains("f:replicas"));
  EXPECT_EQ(fields_of("scaler"), json::parse(R"({"f:spec":{"f:replicas":{}}})"));
  EXPECT_FALSE(apply("one", deployment(5)));
}

TEST_F(ApiApplyTest, WhatNobodyManagedIsAConflictToo) {
  json body = deployment(2);
  body["metadata"]["name"] = "web";
  ASSERT_TRUE(create(kDeployments, "default", body));
  EXPECT_FALSE(object()["metadata"].contains("managedFields"));
  auto refused = apply("one", deployment(5));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("before-first-apply"), std::string::npos);
  EXPECT_TRUE(apply("one", deployment(2)));
}

TEST_F(ApiApplyTest, ElementsOfListsBelongToWhoAppliedThem) {
  ASSERT_TRUE(apply("one", deployment(1)));
  json sidecar =
      json::parse(R"({"spec":{"template":{"spec":{"containers":[{"name":"side","image":"s"}]}}}})");
  ASSERT_TRUE(apply("two", sidecar));
  EXPECT_EQ(object()["spec"]["template"]["spec"]["containers"].size(), 2U);
  ASSERT_TRUE(apply("two", json::parse(R"({"metadata":{"labels":{"x":"y"}}})")));
  json containers = object()["spec"]["template"]["spec"]["containers"];
  ASSERT_EQ(containers.size(), 1U);
  EXPECT_EQ(containers[0]["name"], "c");
  // Ports are told apart by number and protocol.
  json udp = deployment(1);
  udp["spec"]["template"]["spec"]["containers"][0]["ports"].push_back(
      {{"containerPort", 80}, {"protocol", "UDP"}});
  ASSERT_TRUE(apply("one", udp));
  EXPECT_EQ(object()["spec"]["template"]["spec"]["containers"][0]["ports"].size(), 2U);
}

TEST_F(ApiApplyTest, StatusHasManagersOfItsOwn) {
  ASSERT_TRUE(apply("one", deployment(1)));
  kube::WriteOptions options;
  options.field_manager = "ctl";
  options.subresource = "status";
  ASSERT_TRUE(patch(kDeployments, "default", "web", kube::PatchKind::kMerge,
                    json::parse(R"({"status":{"replicas":1}})"), options));
  EXPECT_EQ(fields_of("ctl"), json::parse(R"({"f:status":{"f:replicas":{}}})"));
  EXPECT_TRUE(fields_of("one")["f:spec"].contains("f:selector"));
}

TEST_F(ApiApplyTest, DryRunStoresNothing) {
  kube::WriteOptions options;
  options.field_manager = "one";
  options.dry_run = true;
  json body = deployment(1);
  body["metadata"]["name"] = "web";
  auto made = patch(kDeployments, "default", "web", kube::PatchKind::kApply, body, options);
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ(store_->get(info(kDeployments), "default", "web"), nullptr);
}

}  // namespace
}  // namespace edgemesh::cloud
