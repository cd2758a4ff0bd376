// Where requests go, and what their heads look like on the way there and back.
#include "tests/unit/proxy_exchange/exchange_fixture.h"

namespace edgemesh::proxy {
namespace {

class Routing : public ExchangeTest {};

TEST_F(Routing, ChoosesTheClusterByPathHeaderAndMethod) {
  ProxyYaml yaml;
  yaml.routes = R"(- {match: {path: /exact}, cluster: b}
- {match: {segmentPrefix: /api, headers: [{name: x-version, regex: "v[0-9]+"}]}, cluster: c}
- {match: {prefix: /, methods: [DELETE]}, cluster: c}
- {match: {prefix: /, query: [{name: q, exact: "1"}]}, cluster: b}
- {match: {prefix: /}, cluster: a})";
  configure(yaml);
  Client& client = connect();
  EXPECT_EQ(get(client, "/exact").body, "GET /exact|shop.example|");
  EXPECT_EQ(b().requests.size(), 1u);
  get(client, "/api/x", {{"x-version", "v12"}});
  EXPECT_EQ(c().requests.size(), 1u);
  get(client, "/api/x", {{"x-version", "v12x"}});
  get(client, "/apix", {{"x-version", "v1"}});
  EXPECT_EQ(a().requests.size(), 2u);
  ask(client, "DELETE", "/z");
  EXPECT_EQ(c().requests.size(), 2u);
  get(client, "/z?q=1");
  EXPECT_EQ(b().requests.size(), 2u);
  EXPECT_EQ(listener_stats_.requests.value(), 6u);
  EXPECT_EQ(listener_stats_.by_class[2].value(), 6u);
  EXPECT_EQ(stats_.active_requests.value(), 0u);
  // One connection each was kept.
  EXPECT_EQ(a().connects + b().connects + c().connects, 3);
}

TEST_F(Routing, ChoosesTheClusterByHost) {
  configure_text(R"(
listeners: [{name: l, address: "127.0.0.1:1", chains: [{http: {routes: r}}]}]
routes:
- name: r
  hosts:
  - {domains: [one.example], routes: [{match: {prefix: /}, cluster: a}]}
  - {domains: ["*.two.example"], routes: [{match: {prefix: /}, cluster: b}]}
clusters:
- {name: a, endpoints: [{address: "10.0.0.1:80"}]}
- {name: b, endpoints: [{address: "10.0.0.2:80"}]}
)");
  Client& client = connect(true);
  EXPECT_EQ(get(client, "/", {{":authority", "one.example"}}).body, "GET /|one.example|");
  get(client, "/", {{":authority", "x.two.example"}});
  EXPECT_EQ(a().requests.size(), 1u);
  EXPECT_EQ(b().requests.size(), 1u);
  EXPECT_EQ(status(get(client, "/", {{":authority", "other.example"}})), 404);
  EXPECT_EQ(listener_stats_.by_class[4].value(), 1u);
}

TEST_F(Routing, SplitsByWeight) {
  ProxyYaml yaml;
  yaml.routes = R"(- match: {prefix: /}
  clusters:
  - {name: a, weight: 90, responseHeaders: {set: {x-from: a}}}
  - {name: b, weight: 10, requestHeaders: {set: {x-to: b}}})";
  configure(yaml);
  Client& client = connect();
  int to_a = 0;
  for (int i = 0; i < 300; ++i) to_a += field(get(client, "/"), "x-from") == "a" ? 1 : 0;
  EXPECT_EQ(a().requests.size(), static_cast<size_t>(to_a));
  EXPECT_GT(b().requests.size(), 10u);
  EXPECT_LT(b().requests.size(), 60u);
  EXPECT_EQ(a().requests.size() + b().requests.size(), 300u);
  EXPECT_EQ(b().field("x-to"), "b");
  EXPECT_EQ(a().field("x-to"), "");
}

TEST_F(Routing, AnswersWithoutAnEndpoint) {
  ProxyYaml yaml;
  yaml.routes = R"(- {match: {path: /health}, respond: {status: 200, body: fine}}
- {match: {path: /gone}, respond: {status: 410}}
- {match: {segmentPrefix: /old}, redirect: {status: 308, prefix: /new}}
- {match: {path: /tls}, redirect: {scheme: https, host: b.example}}
- {match: {prefix: /to-named}, clusterHeader: x-cluster, missingStatus: 500}
- {match: {prefix: /a}, cluster: a})";
  configure(yaml);
  Client& client = connect();
  Side& health = get(client, "/health");
  EXPECT_EQ(status(health), 200);
  EXPECT_EQ(health.body, "fine");
  EXPECT_EQ(field(health, "content-type"), "text/plain");
  EXPECT_EQ(field(health, "content-length"), "4");
  EXPECT_EQ(field(health, "server"), "edgemesh");
  EXPECT_EQ(field(health, "date"), "Tue, 14 Nov 2023 22:13:21 GMT");
  EXPECT_EQ(field(health, "x-details"), "direct response");
  Side& head = ask(client, "HEAD", "/health");
  EXPECT_EQ(field(head, "content-length"), "4");
  EXPECT_EQ(head.body, "");
  EXPECT_EQ(status(get(client, "/gone")), 410);
  Side& old = get(client, "/old/x?y=1");
  EXPECT_EQ(status(old), 308);
  EXPECT_EQ(field(old, "location"), "http://shop.example/new/x?y=1");
  Side& tls = get(client, "/tls");
  EXPECT_EQ(status(tls), 301);
  EXPECT_EQ(field(tls, "location"), "https://b.example/tls");
  EXPECT_EQ(status(get(client, "/nothing")), 404);
  Side& unnamed = get(client, "/to-named", {{"x-cluster", "nobody"}});
  EXPECT_EQ(status(unnamed), 500);
  EXPECT_EQ(flags(unnamed), "NC");
  EXPECT_EQ(status(get(client, "/to-named", {{"x-cluster", "b"}})), 200);
  EXPECT_EQ(b().requests.size(), 1u);
  EXPECT_EQ(a().connects, 0);
  EXPECT_FALSE(client.gone);
}

TEST_F(Routing, RewritesPathAndHost) {
  ProxyYaml yaml;
  yaml.routes = R"(- {match: {segmentPrefix: /api}, cluster: a, rewrite: {prefix: /v1, host: in.example}}
- match: {prefix: /re}
  cluster: a
  rewrite: {regex: {pattern: "^/re/([^/]+)/(.*)$", substitution: '/\2/\1'}, appendForwardedHost: true, hostFromHeader: x-host}
- {match: {prefix: /}, cluster: named, rewrite: {path: /fixed, hostFromEndpoint: true}})";
  yaml.clusters = "- {name: named, endpoints: [{address: \"10.0.0.1:80\", hostname: ep.example}]}";
  configure(yaml);
  Client& client = connect();
  EXPECT_EQ(get(client, "/api/x?q").body, "GET /v1/x?q|in.example|");
  EXPECT_EQ(a().field("x-envoy-original-path"), "/api/x?q");
  EXPECT_EQ(get(client, "/re/one/two?q", {{"x-host", "h.example"}}).body,
            "GET /two/one?q|h.example|");
  EXPECT_EQ(a().field("x-forwarded-host", 1), "shop.example");
  EXPECT_EQ(get(client, "/other?q=1").body, "GET /fixed?q=1|ep.example|");
}

TEST_F(Routing, ChangesFieldsInBothDirections) {
  ProxyYaml yaml;
  yaml.routes = R"(- match: {prefix: /}
  cluster: a
  requestHeaders:
    set: {x-client: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", x-set: new}
    append: {x-append: more}
    addIfAbsent: {x-absent: here}
    replace: {x-there: replaced, x-not-there: never}
    remove: [x-debug]
  responseHeaders:
    append: {x-route: "%ROUTE_NAME%"}
    remove: [x-secret]
  name: main)";
  yaml.host = "responseHeaders: {set: {x-host-level: \"yes\"}}";
  configure(yaml);
  a().reply = [](Side& side) {
    HeadPtr head = take_head();
    head->status = 200;
    head->add("x-secret", "s");
    head->add("server", "nginx");
    head->set_length(0);
    side.stream->send_head(*head, true);
    side.stream.reset();
  };
  Side& side = get(connect(), "/",
                   {{"x-set", "old"}, {"x-append", "one"}, {"x-there", "t"}, {"x-debug", "d"}});
  const Head& seen = *a().request().head;
  EXPECT_EQ(seen.get("x-client"), "127.0.0.1");
  EXPECT_EQ(seen.get("x-set"), "new");
  EXPECT_THAT(h1test::text_of(seen), HasSubstr("x-append: one\n"));
  EXPECT_THAT(h1test::text_of(seen), HasSubstr("x-append: more"));
  EXPECT_EQ(seen.get("x-absent"), "here");
  EXPECT_EQ(seen.get("x-there"), "replaced");
  EXPECT_FALSE(seen.has("x-not-there"));
  EXPECT_FALSE(seen.has("x-debug"));
  EXPECT_EQ(field(side, "x-route"), "main");
  EXPECT_EQ(field(side, "x-host-level"), "yes");
  EXPECT_FALSE(side.head->has("x-secret"));
  EXPECT_EQ(field(side, "server"), "edgemesh");
  EXPECT_TRUE(side.head->has("x-envoy-upstream-service-time"));
}

TEST_F(Routing, SaysWhoTheClientIs) {
  ProxyYaml yaml;
  configure(yaml);
  get(connect(), "/", {{"x-forwarded-for", "1.2.3.4"}, {"x-request-id", "mine"}});
  EXPECT_EQ(a().field("x-forwarded-for"), "1.2.3.4");  // inside: as it came
  EXPECT_EQ(a().field("x-request-id"), "mine");
  EXPECT_EQ(a().field("x-forwarded-proto"), "http");
  yaml.http = "useRemoteAddress: true\nvia: edge";
  configure(yaml);
  get(connect(), "/",
      {{"x-forwarded-for", "1.2.3.4"}, {"x-request-id", "mine"}, {"x-forwarded-proto", "https"}});
  EXPECT_EQ(a().field("x-forwarded-for", 1), "1.2.3.4, 127.0.0.1");
  EXPECT_THAT(a().field("x-request-id", 1),
              testing::MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
  EXPECT_EQ(a().field("x-forwarded-proto", 1), "http");
  EXPECT_EQ(a().field("via", 1), "edge");
  get(connect(), "/");
  EXPECT_EQ(a().field("x-forwarded-for", 2), "127.0.0.1");
  EXPECT_NE(a().field("x-request-id", 2), a().field("x-request-id", 1));
}

TEST_F(Routing, CountsTrustedHops) {
  ProxyYaml yaml;
  yaml.http = "useRemoteAddress: true\ntrustedHops: 1\nkeepExternalRequestId: true";
  yaml.policies = R"(rbac:
  rules: [{action: allow, policies: [{name: p, principals: [{sourceIp: 9.9.9.0/24}]}]}])";
  configure(yaml);
  Client& client = connect();
  EXPECT_EQ(status(get(client, "/", {{"x-forwarded-for", "5.5.5.5, 9.9.9.1"}, {"x-request-id", "k"}})), 200);
  EXPECT_EQ(a().field("x-request-id"), "k");
  EXPECT_EQ(status(get(client, "/", {{"x-forwarded-for", "9.9.9.1, 5.5.5.5"}})), 403);
  EXPECT_EQ(status(get(client, "/")), 403);
}

std::string cert_field(ExchangeTest&, const Backend& backend) {
  return std::string(backend.requests.back()->head->get("x-forwarded-client-cert"));
}

TEST_F(Routing, TellsTheClientsCertificate) {
  auto identity = std::make_shared<tls::PeerIdentity>();
  identity->sha256 = "abcd";
  identity->common_name = "joe";
  identity->uri_sans = {"spiffe://td/ns/x"};
  identity->dns_sans = {"joe.example"};
  ClientInfo known;
  known.identity = identity;
  known.tls = true;
  const std::string theirs = "Hash=zz;Subject=\"CN=eve\"";
  const std::string ours =
      "Hash=abcd;Subject=\"CN=joe\";URI=spiffe://td/ns/x;DNS=joe.example";
  struct Case {
    const char* mode;
    std::string verified, unverified;
  } cases[] = {{"sanitize", "", ""},
               {"forwardOnly", theirs, ""},
               {"appendForward", theirs + "," + ours, ""},
               {"sanitizeSet", ours, ""},
               {"alwaysForwardOnly", theirs, theirs}};
  for (const Case& one : cases) {
    SCOPED_TRACE(one.mode);
    // Which details are told has no YAML: the mesh's configuration sets them.
    ProxyYaml yaml;
    yaml.http = std::string("clientCertField: ") + one.mode;
    auto parsed = model::parse_config(yaml.text(), "t");
    ASSERT_TRUE(parsed) << parsed.error().message;
    auto config = std::make_shared<model::Config>(**parsed);
    auto listener = std::make_shared<model::Listener>(*config->listeners.begin()->second);
    auto chain = std::make_shared<model::FilterChain>(*listener->chains[0]);
    auto& http = std::get<model::HttpChain>(chain->network);
    http.cert_subject = http.cert_dns = http.cert_uri = true;
    listener->chains[0] = chain;
    config->listeners.begin()->second = listener;
    apply(config);
    get(connect(false, known), "/", {{"x-forwarded-client-cert", theirs}});
    EXPECT_EQ(cert_field(*this, a()), one.verified);
    get(connect(), "/", {{"x-forwarded-client-cert", theirs}});
    EXPECT_EQ(cert_field(*this, a()), one.unverified);
  }
}

TEST_F(Routing, NormalizesPathsBeforeItMatches) {
  ProxyYaml yaml;
  yaml.http = "mergeSlashes: true\nescapedSlashes: reject";
  yaml.routes = R"(- {match: {segmentPrefix: /admin}, respond: {status: 403}}
- {match: {prefix: /}, cluster: a})";
  configure(yaml);
  Client& client = connect();
  EXPECT_EQ(status(get(client, "/x/../admin/y")), 403);
  EXPECT_EQ(status(get(client, "//admin")), 403);
  EXPECT_EQ(status(get(client, "/%61dmin")), 403);
  EXPECT_EQ(status(get(client, "/a%2fb")), 400);
  EXPECT_EQ(get(client, "/a/./b").body, "GET /a/b|shop.example|");
}

TEST_F(Routing, FollowsAConfigurationThatChangesBetweenTwoRequests) {
  ProxyYaml yaml;
  configure(yaml);
  Client& client = connect();
  get(client, "/1");
  yaml.routes = "- {match: {prefix: /}, cluster: b}";
  yaml.http = "serverName: other";
  configure(yaml);
  Side& second = get(client, "/2");
  EXPECT_EQ(field(second, "server"), "other");
  EXPECT_EQ(a().requests.size(), 1u);
  EXPECT_EQ(b().requests.size(), 1u);
  EXPECT_FALSE(client.gone);
}

TEST_F(Routing, ARequestUnderWayKeepsItsConfiguration) {
  ProxyYaml yaml;
  configure(yaml);
  a().silent = true;
  Client& client = connect();
  Side& side = client.send("GET", "/slow");
  ASSERT_TRUE(until([&] { return a().requests.size() == 1; }));
  yaml.routes = "- {match: {prefix: /}, respond: {status: 200, body: new}}";
  yaml.http = "serverName: other";
  configure(yaml);
  answer_default(a().last());
  ASSERT_TRUE(until([&] { return side.ended; }));
  EXPECT_EQ(side.body, "GET /slow|shop.example|");
  EXPECT_EQ(field(side, "server"), "edgemesh");
  side.stream.reset();
  EXPECT_EQ(get(client, "/slow").body, "new");
}

TEST_F(Routing, AClusterThatWentAwayIsSaid) {
  configure(ProxyYaml{});
  Client& client = connect();
  get(client, "/");
  // The routes still name it: between two parts of a configuration that come one after the other.
  ASSERT_TRUE(manager_->update({}, {"a"}));
  Side& side = get(client, "/");
  EXPECT_EQ(status(side), 503);
  EXPECT_EQ(flags(side), "NC");
}

TEST_F(Routing, RequiresTls) {
  ProxyYaml yaml;
  yaml.host = "requireTls: all";
  configure(yaml);
  Side& side = get(connect(), "/x?y");
  EXPECT_EQ(status(side), 301);
  EXPECT_EQ(field(side, "location"), "https://shop.example/x?y");
  ClientInfo tls;
  tls.tls = true;
  EXPECT_EQ(status(get(connect(false, tls), "/x")), 200);
  EXPECT_EQ(a().field("x-forwarded-proto"), "https");
}

TEST_F(Routing, TakesHttp10WhereItIsAllowed) {
  ProxyYaml yaml;
  configure(yaml);
  Client& client = connect_raw();
  client.raw->send("GET /old HTTP/1.0\r\nHost: h\r\n\r\n");
  client.raw->finish();
  ASSERT_TRUE(until([&] { return client.raw->eof; }));
  EXPECT_THAT(client.raw->received, HasSubstr("GET /old|h|"));
  yaml.http = "http10: false";
  configure(yaml);
  Client& refused = connect_raw();
  refused.raw->send("GET /old HTTP/1.0\r\nHost: h\r\n\r\n");
  refused.raw->finish();
  ASSERT_TRUE(until([&] { return refused.raw->eof; }));
  EXPECT_THAT(refused.raw->received, HasSubstr(" 426 "));
}

}  // namespace
}  // namespace edgemesh::proxy
