// Faults, rate limits, RBAC, CORS, mirrors.
#include "tests/unit/proxy_exchange/exchange_fixture.h"

namespace edgemesh::proxy {
namespace {

class Policy : public ExchangeTest {
 protected:
  void with(const std::string& policies) {
    yaml.policies = policies;
    configure(yaml);
  }
  ProxyYaml yaml;
};

TEST_F(Policy, AFaultAborts) {
  with(R"(fault:
  abort: {percent: 100, status: 418}
  headers: [{name: x-fault, exact: "1"}])");
  Client& client = connect();
  Side& side = ask(client, "POST", "/", {{"x-fault", "1"}}, "body");
  EXPECT_EQ(status(side), 418);
  EXPECT_EQ(side.body, "fault filter abort");
  EXPECT_EQ(flags(side), "FI");
  EXPECT_EQ(a().connects, 0);
  EXPECT_EQ(status(get(client, "/")), 200);
}

TEST_F(Policy, AFaultIsAGrpcStatusForGrpc) {
  with("fault: {abort: {grpcStatus: 8}}");
  Side& side = ask(connect(true), "POST", "/", {{"content-type", "application/grpc"}});
  EXPECT_EQ(status(side), 200);
  EXPECT_EQ(field(side, "grpc-status"), "8");
}

TEST_F(Policy, AFaultDelaysAndHoldsTheBodyBack) {
  with("fault: {delay: {time: 5s}, maxActive: 1}");
  Client& client = connect(false, {}, {.capacity = 16 * 1024});
  Side& side = client.begin("POST", "/", {{":length", "1000000"}});
  const std::string body(1'000'000, 'x');
  side.stream->send_data(io::as_bytes(body), true);
  settle(200);
  EXPECT_EQ(a().connects, 0);
  EXPECT_LT(client.stream->bytes_written(), 300'000u);
  // Beside the one that is delayed nobody is.
  EXPECT_EQ(status(get(connect(), "/")), 200);
  advance(seconds(5));
  ASSERT_TRUE(until([&] { return side.ended; }));
  EXPECT_EQ(flags(side), "DI");
  EXPECT_EQ(a().last().body, body);
}

TEST_F(Policy, AClientThatLeavesDuringADelayEndsIt) {
  with("fault: {delay: {time: 5s}, maxActive: 1}");
  Client& client = connect();
  client.send("GET", "/");
  settle();
  client.stream->break_connection();
  settle();
  EXPECT_TRUE(client.gone);
  EXPECT_EQ(stats_.active_requests.value(), 0u);
  Side& side = connect().send("GET", "/");  // its place is free again
  settle();
  EXPECT_FALSE(side.ended);
  advance(seconds(5));
  EXPECT_EQ(flags(side), "DI");
  EXPECT_EQ(a().requests.size(), 1u);
}

TEST_F(Policy, LimitsTheRate) {
  with(R"(rateLimit:
  maxTokens: 2
  tokensPerFill: 1
  fillInterval: 1s
  rateLimitHeaders: true
  responseHeaders: {x-limited: "yes"})");
  Client& client = connect();
  Client& other = connect();
  Side& first = get(client, "/");
  EXPECT_EQ(status(first), 200);
  EXPECT_EQ(field(first, "x-ratelimit-limit"), "2");
  EXPECT_EQ(field(first, "x-ratelimit-remaining"), "1");
  EXPECT_EQ(field(first, "x-limited"), "");
  EXPECT_EQ(status(get(other, "/")), 200);
  Side& over = get(client, "/");
  EXPECT_EQ(status(over), 429);
  EXPECT_EQ(over.body, "local_rate_limited");
  EXPECT_EQ(flags(over), "RL");
  EXPECT_EQ(field(over, "x-limited"), "yes");
  EXPECT_EQ(stats_.rate_limited.value(), 1u);
  advance(seconds(1));
  EXPECT_EQ(status(get(client, "/")), 200);
  EXPECT_EQ(status(get(client, "/")), 429);
  // A change of something else does not fill the bucket.
  yaml.http = "serverName: other";
  configure(yaml);
  EXPECT_EQ(status(get(client, "/")), 429);
}

TEST_F(Policy, LimitsTheRateOfAConnection) {
  with("rateLimit: {maxTokens: 1, fillInterval: 1h, perConnection: true, status: 420}");
  Client& client = connect();
  EXPECT_EQ(status(get(client, "/")), 200);
  EXPECT_EQ(status(get(client, "/")), 420);
  EXPECT_EQ(status(get(connect(), "/")), 200);
}

TEST_F(Policy, ARateThatIsNotEnforcedIsCounted) {
  with("rateLimit: {maxTokens: 1, fillInterval: 1h, enforcedPercent: 0}");
  Client& client = connect();
  EXPECT_EQ(status(get(client, "/")), 200);
  EXPECT_EQ(status(get(client, "/")), 200);
  EXPECT_EQ(stats_.rate_limited.value(), 1u);
}

TEST_F(Policy, RbacAllowsAndDenies) {
  with(R"(rbac:
  rules:
  - action: allow
    policies:
    - {name: readers, permissions: [{method: {exact: GET}}], principals: [{sourceIp: 127.0.0.0/8}]}
  - action: deny
    policies:
    - {name: no-admin, permissions: [{path: {prefix: /admin}}]}
  shadow:
  - action: deny
    policies: [{name: s, permissions: [{header: {name: x-shadow}}]}])");
  Client& client = connect();
  EXPECT_EQ(status(get(client, "/x")), 200);
  Side& denied = get(client, "/admin/x");
  EXPECT_EQ(status(denied), 403);
  EXPECT_EQ(denied.body, "RBAC: access denied");
  EXPECT_EQ(field(denied, "x-details"), "rbac_access_denied_matched_policy[no-admin]");
  Side& post = ask(client, "POST", "/x", {}, "body");
  EXPECT_EQ(status(post), 403);
  EXPECT_EQ(field(post, "x-details"), "rbac_access_denied_matched_policy[none]");
  EXPECT_EQ(stats_.rbac_denied.value(), 2u);
  EXPECT_EQ(stats_.rbac_shadow_denied.value(), 0u);
  EXPECT_EQ(status(get(client, "/x", {{"x-shadow", "1"}})), 200);
  EXPECT_EQ(stats_.rbac_shadow_denied.value(), 1u);
  ClientInfo far;
  far.peer = SockAddr{IpAddr::v4(0x01020304), 1};
  EXPECT_EQ(status(get(connect(false, far), "/x")), 403);
  EXPECT_EQ(a().requests.size(), 2u);
}

TEST_F(Policy, RbacKnowsCertificates) {
  with(R"(rbac:
  rules:
  - action: allow
    policies: [{name: p, principals: [{principal: {exact: "spiffe://td/ns/x"}}]}])");
  EXPECT_EQ(status(get(connect(), "/")), 403);
  auto identity = std::make_shared<tls::PeerIdentity>();
  identity->uri_sans = {"spiffe://td/ns/x"};
  ClientInfo known;
  known.identity = identity;
  EXPECT_EQ(status(get(connect(true, known), "/")), 200);
}

TEST_F(Policy, Cors) {
  with(R"(cors:
  origins: [{suffix: .shop.example}]
  methods: "GET, POST"
  headers: x-my
  expose: x-out
  credentials: true
  maxAge: 1h)");
  Client& client = connect();
  Side& preflight =
      ask(client, "OPTIONS", "/",
          {{"origin", "https://a.shop.example"}, {"access-control-request-method", "POST"}});
  EXPECT_EQ(status(preflight), 200);
  EXPECT_EQ(field(preflight, "access-control-allow-origin"), "https://a.shop.example");
  EXPECT_EQ(field(preflight, "access-control-allow-methods"), "GET, POST");
  EXPECT_EQ(field(preflight, "access-control-allow-headers"), "x-my");
  EXPECT_EQ(field(preflight, "access-control-max-age"), "3600");
  EXPECT_EQ(field(preflight, "access-control-allow-credentials"), "true");
  EXPECT_EQ(a().connects, 0);
  Side& actual = get(client, "/", {{"origin", "https://a.shop.example"}});
  EXPECT_EQ(field(actual, "access-control-allow-origin"), "https://a.shop.example");
  EXPECT_EQ(field(actual, "access-control-expose-headers"), "x-out");
  EXPECT_EQ(field(actual, "vary"), "origin");
  Side& other = get(client, "/", {{"origin", "https://evil.example"}});
  EXPECT_EQ(status(other), 200);
  EXPECT_EQ(field(other, "access-control-allow-origin"), "");
}

// ---- Mirrors.

TEST_F(Policy, MirrorsRequestsWithTheirBodies) {
  yaml.routes = R"(- match: {prefix: /}
  cluster: a
  mirrors: [{cluster: b}, {cluster: c, percent: 0}])";
  configure(yaml);
  b().reply = [](Side& side) {  // long, and slow to end
    HeadPtr head = take_head();
    head->status = 500;
    side.stream->send_head(*head, false);
    side.stream->send_data(io::as_bytes(std::string(200'000, 'y')), true);
    side.stream.reset();
  };
  Client& client = connect();
  Side& side = ask(client, "POST", "/m?x", {{"x-f", "v"}}, "the body");
  EXPECT_EQ(side.body, "POST /m?x|shop.example|the body");
  ASSERT_TRUE(until([&] { return b().requests.size() == 1 && b().request().ended; }));
  EXPECT_EQ(b().request().body, "the body");
  EXPECT_EQ(b().request().head->path, "/m?x");
  EXPECT_EQ(b().request().head->authority, "shop.example-shadow");
  EXPECT_EQ(b().field("x-f"), "v");
  EXPECT_EQ(stats_.mirrored.value(), 1u);
  EXPECT_EQ(c().connects, 0);
  EXPECT_EQ(status(get(client, "/", {{":authority", "h:8080"}})), 200);
  ASSERT_TRUE(until([&] { return b().requests.size() == 2; }));
  EXPECT_EQ(b().last().head->authority, "h-shadow:8080");
  // A mirror that hangs holds nobody up, and ends.
  b().silent = true;
  EXPECT_EQ(status(get(client, "/")), 200);
  settle();
  ASSERT_EQ(b().requests.size(), 3u);
  EXPECT_TRUE(b().last().reset.empty());
  advance(seconds(15));
  EXPECT_FALSE(b().last().reset.empty());
}

TEST_F(Policy, ABodyThatIsTooLongIsNotMirrored) {
  options_.replay_bytes = 1000;
  yaml.routes = "- {match: {prefix: /}, cluster: a, mirrors: [{cluster: b}]}";
  configure(yaml);
  Client& client = connect();
  Side& side = client.begin("POST", "/", {{":length", "3000"}});
  for (int i = 0; i < 3; ++i) {
    side.stream->send_data(io::as_bytes(std::string(1000, 'x')), i == 2);
    settle();
  }
  ASSERT_TRUE(side.ended);
  EXPECT_EQ(a().request().body.size(), 3000u);
  EXPECT_EQ(b().connects, 0);
  EXPECT_EQ(stats_.mirrored.value(), 0u);
  EXPECT_EQ(stats_.mirrors_dropped.value(), 1u);
}

TEST_F(Policy, AWorkerEndsWhileMirrorsAreOpen) {
  yaml.routes = "- {match: {prefix: /}, cluster: a, mirrors: [{cluster: b}, {cluster: c}]}";
  configure(yaml);
  b().silent = true;
  connect().send("GET", "/");
  ASSERT_TRUE(until([&] { return b().requests.size() == 1; }));
  destroy_worker();
  settle();
  EXPECT_EQ(stats_.active_requests.value(), 0u);
}

}  // namespace
}  // namespace edgemesh::proxy
