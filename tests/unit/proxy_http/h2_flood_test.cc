// Peers that want us to work or to remember too much, and peers that are too slow.
#include <gtest/gtest.h>

#include "proxy/http/h2_client.h"
#include "proxy/http/h2_server.h"
#include "tests/unit/proxy_http/h1_test_support.h"
#include "tests/unit/proxy_http/h2_raw.h"

namespace edgemesh::proxy {
namespace {

using namespace h2raw;  // NOLINT
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint32_t kSettingsTimeout = 4;
constexpr uint32_t kCancel = 8;

struct H2Flood : testing::Test {
  ManualClock clock;
  std::unique_ptr<io::Loop> loop = io::Loop::create(clock).value();
  WriteBatch batch{*loop};
  h1test::ServerSide server;
  std::unique_ptr<Peer> peer;
  H2ServerOptions options;

  void start(bool hello = true) {
    auto [near, far] = test::MemoryStream::pair(*loop);
    server.connection = make_h2_server(*loop, batch, std::move(far), options, &server);
    peer = std::make_unique<Peer>(std::move(near));
    if (hello) peer->hello();
    turns();
  }
  void turns(int n = 20) {
    for (int i = 0; i < n; ++i) loop->run_once();
  }
  // As often as it is taken, at most `count` times.
  size_t flood(size_t count, const std::function<std::string(size_t)>& next) {
    size_t i = 0;
    for (; i < count && !server.closed; ++i) {
      peer->wire.send(next(i));
      if (i % 16 == 15) turns(3);
    }
    turns();
    return i;
  }
  void expect_calm(size_t taken, size_t limit) {
    EXPECT_EQ(peer->goaway(), kEnhanceYourCalm);
    EXPECT_TRUE(server.closed);
    EXPECT_FALSE(server.bad.empty());
    EXPECT_LE(taken, limit + 64);
  }
  static uint32_t id(size_t i) { return static_cast<uint32_t>(2 * i + 1); }
};

TEST_F(H2Flood, RapidReset) {
  start();
  size_t n = flood(2000, [](size_t i) {
    return frame(kHeaders, kEndHeaders | kEndStream, id(i), kGet) +
           frame(kRstStream, 0, id(i), number(kCancel));
  });
  expect_calm(n, options.limits.reset_burst);
  EXPECT_LE(server.requests.size(), options.limits.reset_burst + 64);
}

TEST_F(H2Flood, StreamsThatWeMustReset) {
  start();
  // A window that grows too large is an error of its stream.
  size_t n = flood(2000, [](size_t i) {
    return frame(kHeaders, kEndHeaders, id(i), kGet) +
           frame(kWindowUpdate, 0, id(i), number(0x7fffffff));
  });
  expect_calm(n, options.limits.reset_burst);
}

TEST_F(H2Flood, ResetsAmongRequestsThatEndAreTaken) {
  start();
  server.echo = true;
  size_t n = flood(3000, [](size_t i) {
    std::string request = frame(kHeaders, kEndHeaders | (i % 2 == 0 ? kEndStream : 0), id(i), kGet);
    return i % 2 == 0 ? request : request + frame(kRstStream, 0, id(i), number(kCancel));
  });
  EXPECT_EQ(n, 3000U);
  EXPECT_EQ(peer->goaway(), std::nullopt);
}

TEST_F(H2Flood, FramesThatCostNothingToSend) {
  struct Case {
    const char* name;
    std::string frame;
    bool stream = false;
  };
  const Case cases[] = {
      {"ping", frame(kPing, 0, 0, "12345678")},
      {"unasked ping answers", frame(kPing, kAck, 0, "12345678")},
      {"settings", frame(kSettings, 0, 0, "")},
      {"priority", frame(kPriority, 0, 1, std::string("\0\0\0\0\x10", 5))},
      {"priority of idle streams", frame(kPriority, 0, 99, std::string("\0\0\0\0\x10", 5))},
      {"unknown", frame(0x77, 0, 0, "")},
      {"window update", frame(kWindowUpdate, 0, 0, number(1))},
      {"window update of a stream", frame(kWindowUpdate, 0, 1, number(1)), true},
      {"empty data", frame(kData, 0, 1, ""), true},
      {"padding", frame(kData, 8, 1, std::string("\3\0\0\0", 4)), true},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    server.bad.clear();
    server.closed = false;
    start();
    if (c.stream) peer->send(kHeaders, kEndHeaders, 1, kGet);
    size_t n = flood(5000, [&](size_t) { return c.frame; });
    expect_calm(n, options.limits.control_burst);
    // At the rate that is allowed it may go on.
    server.bad.clear();
    server.closed = false;
    start();
    if (c.stream) peer->send(kHeaders, kEndHeaders, 1, kGet);
    n = flood(3000, [&](size_t) {
      clock.advance(milliseconds(2));
      return c.frame;
    });
    EXPECT_EQ(n, 3000U);
    EXPECT_EQ(peer->goaway(), std::nullopt);
  }
}

TEST_F(H2Flood, WindowUpdatesAreAllowedForDataThatWeSend) {
  options.limits.control_burst = 20;
  options.limits.control_per_second = 0;
  start();
  peer->send(kHeaders, kEndHeaders, 1, kGet);
  turns();
  HeadPtr head = take_head();
  head->status = 200;
  HttpStream& stream = *server.requests[0]->stream;
  stream.send_head(*head, false);
  std::string block(100, 'x');
  for (int i = 0; i < 100; ++i) {
    stream.send_data(io::as_bytes(block), false);
    for (int j = 0; j < 10; ++j) peer->send(kWindowUpdate, 0, 0, number(10));
    turns(3);
  }
  EXPECT_EQ(peer->count(kData), 100U);
  EXPECT_EQ(peer->goaway(), std::nullopt);
  for (int j = 0; j < 40; ++j) peer->send(kWindowUpdate, 0, 0, number(10));
  turns();
  EXPECT_EQ(peer->goaway(), kEnhanceYourCalm);
}

TEST_F(H2Flood, PeerThatDoesNotTakeTheAnswersToItsPings) {
  options.limits.control_burst = 1000000;
  start();
  peer->wire.stop_reading();
  size_t n = flood(100000, [](size_t) {
    std::string many;
    for (int i = 0; i < 50; ++i) many += frame(kPing, 0, 0, "12345678");
    return many;
  });
  clock.advance(seconds(6));  // it does not take the GOAWAY either
  turns();
  EXPECT_TRUE(server.closed);
  EXPECT_LT(n, 1000U);
}

TEST_F(H2Flood, RefusedStreams) {
  options.limits.max_streams = 10;
  start();
  size_t n = flood(5000, [](size_t i) { return frame(kHeaders, kEndHeaders, id(i), kGet); });
  EXPECT_TRUE(server.closed);
  EXPECT_TRUE(peer->goaway());
  EXPECT_LE(n, options.limits.control_burst + 80);
  EXPECT_LE(server.requests.size(), 10U);
}

TEST_F(H2Flood, Continuations) {
  for (std::string_view piece : {std::string_view(""), std::string_view("\0\1a\1b", 5)}) {
    server.bad.clear();
    server.closed = false;
    start();
    peer->send(kHeaders, 0, 1, kGet);
    size_t n = flood(2000, [&](size_t) { return frame(kContinuation, 0, 1, piece); });
    expect_calm(n, 64);
    EXPECT_TRUE(server.requests.empty());
  }
}

TEST_F(H2Flood, LargeHeaderListsAreAnswered431OrEndTheConnection) {
  options.limits.max_header_bytes = 4096;
  start();
  std::string block(kGet);
  for (int i = 0; i < 5; ++i) block += field("a", std::string(1000, 'x'));
  peer->send(kHeaders, kEndHeaders | kEndStream, 1, block);
  turns();
  EXPECT_EQ(server.bad, std::vector<int>{431});
  EXPECT_EQ(peer->count(kHeaders), 1U);
  EXPECT_FALSE(server.closed);
  // One field of 1000 bytes in the table, and then an octet for each time it is meant.
  block = std::string(kGet) + "\x40\x01" "a" "\x7f" "\xe9\x06" + std::string(1000, 'x');
  block += std::string(10000, '\xbe');
  peer->send(kHeaders, kEndHeaders | kEndStream, 3, block);
  turns();
  EXPECT_EQ(peer->goaway(), kEnhanceYourCalm);
  EXPECT_TRUE(server.closed);
  EXPECT_TRUE(server.requests.empty());
}

TEST_F(H2Flood, MoreFieldsThanAllowed) {
  options.limits.max_fields = 20;
  start();
  std::string block(kGet);
  for (int i = 0; i < 20; ++i) block += field("a", "");
  peer->send(kHeaders, kEndHeaders | kEndStream, 1, block);
  turns();
  EXPECT_EQ(server.bad, std::vector<int>{431});
}

// ---- slow peers

TEST_F(H2Flood, NothingComes) {
  start(false);
  clock.advance(seconds(9));
  turns();
  EXPECT_FALSE(server.closed);
  clock.advance(seconds(1));
  turns();
  EXPECT_TRUE(server.closed);
  EXPECT_EQ(peer->goaway(), kSettingsTimeout);
}

TEST_F(H2Flood, ThePrefaceTricklesIn) {
  start(false);
  for (char c : kPreface.substr(0, 20)) {
    peer->wire.send({&c, 1});
    clock.advance(seconds(1));
    turns(3);
  }
  turns();
  EXPECT_TRUE(server.closed);
}

TEST_F(H2Flood, AHeadTricklesIn) {
  for (bool continued : {false, true}) {
    server.closed = false;
    start();
    clock.advance(seconds(100));  // idle: that is no crime
    turns();
    EXPECT_FALSE(server.closed);
    std::string bytes = frame(kHeaders, kEndHeaders, 1, kGet);
    if (continued)
      bytes = frame(kHeaders, 0, 1, kGet.substr(0, 1)) + frame(kContinuation, 0, 1, kGet.substr(1, 1)) +
              frame(kContinuation, 0, 1, "");
    for (char c : bytes.substr(0, bytes.size() - 1)) {
      peer->wire.send({&c, 1});
      clock.advance(milliseconds(900));
      turns(4);
    }
    EXPECT_EQ(peer->goaway(), kEnhanceYourCalm);
    EXPECT_TRUE(server.closed);
    EXPECT_TRUE(server.requests.empty());
  }
}

TEST_F(H2Flood, HeadsAndBodiesThatComeSlowlyButComeAreTaken) {
  start();
  peer->send(kHeaders, kEndHeaders, 1, kGet);
  std::string body = frame(kData, 0, 1, std::string(40, 'x')) + frame(kPing, 0, 0, "12345678");
  for (char c : body + frame(kHeaders, kEndHeaders | kEndStream, 3, kGet)) {
    peer->wire.send({&c, 1});
    clock.advance(milliseconds(500));
    turns(4);
  }
  EXPECT_EQ(peer->goaway(), std::nullopt);
  EXPECT_EQ(server.requests.size(), 2U);
}

TEST_F(H2Flood, APeerThatTakesNothingOfTheConnection) {
  start();
  peer->wire.stop_reading();
  peer->send(kWindowUpdate, 0, 0, number(1 << 30));
  for (uint32_t stream : {1, 3, 5}) {
    peer->send(kHeaders, kEndHeaders | kEndStream, stream, kGet);
    peer->send(kWindowUpdate, 0, stream, number(1 << 30));
  }
  turns();
  ASSERT_EQ(server.requests.size(), 3U);
  std::string body(60000, 'x');
  for (auto& request : server.requests) h1test::answer(*request->stream, 200, body);
  turns();
  clock.advance(seconds(59));
  turns();
  EXPECT_FALSE(server.closed);
  clock.advance(seconds(1));
  turns();
  EXPECT_TRUE(server.closed);
}

TEST_F(H2Flood, APeerThatTakesNothingOfAStream) {
  start();
  // The stream's window is for 65535 bytes; the connection's has room.
  peer->send(kWindowUpdate, 0, 0, number(1 << 20));
  peer->send(kHeaders, kEndHeaders | kEndStream, 1, kGet);
  turns();
  HeadPtr head = take_head();
  head->status = 200;
  server.requests[0]->stream->send_head(*head, false);
  server.requests[0]->stream->send_data(io::as_bytes(std::string(100000, 'x')), false);
  turns();
  clock.advance(seconds(59));
  server.echo = true;
  peer->send(kHeaders, kEndHeaders | kEndStream, 3, kGet);  // another stream is no progress of it
  turns();
  EXPECT_EQ(peer->reset_of(1), std::nullopt);
  clock.advance(seconds(1));
  turns();
  EXPECT_EQ(peer->reset_of(1), kCancel);
  EXPECT_EQ(server.requests[0]->reason, ResetReason::kConnectionLost);
  EXPECT_FALSE(server.requests[0]->reset.empty());
  EXPECT_EQ(server.connection->active_streams(), 0U);
  EXPECT_EQ(peer->goaway(), std::nullopt);
}

TEST_F(H2Flood, ATunnelMayPause) {
  start();
  peer->send(kWindowUpdate, 0, 0, number(1 << 20));
  peer->send(kHeaders, kEndHeaders, 1, "\x02\x07" "CONNECT\x01\x03h:1");
  turns();
  ASSERT_EQ(server.requests.size(), 1U);
  HeadPtr head = take_head();
  head->status = 200;
  server.requests[0]->stream->send_head(*head, false);
  server.requests[0]->stream->send_data(io::as_bytes(std::string(100000, 'x')), false);
  turns();
  clock.advance(seconds(1000));
  turns();
  EXPECT_EQ(peer->reset_of(1), std::nullopt);
}

TEST_F(H2Flood, AServerMayRefuseManyStreams) {
  auto [near, far] = test::MemoryStream::pair(*loop);
  h1test::ClientSide client;
  client.connection = make_h2_client(*loop, batch, std::move(near), {}, &client);
  peer = std::make_unique<Peer>(std::move(far));
  peer->send(kSettings, 0, 0, "");
  h1test::Side side;
  HeadPtr head = take_head();
  head->method = "GET";
  head->path = "/";
  for (size_t i = 0; i < 1000; ++i) {
    side.stream = client.connection->open(&side);
    ASSERT_NE(side.stream, nullptr) << i;
    side.stream->send_head(*head, true);
    turns(3);
    peer->send(kRstStream, 0, id(i), number(7));
    turns(3);
    ASSERT_FALSE(side.reset.empty()) << i;
    EXPECT_EQ(side.reason, ResetReason::kRefused);
    side.reset.clear();
    side.stream.reset();
  }
  EXPECT_FALSE(client.closed);
}

TEST_F(H2Flood, AServerThatFloodsUs) {
  auto [near, far] = test::MemoryStream::pair(*loop);
  h1test::ClientSide client;
  client.connection = make_h2_client(*loop, batch, std::move(near), {}, &client);
  peer = std::make_unique<Peer>(std::move(far));
  peer->send(kSettings, 0, 0, "");
  for (int i = 0; i < 5000 && !client.closed; ++i) {
    peer->send(kPing, 0, 0, "12345678");
    if (i % 16 == 0) turns(3);
  }
  turns();
  EXPECT_TRUE(client.closed);
  peer->wire.received.erase(0, kPreface.size());
  EXPECT_EQ(peer->goaway(), kEnhanceYourCalm);
}

}  // namespace
}  // namespace edgemesh::proxy
