#include "core/channel/session.h"

#include <gtest/gtest.h>

#include "tests/support/memory_stream.h"

namespace edgemesh::channel {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// The far end: a plain WebSocket that answers pings by itself.
struct Peer final : http::WebSocket::Handler {
  void on_message(std::string_view data, bool) override { received.emplace_back(data); }
  void on_pong(std::string_view) override { ++pongs; }
  void on_close(uint16_t c, const std::string& r) override {
    code = c;
    reason = r;
  }
  std::unique_ptr<http::WebSocket> socket;
  std::vector<std::string> received;
  int pongs = 0;
  uint16_t code = 0;
  std::string reason;
};

class SessionTest : public ::testing::Test {
 protected:
  void SetUp() override { loop_ = std::move(*io::Loop::create(clock_)); }
  void open(SessionOptions options = {}) {
    auto [near, far] = test::MemoryStream::pair(*loop_);
    peer_.socket = http::WebSocket::over(*loop_, std::move(far), true);
    peer_.socket->set_handler(&peer_);
    Session::Handlers handlers;
    handlers.on_message = [this](Message m) { messages_.push_back(std::move(m)); };
    handlers.on_closed = [this](const std::string& reason) { closed_ = reason; };
    handlers.on_drain = [this] { ++drains_; };
    session_ = std::make_unique<Session>(*loop_, http::WebSocket::over(*loop_, std::move(near), false),
                                         options, std::move(handlers));
    turn();
  }
  void turn() {
    for (int i = 0; i < 8; ++i) loop_->run_once();
  }
  void advance(Duration by) {
    constexpr Duration kStep = milliseconds(50);
    for (; by > Duration::zero(); by -= kStep) {
      clock_.advance(std::min(by, kStep));
      turn();
    }
  }
  size_t keepalives() const {
    size_t n = 0;
    for (const auto& text : peer_.received) n += text.find("\"keepalive\"") != std::string::npos ? 1 : 0;
    return n;
  }

  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_;
  Peer peer_;
  std::unique_ptr<Session> session_;
  std::vector<Message> messages_;
  std::string closed_;
  int drains_ = 0;
};

TEST_F(SessionTest, MessagesGoBothWays) {
  open();
  const Message out = make_message("a", "resource", "update", "x");
  ASSERT_TRUE(session_->send(out));
  ASSERT_TRUE(peer_.socket->send_text(encode(reply_to(out, "\"OK\""))));
  turn();

  ASSERT_EQ(peer_.received.size(), 1U);
  EXPECT_EQ(decode(peer_.received[0])->id, out.id);
  ASSERT_EQ(messages_.size(), 1U);
  EXPECT_EQ(messages_[0].parent_id, out.id);
  EXPECT_EQ(session_->counters().tx_messages, 1U);
  EXPECT_EQ(session_->counters().rx_messages, 1U);
}

TEST_F(SessionTest, AnAnsweringPeerKeepsTheLinkForEver) {
  open();
  advance(seconds(60));

  EXPECT_EQ(closed_, "");
  EXPECT_GE(session_->counters().rtt_us, 0);
}

TEST_F(SessionTest, ASilentPeerIsNoticedWithinFiveSeconds) {
  open();
  advance(seconds(10));
  peer_.socket->pause_reading();  // the connection stays, no ping is answered
  advance(milliseconds(2800));
  EXPECT_EQ(closed_, "");
  advance(milliseconds(2200));

  EXPECT_NE(closed_.find("the other side was silent for 4"), std::string::npos) << closed_;
}

TEST_F(SessionTest, OurOwnStandstillIsNotThePeersSilence) {
  open();
  advance(seconds(2));
  clock_.advance(seconds(600));  // a suspended machine
  turn();
  EXPECT_EQ(closed_, "");
  advance(seconds(10));
  EXPECT_EQ(closed_, "");
}

TEST_F(SessionTest, AProbeFindsADeadLinkSooner) {
  open();
  peer_.socket->pause_reading();
  session_->probe(seconds(2));
  advance(milliseconds(1900));
  EXPECT_EQ(closed_, "");
  advance(milliseconds(400));
  EXPECT_NE(closed_, "");
}

TEST_F(SessionTest, KeepaliveMessagesComeEveryFifteenSeconds) {
  open();
  advance(milliseconds(500));
  EXPECT_EQ(keepalives(), 1U);
  auto message = decode(peer_.received.at(0));
  ASSERT_TRUE(message);
  EXPECT_EQ(message->source, "websocket");
  EXPECT_EQ(message->group, "resource");
  EXPECT_EQ(message->resource, "node");
  EXPECT_EQ(message->content, "\"ping\"");
  advance(seconds(31));
  EXPECT_EQ(keepalives(), 3U);
}

TEST_F(SessionTest, TheCloudsEndSendsNoKeepalive) {
  open({.keepalive_interval = Duration::zero()});
  advance(seconds(31));
  EXPECT_EQ(keepalives(), 0U);
}

TEST_F(SessionTest, AMessageThatCannotBeReadEndsTheSession) {
  open();
  ASSERT_TRUE(peer_.socket->send_text("{}"));
  turn();
  EXPECT_EQ(peer_.code, 1007);
  EXPECT_NE(closed_, "");
}

TEST_F(SessionTest, ABinaryMessageEndsTheSession) {
  open();
  ASSERT_TRUE(peer_.socket->send_binary("x"));
  turn();
  EXPECT_EQ(peer_.code, 1003);
}

TEST_F(SessionTest, FramingOperationsAreAnsweredHere) {
  open();
  Message ping = make_message("", "", "ping", "");
  ASSERT_TRUE(peer_.socket->send_text(encode(ping)));
  turn();
  EXPECT_TRUE(messages_.empty());
  ASSERT_EQ(peer_.received.size(), 1U);
  auto answer = decode(peer_.received[0]);
  EXPECT_EQ(answer->parent_id, ping.id);
  EXPECT_EQ(answer->content, "\"ack\"");
}

TEST_F(SessionTest, TheQueuePushesBackAndTellsWhenItDrained) {
  open({.max_queued_bytes = 300 << 10});
  peer_.socket->pause_reading();
  const Message big = make_message("a", "g", "update", "x", json_string(std::string(64 << 10, 'x')));
  Result<> sent;
  size_t taken = 0;
  while ((sent = session_->send(big)).has_value() && taken < 100) {
    ++taken;
    turn();
  }
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(drains_, 0);
  peer_.socket->resume_reading();
  turn();
  turn();

  EXPECT_EQ(peer_.received.size(), taken);
  EXPECT_GE(drains_, 1);
  EXPECT_TRUE(session_->send(big));
}

TEST_F(SessionTest, AMessageTooLargeToBeReadIsNotSent) {
  open();
  const Message big = make_message("a", "g", "update", "x", json_string(std::string(5 << 20, 'x')));
  EXPECT_EQ(session_->send(big).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(SessionTest, AfterTheEndNothingIsTaken) {
  open();
  peer_.socket.reset();
  turn();
  EXPECT_NE(closed_, "");
  EXPECT_EQ(session_->send(make_message("a", "g", "u", "x")).error().code, ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace edgemesh::channel
