// WebSockets between the versions of HTTP (RFC 8441): codecs joined as the exchange joins them.
#include <gtest/gtest.h>

#include "core/http/websocket.h"
#include "proxy/http/h1_client.h"
#include "proxy/http/h1_server.h"
#include "proxy/http/h2_client.h"
#include "proxy/http/h2_server.h"
#include "tests/unit/proxy_http/h1_test_support.h"

namespace edgemesh::proxy {
namespace {

using h1test::ServerSide;
using h1test::Side;
using std::chrono::seconds;

// Gives what comes on one side to the other.
struct Bridge final : HttpServerConnection::Handler, HttpClientConnection::Handler {
  struct End final : HttpStream::Handler {
    void on_head(HeadPtr head, bool end) override { other->stream->send_head(*head, end); }
    void on_data(std::span<const uint8_t> data, bool end) override {
      other->stream->send_data(data, end);
    }
    void on_trailers(HeadPtr trailers) override { other->stream->send_trailers(*trailers); }
    void on_reset(ResetReason r, std::string_view detail) override {
      reason = r;
      reset = detail;
    }
    void on_writable() override {}
    StreamPtr stream;
    End* other = nullptr;
    ResetReason reason{};
    std::string reset;
  };
  std::unique_ptr<HttpServerConnection> server;
  std::unique_ptr<HttpClientConnection> client;
  End down, up;

  void on_request(StreamPtr stream, HeadPtr head, bool end) override {
    down.other = &up;
    up.other = &down;
    down.stream = std::move(stream);
    down.stream->set_handler(&down);
    up.stream = client->open(&up);
    up.stream->send_head(*head, end);
  }
  void on_bad_request(int, std::string_view) override {}
  void on_closed() override {}
  void on_connected() override {}
  void on_available() override {}
  void on_closed(const Error&) override {}
};

struct BridgeTest : testing::Test {
  std::unique_ptr<io::Loop> loop = io::Loop::create().value();
  WriteBatch batch{*loop};
  Bridge bridge;
  bool until(const std::function<bool()>& done) { return loop->run_until(done, seconds(5)); }
};

constexpr std::string_view kKey = "dGhlIHNhbXBsZSBub25jZQ==";  // of RFC 6455 1.3, and its answer
constexpr std::string_view kAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

TEST_F(BridgeTest, AnHttp1ClientWithAnHttp2Server) {
  auto [browser_end, server_end] = test::MemoryStream::pair(*loop);
  auto [client_end, origin_end] = test::MemoryStream::pair(*loop);
  test::Collector browser(std::move(browser_end));
  bridge.server = make_h1_server(*loop, batch, std::move(server_end), {}, &bridge);
  bridge.client = make_h2_client(*loop, batch, std::move(client_end), {}, &bridge);
  ServerSide origin;
  origin.connection = make_h2_server(*loop, batch, std::move(origin_end), {}, &origin);
  browser.send(
      "GET /chat?x HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " +
      std::string(kKey) + "\r\nSec-WebSocket-Protocol: a, b\r\n\r\nearly");
  ASSERT_TRUE(until([&] { return !origin.requests.empty(); }));
  Side& request = *origin.requests[0];
  EXPECT_EQ(h1test::text_of(*request.head),
            "GET http h /chat?x [websocket]\nsec-websocket-version: 13\nsec-websocket-key: " +
                std::string(kKey) + "\nsec-websocket-protocol: a, b");
  HeadPtr agreed = take_head();
  agreed->status = 101;
  agreed->protocol = "websocket";
  agreed->add("sec-websocket-protocol", "a");
  request.stream->send_head(*agreed, false);
  request.stream->send_data(io::as_bytes("hello"), false);
  ASSERT_TRUE(until([&] { return browser.received.ends_with("hello") && request.body == "early"; }));
  EXPECT_EQ(browser.received,
            "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-protocol: a\r\n"
            "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " +
                std::string(kAccept) + "\r\n\r\nhello");
  browser.send("more");
  browser.finish();
  ASSERT_TRUE(until([&] { return request.ended; }));
  EXPECT_EQ(request.body, "earlymore");
  request.stream->send_data(io::as_bytes("bye"), true);
  ASSERT_TRUE(until([&] { return browser.eof; }));
  EXPECT_TRUE(browser.received.ends_with("hellobye"));
}

struct ToHttp1 : BridgeTest {
  ServerSide unused;
  h1test::ClientSide browser;
  std::unique_ptr<test::Collector> origin;
  Side side;

  void ask() {
    auto [browser_end, server_end] = test::MemoryStream::pair(*loop);
    auto [client_end, origin_end] = test::MemoryStream::pair(*loop);
    browser.connection = make_h2_client(*loop, batch, std::move(browser_end), {}, &browser);
    bridge.server = make_h2_server(*loop, batch, std::move(server_end), {}, &bridge);
    bridge.client = make_h1_client(*loop, batch, std::move(client_end), {}, &bridge);
    origin = std::make_unique<test::Collector>(std::move(origin_end));
    side.stream = browser.connection->open(&side);
    HeadPtr head = take_head();
    head->method = "GET";
    head->scheme = "http";
    head->authority = "h";
    head->path = "/chat";
    head->protocol = "websocket";
    head->add("sec-websocket-version", "13");
    side.stream->send_head(*head, false);
    ASSERT_TRUE(until([&] { return origin->received.ends_with("\r\n\r\n"); }));
  }
  std::string key() const {
    size_t at = origin->received.find("Sec-WebSocket-Key: ");
    return at == std::string::npos ? "" : origin->received.substr(at + 19, 24);
  }
};

TEST_F(ToHttp1, AnHttp2ClientWithAnHttp1Server) {
  ask();
  EXPECT_TRUE(origin->received.starts_with("GET /chat HTTP/1.1\r\nHost: h\r\n"));
  EXPECT_NE(origin->received.find("Connection: upgrade\r\nUpgrade: websocket\r\n"), std::string::npos);
  EXPECT_EQ(origin->received.find("ec-websocket-version: 13"), origin->received.rfind("ersion: 13") - 14);
  ASSERT_EQ(key().size(), 24U);
  origin->send(
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
      "Sec-WebSocket-Accept: " +
      http::websocket_accept(key()) + "\r\n\r\nhello");
  ASSERT_TRUE(until([&] { return side.body == "hello"; }));
  EXPECT_EQ(h1test::text_of(*side.head), "101 [websocket]");
  side.stream->send_data(io::as_bytes("answer"), true);
  ASSERT_TRUE(until([&] { return origin->eof; }));
  EXPECT_TRUE(origin->received.ends_with("\r\n\r\nanswer"));
  origin->finish();
  ASSERT_TRUE(until([&] { return side.ended; }));
}

TEST_F(ToHttp1, TheServersProofIsChecked) {
  ask();
  origin->send(
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
      "Sec-WebSocket-Accept: " +
      std::string(kAccept) + "\r\n\r\nhello");
  ASSERT_TRUE(until([&] { return !bridge.up.reset.empty(); }));
  EXPECT_EQ(bridge.up.reason, ResetReason::kProtocol);
  EXPECT_EQ(side.head, nullptr);
}

TEST_F(ToHttp1, ARefusalIsAnAnswer) {
  ask();
  origin->send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
  ASSERT_TRUE(until([&] { return side.ended; }));
  EXPECT_EQ(side.head->status, 403);
  EXPECT_EQ(side.body, "no");
}

TEST_F(BridgeTest, AServerOfHttp2ThatTakesNoExtendedConnect) {
  auto [client_end, origin_end] = test::MemoryStream::pair(*loop);
  bridge.client = make_h2_client(*loop, batch, std::move(client_end), {}, &bridge);
  test::Collector origin(std::move(origin_end));
  Side side;
  side.stream = bridge.client->open(&side);
  HeadPtr head = take_head();
  head->method = "GET";
  head->authority = "h";
  head->path = "/";
  head->protocol = "websocket";
  side.stream->send_head(*head, false);
  origin.send(std::string_view("\0\0\0\4\0\0\0\0\0", 9));
  ASSERT_TRUE(until([&] { return !side.reset.empty(); }));
  EXPECT_EQ(side.reason, ResetReason::kRefused);
}

}  // namespace
}  // namespace edgemesh::proxy
