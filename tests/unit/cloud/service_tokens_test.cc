#include "cloud/api/service_tokens.h"

#include "core/tls/x509.h"
#include "tests/unit/cloud/api_fixture.h"
#include "tests/unit/cloud/api_server_fixture.h"

namespace edgemesh::cloud {
namespace {

using nlohmann::json;

class ServiceTokensTest : public ApiFixture {
 protected:
  void SetUp() override {
    ApiFixture::SetUp();
    auto made = ServiceTokens::create(*store_, registry_, clock_, {.issuer = "https://issuer"});
    ASSERT_TRUE(made) << made.error().message;
    tokens_ = std::move(*made);
    ASSERT_TRUE(create(kube::kServiceAccounts, "default", named("bot")));
    ASSERT_TRUE(create(kube::kNodes, "", named("n1")));
    ASSERT_TRUE(create(kube::kPods, "default", pod("p", "bot")));
  }
  void TearDown() override {
    tokens_.reset();
    ApiFixture::TearDown();
  }
  static json named(const std::string& name) { return {{"metadata", {{"name", name}}}}; }
  static json pod(const std::string& name, const std::string& account) {
    return {{"metadata", {{"name", name}}},
            {"spec",
             {{"serviceAccountName", account},
              {"nodeName", "n1"},
              {"containers", {{{"name", "c"}, {"image", "i"}}}}}}};
  }
  ApiResult<json> issue(json spec = json::object()) {
    ObjectPtr account = store_->get(info(kube::kServiceAccounts), "default", "bot");
    return tokens_->issue(*account, {{"spec", std::move(spec)}});
  }
  std::string token(json spec = json::object()) {
    auto made = issue(std::move(spec));
    EXPECT_TRUE(made) << made.error().message;
    return made ? kube::text_at(*made, "status", "token") : "";
  }
  static json of_pod(const std::string& name, const std::string& uid = "") {
    json reference = {{"kind", "Pod"}, {"apiVersion", "v1"}, {"name", name}};
    if (!uid.empty()) reference["uid"] = uid;
    return {{"boundObjectRef", reference}};
  }
  std::string user_of(const std::string& token, const std::vector<std::string>& audiences = {}) {
    auto user = tokens_->authenticate(token, audiences, nullptr);
    return user ? user->name : "";
  }
  static json part(const std::string& token, int index) {
    std::string text = token;
    for (int i = 0; i < index; ++i) text = text.substr(text.find('.') + 1);
    return json::parse(*tls::base64url_decode(text.substr(0, text.find('.'))));
  }
  void erase(const kube::ResourceType& type, const std::string& ns, const std::string& name) {
    ApiCore::Deletion now;
    now.grace_s = 0;
    ASSERT_TRUE(remove(type, ns, name, now));
  }

  static constexpr const char* kBot = "system:serviceaccount:default:bot";
  ManualClock clock_;
  std::unique_ptr<ServiceTokens> tokens_;
};

TEST_F(ServiceTokensTest, ATokenSaysWhoseItIs) {
  auto made = issue(of_pod("p"));
  ASSERT_TRUE(made) << made.error().message;
  const std::string token = kube::text_at(*made, "status", "token");
  const json claims = part(token, 1);

  EXPECT_EQ((*made)["kind"], "TokenRequest");
  EXPECT_EQ((*made)["spec"]["expirationSeconds"], 3600);
  EXPECT_EQ((*made)["spec"]["audiences"], json({"https://issuer"}));
  EXPECT_EQ(claims["sub"], kBot);
  EXPECT_EQ(claims["iss"], "https://issuer");
  EXPECT_EQ(claims["aud"], json({"https://issuer"}));
  EXPECT_EQ(claims["exp"].get<int64_t>() - claims["iat"].get<int64_t>(), 3600);
  const json& about = claims["kubernetes.io"];
  EXPECT_EQ(about["namespace"], "default");
  EXPECT_EQ(about["serviceaccount"]["name"], "bot");
  EXPECT_EQ(about["pod"]["name"], "p");
  EXPECT_EQ(about["node"]["name"], "n1");
  auto user = tokens_->authenticate(token, {}, nullptr);
  ASSERT_TRUE(user);
  EXPECT_EQ(user->name, kBot);
  EXPECT_EQ(user->uid, about["serviceaccount"]["uid"]);
  EXPECT_EQ(user->groups,
            (std::vector<std::string>{"system:serviceaccounts", "system:serviceaccounts:default",
                                      "system:authenticated"}));
  EXPECT_EQ(user->extra["authentication.kubernetes.io/pod-name"], std::vector<std::string>{"p"});
  EXPECT_EQ(user->extra["authentication.kubernetes.io/node-name"], std::vector<std::string>{"n1"});
}

TEST_F(ServiceTokensTest, AnyoneCanCheckItByThePublishedKey) {
  const std::string made = token();
  const json key = tokens_->jwks()["keys"][0];
  const size_t dot = made.rfind('.');

  auto verifier = tls::JwsKey::p256(*tls::base64url_decode(key["x"].get<std::string>()),
                                    *tls::base64url_decode(key["y"].get<std::string>()));

  ASSERT_TRUE(verifier);
  EXPECT_TRUE(verifier->verify(made.substr(0, dot), *tls::base64url_decode(made.substr(dot + 1))));
  EXPECT_EQ(part(made, 0), json({{"alg", "ES256"}, {"kid", key["kid"]}}));
  const json config = tokens_->openid_configuration("https://cloud/openid/v1/jwks");
  EXPECT_EQ(config["issuer"], "https://issuer");
  EXPECT_EQ(config["jwks_uri"], "https://cloud/openid/v1/jwks");
}

TEST_F(ServiceTokensTest, RefusesWhatIsNotOurs) {
  const std::string made = token();
  ASSERT_EQ(user_of(made), kBot);
  auto other = ServiceTokens::create(*store_, registry_, clock_, {.issuer = "https://issuer"});
  ObjectPtr account = store_->get(info(kube::kServiceAccounts), "default", "bot");
  auto foreign = (*other)->issue(*account, json::object());
  ASSERT_TRUE(foreign);
  const size_t dot = made.rfind('.');
  std::string claims = part(made, 1).dump();
  claims.replace(claims.find("bot"), 3, "bob");
  const std::string forged =
      made.substr(0, made.find('.') + 1) + tls::base64url_encode(claims) + made.substr(dot);
  const std::string none = tls::base64url_encode(R"({"alg":"none"})") +
                           made.substr(made.find('.'), dot - made.find('.')) + ".";

  for (const std::string& bad :
       {std::string(""), std::string("a"), std::string("a.b.c"), made + "x", forged, none,
        made.substr(0, dot + 1), kube::text_at(*foreign, "status", "token"),
        std::string(20000, 'a') + "." + "b.c"}) {
    EXPECT_EQ(user_of(bad), "") << bad.substr(0, 200);
  }
}

TEST_F(ServiceTokensTest, ATokenEndsWithItsTime) {
  const std::string made = token({{"expirationSeconds", 600}});
  clock_.advance(std::chrono::seconds(599));
  EXPECT_EQ(user_of(made), kBot);
  clock_.advance(std::chrono::seconds(1));
  EXPECT_EQ(user_of(made), "");

  auto brief = issue({{"expirationSeconds", 599}});
  ASSERT_FALSE(brief);
  EXPECT_EQ(brief.error().message,
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid "
            "value: 599: "
            "may not specify a duration less than 10 minutes");
  EXPECT_FALSE(issue({{"expirationSeconds", int64_t{1} << 33}}));
}

TEST_F(ServiceTokensTest, ATokenEndsWithWhatItIsBoundTo) {
  const std::string of_the_pod = token(of_pod("p")), of_the_account = token();
  const std::string of_the_node = token({{"boundObjectRef", {{"kind", "Node"}, {"name", "n1"}}}});
  ASSERT_EQ(user_of(of_the_pod), kBot);

  erase(kube::kPods, "default", "p");
  EXPECT_EQ(user_of(of_the_pod), "");
  ASSERT_TRUE(create(kube::kPods, "default", pod("p", "bot")));
  EXPECT_EQ(user_of(of_the_pod), "") << "another pod of that name";
  EXPECT_EQ(user_of(of_the_node), kBot);
  erase(kube::kNodes, "", "n1");
  EXPECT_EQ(user_of(of_the_node), "");
  EXPECT_EQ(user_of(of_the_account), kBot);
  erase(kube::kServiceAccounts, "default", "bot");
  ASSERT_TRUE(create(kube::kServiceAccounts, "default", named("bot")));
  EXPECT_EQ(user_of(of_the_account), "") << "another account of that name";
}

TEST_F(ServiceTokensTest, ATokenIsForItsAudiences) {
  const std::string made = token({{"audiences", {"vault", "db"}}});
  std::vector<std::string> fitting;

  EXPECT_EQ(user_of(made), "") << "not for this API";
  EXPECT_EQ(user_of(made, {"db"}), kBot);
  EXPECT_EQ(user_of(made, {"other"}), "");
  ASSERT_TRUE(tokens_->authenticate(made, {"other", "vault"}, &fitting));
  EXPECT_EQ(fitting, std::vector<std::string>{"vault"});
}

TEST_F(ServiceTokensTest, BindsOnlyToWhatFits) {
  ASSERT_TRUE(create(kube::kServiceAccounts, "default", named("other")));
  ASSERT_TRUE(create(kube::kPods, "default", pod("q", "other")));
  const auto code = [&](json spec) {
    auto made = issue(std::move(spec));
    return made ? 201 : made.error().code;
  };

  EXPECT_EQ(code(of_pod("none")), 404);
  EXPECT_EQ(code(of_pod("q")), 400) << "it runs as another account";
  EXPECT_EQ(code(of_pod("p", "another-uid")), 409);
  EXPECT_EQ(code({{"boundObjectRef", {{"kind", "Service"}, {"name", "p"}}}}), 422);
}

using TokenServerTest = ApiServerTest;

TEST_F(TokenServerTest, AnAccountIsWhatItsTokenMay) {
  const std::string rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/";
  const std::string accounts = "/api/v1/namespaces/default/serviceaccounts";
  ASSERT_EQ(send("POST", accounts, R"({"metadata":{"name":"bot"}})").status, 201);
  ASSERT_EQ(
      send(
          "POST", rbac + "rolebindings",
          R"({"metadata":{"name":"b"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"},
                     "subjects":[{"kind":"ServiceAccount","name":"bot","namespace":"default"}]})")
          .status,
      201);

  auto made = send("POST", accounts + "/bot/token",
                   R"({"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","spec":{}})");
  ASSERT_EQ(made.status, 201) << made.body;
  EXPECT_EQ(send("POST", accounts + "/none/token", "{}").status, 404);
  token_ = kube::text_at(json::parse(made.body), "status", "token");
  settle([&] { return send("GET", "/api/v1/namespaces/default/services").status == 200; });
  EXPECT_EQ(send("GET", "/api/v1/namespaces/default/secrets").status, 403);
  EXPECT_EQ(send("GET", "/api/v1/namespaces/kube-system/services").status, 403);
  EXPECT_EQ(send("POST", accounts + "/bot/token", "{}").status, 403);
  auto config = send("GET", "/.well-known/openid-configuration");
  EXPECT_EQ(config.status, 200);
  EXPECT_EQ(get("/openid/v1/jwks")["keys"][0]["kty"], "EC");
  token_ = "other-token";
  EXPECT_EQ(send("GET", "/openid/v1/jwks").status, 403);
  token_ = "no.such.token";
  EXPECT_EQ(send("GET", "/version").status, 401);
}

}  // namespace
}  // namespace edgemesh::cloud
