// Both loops in one thread, turned in turns: every order of what they do can be had. That it holds
// with threads is shown by the last tests.
#include "core/io/cross_stream.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/support/memory_stream.h"

namespace edgemesh::io {
namespace {

using std::chrono::seconds;
using test::Collector;
using test::MemoryStream;

class CrossStreamTest : public ::testing::Test {
 protected:
  void open() {
    auto [mine, peer] = MemoryStream::pair(*far_);
    real_ = mine.get();
    peer_ = std::make_unique<Collector>(std::move(peer));
    near_end_ = std::make_unique<Collector>(CrossStreams::open(
        streams_, *near_, [stream = std::move(mine)]() mutable -> Result<std::unique_ptr<Stream>> {
          return std::unique_ptr<Stream>(std::move(stream));
        }));
  }
  void turn(int n = 12) {
    for (int i = 0; i < n; ++i) {
      far_->run_once();
      near_->run_once();
    }
  }
  ManualClock clock_;
  std::unique_ptr<Loop> near_ = std::move(*Loop::create(clock_)),
                        far_ = std::move(*Loop::create(clock_));
  std::shared_ptr<CrossStreams> streams_ = std::make_shared<CrossStreams>(*far_);
  MemoryStream* real_ = nullptr;
  std::unique_ptr<Collector> peer_, near_end_;
};

TEST_F(CrossStreamTest, BytesBothWaysAndBothEnds) {
  open();
  near_end_->send("hello");  // before it is open
  turn();
  EXPECT_EQ(peer_->received, "hello");
  peer_->send("world");
  turn();
  EXPECT_EQ(near_end_->received, "world");
  near_end_->finish();
  turn();
  EXPECT_TRUE(peer_->eof);
  peer_->send(", still");
  peer_->finish();
  turn();
  EXPECT_EQ(near_end_->received, "world, still");
  EXPECT_TRUE(near_end_->eof);
  near_end_->drop();
  turn();
  EXPECT_FALSE(peer_->failed);
  EXPECT_EQ(streams_->size(), 0U);  // nothing is kept of it
}

TEST_F(CrossStreamTest, AFailedOpenIsTold) {
  near_end_ = std::make_unique<Collector>(
      CrossStreams::open(streams_, *near_, []() -> Result<std::unique_ptr<Stream>> {
        return fail(ErrorCode::kUnavailable, "no way there");
      }));
  near_end_->send("lost");
  turn();
  EXPECT_TRUE(near_end_->failed);
  EXPECT_TRUE(near_end_->stream().nothing_delivered());
}

TEST_F(CrossStreamTest, AResetIsToldBothWays) {
  open();
  turn();
  real_->break_connection();
  turn();
  EXPECT_TRUE(near_end_->failed);
  EXPECT_TRUE(peer_->failed);

  open();
  near_end_->send("x");
  turn();
  near_end_->drop();  // in the middle
  turn();
  EXPECT_TRUE(peer_->failed);
}

TEST_F(CrossStreamTest, WhatWasWrittenBeforeAnOrderlyEndArrives) {
  open();
  peer_->finish();
  turn();
  ASSERT_TRUE(near_end_->eof);
  peer_->stop_reading();
  const std::string large(100'000, 'x');
  near_end_->send(large);
  near_end_->finish();
  turn();
  EXPECT_TRUE(near_end_->unsent.empty());
  near_end_->drop();  // before the peer has read it
  turn();
  peer_->start_reading();
  turn();
  EXPECT_EQ(peer_->received.size(), large.size());
  EXPECT_TRUE(peer_->eof);
  EXPECT_FALSE(peer_->failed);
  EXPECT_EQ(streams_->size(), 0U);
}

TEST_F(CrossStreamTest, APeerThatTakesNothingKeepsItForALimitedTime) {
  open();
  peer_->finish();
  turn();
  peer_->stop_reading();
  near_end_->send(std::string(100'000, 'x'));
  near_end_->finish();
  turn();
  near_end_->drop();
  turn();
  EXPECT_EQ(streams_->size(), 1U);
  clock_.advance(kCrossLinger - seconds(1));
  turn();
  EXPECT_EQ(streams_->size(), 1U);
  clock_.advance(seconds(2));
  turn();
  EXPECT_EQ(streams_->size(), 0U);
  EXPECT_TRUE(peer_->failed);
}

TEST_F(CrossStreamTest, WhoDoesNotReadPushesBack) {
  open();
  turn();
  peer_->stop_reading();
  near_end_->send(std::string(1 << 20, 'a'));
  turn();
  // The queue and what a memory stream holds, no more.
  EXPECT_GT(near_end_->unsent.size(), (1U << 20) - 3 * kCrossQueueBytes);
  peer_->start_reading();
  turn(100);
  EXPECT_EQ(peer_->received.size(), 1U << 20);

  near_end_->stop_reading();
  peer_->send(std::string(1 << 20, 'b'));
  turn();
  EXPECT_GT(peer_->unsent.size(), (1U << 20) - 3 * kCrossQueueBytes);
  near_end_->start_reading();
  turn(100);
  EXPECT_EQ(near_end_->received, std::string(1 << 20, 'b'));
}

TEST_F(CrossStreamTest, ItMayEndBeforeItWasOpened) {
  open();
  near_end_->drop();
  turn();
  EXPECT_TRUE(peer_->failed);
}

TEST_F(CrossStreamTest, AllCanBeEndedAtOnce) {
  open();
  peer_->finish();
  turn();
  peer_->stop_reading();
  near_end_->send(std::string(100'000, 'x'));
  near_end_->finish();
  turn();
  near_end_->drop();
  turn();
  EXPECT_EQ(streams_->size(), 1U);  // it waits for the peer to read
  streams_->close_all();
  EXPECT_EQ(streams_->size(), 0U);
  turn();
  EXPECT_TRUE(peer_->failed);
  open();
  turn();
  EXPECT_TRUE(near_end_->failed);
}

TEST_F(CrossStreamTest, AllCanBeEndedJustAfterOneEnded) {
  open();
  peer_->finish();
  near_end_->finish();
  turn();
  near_end_->drop();
  // Runs after the far end has let go, and before it is destroyed.
  far_->post([&] { streams_->close_all(); });
  turn();
  EXPECT_EQ(streams_->size(), 0U);
}

// Two threads; the peer is on the far one and sends back what it gets.
class Echo final : public Stream::Handler {
 public:
  explicit Echo(std::unique_ptr<Stream> stream) : stream_(std::move(stream)) {
    stream_->set_handler(this);
  }
  void on_readable() override {
    uint8_t piece[5000];
    while (left_.empty()) {
      const IoResult got = stream_->read(piece);
      if (got.status == IoResult::kEof) stream_->shutdown_write();
      if (got.status != IoResult::kOk) return;
      left_.assign(piece, piece + got.n);
      on_writable();
    }
  }
  void on_writable() override {
    while (!left_.empty()) {
      const IoResult done = stream_->write(left_);
      if (done.status != IoResult::kOk) return;
      left_.erase(left_.begin(), left_.begin() + static_cast<ptrdiff_t>(done.n));
    }
    on_readable();
  }
  void on_error(const Error&) override {}

 private:
  std::unique_ptr<Stream> stream_;
  std::vector<uint8_t> left_;
};

TEST(CrossStreamThreads, BytesArriveWholeAndInOrder) {
  auto near = std::move(*Loop::create()), far = std::move(*Loop::create());
  auto streams = std::make_shared<CrossStreams>(*far);
  std::thread thread([&] { far->run(); });
  std::unique_ptr<Echo> echo;
  std::string sent;
  for (size_t i = 0; sent.size() < (8U << 20); ++i) sent += std::to_string(i * 2654435761U);
  {
    Collector client(CrossStreams::open(streams, *near, [&]() -> Result<std::unique_ptr<Stream>> {
      auto [mine, peer] = MemoryStream::pair(*far);
      echo = std::make_unique<Echo>(std::move(peer));
      return std::unique_ptr<Stream>(std::move(mine));
    }));
    client.send(sent);
    client.finish();
    ASSERT_TRUE(near->run_until([&] { return client.eof || client.failed; }, seconds(60)));
    EXPECT_EQ(client.received.size(), sent.size());
    EXPECT_TRUE(client.received == sent);
  }
  far->post([&] {
    streams->close_all();
    echo.reset();
    far->stop();
  });
  thread.join();
}

TEST(CrossStreamThreads, ManyThatEndAnywhere) {
  auto near = std::move(*Loop::create()), far = std::move(*Loop::create());
  auto streams = std::make_shared<CrossStreams>(*far);
  std::thread thread([&] { far->run(); });
  std::vector<std::unique_ptr<Echo>> echoes;
  for (int round = 0; round < 300; ++round) {
    Collector client(CrossStreams::open(streams, *near, [&]() -> Result<std::unique_ptr<Stream>> {
      auto [mine, peer] = MemoryStream::pair(*far);
      echoes.push_back(std::make_unique<Echo>(std::move(peer)));
      return std::unique_ptr<Stream>(std::move(mine));
    }));
    client.send(std::string(static_cast<size_t>(round) * 997, 'x'));
    const size_t enough = static_cast<size_t>(round) * 500;
    ASSERT_TRUE(near->run_until([&] { return client.received.size() >= enough; }, seconds(60)));
  }
  far->post([&] {
    streams->close_all();
    echoes.clear();
    far->stop();
  });
  thread.join();
}

}  // namespace
}  // namespace edgemesh::io
