// Bodies, trailers, tunnels, resets and back-pressure, between all versions of HTTP.
#include "tests/unit/proxy_exchange/exchange_fixture.h"

namespace edgemesh::proxy {
namespace {

HeadPtr head_of(int status) {
  HeadPtr head = take_head();
  head->status = status;
  return head;
}

void send(Side& side, std::string_view text, bool end) {
  side.stream->send_data(io::as_bytes(text), end);
}

class Streams : public ExchangeTest {
 protected:
  void use(bool http2_upstream, const std::string& route = "timeouts: {route: 0s}") {
    ProxyYaml yaml;
    yaml.routes = "- {match: {prefix: /}, cluster: a, " + route + "}";
    if (http2_upstream) yaml.a = "protocol: http2";
    a().http2 = http2_upstream;
    configure(yaml);
  }
  // The request at the endpoint, which the test answers.
  Side& arrived(size_t i = 0) {
    EXPECT_TRUE(until([&] { return a().requests.size() > i; }));
    return a().request(i);
  }
  void expect_nothing_left() {
    settle();
    EXPECT_EQ(stats_.active_requests.value(), 0u);
    EXPECT_EQ(cluster_stats("a").active_requests.value(), 0u);
  }
};

// Client's version, endpoint's version.
class Versions : public Streams, public testing::WithParamInterface<std::tuple<bool, bool>> {
 protected:
  bool client2() const { return std::get<0>(GetParam()); }
  bool upstream2() const { return std::get<1>(GetParam()); }
};

TEST_P(Versions, BodiesAndTrailersBothWays) {
  use(upstream2());
  a().silent = true;
  Client& client = connect(client2());
  Side& side = client.begin("POST", "/", {{"te", "trailers"}});
  send(side, "one", false);
  Side& request = arrived();
  settle();
  EXPECT_EQ(request.body, "one");
  HeadPtr early = head_of(103);
  early->add("link", "</x>");
  request.stream->send_head(*early, false);
  settle();
  ASSERT_EQ(side.informational.size(), 1u);
  EXPECT_THAT(side.informational[0], HasSubstr("link: </x>"));
  send(side, "two", false);
  HeadPtr trailers = take_head();
  trailers->add("x-sum", "6");
  side.stream->send_trailers(*trailers);
  settle();
  EXPECT_EQ(request.body, "onetwo");
  EXPECT_EQ(request.trailers, "x-sum=6;");
  EXPECT_TRUE(request.ended);
  request.stream->send_head(*head_of(200), false);
  send(request, "answer", false);
  settle();
  EXPECT_EQ(side.body, "answer");
  HeadPtr end = take_head();
  end->add("x-end", "1");
  request.stream->send_trailers(*end);
  settle();
  EXPECT_EQ(side.trailers, "x-end=1;");
  EXPECT_TRUE(side.ended);
  side.stream.reset();
  request.stream.reset();
  expect_nothing_left();
  // Both connections are used again.
  a().silent = false;
  EXPECT_EQ(status(ask(client, "POST", "/", {}, "x")), 200);
  EXPECT_EQ(a().connects, 1);
}

TEST_P(Versions, ManyRequestsWithBodies) {
  use(upstream2());
  Client& client = connect(client2());
  for (size_t size : {0u, 1u, 1000u, 70'000u, 300'000u}) {
    const std::string body(size, 'b');
    Side& side = ask(client, "PUT", "/" + std::to_string(size), {}, body);
    EXPECT_EQ(side.body, fmt::format("PUT /{}|shop.example|{}", size, body)) << size;
  }
  EXPECT_EQ(status(ask(client, "HEAD", "/")), 200);
  expect_nothing_left();
}

TEST_P(Versions, AnEndpointThatIsLostAfterTheHeadCutsTheAnswer) {
  use(upstream2());
  a().silent = true;
  Client& client = connect(client2());
  Side& side = client.send("GET", "/");
  Side& request = arrived();
  request.stream->send_head(*head_of(200), false);
  send(request, "part", false);
  ASSERT_TRUE(until([&] { return side.body == "part"; }));
  a().break_last();
  ASSERT_TRUE(until([&] { return !side.reset.empty(); }));
  EXPECT_FALSE(side.ended);
  EXPECT_EQ(cluster_stats("a").active_requests.value(), 0u);
  expect_nothing_left();
}

TEST_P(Versions, AnEndpointThatResetsAfterTheHeadCutsTheAnswer) {
  use(upstream2());
  a().silent = true;
  Client& client = connect(client2());
  Side& side = client.send("GET", "/");
  Side& request = arrived();
  HeadPtr head = head_of(200);
  head->set_length(100);
  request.stream->send_head(*head, false);
  send(request, "part", false);
  ASSERT_TRUE(until([&] { return side.body == "part"; }));
  request.stream.reset();  // RST_STREAM, or the end of the connection
  ASSERT_TRUE(until([&] { return !side.reset.empty(); }));
  EXPECT_FALSE(side.ended);
  expect_nothing_left();
}

TEST_P(Versions, AClientThatResetsEndsTheRequestAtTheEndpoint) {
  use(upstream2());
  a().silent = true;
  Client& client = connect(client2());
  Side& side = client.begin("POST", "/");
  send(side, "x", false);
  Side& request = arrived();
  settle();
  side.stream.reset();
  ASSERT_TRUE(until([&] { return !request.reset.empty(); }));
  expect_nothing_left();
  EXPECT_EQ(client.gone, !client2());
  EXPECT_EQ(cluster_stats("a").errors.value(), 0u);
}

TEST_P(Versions, AnAnswerBeforeTheEndOfTheRequest) {
  use(upstream2());
  a().silent = true;
  Client& client = connect(client2());
  Side& side = client.begin("POST", "/", {{":length", "20000"}});
  send(side, std::string(10000, 'x'), false);
  Side& request = arrived();
  h1test::answer(*request.stream, 413, "too long");
  request.stream.reset();
  ASSERT_TRUE(until([&] { return side.ended || !side.reset.empty(); }));
  EXPECT_EQ(status(side), 413);
  EXPECT_EQ(side.body, "too long");
  if (side.reset.empty()) send(side, std::string(10000, 'x'), true);
  settle();
  side.stream.reset();
  expect_nothing_left();
  // The client's connection lives on.
  EXPECT_FALSE(client.gone);
  a().silent = false;
  EXPECT_EQ(status(get(client, "/again")), 200);
}

// A long body against a reader that stops: what is on the way is bounded, and all of it comes.
constexpr size_t kLong = 10'000'000;
constexpr uint64_t kOnTheWay = 2'000'000;

TEST_P(Versions, AnEndpointThatStopsReadingStopsTheClient) {
  use(upstream2());
  a().silent = true;
  Client& client = connect(client2());
  Side& side = client.begin("POST", "/", {{":length", std::to_string(kLong)}});
  Side& request = arrived();
  request.stream->set_reading(false);
  send(side, std::string(kLong, 'u'), true);
  settle(500);
  EXPECT_LT(client.stream->bytes_written(), kOnTheWay);
  EXPECT_GT(client.stream->bytes_written(), 1000u);
  request.stream->set_reading(true);
  ASSERT_TRUE(until([&] { return request.ended; }));
  EXPECT_EQ(request.body.size(), kLong);
  answer_default(request);
  ASSERT_TRUE(until([&] { return side.ended; }));
  EXPECT_EQ(side.body.size(), kLong + std::string("POST /|shop.example|").size());
  side.stream.reset();
  expect_nothing_left();
}

TEST_P(Versions, AClientThatStopsReadingStopsTheEndpoint) {
  use(upstream2());
  a().silent = true;
  Client& client = connect(client2());
  Side& side = client.send("GET", "/");
  Side& request = arrived();
  side.stream->set_reading(false);
  test::MemoryStream* stream = a().connections.back().stream;
  HeadPtr head = head_of(200);
  head->set_length(kLong);
  request.stream->send_head(*head, false);
  send(request, std::string(kLong, 'd'), true);
  settle(500);
  EXPECT_LT(stream->bytes_written(), kOnTheWay);
  EXPECT_GT(stream->bytes_written(), 1000u);
  side.stream->set_reading(true);
  ASSERT_TRUE(until([&] { return side.ended; }));
  EXPECT_EQ(side.body.size(), kLong);
  side.stream.reset();
  request.stream.reset();
  expect_nothing_left();
}

TEST_P(Versions, WebSocketsBothWaysAndHalfEnds) {
  use(upstream2());
  a().silent = true;
  Client& client = connect(client2());
  Side& side = client.begin("GET", "/ws", {{"sec-websocket-version", "13"}}, "websocket");
  Side& request = arrived();
  EXPECT_EQ(request.head->protocol, "websocket");
  EXPECT_EQ(request.head->get("sec-websocket-version"), "13");
  HeadPtr agreed = head_of(101);
  agreed->protocol = "websocket";
  request.stream->send_head(*agreed, false);
  ASSERT_TRUE(until([&] { return side.head != nullptr; }));
  EXPECT_EQ(status(side), 101);
  send(side, "ping", false);
  settle();
  EXPECT_EQ(request.body, "ping");
  send(request, "pong", false);
  settle();
  EXPECT_EQ(side.body, "pong");
  advance(seconds(60));  // no route timeout for a tunnel
  send(side, "bye", true);
  settle();
  EXPECT_EQ(request.body, "pingbye");
  EXPECT_TRUE(request.ended);
  EXPECT_EQ(stats_.active_requests.value(), 1u);
  send(request, "last", false);
  settle();
  EXPECT_EQ(side.body, "ponglast");
  EXPECT_FALSE(side.ended);
  send(request, "", true);
  settle();
  EXPECT_TRUE(side.ended);
  side.stream.reset();
  request.stream.reset();
  expect_nothing_left();
}

// The key is an HTTP/1 client's, beyond an HTTP/2 proxy.
TEST_P(Versions, AWebSocketsKeyIsAnswered) {
  use(upstream2());
  a().silent = true;
  Client& client = connect(client2());
  Side& side =
      client.begin("GET", "/ws", {{"sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="}}, "websocket");
  Side& request = arrived();
  EXPECT_EQ(request.head->get("sec-websocket-key"), "dGhlIHNhbXBsZSBub25jZQ==");
  HeadPtr agreed = head_of(101);
  agreed->protocol = "websocket";
  request.stream->send_head(*agreed, false);
  ASSERT_TRUE(until([&] { return side.head != nullptr; }));
  EXPECT_EQ(status(side), 101);
  EXPECT_EQ(field(side, "sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

TEST_P(Versions, AWebSocketWhoseEndpointEndsFirst) {
  use(upstream2(), "timeouts: {route: 3s, idle: 100s}");
  a().silent = true;
  Client& client = connect(client2());
  Side& side = client.begin("GET", "/ws", {{"sec-websocket-version", "13"}}, "websocket");
  Side& request = arrived();
  HeadPtr agreed = head_of(101);
  agreed->protocol = "websocket";
  request.stream->send_head(*agreed, false);
  settle();
  send(request, "x", true);
  settle();
  EXPECT_TRUE(side.ended);
  EXPECT_EQ(stats_.active_requests.value(), 1u);
  send(side, "rest", true);
  settle();
  EXPECT_EQ(request.body, "rest");
  EXPECT_TRUE(request.ended);
  expect_nothing_left();
}

TEST_P(Versions, AWebSocketThatIsRefused) {
  use(upstream2());
  a().silent = true;
  Client& client = connect(client2());
  Side& side = client.begin("GET", "/ws", {{"sec-websocket-version", "13"}}, "websocket");
  Side& request = arrived();
  h1test::answer(*request.stream, 403, "no");
  ASSERT_TRUE(until([&] { return side.ended || !side.reset.empty(); }));
  EXPECT_EQ(status(side), 403);
  EXPECT_EQ(side.body, "no");
  side.stream.reset();
  request.stream.reset();
  expect_nothing_left();
  EXPECT_FALSE(client.gone);
  a().silent = false;
  EXPECT_EQ(status(get(client, "/")), 200);
}

TEST_P(Versions, Connect) {
  ProxyYaml yaml;
  yaml.routes = R"(- {match: {connect: true}, cluster: a, upgrades: [CONNECT]}
- {match: {prefix: /}, cluster: b, upgrades: []})";
  if (upstream2()) yaml.a = "protocol: http2";
  a().http2 = upstream2();
  a().silent = true;
  configure(yaml);
  Client& client = connect(client2());
  Side& side = client.begin("CONNECT", "", {{":authority", "target:443"}});
  Side& request = arrived();
  EXPECT_EQ(request.head->method, "CONNECT");
  EXPECT_EQ(request.head->authority, "target:443");
  request.stream->send_head(*head_of(200), false);
  ASSERT_TRUE(until([&] { return side.head != nullptr; }));
  send(side, "hello", false);
  send(request, "welcome", true);
  settle();
  EXPECT_EQ(request.body, "hello");
  EXPECT_EQ(side.body, "welcome");
  EXPECT_TRUE(side.ended);
  send(side, "", true);
  settle();
  EXPECT_TRUE(request.ended);
  expect_nothing_left();
  // What a route does not allow.
  Side& refused = connect(client2()).begin("GET", "/ws", {}, "websocket");
  ASSERT_TRUE(until([&] { return refused.ended || !refused.reset.empty(); }));
  EXPECT_EQ(status(refused), 403);
}

TEST_P(Versions, ExpectContinue) {
  use(upstream2());
  Client& client = connect(client2());
  Side& side = client.begin("POST", "/", {{":expect", ""}, {":length", "4"}});
  ASSERT_TRUE(until([&] { return !side.informational.empty(); }));
  EXPECT_THAT(side.informational[0], testing::StartsWith("100"));
  send(side, "body", true);
  ASSERT_TRUE(until([&] { return side.ended; }));
  EXPECT_EQ(side.body, "POST /|shop.example|body");
  EXPECT_EQ(side.informational.size(), 1u);
  EXPECT_EQ(a().field("expect"), "");
}

INSTANTIATE_TEST_SUITE_P(All, Versions, testing::Combine(testing::Bool(), testing::Bool()),
                         [](const auto& test) {
                           return fmt::format("h{}to{}", std::get<0>(test.param) ? 2 : 1,
                                              std::get<1>(test.param) ? 2 : 1);
                         });

TEST_F(Streams, ExpectContinueIsPassedOnWhereAskedFor) {
  ProxyYaml yaml;
  yaml.http = "forward100Continue: true";
  configure(yaml);
  a().silent = true;
  Side& side = connect().begin("POST", "/", {{":expect", ""}, {":length", "4"}});
  Side& request = arrived();
  settle();
  EXPECT_TRUE(request.head->expect_continue);
  EXPECT_TRUE(side.informational.empty());
  request.stream->send_head(*head_of(100), false);
  settle();
  ASSERT_EQ(side.informational.size(), 1u);
  send(side, "body", true);
  settle();
  EXPECT_EQ(request.body, "body");
}

TEST_F(Streams, GrpcBothWaysAtOnce) {
  use(true);
  a().silent = true;
  Client& client = connect(true);
  Side& side =
      client.begin("POST", "/s/m", {{"content-type", "application/grpc"}, {"te", "trailers"}});
  Side& request = arrived();
  request.stream->send_head(*head_of(200), false);
  std::string sent;
  for (int i = 0; i < 50; ++i) {
    const std::string message(static_cast<size_t>(i) * 997 + 1, static_cast<char>('a' + i % 26));
    sent += message;
    send(side, message, false);
    ASSERT_TRUE(until([&] { return request.body.size() == sent.size(); }));
    send(request, message, false);
    ASSERT_TRUE(until([&] { return side.body.size() == sent.size(); }));
  }
  EXPECT_EQ(request.body, sent);
  EXPECT_EQ(side.body, sent);
  send(side, "", true);
  settle();
  EXPECT_TRUE(request.ended);
  EXPECT_FALSE(side.ended);
  HeadPtr trailers = take_head();
  trailers->add("grpc-status", "0");
  request.stream->send_trailers(*trailers);
  settle();
  EXPECT_EQ(side.trailers, "grpc-status=0;");
  EXPECT_TRUE(side.ended);
  side.stream.reset();
  request.stream.reset();
  expect_nothing_left();
}

TEST_F(Streams, TheRouteTimeoutHoldsForAnAnswerThatBeganBeforeItsRequestEnded) {
  use(true, "timeouts: {route: 3s}");
  a().silent = true;
  Client& client = connect(true);
  Side& side = client.begin("POST", "/");
  Side& request = arrived();
  request.stream->send_head(*head_of(200), false);
  settle();
  advance(seconds(10));
  EXPECT_TRUE(side.reset.empty());
  send(side, "", true);
  advance(seconds(3));
  EXPECT_FALSE(side.reset.empty());
  EXPECT_FALSE(request.reset.empty());
}

TEST_F(Streams, StreamsOfAConnectionDoNotHoldEachOtherUp) {
  use(false);
  a().silent = true;
  Client& client = connect(true);
  Side& stuck = client.send("GET", "/stuck");
  Side& request = arrived();
  stuck.stream->set_reading(false);
  request.stream->send_head(*head_of(200), false);
  send(request, std::string(3'000'000, 'x'), true);
  settle(200);
  a().silent = false;
  for (int i = 0; i < 20; ++i) EXPECT_EQ(status(get(client, "/" + std::to_string(i))), 200);
  EXPECT_FALSE(stuck.ended);
  stuck.stream->set_reading(true);
  ASSERT_TRUE(until([&] { return stuck.ended; }));
  EXPECT_EQ(stuck.body.size(), 3'000'000u);
}

TEST_F(Streams, PipelinedRequestsAreAnsweredInOrder) {
  use(false);
  a().silent = true;
  Client& client = connect_raw();
  client.raw->send(
      "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nPOST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: "
      "3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  for (size_t i = 0; i < 3; ++i) {
    Side& request = arrived(i);
    settle();
    EXPECT_EQ(a().requests.size(), i + 1);
    answer_default(request);
    settle();
  }
  const std::string& text = client.raw->received;
  const size_t one = text.find("GET /1|h|"), two = text.find("POST /2|h|abc"),
               three = text.find("GET /3|h|");
  ASSERT_NE(three, std::string::npos);
  EXPECT_LT(one, two);
  EXPECT_LT(two, three);
}

TEST_F(Streams, ADrainEndsConnectionsAfterTheirRequests) {
  use(false);
  a().silent = true;
  Client& one = connect();
  Client& two = connect(true);
  Client& idle = connect();
  Side& first = one.send("GET", "/1");
  Side& second = two.send("GET", "/2");
  arrived(1);
  bool drained = false;
  worker_->drain([&] { drained = true; });
  ASSERT_TRUE(until([&] { return idle.gone; }));
  EXPECT_FALSE(drained);
  for (Side* request : a().requests) answer_default(*request);
  ASSERT_TRUE(until([&] { return first.ended && second.ended; }));
  first.stream.reset();
  second.stream.reset();
  clock_.advance(seconds(2));
  ASSERT_TRUE(until([&] { return drained; }));
  EXPECT_EQ(status(first), 200);
  EXPECT_EQ(status(second), 200);
}

TEST_F(Streams, AWorkerEndsInTheMiddleOfEverything) {
  use(true);
  a().silent = true;
  for (int i = 0; i < 4; ++i) {
    Client& client = connect(i % 2 == 0);
    Side& side = client.begin("POST", "/");
    send(side, "some", false);
    Side& request = arrived(static_cast<size_t>(i));
    if (i >= 2) request.stream->send_head(*head_of(200), false);
  }
  a().refuse = false;
  connect().send("GET", "/connecting");
  loop_->run_once();
  destroy_worker();
  settle();
  for (const Client& client : clients_) EXPECT_TRUE(client.gone);
  EXPECT_EQ(stats_.active_requests.value(), 0u);
  EXPECT_EQ(stats_.active_connections.value(), 0u);
}

TEST_F(Streams, APeerThatSpeaksNoHttpIs502) {
  a().raw = true;
  use(false);
  Client& client = connect();
  Side& side = client.send("GET", "/");
  ASSERT_TRUE(until(
      [&] { return !a().connections.empty() && !a().connections.back().raw->received.empty(); }));
  a().connections.back().raw->send("220 smtp ready\r\n\r\n");
  ASSERT_TRUE(until([&] { return side.ended; }));
  EXPECT_EQ(status(side), 502);
  EXPECT_EQ(flags(side), "UPE");
  expect_nothing_left();
}

TEST_F(Streams, ProxyHeadersTellTheClient) {
  ProxyYaml yaml;
  yaml.a = "proxyProtocol: v1";
  configure(yaml);
  ClientInfo info;
  info.peer = SockAddr{IpAddr::v4(0x01020304), 777};
  get(connect(false, info), "/");
  ASSERT_EQ(a().proxied.size(), 1u);
  EXPECT_EQ(a().proxied[0].source, info.peer);
  // Such a connection serves this client only.
  info.peer.port = 778;
  get(connect(false, info), "/");
  EXPECT_EQ(a().connects, 2);
}

}  // namespace
}  // namespace edgemesh::proxy
