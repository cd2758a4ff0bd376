#include "cloud/api/default_accounts.h"

#include "cloud/api/admission.h"
#include "tests/unit/cloud/api_fixture.h"

namespace edgemesh::cloud {
namespace {

using nlohmann::json;

class DefaultAccountsTest : public ApiFixture {
 protected:
  void start(const std::string& ca = "CA PEM") {
    accounts_ = std::make_unique<DefaultAccounts>(*core_, ca);
    accounts_->start();
  }
  void TearDown() override {
    accounts_.reset();
    ApiFixture::TearDown();
  }
  bool has_account(const std::string& ns) {
    return store_->get(info(kube::kServiceAccounts), ns, "default") != nullptr;
  }
  std::string ca_of(const std::string& ns) {
    ObjectPtr object = store_->get(info(kube::kConfigMaps), ns, "kube-root-ca.crt");
    return object == nullptr ? "" : kube::text_at(json::parse(object->text), "data", "ca.crt");
  }
  std::unique_ptr<DefaultAccounts> accounts_;
};

TEST_F(DefaultAccountsTest, EveryNamespaceHasThem) {
  start();
  settle([&] { return has_account("default") && ca_of("kube-system") == "CA PEM"; });

  ASSERT_TRUE(create(kube::kNamespaces, "", {{"metadata", {{"name", "shop"}}}}));

  settle([&] { return has_account("shop") && ca_of("shop") == "CA PEM"; });
}

TEST_F(DefaultAccountsTest, TheyComeBack) {
  start();
  settle([&] { return has_account("default") && !ca_of("default").empty(); });

  ASSERT_TRUE(remove(kube::kServiceAccounts, "default", "default"));
  ASSERT_TRUE(remove(kube::kConfigMaps, "default", "kube-root-ca.crt"));
  settle([&] { return has_account("default") && !ca_of("default").empty(); });
  ASSERT_TRUE(patch(kube::kConfigMaps, "default", "kube-root-ca.crt", kube::PatchKind::kMerge,
                    {{"data", {{"ca.crt", "other"}}}}));
  settle([&] { return ca_of("default") == "CA PEM"; });
}

TEST_F(DefaultAccountsTest, ANamespaceThatGoesGetsNothing) {
  ASSERT_TRUE(create(kube::kNamespaces, "", {{"metadata", {{"name", "shop"}}}}));
  start();
  settle([&] { return has_account("shop") && !ca_of("shop").empty(); });

  ASSERT_TRUE(remove(kube::kNamespaces, "", "shop"));

  settle([&] { return store_->get(info(kube::kNamespaces), "", "shop") == nullptr; });
  EXPECT_FALSE(has_account("shop"));
}

class TokenMountTest : public DefaultAccountsTest {
 protected:
  void SetUp() override {
    DefaultAccountsTest::SetUp();
    start("");
    settle([&] { return has_account("default"); });
  }
  ApiResult<void> admit(json* pod) {
    (*pod)["metadata"]["namespace"] = "default";
    return admit_new(*store_, registry_, info(kube::kPods), true, pod);
  }
  static json pod(json spec = json::object()) {
    spec["containers"] = {{{"name", "a"}}, {{"name", "b"}}};
    spec["initContainers"] = {{{"name", "i"}}};
    return {{"metadata", {{"name", "p"}}}, {"spec", std::move(spec)}};
  }
  static constexpr const char* kPath = "/var/run/secrets/kubernetes.io/serviceaccount";
};

TEST_F(TokenMountTest, EveryContainerFindsTheToken) {
  json made = pod();
  ASSERT_TRUE(admit(&made));
  const json& spec = made["spec"];

  EXPECT_EQ(spec["serviceAccountName"], "default");
  ASSERT_EQ(spec["volumes"].size(), 1U);
  const json& volume = spec["volumes"][0];
  const std::string name = volume["name"].get<std::string>();
  EXPECT_TRUE(name.starts_with("kube-api-access-")) << name;
  EXPECT_EQ(name.size(), 21U);
  EXPECT_EQ(volume["projected"], json::parse(R"({"defaultMode": 420, "sources": [
              {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
              {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
              {"downwardAPI": {"items": [{"path": "namespace",
                "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]})"));
  for (const json* container :
       {&spec["containers"][0], &spec["containers"][1], &spec["initContainers"][0]}) {
    EXPECT_EQ((*container)["volumeMounts"],
              json({{{"name", name}, {"readOnly", true}, {"mountPath", kPath}}}));
  }
}

TEST_F(TokenMountTest, UnlessThePodOrItsAccountSaysNo) {
  ASSERT_TRUE(create(kube::kServiceAccounts, "default",
                     {{"metadata", {{"name", "quiet"}}},
                      {"automountServiceAccountToken", false},
                      {"imagePullSecrets", {{{"name", "registry"}}}}}));
  json off = pod({{"automountServiceAccountToken", false}});
  json quiet = pod({{"serviceAccountName", "quiet"}});
  json loud = pod({{"serviceAccountName", "quiet"}, {"automountServiceAccountToken", true}});
  json mirror = pod();
  mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "x";
  json own = pod();
  for (const char* list : {"containers", "initContainers"}) {
    for (json& container : own["spec"][list]) {
      container["volumeMounts"] = {{{"name", "mine"}, {"mountPath", kPath}}};
    }
  }

  for (json* one : {&off, &quiet, &loud, &mirror, &own}) ASSERT_TRUE(admit(one));

  EXPECT_FALSE(off["spec"].contains("volumes"));
  EXPECT_FALSE(quiet["spec"].contains("volumes"));
  EXPECT_EQ(quiet["spec"]["imagePullSecrets"], json({{{"name", "registry"}}}));
  EXPECT_TRUE(loud["spec"].contains("volumes"));
  EXPECT_FALSE(mirror["spec"].contains("serviceAccountName"));
  EXPECT_FALSE(own["spec"].contains("volumes"));
}

TEST_F(TokenMountTest, TheAccountMustBeThere) {
  json made = pod({{"serviceAccountName", "none"}});

  auto refused = admit(&made);

  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message,
            "pods \"p\" is forbidden: error looking up service account default/none: "
            "serviceaccount \"none\" not "
            "found");
}

}  // namespace
}  // namespace edgemesh::cloud
