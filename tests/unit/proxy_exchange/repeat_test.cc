// Requests that no endpoint has looked at are sent again, without any retry policy: streams that an
// HTTP/2 server refuses or leaves behind its GOAWAY (RFC 9113, 8.7), and idempotent requests on a
// kept connection that closes before the answer (RFC 9110, 9.2.2). The endpoints send hand-made
// frames.
#include "tests/unit/proxy_exchange/exchange_fixture.h"
#include "tests/unit/proxy_http/h2_raw.h"

namespace edgemesh::proxy {
namespace {

using h2raw::frame;
using h2raw::Frame;
using h2raw::number;
constexpr uint32_t kRefusedCode = 7;
const std::string kStatus200 = "\x88";

class Repeat : public ExchangeTest {
 protected:
  void http2(const std::string& more = "") {
    ProxyYaml yaml;
    yaml.a = "protocol: http2\n" + more;
    yaml.host = "attemptCountHeader: true";
    a().raw = true;
    configure(yaml);
  }
  test::Collector& wire(size_t connection) {
    return *std::next(a().connections.begin(), static_cast<ptrdiff_t>(connection))->raw;
  }
  // Of the proxy's, without the preface.
  std::vector<Frame> frames(size_t connection) {
    std::vector<Frame> out;
    std::string_view rest = wire(connection).received;
    rest.remove_prefix(std::min(rest.size(), h2raw::kPreface.size()));
    while (rest.size() >= 9) {
      auto byte = [&rest](size_t i) {
        return static_cast<uint32_t>(static_cast<uint8_t>(rest[i]));
      };
      const size_t n = byte(0) << 16 | byte(1) << 8 | byte(2);
      if (rest.size() < 9 + n) break;
      out.push_back({static_cast<uint8_t>(byte(3)), static_cast<uint8_t>(byte(4)),
                     byte(5) << 24 | byte(6) << 16 | byte(7) << 8 | byte(8),
                     std::string(rest.substr(9, n))});
      rest.remove_prefix(9 + n);
    }
    return out;
  }
  // Streams that were opened on it.
  std::vector<uint32_t> opened(size_t connection) {
    std::vector<uint32_t> ids;
    for (const Frame& f : frames(connection))
      if (f.type == h2raw::kHeaders) ids.push_back(f.stream);
    return ids;
  }
  size_t opened_in_all() {
    size_t n = 0;
    for (size_t i = 0; i < a().connections.size(); ++i) n += opened(i).size();
    return n;
  }
  std::string body_of(size_t connection, uint32_t stream) {
    std::string body;
    for (const Frame& f : frames(connection))
      if (f.type == h2raw::kData && f.stream == stream) body += f.payload;
    return body;
  }
  void hello(size_t connection) { wire(connection).send(frame(h2raw::kSettings, 0, 0, "")); }
  void refuse(size_t connection, uint32_t stream) {
    wire(connection).send(frame(h2raw::kRstStream, 0, stream, number(kRefusedCode)));
  }
  void go_away(size_t connection, uint32_t last) {
    wire(connection).send(frame(h2raw::kGoaway, 0, 0, number(last) + number(0)));
  }
  void say_200(size_t connection, uint32_t stream, const std::string& body = "fine") {
    wire(connection)
        .send(frame(h2raw::kHeaders, h2raw::kEndHeaders, stream, kStatus200) +
              frame(h2raw::kData, h2raw::kEndStream, stream, body));
  }
  // The first request is answered: the connection is there, and stream 3 is next.
  void warm_up(Client& client) {
    Side& side = client.send("GET", "/warm");
    settle();
    ASSERT_EQ(a().connections.size(), 1u);
    hello(0);
    say_200(0, 1);
    settle();
    ASSERT_EQ(side.body, "fine");
    side.stream.reset();
    settle();
  }
};

TEST_F(Repeat, AStreamAboveTheLastOfAGoawayOnAnotherConnection) {
  http2();
  Client& client = connect();
  warm_up(client);
  Side& side = client.send("POST", "/order", {}, "one piece");
  settle();
  ASSERT_EQ(opened(0), (std::vector<uint32_t>{1, 3}));
  EXPECT_EQ(body_of(0, 3), "one piece");
  go_away(0, 1);
  settle();
  ASSERT_EQ(a().connections.size(), 2u);
  hello(1);
  settle();
  ASSERT_EQ(opened(1), std::vector<uint32_t>{1});
  EXPECT_EQ(body_of(1, 1), "one piece");
  say_200(1, 1, "ordered");
  settle();
  EXPECT_EQ(status(side), 200);
  EXPECT_EQ(side.body, "ordered");
  EXPECT_EQ(flags(side), "-");
  EXPECT_EQ(stats_.repeated.value(), 1u);
  EXPECT_EQ(stats_.retries.value(), 0u);
}

TEST_F(Repeat, AStreamThatTheGoawayCountsGoesOn) {
  http2();
  Client& client = connect();
  warm_up(client);
  Side& side = client.send("POST", "/order", {}, "one piece");
  settle();
  go_away(0, 3);
  settle();
  say_200(0, 3, "ordered");
  settle();
  EXPECT_EQ(side.body, "ordered");
  EXPECT_EQ(a().connections.size(), 1u);
  EXPECT_EQ(stats_.repeated.value(), 0u);
}

TEST_F(Repeat, ARefusedStreamIsSentAgainButNotForEver) {
  http2();
  Client& client = connect();
  warm_up(client);
  Side& side = client.send("POST", "/order", {}, "one piece");
  settle();
  for (const uint32_t id : {3u, 5u, 7u}) {
    ASSERT_EQ(opened(0).back(), id);
    EXPECT_EQ(body_of(0, id), "one piece");
    refuse(0, id);
    settle();
  }
  EXPECT_EQ(status(side), 503);
  EXPECT_EQ(flags(side), "UR");
  EXPECT_EQ(opened_in_all(), 4u);
  EXPECT_EQ(stats_.repeated.value(), 2u);
}

// A server that refuses while it has others takes no more of them: the next goes elsewhere.
TEST_F(Repeat, ARefusalBesideOtherStreamsMeansThatTheConnectionIsFull) {
  http2();
  Client& first = connect();
  warm_up(first);
  first.send("GET", "/slow");
  settle();
  Client& second = connect();
  Side& side = second.send("POST", "/order", {}, "x");
  settle();
  ASSERT_EQ(opened(0), (std::vector<uint32_t>{1, 3, 5}));
  refuse(0, 5);
  settle();
  ASSERT_EQ(a().connections.size(), 2u);
  hello(1);
  settle();
  say_200(1, 1);
  settle();
  EXPECT_EQ(side.body, "fine");
  EXPECT_EQ(opened(0).size(), 3u);
  // One of its streams ends: there is room again.
  say_200(0, 3);
  settle();
  go_away(1, 1);
  settle();
  Client& third = connect();
  Side& again = third.send("GET", "/again");
  settle();
  ASSERT_EQ(opened(0).back(), 7u);
  say_200(0, 7);
  settle();
  EXPECT_EQ(again.body, "fine");
}

TEST_F(Repeat, ABodyThatIsStillComing) {
  http2();
  Client& client = connect(true);
  Side& side = client.begin("POST", "/upload");
  side.stream->send_data(io::as_bytes("first "), false);
  settle();
  hello(0);
  settle();
  EXPECT_EQ(body_of(0, 1), "first ");
  go_away(0, 0);
  settle();
  side.stream->send_data(io::as_bytes("second"), true);
  settle();
  ASSERT_EQ(a().connections.size(), 2u);
  hello(1);
  settle();
  EXPECT_EQ(body_of(1, 1), "first second");
  say_200(1, 1);
  settle();
  EXPECT_EQ(status(side), 200);
}

// More than is kept went out: part of it is gone.
TEST_F(Repeat, ALongBodyCannotBeSentAgain) {
  http2();
  Client& client = connect(true);
  Side& side = client.begin("POST", "/upload");
  side.stream->send_data(io::as_bytes("x"), false);
  settle();
  hello(0);
  settle();
  const std::string much(Exchange::kRepeatBytes, 'y');
  side.stream->send_data(io::as_bytes(much), false);
  settle();
  EXPECT_EQ(body_of(0, 1), "x" + much);
  refuse(0, 1);
  settle();
  EXPECT_EQ(status(side), 503);
  EXPECT_EQ(opened_in_all(), 1u);
}

TEST_F(Repeat, AfterTheAnswersHeadNothingIsRepeated) {
  http2();
  Client& client = connect();
  warm_up(client);
  Side& side = client.send("GET", "/");
  settle();
  wire(0).send(frame(h2raw::kHeaders, h2raw::kEndHeaders, 3, kStatus200));
  settle();
  refuse(0, 3);
  settle();
  EXPECT_EQ(status(side), 200);
  EXPECT_FALSE(side.reset.empty());
  EXPECT_EQ(opened_in_all(), 2u);
}

TEST_F(Repeat, ALostHttp2ConnectionOnceAndOnlyWhatMayBe) {
  for (const bool idempotent : {true, false}) {
    SCOPED_TRACE(idempotent);
    a().connections.clear();
    http2(idempotent ? "" : "connectTimeout: 3s");
    Client& client = connect();
    warm_up(client);
    Side& side = client.send(idempotent ? "PUT" : "POST", "/x", {}, "body");
    settle();
    ASSERT_EQ(opened(0).size(), 2u);
    a().break_last();
    settle();
    if (!idempotent) {
      EXPECT_EQ(status(side), 503);
      EXPECT_EQ(a().connections.size(), 1u);
      continue;
    }
    ASSERT_EQ(a().connections.size(), 2u);
    hello(1);
    settle();
    EXPECT_EQ(body_of(1, 1), "body");
    a().break_last();
    settle();
    EXPECT_EQ(status(side), 503);
    EXPECT_EQ(a().connections.size(), 2u);
    side.stream.reset();
    settle();
  }
}

// Nothing was sent to an endpoint that goes while its connection is being made.
TEST_F(Repeat, AnEndpointThatIsRemovedWhileItsConnectionIsMade) {
  auto endpoint = [this](int n) {
    configure_text(fmt::format(R"(
routes: [{{name: r, hosts: [{{domains: ["*"], routes: [{{match: {{prefix: /}}, cluster: x}}]}}]}}]
listeners: [{{name: l, address: "127.0.0.1:1", chains: [{{name: c, http: {{routes: r}}}}]}}]
clusters: [{{name: x, endpoints: [{{address: "10.0.0.{}:80"}}]}}]
)",
                               n));
  };
  endpoint(1);
  Client& client = connect();
  Side& side = client.send("POST", "/order", {}, "one piece");
  for (int i = 0; i < 20 && a().connects == 0; ++i) loop_->run_once();
  ASSERT_EQ(a().connects, 1);
  ASSERT_EQ(a().requests.size(), 0u);
  endpoint(2);
  settle();
  EXPECT_EQ(side.body, "POST /order|shop.example|one piece");
  EXPECT_EQ(a().requests.size(), 0u);
  EXPECT_EQ(b().requests.size(), 1u);
  EXPECT_EQ(stats_.repeated.value(), 1u);
}

// A lost connection of HTTP/1, where the body of the first try is kept, too.
TEST_F(Repeat, AKeptHttp1ConnectionThatCloses) {
  ProxyYaml yaml;
  configure(yaml);
  Client& client = connect();
  EXPECT_EQ(status(get(client, "/")), 200);
  a().reply = [this](Side&) {
    a().reply = nullptr;
    a().break_last();
  };
  Side& put = ask(client, "PUT", "/x", {}, "the body");
  EXPECT_EQ(put.body, "PUT /x|shop.example|the body");
  EXPECT_EQ(a().connects, 2);
  a().reply = [this](Side&) { a().break_last(); };
  EXPECT_EQ(status(ask(client, "POST", "/x", {}, "the body")), 503);
  EXPECT_EQ(a().connects, 2);
  EXPECT_EQ(stats_.repeated.value(), 1u);
}

}  // namespace
}  // namespace edgemesh::proxy
