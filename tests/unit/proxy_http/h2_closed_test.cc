// Frames on streams that are closed (RFC 9113 5.1).
#include <gtest/gtest.h>

#include "proxy/http/h2_closed.h"
#include "proxy/http/h2_server.h"
#include "tests/unit/proxy_http/h1_test_support.h"
#include "tests/unit/proxy_http/h2_raw.h"

namespace edgemesh::proxy {
namespace {

using h2::ClosedStreams;
using namespace h2raw;  // NOLINT

TEST(ClosedStreamsTest, RememberWhatWasReset) {
  ClosedStreams closed;
  for (int32_t id = 1; id < 200; id += 2) {
    EXPECT_TRUE(closed.begin(id));
    closed.opened(id);
  }
  EXPECT_EQ(closed.judge(1), ClosedStreams::kClosed);
  EXPECT_EQ(closed.judge(201), ClosedStreams::kIgnore);
  closed.reset(101, true);
  closed.reset(103, false);
  EXPECT_EQ(closed.judge(101), ClosedStreams::kStreamError);
  EXPECT_EQ(closed.judge(103), ClosedStreams::kIgnore);
  EXPECT_EQ(closed.judge(99), ClosedStreams::kClosed);
  for (int32_t i = 0; i < 16; ++i) closed.reset(105 + 2 * i, true);
  EXPECT_EQ(closed.judge(105), ClosedStreams::kStreamError);
  for (int32_t id : {1, 99, 101, 103}) EXPECT_EQ(closed.judge(id), ClosedStreams::kIgnore) << id;
  EXPECT_EQ(closed.judge(199), ClosedStreams::kClosed);
}

TEST(ClosedStreamsTest, StreamsThatWereRefusedOrJumpedOver) {
  ClosedStreams closed;
  EXPECT_TRUE(closed.begin(1));  // and not opened
  EXPECT_TRUE(closed.begin(7));
  closed.opened(7);
  EXPECT_EQ(closed.judge(1), ClosedStreams::kIgnore);
  EXPECT_EQ(closed.judge(3), ClosedStreams::kNeverOpened);
  EXPECT_EQ(closed.judge(5), ClosedStreams::kNeverOpened);
  EXPECT_EQ(closed.judge(7), ClosedStreams::kClosed);
  EXPECT_FALSE(closed.begin(7));
  EXPECT_FALSE(closed.begin(5));
}

struct H2Closed : testing::Test {
  std::unique_ptr<io::Loop> loop = io::Loop::create().value();
  WriteBatch batch{*loop};
  h1test::ServerSide server;
  std::unique_ptr<Peer> peer;

  void SetUp() override {
    auto [near, far] = test::MemoryStream::pair(*loop);
    server.connection = make_h2_server(*loop, batch, std::move(far), {}, &server);
    peer = std::make_unique<Peer>(std::move(near));
    peer->hello();
    turns();
  }
  void turns() {
    for (int i = 0; i < 20; ++i) loop->run_once();
  }
};

TEST_F(H2Closed, AfterTheEndItIsAConnectionError) {
  for (auto type : {kData, kHeaders}) {
    server.echo = true;
    SetUp();
    peer->send(kHeaders, kEndHeaders | kEndStream, 1, kGet);
    turns();
    EXPECT_EQ(server.connection->active_streams(), 0U);
    peer->send(type, kEndHeaders | kEndStream, 1, type == kData ? "x" : kGet);
    turns();
    EXPECT_EQ(peer->goaway(), kStreamClosed);
    EXPECT_TRUE(server.closed);
  }
}

TEST_F(H2Closed, AfterAResetOfThePeerItIsAStreamError) {
  for (auto type : {kData, kHeaders}) {
    SetUp();
    peer->send(kHeaders, kEndHeaders, 1, kGet);
    peer->send(kRstStream, 0, 1, number(8));
    peer->send(type, kEndHeaders | kEndStream, 1, type == kData ? "x" : kGet);
    turns();
    EXPECT_EQ(peer->reset_of(1), kStreamClosed);
    EXPECT_EQ(peer->goaway(), std::nullopt);
  }
}

TEST_F(H2Closed, AfterOurResetItIsIgnored) {
  peer->send(kHeaders, kEndHeaders, 1, kGet);
  turns();
  ASSERT_EQ(server.requests.size(), 1U);
  server.requests.clear();
  turns();
  EXPECT_TRUE(peer->reset_of(1));
  // On their way when the reset was: a piece of the body, byte by byte, and trailers.
  for (char c : frame(kData, 0, 1, "hello")) {
    peer->wire.send({&c, 1});
    turns();
  }
  peer->send(kHeaders, kEndHeaders | kEndStream, 1, field("t", "1"));
  server.echo = true;
  peer->send(kHeaders, kEndHeaders | kEndStream, 3, kGet);
  turns();
  EXPECT_EQ(peer->goaway(), std::nullopt);
  EXPECT_EQ(server.requests.size(), 1U);
  EXPECT_EQ(peer->count(kData), 1U);
}

TEST_F(H2Closed, AStreamThatWasJumpedOverIsNotOpened) {
  peer->send(kHeaders, kEndHeaders, 5, kGet);
  peer->send(kHeaders, kEndHeaders, 3, kGet);
  turns();
  EXPECT_EQ(peer->goaway(), kProtocolError);
  EXPECT_EQ(server.requests.size(), 1U);
}

TEST_F(H2Closed, StreamsAfterGoawayAreNotHeldAgainstThePeer) {
  peer->send(kHeaders, kEndHeaders, 1, kGet);
  turns();
  server.connection->drain();
  turns();
  peer->send(kPing, kAck, 0, std::string(8, '\0'));  // the answer after which the last GOAWAY comes
  turns();
  EXPECT_EQ(peer->count(kGoaway), 2U);
  peer->send(kHeaders, kEndHeaders, 3, kGet);
  peer->send(kData, kEndStream, 3, "late");
  turns();
  EXPECT_EQ(peer->goaway(), 0U);
  EXPECT_EQ(server.requests.size(), 1U);
  EXPECT_FALSE(server.closed);
}

}  // namespace
}  // namespace edgemesh::proxy
