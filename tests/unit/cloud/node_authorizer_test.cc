#include "cloud/api/node_authorizer.h"

#include "tests/unit/cloud/api_fixture.h"
#include "tests/unit/cloud/api_server_fixture.h"

namespace edgemesh::cloud {
namespace {

using nlohmann::json;

const kube::ResourceType kClaims{"", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true};
const kube::ResourceType kVolumes{"", "v1", "persistentvolumes", "PersistentVolume", false};

json pod_json(const std::string& name, const std::string& node, const std::string& mark,
              const std::string& account = "bot") {
  json volumes = json::array();
  volumes.push_back({{"name", "s"}, {"secret", {{"secretName", "secret-" + mark}}}});
  volumes.push_back({{"name", "c"}, {"persistentVolumeClaim", {{"claimName", "claim-" + mark}}}});
  volumes.push_back(
      {{"name", "p"}, {"projected", {{"sources", {{{"configMap", {{"name", "map-" + mark}}}}}}}}});
  json spec = {{"containers", {{{"name", "c"}, {"image", "i"}}}},
               {"volumes", std::move(volumes)},
               {"serviceAccountName", account}};
  if (!node.empty()) spec["nodeName"] = node;
  return {{"metadata", {{"name", name}}}, {"spec", std::move(spec)}};
}

class NodeObjectsTest : public ApiFixture {
 protected:
  void SetUp() override {
    ApiFixture::SetUp();
    objects_ = std::make_unique<NodeObjects>(*store_, registry_);
  }
  void TearDown() override {
    objects_.reset();
    ApiFixture::TearDown();
  }
  void add_pod(const std::string& name, const std::string& node, const std::string& mark) {
    auto made = create(kube::kPods, "default", pod_json(name, node, mark));
    ASSERT_TRUE(made) << made.error().message;
  }
  bool uses(const std::string& node, const std::string& resource, const std::string& name) {
    return objects_->uses(node, resource, "default", name);
  }
  void remove_pod(const std::string& name) {
    ApiCore::Deletion now;
    now.grace_s = 0;
    ASSERT_TRUE(remove(kube::kPods, "default", name, now));
  }
  std::unique_ptr<NodeObjects> objects_;
};

TEST_F(NodeObjectsTest, ANodeUsesWhatItsPodsName) {
  add_pod("p", "n1", "a");
  add_pod("waits", "", "b");

  EXPECT_TRUE(uses("n1", "secrets", "secret-a"));
  EXPECT_TRUE(uses("n1", "configmaps", "map-a"));
  EXPECT_TRUE(uses("n1", "persistentvolumeclaims", "claim-a"));
  EXPECT_TRUE(uses("n1", "serviceaccounts", "bot"));
  EXPECT_TRUE(uses("n1", "pods", "p"));
  EXPECT_FALSE(uses("n2", "secrets", "secret-a"));
  EXPECT_FALSE(uses("n2", "pods", "p"));
  EXPECT_FALSE(uses("n1", "secrets", "secret-b"));
  EXPECT_FALSE(uses("n1", "configmaps", "secret-a"));
  EXPECT_FALSE(objects_->uses("n1", "secrets", "kube-system", "secret-a"));
  EXPECT_EQ(objects_->node_of_pod("default", "p"), "n1");
  EXPECT_EQ(objects_->node_of_pod("default", "waits"), "");
}

TEST_F(NodeObjectsTest, UntilTheLastSuchPodIsGone) {
  add_pod("p", "n1", "a");
  add_pod("q", "n1", "a");
  add_pod("r", "n2", "a");

  remove_pod("p");
  EXPECT_TRUE(uses("n1", "secrets", "secret-a"));
  remove_pod("q");
  EXPECT_FALSE(uses("n1", "secrets", "secret-a"));
  EXPECT_TRUE(uses("n2", "secrets", "secret-a"));
  add_pod("q", "n2", "b");
  EXPECT_TRUE(uses("n2", "secrets", "secret-b"));
}

TEST_F(NodeObjectsTest, BindingCountsAtOnceAndOldPodsAreReadAtTheStart) {
  add_pod("p", "", "a");
  EXPECT_FALSE(uses("n1", "secrets", "secret-a"));
  kube::WriteOptions binding;
  binding.subresource = "binding";
  ASSERT_TRUE(create(kube::kPods, "default",
                     {{"metadata", {{"name", "p"}}}, {"target", {{"name", "n1"}}}}, binding));

  EXPECT_TRUE(uses("n1", "secrets", "secret-a"));
  NodeObjects fresh(*store_, registry_);
  EXPECT_TRUE(fresh.uses("n1", "secrets", "default", "secret-a"));
}

TEST_F(NodeObjectsTest, VolumesAndTheirSecretsComeByTheirClaims) {
  add_pod("p", "n1", "a");
  json volume = {{"metadata", {{"name", "pv"}}},
                 {"spec",
                  {{"capacity", {{"storage", "1Gi"}}},
                   {"accessModes", {"ReadWriteOnce"}},
                   {"claimRef", {{"namespace", "default"}, {"name", "claim-a"}}},
                   {"csi",
                    {{"driver", "d"},
                     {"volumeHandle", "h"},
                     {"nodeStageSecretRef", {{"name", "csi"}, {"namespace", "storage"}}}}}}}};
  ASSERT_TRUE(create(kVolumes, "", volume));

  EXPECT_TRUE(objects_->uses("n1", "persistentvolumes", "", "pv"));
  EXPECT_FALSE(objects_->uses("n2", "persistentvolumes", "", "pv"));
  EXPECT_TRUE(objects_->uses("n1", "secrets", "storage", "csi"));
  EXPECT_FALSE(objects_->uses("n2", "secrets", "storage", "csi"));
  EXPECT_FALSE(objects_->uses("n1", "persistentvolumes", "", "none"));
}

class NodeServerTest : public ApiServerTest {
 protected:
  void SetUp() override {
    ApiServerTest::SetUp();
    for (const char* node : {"n1", "n2"}) post("/api/v1/nodes", {{"metadata", {{"name", node}}}});
    for (const char* mark : {"a", "b"}) {
      const std::string end(mark);
      post(kHere + "secrets", {{"metadata", {{"name", "secret-" + end}}}});
      post(kHere + "configmaps", {{"metadata", {{"name", "map-" + end}}}});
    }
    post(kHere + "serviceaccounts", {{"metadata", {{"name", "bot"}}}});
    post(kHere + "pods", pod_json("mine", "n1", "a"));
    post(kHere + "pods", pod_json("theirs", "n2", "b"));
    token_ = "node-token";
  }
  void post(const std::string& target, const json& body) {
    auto made = send("POST", target, body.dump());
    ASSERT_EQ(made.status, 201) << made.body;
  }
  int status(const std::string& method, const std::string& target, const json& body = json()) {
    return send(method, target, body.is_null() ? "" : body.dump(),
                method == "PATCH" ? "application/merge-patch+json" : "application/json")
        .status;
  }
  std::string why(const std::string& method, const std::string& target, const json& body = json()) {
    auto answer = send(method, target, body.is_null() ? "" : body.dump(),
                       method == "PATCH" ? "application/merge-patch+json" : "application/json");
    EXPECT_EQ(answer.status, 403) << answer.body;
    return kube::text_at(json::parse(answer.body), "message");
  }
  static inline const std::string kHere = "/api/v1/namespaces/default/";
  static inline const std::string kLeases =
      "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
};

TEST_F(NodeServerTest, ANodeReadsWhatItsPodsNeed) {
  EXPECT_EQ(status("GET", kHere + "secrets/secret-a"), 200);
  EXPECT_EQ(status("GET", kHere + "secrets?fieldSelector=metadata.name%3Dsecret-a"), 200);
  EXPECT_EQ(status("GET", kHere + "configmaps/map-a"), 200);
  EXPECT_EQ(status("GET", kHere + "pods/mine"), 200);
  EXPECT_EQ(status("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1"), 200);
  EXPECT_EQ(status("GET", "/api/v1/services"), 200);
  EXPECT_EQ(status("GET", "/apis/discovery.k8s.io/v1/endpointslices"), 200);
  EXPECT_EQ(status("GET", "/apis/node.k8s.io/v1/runtimeclasses"), 200);

  EXPECT_EQ(
      why("GET", kHere + "secrets/secret-b"),
      R"(secrets "secret-b" is forbidden: User "system:node:n1" cannot get resource "secrets" in API group "" in the namespace "default": no relationship found between node 'n1' and this object)");
  EXPECT_TRUE(why("GET", kHere + "secrets").ends_with(": No Object name found"));
  EXPECT_TRUE(why("GET", "/api/v1/pods")
                  .ends_with(": can only list/watch pods with spec.nodeName field selector"));
  EXPECT_EQ(status("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2"), 403);
  EXPECT_EQ(status("GET", "/api/v1/pods?fieldSelector=spec.nodeName%21%3Dn1"), 403);
  EXPECT_EQ(status("GET", kHere + "pods/theirs"), 403);
  EXPECT_TRUE(why("GET", "/api/v1/nodes/n2")
                  .ends_with(": node 'n1' cannot read 'n2', only its own Node object"));
  EXPECT_TRUE(why("DELETE", kHere + "secrets/secret-a")
                  .ends_with(": can only read resources of this type"));
  EXPECT_EQ(status("GET", "/apis/apps/v1/deployments"), 403);
  EXPECT_EQ(status("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles"), 403);
}

TEST_F(NodeServerTest, ANodeWritesWhatIsItsOwn) {
  const json ready = {{"status", {{"phase", "Running"}}}};
  EXPECT_EQ(status("PATCH", kHere + "pods/mine/status", ready), 200);
  EXPECT_EQ(status("PATCH", "/api/v1/nodes/n1/status", {{"status", {{"phase", "x"}}}}), 200);
  EXPECT_EQ(status("PATCH", "/api/v1/nodes/n1", {{"metadata", {{"labels", {{"a", "b"}}}}}}), 200);
  EXPECT_EQ(status("POST", kLeases,
                   {{"metadata", {{"name", "n1"}}}, {"spec", {{"holderIdentity", "n1"}}}}),
            201);
  EXPECT_EQ(status("POST", "/apis/storage.k8s.io/v1/csinodes",
                   {{"metadata", {{"name", "n1"}}}, {"spec", {{"drivers", json::array()}}}}),
            201);
  EXPECT_EQ(status("POST", kHere + "events",
                   {{"metadata", {{"name", "e"}}}, {"involvedObject", {{"namespace", "default"}}}}),
            201);

  EXPECT_EQ(
      why("PATCH", kHere + "pods/theirs/status", ready),
      R"(pods "theirs" is forbidden: node "n1" can only update pod status for pods with spec.nodeName set to itself)");
  EXPECT_EQ(
      why("PATCH", "/api/v1/nodes/n1",
          {{"metadata", {{"labels", {{"node-role.kubernetes.io/x", "1"}}}}}}),
      R"(nodes "n1" is forbidden: is not allowed to modify labels: node-role.kubernetes.io/x)");
  EXPECT_EQ(why("PATCH", "/api/v1/nodes/n1",
                {{"spec", {{"taints", {{{"key", "a"}, {"effect", "NoSchedule"}}}}}}}),
            R"(nodes "n1" is forbidden: node "n1" is not allowed to modify taints)");
  EXPECT_EQ(why("PATCH", "/api/v1/nodes/n2/status", {{"status", {{"phase", "x"}}}}),
            R"(nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2")");
  EXPECT_EQ(status("DELETE", "/api/v1/nodes/n1"), 403);
  EXPECT_EQ(status("POST", kLeases, {{"metadata", {{"name", "n2"}}}}), 403);
  EXPECT_EQ(status("PATCH", kHere + "pods/mine", {{"metadata", {{"labels", {{"a", "b"}}}}}}), 403);
  EXPECT_EQ(status("DELETE", kHere + "pods/theirs"), 403);
  EXPECT_EQ(status("DELETE", kHere + "pods/mine"), 200);
}

TEST_F(NodeServerTest, ANodeMakesOnlyMirrorPods) {
  json mirror = {
      {"metadata", {{"name", "m"}, {"annotations", {{"kubernetes.io/config.mirror", "x"}}}}},
      {"spec", {{"nodeName", "n1"}, {"containers", {{{"name", "c"}, {"image", "i"}}}}}}};
  json reader = mirror, elsewhere = mirror, plain = mirror;
  reader["spec"]["volumes"] = {{{"name", "s"}, {"secret", {{"secretName", "secret-b"}}}}};
  elsewhere["spec"]["nodeName"] = "n2";
  plain["metadata"].erase("annotations");

  EXPECT_EQ(why("POST", kHere + "pods", reader),
            R"(pods "m" is forbidden: node "n1" can not create pods that reference secrets)");
  EXPECT_EQ(status("POST", kHere + "pods", elsewhere), 403);
  EXPECT_EQ(status("POST", kHere + "pods", plain), 403);
  EXPECT_EQ(status("POST", kHere + "pods", mirror), 201);
}

TEST_F(NodeServerTest, ANodeEvictsAndGetsTokensForItsOwnPods) {
  const auto eviction = [&](const std::string& pod) {
    return status("POST", kHere + "pods/" + pod + "/eviction", {{"metadata", {{"name", pod}}}});
  };
  const auto token = [&](json reference) {
    json body = {{"spec", {{"audiences", json::array()}}}};
    if (!reference.is_null()) body["spec"]["boundObjectRef"] = std::move(reference);
    return send("POST", kHere + "serviceaccounts/bot/token", body.dump()).status;
  };
  const std::string mine = kube::text_at(get(kHere + "pods/mine"), "metadata", "uid");

  EXPECT_EQ(token({{"kind", "Pod"}, {"name", "mine"}, {"uid", mine}}), 201);
  EXPECT_EQ(token({{"kind", "Pod"}, {"name", "mine"}}), 403) << "the uid is missing";
  EXPECT_EQ(token({{"kind", "Pod"}, {"name", "mine"}, {"uid", "other"}}), 409);
  EXPECT_EQ(token({{"kind", "Pod"}, {"name", "theirs"}, {"uid", "x"}}), 403);
  EXPECT_EQ(token(json()), 403);
  EXPECT_EQ(status("POST", kHere + "serviceaccounts/default/token", json::object()), 403);
  EXPECT_EQ(eviction("theirs"), 403);
  EXPECT_EQ(eviction("mine"), 201);
}

}  // namespace
}  // namespace edgemesh::cloud
