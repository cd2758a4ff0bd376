#include "cloud/api/rbac.h"

#include "cloud/api/rbac_defaults.h"
#include "tests/unit/cloud/api_fixture.h"
#include "tests/unit/cloud/api_server_fixture.h"

namespace edgemesh::cloud {
namespace {

using nlohmann::json;

const kube::ResourceType kRoleType{"rbac.authorization.k8s.io", "v1", "roles", "Role", true};
const kube::ResourceType kClusterRoleType{"rbac.authorization.k8s.io", "v1", "clusterroles",
                                          "ClusterRole", false};
const kube::ResourceType kBindingType{"rbac.authorization.k8s.io", "v1", "rolebindings",
                                      "RoleBinding", true};
const kube::ResourceType kClusterBindingType{"rbac.authorization.k8s.io", "v1",
                                             "clusterrolebindings", "ClusterRoleBinding", false};

json rule(std::vector<std::string> verbs, std::vector<std::string> groups,
          std::vector<std::string> resources, std::vector<std::string> names = {}) {
  return rule_json(
      {std::move(verbs), std::move(groups), std::move(resources), std::move(names), {}});
}
json role(const std::string& name, json rules) {
  return {{"metadata", {{"name", name}}}, {"rules", std::move(rules)}};
}
json binding(const std::string& name, const std::string& kind, const std::string& role,
             json subjects) {
  return {{"metadata", {{"name", name}}},
          {"roleRef", {{"apiGroup", "rbac.authorization.k8s.io"}, {"kind", kind}, {"name", role}}},
          {"subjects", std::move(subjects)}};
}
json user(const std::string& name) {
  return {{"kind", "User"}, {"apiGroup", "rbac.authorization.k8s.io"}, {"name", name}};
}
json group(const std::string& name) {
  return {{"kind", "Group"}, {"apiGroup", "rbac.authorization.k8s.io"}, {"name", name}};
}

// "get pods/log of apps in ns named name", without what is empty.
ApiAttributes ask(const std::string& verb, const std::string& resource, const std::string& ns = "",
                  const std::string& name = "", const std::string& group = "") {
  ApiAttributes out;
  out.verb = verb;
  out.group = group;
  size_t slash = resource.find('/');
  out.resource = resource.substr(0, slash);
  if (slash != std::string::npos) out.subresource = resource.substr(slash + 1);
  out.ns = ns;
  out.name = name;
  return out;
}
ApiAttributes path(const std::string& verb, const std::string& path) {
  ApiAttributes out;
  out.verb = verb;
  out.path = path;
  return out;
}

class RbacTest : public ApiFixture {
 protected:
  void SetUp() override {
    ApiFixture::SetUp();
    rbac_ = std::make_unique<Rbac>(*store_, registry_);
  }
  void TearDown() override {
    rbac_.reset();
    defaults_.reset();
    ApiFixture::TearDown();
  }
  void add(const kube::ResourceType& type, json body, const std::string& ns = "") {
    auto made = create(type, ns, std::move(body));
    ASSERT_TRUE(made) << made.error().message;
  }
  void start_defaults() {
    defaults_ = std::make_unique<RbacDefaults>(*core_);
    defaults_->start();
    settle([&] { return rules_of("admin") > 20 && rules_of("edit") > 10 && rules_of("view") > 5; });
  }
  size_t rules_of(const std::string& role) {
    const RbacRules* rules = rbac_->rules_of_role({"ClusterRole", "", role});
    return rules != nullptr ? rules->size() : 0;
  }
  bool may(const ApiUser& who, const ApiAttributes& what) { return rbac_->allows(who, what); }
  std::string why(const ApiUser& who, const ApiAttributes& what) {
    std::string out;
    rbac_->allows(who, what, &out);
    return out;
  }

  std::unique_ptr<Rbac> rbac_;
  std::unique_ptr<RbacDefaults> defaults_;
  const ApiUser alice_{"alice", {"dev", "system:authenticated"}};
  const ApiUser bob_{"bob", {"system:authenticated"}};
};

TEST(RbacRulesTest, ARuleAllowsWhatItNames) {
  struct Row {
    json rule;
    ApiAttributes what;
    bool allowed;
  };
  const json url = {{"verbs", {"get"}}, {"nonResourceURLs", {"/healthz", "/metrics/*"}}};
  const std::vector<Row> rows = {
      {rule({"get"}, {""}, {"pods"}), ask("get", "pods"), true},
      {rule({"get"}, {""}, {"pods"}), ask("list", "pods"), false},
      {rule({"*"}, {""}, {"pods"}), ask("list", "pods"), true},
      {rule({"get"}, {""}, {"pods"}), ask("get", "pods", "", "", "apps"), false},
      {rule({"get"}, {"*"}, {"pods"}), ask("get", "pods", "", "", "apps"), true},
      {rule({"get"}, {""}, {"pods"}), ask("get", "pods/log"), false},
      {rule({"get"}, {""}, {"pods/log"}), ask("get", "pods/log"), true},
      {rule({"get"}, {""}, {"pods/log"}), ask("get", "pods"), false},
      {rule({"get"}, {""}, {"*/log"}), ask("get", "pods/log"), true},
      {rule({"get"}, {""}, {"*/log"}), ask("get", "pods/exec"), false},
      {rule({"get"}, {""}, {"*"}), ask("get", "pods/exec"), true},
      {rule({"get"}, {""}, {"pods"}, {"a", "b"}), ask("get", "pods", "", "b"), true},
      {rule({"get"}, {""}, {"pods"}, {"a", "b"}), ask("get", "pods", "", "c"), false},
      {rule({"list"}, {""}, {"pods"}, {"a"}), ask("list", "pods"), false},
      {rule({"*"}, {"*"}, {"*"}), path("get", "/healthz"), false},
      {url, path("get", "/healthz"), true},
      {url, path("get", "/healthz/x"), false},
      {url, path("get", "/metrics/x"), true},
      {url, path("get", "/metrics"), false},
      {url, path("post", "/healthz"), false},
      {url, ask("get", "pods"), false},
      {{{"verbs", {"get"}}, {"nonResourceURLs", {"*"}}}, path("get", "/x"), true},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(rule_allows(parse_rules({{"rules", {row.rule}}})[0], row.what), row.allowed)
        << row.rule.dump() << " " << row.what.verb << " " << row.what.resource << row.what.path;
  }
}

TEST(RbacRulesTest, TellsWhatIsNotHeld) {
  const auto missing = [](json held, json wanted) {
    RbacRules have = parse_rules({{"rules", std::move(held)}});
    std::vector<const RbacRule*> pointers;
    for (const RbacRule& one : have) pointers.push_back(&one);
    std::string out;
    for (const RbacRule& one :
         rules_not_held(pointers, parse_rules({{"rules", std::move(wanted)}}))) {
      out += rule_text(one);
    }
    return out;
  };

  EXPECT_EQ(missing({}, {rule({"list", "get"}, {""}, {"secrets", "pods"})}),
            R"({APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]})"
            R"({APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]})");
  EXPECT_EQ(missing({rule({"get"}, {""}, {"*"})}, {rule({"get", "list"}, {""}, {"pods"})}),
            R"({APIGroups:[""], Resources:["pods"], Verbs:["list"]})");
  EXPECT_EQ(missing({rule({"get"}, {""}, {"pods"}, {"a"})}, {rule({"get"}, {""}, {"pods"}, {"a"})}),
            "");
  EXPECT_EQ(missing({rule({"get"}, {""}, {"pods"}, {"a"})}, {rule({"get"}, {""}, {"pods"})}),
            R"({APIGroups:[""], Resources:["pods"], Verbs:["get"]})");
  EXPECT_EQ(missing({rule({"get"}, {""}, {"pods"})}, {rule({"*"}, {""}, {"pods"})}),
            R"({APIGroups:[""], Resources:["pods"], Verbs:["*"]})");
  EXPECT_EQ(missing({}, {{{"verbs", {"get"}}, {"nonResourceURLs", {"/x/*"}}}}),
            R"({NonResourceURLs:["/x/*"], Verbs:["get"]})");
  EXPECT_EQ(missing({rule({"*"}, {"*"}, {"*"})}, {rule({"get"}, {"apps"}, {"deployments/scale"})}),
            "");
}

TEST_F(RbacTest, BindingsGiveRulesToUsersGroupsAndServiceAccounts) {
  add(kRoleType, role("reader", {rule({"get"}, {""}, {"pods"})}), "default");
  add(kClusterRoleType, role("lister", {rule({"list"}, {""}, {"nodes", "pods"})}));
  add(kBindingType, binding("one", "Role", "reader", {user("bob")}), "default");
  add(kClusterBindingType, binding("two", "ClusterRole", "lister", {group("dev")}));
  add(kBindingType,
      binding("three", "ClusterRole", "lister",
              {{{"kind", "ServiceAccount"}, {"name", "bot"}, {"namespace", "kube-system"}}}),
      "default");
  const ApiUser bot{"system:serviceaccount:kube-system:bot", {}};

  EXPECT_TRUE(may(bob_, ask("get", "pods", "default", "x")));
  EXPECT_FALSE(may(bob_, ask("get", "pods", "kube-system", "x")));
  EXPECT_FALSE(may(bob_, ask("get", "pods")));
  EXPECT_TRUE(may(alice_, ask("list", "nodes")));
  EXPECT_TRUE(may(alice_, ask("list", "pods", "kube-system")));
  EXPECT_FALSE(may(alice_, ask("get", "pods", "default", "x")));
  EXPECT_TRUE(may(bot, ask("list", "pods", "default")));
  EXPECT_FALSE(may(bot, ask("list", "nodes")))
      << "a RoleBinding gives nothing outside of its namespace";
  EXPECT_EQ(why(bob_, ask("get", "pods", "default", "x")),
            R"(RBAC: allowed by RoleBinding "one/default" of Role "reader" to User "bob")");
  EXPECT_EQ(
      why(bot, ask("list", "pods", "default")),
      R"(RBAC: allowed by RoleBinding "three/default" of ClusterRole "lister" to ServiceAccount "bot/kube-system")");
  EXPECT_EQ(rbac_->rules_of(bob_, "default").size(), 1U);
  EXPECT_EQ(rbac_->rules_of(bob_, "").size(), 0U);
}

TEST_F(RbacTest, ChangesCountAtOnce) {
  add(kBindingType, binding("b", "Role", "later", {user("bob")}), "default");
  const auto what = ask("get", "pods", "default", "x");
  EXPECT_FALSE(may(bob_, what));
  EXPECT_EQ(why(bob_, what), R"(RBAC: role.rbac.authorization.k8s.io "later" not found)");

  add(kRoleType, role("later", {rule({"get"}, {""}, {"pods"})}), "default");
  EXPECT_TRUE(may(bob_, what));
  ASSERT_TRUE(patch(kRoleType, "default", "later", kube::PatchKind::kMerge,
                    {{"rules", {rule({"list"}, {""}, {"pods"})}}}));
  EXPECT_FALSE(may(bob_, what));
  ASSERT_TRUE(patch(kRoleType, "default", "later", kube::PatchKind::kMerge,
                    {{"rules", {rule({"get"}, {""}, {"pods"})}}}));
  ASSERT_TRUE(patch(kBindingType, "default", "b", kube::PatchKind::kMerge,
                    {{"subjects", {user("alice")}}}));
  EXPECT_FALSE(may(bob_, what));
  EXPECT_TRUE(may(alice_, what));
  ASSERT_TRUE(remove(kRoleType, "default", "later"));
  EXPECT_FALSE(may(alice_, what));
  ASSERT_TRUE(remove(kBindingType, "default", "b"));
  EXPECT_EQ(why(alice_, what), "");
}

TEST_F(RbacTest, ReadsWhatIsThereAtTheStart) {
  add(kClusterRoleType, role("all", {rule({"*"}, {"*"}, {"*"})}));
  add(kClusterBindingType, binding("all", "ClusterRole", "all", {user("bob")}));

  Rbac fresh(*store_, registry_);

  EXPECT_TRUE(fresh.allows(bob_, ask("delete", "nodes", "", "n")));
}

TEST_F(RbacTest, TheUsualRolesAreThere) {
  start_defaults();
  const ApiUser admin{"a", {}}, editor{"e", {}}, viewer{"v", {}};
  add(kBindingType, binding("a", "ClusterRole", "admin", {user("a")}), "default");
  add(kBindingType, binding("e", "ClusterRole", "edit", {user("e")}), "default");
  add(kBindingType, binding("v", "ClusterRole", "view", {user("v")}), "default");
  const std::string rbac = "rbac.authorization.k8s.io";

  EXPECT_TRUE(may(viewer, ask("list", "pods", "default")));
  EXPECT_TRUE(may(viewer, ask("get", "pods/log", "default", "p")));
  EXPECT_FALSE(may(viewer, ask("list", "secrets", "default")));
  EXPECT_FALSE(may(viewer, ask("create", "pods", "default")));
  EXPECT_TRUE(may(editor, ask("create", "deployments", "default", "", "apps")));
  EXPECT_TRUE(may(editor, ask("get", "secrets", "default", "s")));
  EXPECT_TRUE(may(editor, ask("list", "pods", "default"))) << "edit has what view has";
  EXPECT_FALSE(may(editor, ask("create", "roles", "default", "", rbac)));
  EXPECT_TRUE(may(admin, ask("create", "roles", "default", "", rbac)));
  EXPECT_TRUE(may(admin, ask("list", "pods", "default")));
  EXPECT_FALSE(may(admin, ask("list", "nodes")));
  EXPECT_TRUE(may(bob_, path("get", "/apis/apps/v1")));
  EXPECT_TRUE(may(bob_, ask("create", "selfsubjectaccessreviews", "", "", "authorization.k8s.io")));
  EXPECT_FALSE(may(bob_, path("get", "/metrics")));
  const ApiUser nobody{"system:anonymous", {"system:unauthenticated"}};
  EXPECT_TRUE(may(nobody, path("get", "/version")));
  EXPECT_FALSE(may(nobody, path("get", "/apis")));
  EXPECT_TRUE(may(ApiUser{"x", {"system:masters"}}, ask("delete", "nodes", "", "n")));
}

TEST_F(RbacTest, AggregatedRolesFollowTheirParts) {
  start_defaults();
  const ApiUser viewer{"v", {}};
  add(kClusterBindingType, binding("v", "ClusterRole", "view", {user("v")}));
  const auto what = ask("get", "gadgets", "default", "g", "example.com");
  ASSERT_FALSE(may(viewer, what));
  json part = role("gadget-view", {rule({"get"}, {"example.com"}, {"gadgets"})});
  part["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] = "true";

  add(kClusterRoleType, part);
  settle([&] { return may(viewer, what); });
  ASSERT_TRUE(remove(kClusterRoleType, "", "gadget-view"));
  settle([&] { return !may(viewer, what); });

  EXPECT_TRUE(may(viewer, ask("list", "pods", "default")));
}

TEST_F(RbacTest, WhatWasTakenOutOfADefaultRoleComesBack) {
  start_defaults();
  const auto clear = [&](const std::string& name, json annotations) {
    ASSERT_TRUE(patch(kClusterRoleType, "", name, kube::PatchKind::kMerge,
                      {{"metadata", {{"annotations", std::move(annotations)}}},
                       {"rules", {rule({"get"}, {"x"}, {"y"})}}}));
  };
  clear("system:discovery", json::object());
  clear("system:basic-user", {{"rbac.authorization.kubernetes.io/autoupdate", "false"}});
  defaults_.reset();
  ASSERT_EQ(rules_of("system:discovery"), 1U);

  defaults_ = std::make_unique<RbacDefaults>(*core_);
  defaults_->start();

  settle([&] { return rules_of("system:discovery") == 2; });
  EXPECT_EQ(rules_of("system:basic-user"), 1U);
}

using RbacServerTest = ApiServerTest;

std::string message_of(const http::Response& response) {
  return kube::text_at(json::parse(response.body), "message");
}

TEST_F(RbacServerTest, RefusesInTheWordsOfKubernetes) {
  token_ = "other-token";

  EXPECT_EQ(
      message_of(send("GET", "/api/v1/namespaces/default/pods")),
      R"(pods is forbidden: User "somebody" cannot list resource "pods" in API group "" in the namespace "default")");
  EXPECT_EQ(
      message_of(send("GET", "/api/v1/namespaces/default/pods/p/log")),
      R"(pods "p" is forbidden: User "somebody" cannot get resource "pods/log" in API group "" in the namespace "default")");
  EXPECT_EQ(
      message_of(send("DELETE", "/apis/apps/v1/namespaces/a/deployments/d")),
      R"(deployments.apps "d" is forbidden: User "somebody" cannot delete resource "deployments" in API group "apps" in the namespace "a")");
  EXPECT_EQ(message_of(send("GET", "/metrics")),
            R"(forbidden: User "somebody" cannot get path "/metrics")");
  EXPECT_EQ(
      message_of(send("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn")),
      R"(nodes "n" is forbidden: User "somebody" cannot list resource "nodes" in API group "" at the cluster scope)");
}

TEST_F(RbacServerTest, WithoutCredentialsOneIsAnonymous) {
  auto call = request("GET", "/api/v1/pods");
  const auto anonymous = [&](const std::string& target) {
    std::optional<http::Response> out;
    auto plain = request("GET", target);
    plain.headers.remove("Authorization");
    http_->request(plain, [&](Result<http::Response> response) { out = std::move(*response); });
    settle([&] { return out.has_value(); });
    return *out;
  };
  settle([&] { return anonymous("/version").status == 200; });

  auto refused = anonymous("/api/v1/pods");
  EXPECT_EQ(refused.status, 403);
  EXPECT_NE(message_of(refused).find("User \"system:anonymous\""), std::string::npos);
  EXPECT_EQ(anonymous("/apis").status, 403);
}

TEST_F(RbacServerTest, ImpersonationNeedsTheRightToIt) {
  const auto as = [&](std::vector<std::pair<std::string, std::string>> fields) {
    std::optional<http::Response> out;
    auto call = request("GET", "/api/v1/nodes");
    for (const auto& [name, value] : fields) call.headers.add(name, value);
    http_->request(call, [&](Result<http::Response> response) { out = std::move(*response); });
    settle([&] { return out.has_value(); });
    return *out;
  };

  EXPECT_EQ(
      message_of(as({{"Impersonate-User", "bob"}})),
      R"(nodes is forbidden: User "bob" cannot list resource "nodes" in API group "" at the cluster scope)");
  EXPECT_EQ(as({{"Impersonate-User", "bob"}, {"Impersonate-Group", "system:masters"}}).status, 200);
  EXPECT_EQ(as({{"Impersonate-Group", "system:masters"}}).status, 400);
  token_ = "other-token";
  EXPECT_EQ(
      message_of(as({{"Impersonate-User", "bob"}})),
      R"(users "bob" is forbidden: User "somebody" cannot impersonate resource "users" in API group "" at the cluster scope)");
  EXPECT_EQ(
      message_of(as({{"impersonate-user", "system:serviceaccount:a:b"}})),
      R"(serviceaccounts "b" is forbidden: User "somebody" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "a")");

  token_ = "admin-token";
  const std::string rbac = "/apis/rbac.authorization.k8s.io/v1/";
  ASSERT_EQ(send("POST", rbac + "clusterroles",
                 role("imp", {rule({"impersonate"}, {""}, {"users"}, {"bob"})}).dump())
                .status,
            201);
  ASSERT_EQ(send("POST", rbac + "clusterrolebindings",
                 binding("imp", "ClusterRole", "imp", {user("somebody")}).dump())
                .status,
            201);
  token_ = "other-token";
  EXPECT_NE(message_of(as({{"Impersonate-User", "bob"}})).find("User \"bob\" cannot list"),
            std::string::npos);
  EXPECT_NE(message_of(as({{"Impersonate-User", "bob"}, {"Impersonate-Group", "system:masters"}}))
                .find("cannot impersonate resource \"groups\""),
            std::string::npos);
  EXPECT_NE(message_of(as({{"Impersonate-User", "bob"}, {"Impersonate-Extra-Scopes", "x"}}))
                .find("cannot impersonate resource \"userextras/scopes\" in API group "
                      "\"authentication.k8s.io\""),
            std::string::npos);
}

TEST_F(RbacServerTest, NobodyGivesAwayWhatTheyDoNotHave) {
  const std::string all = "/apis/rbac.authorization.k8s.io/v1/";
  const std::string here = all + "namespaces/default/";
  const std::string rbac = "rbac.authorization.k8s.io";
  json maker = role("maker", {rule({"get", "create", "update", "patch"}, {rbac},
                                   {"roles", "rolebindings", "clusterroles"}),
                              rule({"get"}, {""}, {"pods"})});
  ASSERT_EQ(send("POST", all + "clusterroles", maker.dump()).status, 201);
  ASSERT_EQ(send("POST", all + "clusterrolebindings",
                 binding("maker", "ClusterRole", "maker", {user("somebody")}).dump())
                .status,
            201);
  ASSERT_EQ(
      send("POST", here + "roles", role("wide", {rule({"get"}, {""}, {"secrets"})}).dump()).status,
      201);
  token_ = "other-token";

  auto refused = send("POST", here + "roles",
                      role("r", {rule({"list", "get"}, {""}, {"pods", "secrets"})}).dump());
  EXPECT_EQ(refused.status, 403);
  EXPECT_EQ(
      message_of(refused),
      R"(roles.rbac.authorization.k8s.io "r" is forbidden: user "somebody" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:
{APIGroups:[""], Resources:["pods"], Verbs:["list"]}
{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]})");
  EXPECT_EQ(send("POST", here + "roles", role("r", {rule({"get"}, {""}, {"pods"})}).dump()).status,
            201);
  EXPECT_EQ(
      send("PATCH", here + "roles/r", json({{"rules", {rule({"get"}, {""}, {"nodes"})}}}).dump(),
           "application/merge-patch+json")
          .status,
      403);
  EXPECT_EQ(send("PATCH", here + "roles/wide", R"({"metadata":{"labels":{"a":"b"}}})",
                 "application/merge-patch+json")
                .status,
            200)
      << "its rules stay as they are";
  EXPECT_EQ(
      send("POST", here + "rolebindings", binding("w", "Role", "wide", {user("x")}).dump()).status,
      403);
  EXPECT_EQ(
      send("POST", here + "rolebindings", binding("r", "Role", "r", {user("x")}).dump()).status,
      201);
  EXPECT_EQ(
      send("POST", here + "rolebindings", binding("n", "Role", "none", {user("x")}).dump()).status,
      404);
  EXPECT_EQ(send("POST", here + "rolebindings",
                 binding("a", "ClusterRole", "cluster-admin", {user("somebody")}).dump())
                .status,
            403);
  json aggregated = role("agg", json::array());
  aggregated["aggregationRule"]["clusterRoleSelectors"] = {{{"matchLabels", {{"a", "b"}}}}};
  EXPECT_EQ(send("POST", all + "clusterroles", aggregated.dump()).status, 403);

  token_ = "admin-token";
  ASSERT_EQ(
      send("PATCH", all + "clusterroles/maker",
           json({{"rules", {maker["rules"][0], rule({"escalate", "bind"}, {rbac}, {"roles"})}}})
               .dump(),
           "application/merge-patch+json")
          .status,
      200);
  token_ = "other-token";
  EXPECT_EQ(
      send("POST", here + "roles", role("r2", {rule({"get"}, {""}, {"secrets"})}).dump()).status,
      201);
  EXPECT_EQ(
      send("POST", here + "rolebindings", binding("w", "Role", "wide", {user("x")}).dump()).status,
      201);
}

using ReviewTest = ApiServerTest;

TEST_F(ReviewTest, SaysWhoAsksAndWhatTheyMay) {
  const std::string who = "/apis/authentication.k8s.io/v1/", may = "/apis/authorization.k8s.io/v1/";
  const auto post = [&](const std::string& target, json spec) {
    auto response = send("POST", target, json({{"spec", std::move(spec)}}).dump());
    EXPECT_EQ(response.status, 201) << response.body;
    return json::parse(response.body);
  };
  const std::string rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/";
  ASSERT_EQ(send("POST", rbac + "roles", role("r", {rule({"get"}, {""}, {"pods"})}).dump()).status,
            201);
  ASSERT_EQ(
      send("POST", rbac + "rolebindings", binding("b", "Role", "r", {user("somebody")}).dump())
          .status,
      201);
  const json get_pods = {
      {"resourceAttributes", {{"verb", "get"}, {"resource", "pods"}, {"namespace", "default"}}}};
  const json get_nodes = {{"resourceAttributes", {{"verb", "get"}, {"resource", "nodes"}}}};
  token_ = "other-token";

  auto self = post(who + "selfsubjectreviews", json::object());
  EXPECT_EQ(self["status"]["userInfo"],
            json({{"username", "somebody"}, {"groups", {"system:authenticated"}}}));
  EXPECT_EQ(self["kind"], "SelfSubjectReview");
  auto yes = post(may + "selfsubjectaccessreviews", get_pods);
  EXPECT_EQ(yes["status"],
            json({{"allowed", true},
                  {"reason",
                   R"(RBAC: allowed by RoleBinding "b/default" of Role "r" to User "somebody")"}}));
  EXPECT_EQ(yes["spec"], get_pods);
  EXPECT_EQ(post(may + "selfsubjectaccessreviews", get_nodes)["status"]["allowed"], false);
  EXPECT_EQ(post(may + "selfsubjectaccessreviews",
                 {{"nonResourceAttributes",
                   {{"verb", "get"}, {"path", "/version"}}}})["status"]["allowed"],
            true);
  auto rules = post(may + "selfsubjectrulesreviews", {{"namespace", "default"}})["status"];
  EXPECT_EQ(rules["incomplete"], false);
  EXPECT_NE(rules["resourceRules"].dump().find(R"("pods")"), std::string::npos);
  EXPECT_NE(rules["nonResourceRules"].dump().find(R"("/apis/*")"), std::string::npos);
  EXPECT_EQ(send("POST", may + "selfsubjectaccessreviews", "{}").status, 422);
  EXPECT_EQ(send("POST", may + "subjectaccessreviews", "{}").status, 403);

  token_ = "admin-token";
  json other = get_pods;
  other["user"] = "somebody";
  EXPECT_EQ(post(may + "subjectaccessreviews", other)["status"]["allowed"], true);
  EXPECT_EQ(post(may + "namespaces/default/localsubjectaccessreviews", other)["status"]["allowed"],
            true);
  EXPECT_EQ(send("POST", may + "namespaces/kube-system/localsubjectaccessreviews",
                 json({{"spec", other}}).dump())
                .status,
            422);
  EXPECT_EQ(send("POST", may + "subjectaccessreviews", json({{"spec", get_pods}}).dump()).status,
            422);
  auto token = post(who + "tokenreviews", {{"token", "other-token"}})["status"];
  EXPECT_EQ(token["authenticated"], true);
  EXPECT_EQ(token["user"]["username"], "somebody");
  EXPECT_EQ(post(who + "tokenreviews", {{"token", "none"}})["status"],
            json({{"user", json::object()}, {"error", "invalid bearer token"}}));
  EXPECT_EQ(send("GET", who + "tokenreviews").status, 404);
  EXPECT_NE(send("GET", "/apis/authorization.k8s.io/v1").body.find(R"("verbs":["create"])"),
            std::string::npos);
}

}  // namespace
}  // namespace edgemesh::cloud
