// The upgrade of a cleartext HTTP/1 connection to HTTP/2 (RFC 7540 3.2).
#include <gtest/gtest.h>

#include "proxy/http/h2_server.h"
#include "tests/unit/proxy_http/h1_test_support.h"
#include "tests/unit/proxy_http/h2_raw.h"

namespace edgemesh::proxy {
namespace {

using h1test::ServerSide;
using test::Collector;
using test::MemoryStream;

constexpr std::string_view kAgreed =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
// HEADERS, END_STREAM | END_HEADERS, stream 3: GET http "/" with authority "h".
const std::string kSecond = h2raw::frame(1, 5, 3, h2raw::kGet);

struct H2cUpgrade : testing::Test {
  H2cUpgrade() {
    options.h2c_upgrade = true;
    handler.echo = true;
    handler.h2c = [this](std::unique_ptr<io::Stream> stream, HeadPtr first,
                         std::string_view settings, std::string_view ahead) {
      ++upgrades;
      H2ServerPeer who;
      who.initial = ahead;
      who.upgrade = std::move(first);
      who.upgrade_settings = settings;
      return make_h2_server(*loop, batch, std::move(stream), {}, &handler, std::move(who));
    };
  }
  void start(const test::MemoryStreamOptions& memory = {}, bool tls = false) {
    auto [a, b] = MemoryStream::pair(*loop, memory);
    peer = std::make_unique<Collector>(std::move(b));
    H1ServerPeer who;
    who.tls = tls;
    handler.connection = make_h1_server(*loop, batch, std::move(a), options, &handler, who);
    turn();
  }
  void turn(int n = 60) {
    for (int i = 0; i < n; ++i) loop->run_once();
  }
  void send(std::string_view text, int turns = 60) {
    peer->send(text);
    turn(turns);
  }
  static std::string ask(const std::string& more = "HTTP2-Settings: AAMAAABkAAQAAP__\r\n",
                         const std::string& line = "GET /first HTTP/1.1",
                         const std::string& connection = "Upgrade, HTTP2-Settings") {
    return line + "\r\nHost: h\r\nConnection: " + connection + "\r\nUpgrade: h2c\r\n" + more +
           "\r\n";
  }
  static std::string preface() {
    return std::string(h2raw::kPreface) + h2raw::frame(h2raw::kSettings, 0, 0, "");
  }
  // Bodies of the DATA frames of a stream, and "." for its end.
  std::string body_of(uint32_t stream) const {
    std::string out;
    std::string_view rest = std::string_view(peer->received).substr(kAgreed.size());
    while (rest.size() >= 9) {
      auto at = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(rest[i])); };
      const size_t size = at(0) << 16 | at(1) << 8 | at(2);
      const uint32_t id = at(5) << 24 | at(6) << 16 | at(7) << 8 | at(8);
      if (id == stream && at(3) == 0) out += rest.substr(9, size);
      if (id == stream && at(3) <= 1 && (at(4) & 1) != 0) out += ".";
      rest.remove_prefix(std::min(rest.size(), 9 + size));
    }
    return out;
  }

  ManualClock clock;
  std::unique_ptr<io::Loop> loop = io::Loop::create(clock).value();
  WriteBatch batch{*loop};
  H1ServerOptions options;
  ServerSide handler;
  std::unique_ptr<Collector> peer;
  int upgrades = 0;
};

TEST_F(H2cUpgrade, TheFirstRequestIsStreamOne) {
  start();
  send(ask());
  ASSERT_TRUE(peer->received.starts_with(kAgreed));
  EXPECT_EQ(handler.requests.size(), 0u);  // no more than our SETTINGS follow the 101
  EXPECT_LT(peer->received.size(), kAgreed.size() + 100);
  send(preface() + kSecond);
  EXPECT_EQ(body_of(1), "/first|.");
  EXPECT_EQ(body_of(3), "/|.");
  EXPECT_EQ(upgrades, 1);
  ASSERT_EQ(handler.requests.size(), 2u);
  EXPECT_EQ(h1test::text_of(*handler.requests[0]->head), "GET http h /first");
  EXPECT_EQ(handler.requests[0]->head->version, HttpVersion::kHttp2);
  EXPECT_FALSE(peer->eof || peer->failed);
}

TEST_F(H2cUpgrade, WhatWasSentAheadIsNotLost) {
  for (size_t piece : {size_t{0}, size_t{1}, size_t{7}}) {
    handler.requests.clear();
    test::MemoryStreamOptions memory;
    memory.max_read = piece;
    start(memory);
    send(ask() + preface() + kSecond, 2000);
    ASSERT_TRUE(peer->received.starts_with(kAgreed)) << piece;
    EXPECT_EQ(body_of(1), "/first|.") << piece;
    EXPECT_EQ(body_of(3), "/|.") << piece;
  }
}

TEST_F(H2cUpgrade, AfterAnotherRequest) {
  start();
  send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_TRUE(peer->received.ends_with("/a|"));
  peer->received.clear();
  send(ask() + preface());
  ASSERT_TRUE(peer->received.starts_with(kAgreed));
  EXPECT_EQ(body_of(1), "/first|.");
}

TEST_F(H2cUpgrade, OfHead) {
  handler.echo = false;
  start();
  send(ask("HTTP2-Settings: \r\n", "HEAD /first HTTP/1.1") + preface());
  ASSERT_EQ(handler.requests.size(), 1u);
  HeadPtr head = take_head();
  head->status = 200;
  head->set_length(5);
  handler.requests[0]->stream->send_head(*head, true);
  turn();
  EXPECT_EQ(body_of(1), ".");
  EXPECT_TRUE(handler.requests[0]->reset.empty());
}

TEST_F(H2cUpgrade, TheClientsSettingsHoldFromTheBeginning) {
  start();
  send(ask("HTTP2-Settings: AAQAAAAD\r\n") + preface());  // INITIAL_WINDOW_SIZE = 3
  EXPECT_EQ(body_of(1), "/fi");
}

TEST_F(H2cUpgrade, ItsStreamIsResetBeforeTheAnswer) {
  handler.echo = false;
  start();
  send(ask() + preface() + h2raw::frame(h2raw::kRstStream, 0, 1, h2raw::number(8)) + kSecond);
  ASSERT_EQ(handler.requests.size(), 2u);
  EXPECT_FALSE(handler.requests[0]->reset.empty());
  EXPECT_TRUE(handler.requests[1]->reset.empty());
}

// The limit for a client that never begins in HTTP/2 holds though its settings came with the
// request.
TEST_F(H2cUpgrade, ThePrefaceMustFollow) {
  start();
  send(ask());
  ASSERT_TRUE(peer->received.starts_with(kAgreed));
  EXPECT_FALSE(peer->eof);
  clock.advance(std::chrono::seconds(11));
  turn();
  EXPECT_TRUE(peer->eof);
}

// A connection is taken over once only.
TEST_F(H2cUpgrade, WhatFollowsIsHttp2) {
  start();
  send(ask() + ask());
  EXPECT_EQ(upgrades, 1);
  EXPECT_TRUE(peer->eof || peer->failed);
}

// More than a sniffer reads at a time came with the preface: no other event tells of it.
TEST_F(H2cUpgrade, WhatWaitsBehindWhatASnifferReadIsRead) {
  struct Sniffer final : io::Stream::Handler {
    void on_readable() override { sniffed.resize(stream->read(sniffed).n); }
    void on_writable() override {}
    void on_error(const Error&) override {}
    io::Stream* stream = nullptr;
    std::vector<uint8_t> sniffed = std::vector<uint8_t>(30);
  } sniffer;
  auto [a, b] = MemoryStream::pair(*loop);
  sniffer.stream = a.get();
  a->set_handler(&sniffer);
  peer = std::make_unique<Collector>(std::move(b));
  peer->send(preface() + kSecond);
  turn();
  ASSERT_EQ(sniffer.sniffed.size(), 30u);
  H2ServerPeer who;
  who.initial = io::as_text(sniffer.sniffed);
  handler.connection = make_h2_server(*loop, batch, std::move(a), {}, &handler, std::move(who));
  turn();
  EXPECT_EQ(handler.requests.size(), 1u);
}

// What is wrong, or has a body, is answered in HTTP/1.
TEST_F(H2cUpgrade, IsNotTakenElse) {
  const std::string good = "HTTP2-Settings: AAMAAABkAAQAAP__\r\n";
  const std::string cases[] = {
      ask(""),
      ask("HTTP2-Settings: A===\r\n"),
      ask("HTTP2-Settings: AAMAAABkAA\r\n"),  // no multiple of a setting
      ask("HTTP2-Settings: !!\r\n"),
      ask(good + good),
      ask("HTTP2-Settings: " + std::string(8 * 40, 'A') + "\r\n"),  // 40 settings
      ask(good, "GET /first HTTP/1.1", "Upgrade"),
      "GET /first HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n"
      "Upgrade: h2c, websocket\r\n" +
          good + "\r\n",
      ask(good + "Content-Length: 2\r\n", "POST /first HTTP/1.1") + "hi",
      ask(good + "Transfer-Encoding: chunked\r\n", "POST /first HTTP/1.1") + "2\r\nhi\r\n0\r\n\r\n",
  };
  for (const std::string& text : cases) {
    start();
    send(text);
    EXPECT_TRUE(peer->received.starts_with("HTTP/1.1 200 OK\r\n")) << text << peer->received;
    peer->received.clear();
    send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_TRUE(peer->received.ends_with("/next|")) << text;
  }
  start({}, true);
  send(ask());
  EXPECT_TRUE(peer->received.starts_with("HTTP/1.1 200 OK\r\n"));
  options.h2c_upgrade = false;
  start();
  send(ask());
  EXPECT_TRUE(peer->received.starts_with("HTTP/1.1 200 OK\r\n"));
  EXPECT_EQ(upgrades, 0);
}

TEST_F(H2cUpgrade, SettingsThatAreOutOfRangeEndTheConnection) {
  start();
  send(ask("HTTP2-Settings: AAT_____\r\n"));  // a window of 2^32 - 1
  send(preface());
  EXPECT_EQ(handler.requests.size(), 0u);
  EXPECT_TRUE(peer->eof);
}

TEST_F(H2cUpgrade, AClientThatLeavesAtOnce) {
  start();
  peer->send(ask());
  peer->finish();
  turn();
  EXPECT_TRUE(peer->eof || peer->failed || handler.closed);
}

}  // namespace
}  // namespace edgemesh::proxy
