#include <gtest/gtest.h>

#include "tests/unit/proxy_http/h1_test_support.h"

namespace edgemesh::proxy {
namespace {

using h1test::ClientSide;
using h1test::Side;
using h1test::text_of;
using test::Collector;
using test::MemoryStream;

struct H1Client : testing::Test {
  void start(test::MemoryStreamOptions options = {}) {
    auto [a, b] = MemoryStream::pair(*loop, options);
    memory = a.get();
    peer = std::make_unique<Collector>(std::move(b));
    handler.connection =
        make_h1_client(*loop, batch, std::move(a), client_options, &handler);
    turn();
  }
  void turn(int n = 30) {
    for (int i = 0; i < n; ++i) loop->run_once();
  }
  void reply(std::string_view text) {
    peer->send(text);
    turn();
  }
  HeadPtr request(std::string_view method, std::string_view path) {
    HeadPtr head = take_head();
    head->method = method;
    head->path = head->keep(path);
    head->authority = "h.example";
    return head;
  }
  void get(std::string_view path = "/") {
    side = std::make_unique<Side>();
    side->stream = handler.connection->open(side.get());
    ASSERT_NE(side->stream, nullptr);
    side->stream->send_head(*request("GET", path), true);
    turn();
  }

  std::unique_ptr<io::Loop> loop = io::Loop::create().value();
  WriteBatch batch{*loop};
  H1ClientOptions client_options;
  std::unique_ptr<Side> side = std::make_unique<Side>();
  ClientSide handler;
  std::unique_ptr<Collector> peer;
  MemoryStream* memory = nullptr;
};

TEST_F(H1Client, UsesTheConnectionAgain) {
  start();
  get("/a");
  EXPECT_EQ(peer->received, "GET /a HTTP/1.1\r\nHost: h.example\r\n\r\n");
  EXPECT_EQ(handler.connection->open(side.get()), nullptr);
  reply("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\nConnection: keep-alive\r\n\r\nok");
  EXPECT_EQ(text_of(*side->head), "200\nContent-Length: 2\nX: y");
  EXPECT_EQ(side->body, "ok");
  EXPECT_TRUE(side->ended);
  EXPECT_EQ(handler.available, 1);
  get("/b");
  reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n");
  EXPECT_EQ(side->body, "abc");
  EXPECT_EQ(side->trailers, "T=1;");
  EXPECT_EQ(handler.connection->available(), 1u);
}

// Says that it is connected when it is told to.
class Connecting final : public io::Stream {
 public:
  explicit Connecting(std::unique_ptr<io::Stream> below) : below_(std::move(below)) {}
  void set_handler(Handler* handler) override { handler_ = handler; }
  io::IoResult read(std::span<uint8_t> into) override { return below_->read(into); }
  io::IoResult write(std::span<const uint8_t> data) override { return below_->write(data); }
  void shutdown_write() override { below_->shutdown_write(); }
  void reset() override { below_->reset(); }
  void connect() {
    below_->set_handler(handler_);
    handler_->on_connected();
  }
  void refuse() { handler_->on_error(Error{ErrorCode::kConnectionRefused, "refused", 0}); }

 private:
  std::unique_ptr<io::Stream> below_;
  Handler* handler_ = nullptr;
};

TEST_F(H1Client, KeepsARequestUntilConnected) {
  client_options.connected = false;
  for (bool refused : {false, true}) {
    auto [a, b] = MemoryStream::pair(*loop);
    peer = std::make_unique<Collector>(std::move(b));
    auto owned = std::make_unique<Connecting>(std::move(a));
    Connecting* stream = owned.get();
    handler.connection = make_h1_client(*loop, batch, std::move(owned), client_options, &handler);
    get("/early");
    EXPECT_EQ(peer->received, "");
    refused ? stream->refuse() : stream->connect();
    turn();
    if (refused) {
      EXPECT_EQ(side->reset, "refused");
      EXPECT_TRUE(handler.closed);
      continue;
    }
    EXPECT_EQ(handler.connected, 1);
    EXPECT_EQ(peer->received, "GET /early HTTP/1.1\r\nHost: h.example\r\n\r\n");
    reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    EXPECT_TRUE(side->ended);
  }
}

TEST_F(H1Client, ReadsToTheEnd) {
  start();
  get();
  reply("HTTP/1.0 200 OK\r\n\r\npart");
  EXPECT_FALSE(side->ended);
  EXPECT_TRUE(handler.connection->closing());
  peer->finish();
  turn();
  EXPECT_TRUE(side->ended);
  EXPECT_EQ(side->body, "part");
  EXPECT_EQ(side->reset, "");
  EXPECT_TRUE(handler.closed);
}

TEST_F(H1Client, SendsBodiesAndPassesInformationalHeads) {
  start();
  side->stream = handler.connection->open(side.get());
  HeadPtr head = request("POST", "/up");
  head->expect_continue = true;
  side->stream->send_head(*head, false);
  turn();
  EXPECT_EQ(peer->received,
            "POST /up HTTP/1.1\r\nHost: h.example\r\nTransfer-Encoding: chunked\r\nExpect: "
            "100-continue\r\n\r\n");
  peer->received.clear();
  reply("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n");
  EXPECT_EQ(side->informational, (std::vector<std::string>{"100", "103\nLink: a"}));
  side->stream->send_data(io::as_bytes("body"), true);
  turn();
  EXPECT_EQ(peer->received, "4\r\nbody\r\n0\r\n\r\n");
  reply("HTTP/1.1 204 No Content\r\n\r\n");
  EXPECT_TRUE(side->ended);
  EXPECT_EQ(handler.available, 1);
}

TEST_F(H1Client, AnEarlyAnswerLeavesTheConnectionUsableOnceTheRequestEnded) {
  start();
  side->stream = handler.connection->open(side.get());
  side->stream->send_head(*request("POST", "/"), false);
  turn();
  reply("HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n");
  EXPECT_TRUE(side->ended);
  EXPECT_EQ(handler.connection->available(), 0u);
  side->stream->send_data(io::as_bytes("rest"), true);
  turn();
  EXPECT_EQ(handler.available, 1);

  auto second = std::make_unique<Side>();
  second->stream = handler.connection->open(second.get());
  second->stream->send_head(*request("POST", "/"), false);
  turn();
  reply("HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n");
  second->stream.reset();
  turn();
  EXPECT_TRUE(handler.closed);
}

TEST_F(H1Client, HeadAnswersHaveNoBody) {
  start();
  side->stream = handler.connection->open(side.get());
  side->stream->send_head(*request("HEAD", "/"), true);
  turn();
  reply("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n");
  EXPECT_TRUE(side->ended);
  EXPECT_EQ(side->head->length, 500u);
  EXPECT_EQ(handler.available, 1);
}

TEST_F(H1Client, TunnelsAfter101) {
  start();
  side->stream = handler.connection->open(side.get());
  HeadPtr head = request("GET", "/ws");
  head->protocol = "websocket";
  head->add("Sec-WebSocket-Key", "k");
  head->add("Sec-WebSocket-Version", "13");
  side->stream->send_head(*head, false);
  turn();
  EXPECT_EQ(peer->received,
            "GET /ws HTTP/1.1\r\nHost: h.example\r\nSec-WebSocket-Key: k\r\n"
            "Sec-WebSocket-Version: 13\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
  peer->received.clear();
  reply("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\nhi");
  EXPECT_EQ(side->head->protocol, "websocket");
  EXPECT_EQ(side->body, "hi");
  side->stream->send_data(io::as_bytes("you"), true);
  turn();
  EXPECT_EQ(peer->received, "you");
  EXPECT_TRUE(peer->eof);
  peer->finish();
  turn();
  EXPECT_TRUE(side->ended);
  EXPECT_TRUE(handler.closed);
}

TEST_F(H1Client, TellsAConnectionThatClosedBeforeAnAnswer) {
  start();
  get();
  reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  get("/2");
  peer->finish();
  turn();
  EXPECT_EQ(side->reason, ResetReason::kConnectionLost);
  EXPECT_TRUE(side->reset.starts_with(kClosedBeforeAnswer)) << side->reset;
  EXPECT_TRUE(handler.closed);

  handler.closed = false;
  start();
  get("/3");
  peer->drop();
  turn();
  EXPECT_TRUE(side->reset.starts_with(kClosedBeforeAnswer)) << side->reset;

  start();
  get("/4");
  reply("HTTP/1.1 2");
  peer->finish();
  turn();
  EXPECT_FALSE(side->reset.starts_with(kClosedBeforeAnswer));
}

TEST_F(H1Client, TellsThatAnIdleConnectionEnded) {
  start();
  peer->finish();
  turn();
  EXPECT_TRUE(handler.closed);
  EXPECT_TRUE(handler.connection->closing());

  handler.closed = false;
  start();
  reply("HTTP/1.1 408 Request Timeout\r\n\r\n");
  EXPECT_TRUE(handler.closed);
}

TEST_F(H1Client, BytesBehindAnAnswerEndTheConnection) {
  start();
  get();
  reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  EXPECT_TRUE(side->ended);
  EXPECT_EQ(side->reset, "");
  EXPECT_TRUE(handler.closed);
}

TEST_F(H1Client, RefusesAnswersThatCannotBeRead) {
  for (const char* text :
       {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 200 OK\nA: b\n\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", "SSH-2.0-x\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"}) {
    handler.closed = false;
    start();
    get();
    reply(text);
    peer->finish();
    turn();
    EXPECT_NE(side->reset, "") << text;
    EXPECT_TRUE(handler.closed) << text;
  }
}

TEST_F(H1Client, ByteByByte) {
  test::MemoryStreamOptions options;
  options.max_read = 1;
  options.max_write = 1;
  start(options);
  get();
  turn(200);
  peer->send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  turn(400);
  EXPECT_EQ(side->body, "abcde");
  EXPECT_TRUE(side->ended);
}

TEST_F(H1Client, MayBeDestroyedInEachCallback) {
  for (int at = 0; at < 3; ++at) {
    start();
    get();
    int seen = 0;
    side->on_any = [&] {
      if (seen++ == at) handler.connection.reset();
    };
    reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n");
    EXPECT_EQ(handler.connection, nullptr);
    side->stream.reset();
  }
}

}  // namespace
}  // namespace edgemesh::proxy
