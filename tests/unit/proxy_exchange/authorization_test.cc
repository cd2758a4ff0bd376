// JSON Web Tokens and external authorization.
#include <openssl/evp.h>
#include <openssl/rsa.h>

#include "core/tls/x509.h"
#include "tests/unit/proxy_exchange/exchange_fixture.h"

namespace edgemesh::proxy {
namespace {

// An RSA key that signs tokens, and its public half as a key set.
class Signer {
 public:
  Signer() : key_(EVP_RSA_gen(2048)) { EM_CHECK(key_ != nullptr); }
  ~Signer() { EVP_PKEY_free(key_); }
  std::string jwks() const {
    BIGNUM* n = nullptr;
    EM_CHECK(EVP_PKEY_get_bn_param(key_, "n", &n) == 1);
    std::string bytes(static_cast<size_t>(BN_num_bytes(n)), '\0');
    BN_bn2bin(n, reinterpret_cast<unsigned char*>(bytes.data()));
    BN_free(n);
    return R"({"keys":[{"kty":"RSA","alg":"RS256","n":")" + tls::base64url_encode(bytes) +
           R"(","e":"AQAB"}]})";
  }
  std::string token(const std::string& payload) const {
    const std::string text =
        tls::base64url_encode(R"({"alg":"RS256"})") + "." + tls::base64url_encode(payload);
    EVP_MD_CTX* context = EVP_MD_CTX_new();
    size_t size = 0;
    const auto* data = reinterpret_cast<const unsigned char*>(text.data());
    EM_CHECK(EVP_DigestSignInit(context, nullptr, EVP_sha256(), nullptr, key_) == 1 &&
             EVP_DigestSign(context, nullptr, &size, data, text.size()) == 1);
    std::string signature(size, '\0');
    EM_CHECK(EVP_DigestSign(context, reinterpret_cast<unsigned char*>(signature.data()), &size,
                            data, text.size()) == 1);
    EVP_MD_CTX_free(context);
    return text + "." + tls::base64url_encode(signature);
  }

 private:
  EVP_PKEY* key_;
};

class Authorization : public ExchangeTest {
 protected:
  static const Signer& signer() {
    static const Signer made;
    return made;
  }
  static std::vector<std::pair<std::string, std::string>> bearer(const std::string& token) {
    return {{"authorization", "Bearer " + token}};
  }
  // Wall time begins at 1,700,000,001.
  static std::string good() {
    return signer().token(R"({"iss":"joe","sub":"me","role":"dev","exp":1700000100})");
  }
  void with_jwt(const std::string& keys) {
    yaml.policies = R"(jwt:
  providers:
  - name: p
    issuer: joe
    leeway: 0s
    claimToHeaders: {sub: x-sub}
)" + keys + R"(
  rules:
  - {match: {prefix: /open}}
  - {match: {prefix: /}, requires: {provider: p}}
)" + more;
    yaml.routes = routes;
    configure(yaml);
  }
  ProxyYaml yaml;
  std::string more;
  std::string routes = "- {match: {prefix: /}, cluster: a}";
};

TEST_F(Authorization, JwtFromKeysInPlace) {
  more = R"(rbac:
  rules:
  - action: deny
    policies: [{name: q, permissions: [{path: {prefix: /ops}}], principals: [{claim: {name: [role], exact: dev}}]}])";
  with_jwt("    jwks: '" + signer().jwks() + "'");
  Client& client = connect();
  Side& missing = get(client, "/");
  EXPECT_EQ(status(missing), 401);
  EXPECT_EQ(missing.body, "Jwt is missing");
  EXPECT_EQ(flags(missing), "UAEX");
  EXPECT_EQ(field(missing, "www-authenticate"), "Bearer realm=\"shop.example\"");
  EXPECT_EQ(status(get(client, "/open")), 200);
  EXPECT_EQ(a().field("x-sub"), "");
  std::string forged = good();
  forged[forged.size() - 10] ^= 1;
  Side& bad = get(client, "/", bearer(forged));
  EXPECT_EQ(status(bad), 401);
  EXPECT_EQ(field(bad, "www-authenticate"),
            "Bearer realm=\"shop.example\", error=\"invalid_token\"");
  auto fields = bearer(good());
  fields.emplace_back("x-sub", "forged");
  EXPECT_EQ(status(get(client, "/", fields)), 200);
  EXPECT_EQ(a().field("x-sub", 1), "me");
  EXPECT_FALSE(a().last().head->has("authorization"));
  get(client, "/open", {{"x-sub", "forged"}});
  EXPECT_EQ(a().field("x-sub", 2), "");
  EXPECT_EQ(status(get(client, "/ops", bearer(good()))), 403);  // by a claim
  advance(seconds(100));
  EXPECT_EQ(status(get(client, "/", bearer(good()))), 401);  // expired
  EXPECT_EQ(stats_.jwt_denied.value(), 3u);
  EXPECT_EQ(a().requests.size(), 3u);
}

TEST_F(Authorization, JwtKeysComeThroughACluster) {
  with_jwt("    jwksUrl: http://keys.example/set?x\n    jwksCluster: b\n    jwksRefresh: 60s");
  b().silent = true;
  Client& one = connect();
  Client& two = connect(true);
  Side& first = one.send("GET", "/", bearer(good()));
  Side& second = two.send("POST", "/", bearer(good()), "body");
  ASSERT_TRUE(until([&] { return b().requests.size() == 1; }));
  settle();
  EXPECT_EQ(b().requests.size(), 1u);  // for both
  EXPECT_EQ(b().request().head->path, "/set?x");
  EXPECT_EQ(b().request().head->authority, "keys.example");
  EXPECT_FALSE(first.ended || second.ended);
  h1test::answer(*b().request().stream, 200, signer().jwks());
  b().request().stream.reset();
  ASSERT_TRUE(until([&] { return first.ended && second.ended; }));
  EXPECT_EQ(status(first), 200);
  EXPECT_EQ(second.body, "POST /|shop.example|body");
  first.stream.reset();
  // Kept; when they grow old, used on while new ones are fetched.
  EXPECT_EQ(status(get(one, "/", bearer(good()))), 200);
  EXPECT_EQ(b().requests.size(), 1u);
  advance(seconds(61));
  EXPECT_EQ(status(get(one, "/", bearer(good()))), 200);
  EXPECT_EQ(b().requests.size(), 2u);
}

TEST_F(Authorization, JwtKeysThatCannotBeHadRefuse) {
  with_jwt("    jwksUrl: http://keys.example/\n    jwksCluster: b\n    jwksTimeout: 2s");
  b().silent = true;
  Client& client = connect();
  Side& side = client.send("GET", "/", bearer(good()));
  advance(seconds(2));
  ASSERT_TRUE(side.ended);
  EXPECT_EQ(status(side), 401);
  side.stream.reset();
  EXPECT_EQ(status(get(client, "/", bearer(good()))), 401);
  EXPECT_EQ(b().requests.size(), 1u);  // asked again after a second only
  b().silent = false;
  b().reply = [](Side& r) {
    h1test::answer(*r.stream, 200, signer().jwks());
    r.stream.reset();
  };
  advance(seconds(2));
  get(client, "/", bearer(good()));
  settle();
  EXPECT_EQ(status(get(client, "/", bearer(good()))), 200);
}

TEST_F(Authorization, AWorkerEndsWhileKeysAreFetched) {
  with_jwt("    jwksUrl: http://keys.example/\n    jwksCluster: b");
  b().silent = true;
  connect().send("GET", "/", bearer(good()));
  connect().send("GET", "/", bearer(good()));
  ASSERT_TRUE(until([&] { return b().requests.size() == 1; }));
  destroy_worker();
  settle();
  EXPECT_EQ(stats_.active_requests.value(), 0u);
}

TEST_F(Authorization, AClientLeavesWhileKeysAreFetched) {
  with_jwt("    jwksUrl: http://keys.example/\n    jwksCluster: b");
  b().silent = true;
  Client& leaves = connect();
  leaves.send("GET", "/", bearer(good()));
  Side& stays = connect().send("GET", "/", bearer(good()));
  ASSERT_TRUE(until([&] { return b().requests.size() == 1; }));
  settle();
  leaves.stream->break_connection();
  settle();
  h1test::answer(*b().request().stream, 200, signer().jwks());
  ASSERT_TRUE(until([&] { return stays.ended; }));
  EXPECT_EQ(status(stays), 200);
  EXPECT_EQ(a().requests.size(), 1u);
}

// ---- External authorization, by the cluster b.

class ExtAuthz : public ExchangeTest {
 protected:
  void with(const std::string& more) {
    yaml.policies = R"(extAuthz:
  cluster: b
  host: authz.example
  pathPrefix: /check
  timeout: 200ms
  requestHeaders: [{prefix: x-ask}]
  upstreamHeaders: [{exact: x-user}, {exact: content-length}]
  addHeaders: {x-key: secret}
)" + more;
    configure(yaml);
  }
  static std::function<void(Side&)> says(int status, std::string body = "") {
    return [status, body](Side& side) {
      HeadPtr head = take_head();
      head->status = status;
      head->add("x-user", "u1");
      head->add("x-other", "o");
      head->set_length(body.size());
      side.stream->send_head(*head, body.empty());
      if (!body.empty()) side.stream->send_data(io::as_bytes(body), true);
      side.stream.reset();
    };
  }
  ProxyYaml yaml;
};

TEST_F(ExtAuthz, AllowsWithFields) {
  with("");
  b().reply = says(200);
  Side& side = ask(connect(), "POST", "/p?q",
                   {{"x-ask-me", "1"}, {"x-not", "2"}, {"authorization", "t"}, {"x-user", "forged"}},
                   "body");
  EXPECT_EQ(side.body, "POST /p?q|shop.example|body");
  const Head& asked = *b().request().head;
  EXPECT_EQ(asked.method, "POST");
  EXPECT_EQ(asked.path, "/check/p?q");
  EXPECT_EQ(asked.authority, "authz.example");
  EXPECT_EQ(asked.get("x-ask-me"), "1");
  EXPECT_EQ(asked.get("authorization"), "t");
  EXPECT_EQ(asked.get("x-key"), "secret");
  EXPECT_FALSE(asked.has("x-not"));
  EXPECT_EQ(b().request().body, "");
  EXPECT_EQ(a().field("x-user"), "u1");
  EXPECT_EQ(a().field("x-other"), "");
  EXPECT_EQ(a().field("content-length"), "4");
}

TEST_F(ExtAuthz, RefusesWithFieldsAndBody) {
  with("  clientHeaders: [{exact: x-other}]");
  b().reply = says(402, "pay first");
  Client& client = connect();
  Side& side = get(client, "/");
  EXPECT_EQ(status(side), 402);
  EXPECT_EQ(side.body, "pay first");
  EXPECT_EQ(field(side, "x-other"), "o");
  EXPECT_EQ(field(side, "x-user"), "");
  EXPECT_EQ(flags(side), "UAEX");
  EXPECT_EQ(stats_.authz_denied.value(), 1u);
  EXPECT_EQ(a().connects, 0);
  b().reply = says(401);
  EXPECT_EQ(status(get(client, "/")), 401);
}

TEST_F(ExtAuthz, AServiceThatFailsRefuses) {
  with("  failureStatus: 503");
  b().silent = true;
  Client& client = connect();
  Side& side = client.send("GET", "/");
  advance(milliseconds(200));
  EXPECT_EQ(status(side), 503);
  EXPECT_EQ(flags(side), "UAEX");
  EXPECT_EQ(stats_.authz_failed.value(), 1u);
  side.stream.reset();
  b().silent = false;
  b().reply = says(500);
  EXPECT_EQ(status(get(client, "/")), 503);
  b().refuse = true;
  b().break_last();
  settle();
  EXPECT_EQ(status(get(client, "/")), 503);
  EXPECT_EQ(a().connects, 0);
}

TEST_F(ExtAuthz, AServiceThatFailsMayLetPass) {
  with("  failureAllow: true");
  b().silent = true;
  Client& client = connect();
  Side& side = client.send("POST", "/", {}, "body");
  advance(milliseconds(200));
  settle();
  EXPECT_EQ(status(side), 200);
  EXPECT_EQ(side.body, "POST /|shop.example|body");
  EXPECT_EQ(stats_.authz_failed.value(), 1u);
}

TEST_F(ExtAuthz, SeesTheBody) {
  with("  maxBody: 10");
  b().reply = says(200);
  Client& client = connect();
  EXPECT_EQ(ask(client, "POST", "/", {}, "0123456789").body, "POST /|shop.example|0123456789");
  EXPECT_EQ(b().request().body, "0123456789");
  EXPECT_EQ(b().field("content-length"), "10");
  EXPECT_EQ(status(ask(client, "POST", "/", {}, "0123456789x")), 413);
  EXPECT_EQ(b().requests.size(), 1u);
}

TEST_F(ExtAuthz, SeesAPartOfALongBodyAndHoldsTheRestBack) {
  with("  maxBody: 10\n  allowPartialBody: true");
  b().silent = true;
  Client& client = connect(false, {}, {.capacity = 16 * 1024});
  const std::string body(1'000'000, 'x');
  Side& side = client.begin("POST", "/", {{":length", "1000000"}});
  side.stream->send_data(io::as_bytes(body), true);
  ASSERT_TRUE(until([&] { return b().requests.size() == 1 && b().request().ended; }));
  EXPECT_EQ(b().request().body, "xxxxxxxxxx");
  settle(200);
  EXPECT_LT(client.stream->bytes_written(), 300'000u);
  says(200)(b().request());
  ASSERT_TRUE(until([&] { return side.ended; }));
  EXPECT_EQ(status(side), 200);
  EXPECT_EQ(a().request().body, body);
}

TEST_F(ExtAuthz, AClientThatWaitsFor100GetsIt) {
  with("  maxBody: 10");
  b().reply = says(200);
  Client& client = connect();
  Side& side = client.begin("POST", "/", {{":expect", ""}, {":length", "4"}});
  ASSERT_TRUE(until([&] { return !side.informational.empty(); }));
  side.stream->send_data(io::as_bytes("body"), true);
  ASSERT_TRUE(until([&] { return side.ended; }));
  EXPECT_EQ(side.body, "POST /|shop.example|body");
  EXPECT_EQ(b().request().body, "body");
  EXPECT_EQ(side.informational.size(), 1u);
  EXPECT_FALSE(a().request().head->expect_continue);
}

TEST_F(ExtAuthz, AClientLeavesWhileTheServiceThinks) {
  with("");
  b().silent = true;
  Client& client = connect();
  client.send("GET", "/");
  ASSERT_TRUE(until([&] { return b().requests.size() == 1; }));
  client.stream->break_connection();
  settle();
  EXPECT_TRUE(client.gone);
  EXPECT_FALSE(b().request().reset.empty());
  EXPECT_EQ(a().connects, 0);
}

}  // namespace
}  // namespace edgemesh::proxy
