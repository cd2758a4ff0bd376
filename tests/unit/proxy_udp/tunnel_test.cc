#include "proxy/udp/tunnel.h"

#include <deque>

#include "core/io/datagram_side.h"
#include "tests/support/memory_stream.h"
#include "udp_fixture.h"

namespace edgemesh::proxy::testing_parts {
namespace {

struct End final : DatagramTunnel::Owner {
  void on_tunnel_datagrams(std::span<const Datagram> items) override {
    for (const Datagram& item : items) got.push_back(as_string(item.data));
  }
  void on_tunnel_end(const Error* error) override {
    ended = true;
    failed = error != nullptr;
    if (destroy) tunnel.reset();
  }
  void on_tunnel_lost(size_t n) override { lost += n; }
  std::vector<std::string> got;
  size_t lost = 0;
  bool ended = false, failed = false, destroy = false;
  std::unique_ptr<DatagramTunnel> tunnel;
};

class TunnelTest : public ::testing::Test {
 protected:
  void connect(const test::MemoryStreamOptions& options = {}) {
    auto [left, right] = test::MemoryStream::pair(*loop, options);
    a.tunnel = std::make_unique<DatagramTunnel>(*loop, std::move(left), a);
    b.tunnel = std::make_unique<DatagramTunnel>(*loop, std::move(right), b);
  }
  SendOutcome send(const std::string& text, uint16_t segment = 0) {
    Datagram item{as_span(text), segment};
    return a.tunnel->send({&item, 1});
  }
  bool wait(const std::function<bool()>& done) {
    return loop->run_until(done, std::chrono::seconds(20));
  }
  std::unique_ptr<io::Loop> loop = std::move(*io::Loop::create());
  End a, b;
};

TEST_F(TunnelTest, CarriesDatagramsOfAllSizes) {
  connect({1 << 20, 777, 0});
  const std::vector<std::string> sent{"", "x", std::string(1472, 'y'), std::string(65'507, 'z')};
  for (const auto& text : sent) EXPECT_EQ(send(text).datagrams, 1u);
  ASSERT_TRUE(wait([&] { return b.got.size() == 4; }));
  EXPECT_EQ(b.got, sent);
}

// A stream with datagrams beside its bytes; both ends are the same loop's.
class SidedStream final : public io::Stream, private io::DatagramSide {
 public:
  SidedStream(io::Loop& loop, std::unique_ptr<io::Stream> bytes)
      : loop_(loop), bytes_(std::move(bytes)) {}
  void set_handler(io::Stream::Handler* handler) override {
    handler_ = handler;
    bytes_->set_handler(handler);
  }
  io::IoResult read(std::span<uint8_t> into) override { return bytes_->read(into); }
  io::IoResult write(std::span<const uint8_t> data) override {
    written += data.size();
    return bytes_->write(data);
  }
  void shutdown_write() override { bytes_->shutdown_write(); }
  void reset() override { bytes_->reset(); }
  io::DatagramSide* datagrams() override { return this; }

  void receive(std::string datagram) {
    waiting_.push_back(std::move(datagram));
    loop_.defer([this] { handler_->on_readable(); });
  }
  std::vector<std::string> sent;
  size_t written = 0, room = 1200, limit = 1000;
  uint64_t lost = 0;

 private:
  size_t max_datagram() const override { return room; }
  bool send_datagram(std::span<const uint8_t> data) override {
    if (sent.size() == limit) return false;
    sent.push_back(as_string(data));
    return true;
  }
  std::optional<size_t> read_datagram(std::span<uint8_t> into) override {
    if (waiting_.empty()) return std::nullopt;
    const size_t n = waiting_.front().copy(reinterpret_cast<char*>(into.data()), into.size());
    waiting_.pop_front();
    return n;
  }
  uint64_t take_lost() override { return std::exchange(lost, 0); }

  io::Loop& loop_;
  std::unique_ptr<io::Stream> bytes_;
  io::Stream::Handler* handler_ = nullptr;
  std::deque<std::string> waiting_;
};

class SidedTunnelTest : public TunnelTest {
 protected:
  SidedTunnelTest() {
    auto [left, right] = test::MemoryStream::pair(*loop);
    auto sided = std::make_unique<SidedStream>(*loop, std::move(left));
    stream = sided.get();
    a.tunnel = std::make_unique<DatagramTunnel>(*loop, std::move(sided), a);
    b.tunnel = std::make_unique<DatagramTunnel>(*loop, std::move(right), b);
  }
  SidedStream* stream;
};

TEST_F(SidedTunnelTest, WhatFitsTravelsBesideTheStreamAndTheRestOnIt) {
  EXPECT_EQ(send("").datagrams, 1u);
  EXPECT_EQ(send(std::string(1199, 'x')).datagrams, 1u);
  EXPECT_EQ(stream->written, 0u);
  EXPECT_EQ(send(std::string(1200, 'y')).datagrams, 1u) << "the context's byte counts too";
  EXPECT_EQ(stream->sent, (std::vector<std::string>{std::string(1, '\0'),
                                                    std::string(1, '\0') + std::string(1199, 'x')}));
  ASSERT_TRUE(wait([&] { return !b.got.empty(); }));
  EXPECT_EQ(b.got, std::vector<std::string>{std::string(1200, 'y')});
}

TEST_F(SidedTunnelTest, BothWaysAreUsedInOneBatch) {
  const std::string large(2000, 'l');
  Datagram items[] = {{as_span("one")}, {as_span(large)}, {as_span("aabbc"), 2}, {as_span(large)}};
  SendOutcome out = a.tunnel->send(items);
  EXPECT_EQ(out.datagrams, 6u);
  EXPECT_EQ(out.bytes, 4008u);
  EXPECT_EQ(stream->sent.size(), 4u);
  EXPECT_EQ(stream->sent[3], std::string("\0c", 2));
  ASSERT_TRUE(wait([&] { return b.got.size() == 2; }));
  EXPECT_EQ(b.got, (std::vector<std::string>{large, large}));
}

TEST_F(SidedTunnelTest, AFullQueueDropsThem) {
  stream->limit = 2;
  SendOutcome out = send("aabbccdd", 2);
  EXPECT_EQ(out.datagrams, 2u);
  EXPECT_EQ(out.dropped, 2u);
  EXPECT_EQ(out.bytes, 4u);
}

TEST_F(SidedTunnelTest, ThoseThatComeAreGivenOnWithoutTheirContext) {
  std::vector<std::string> wanted;
  for (int i = 0; i < 200; ++i) {
    wanted.push_back(std::string(1400, static_cast<char>('a' + i % 26)));
    stream->receive(std::string(1, '\0') + wanted.back());
    stream->receive("\x01of another context");
  }
  stream->lost = 3;
  ASSERT_TRUE(wait([&] { return a.got.size() == 200; }));
  EXPECT_EQ(a.got, wanted);
  EXPECT_EQ(a.lost, 3u);
}

TEST_F(SidedTunnelTest, OneWithoutAContextEndsIt) {
  stream->receive("");
  ASSERT_TRUE(wait([&] { return a.ended; }));
  EXPECT_TRUE(a.failed);
}

TEST_F(TunnelTest, TrainsAreTakenApart) {
  connect();
  SendOutcome out = send("aaabbbcccd", 3);
  EXPECT_EQ(out.datagrams, 4u);
  EXPECT_EQ(out.bytes, 10u);
  ASSERT_TRUE(wait([&] { return b.got.size() == 4; }));
  EXPECT_EQ(b.got, (std::vector<std::string>{"aaa", "bbb", "ccc", "d"}));
}

TEST_F(TunnelTest, WhatFindsNoRoomIsDroppedWhole) {
  connect({10'000, 0, 0});
  size_t sent = 0, dropped = 0;
  for (int i = 0; i < 30; ++i) {
    SendOutcome out = send(std::string(1000, static_cast<char>('a' + i)));
    sent += out.datagrams;
    dropped += out.dropped;
  }
  EXPECT_EQ(sent + dropped, 30u);
  EXPECT_GE(sent, 9u);
  EXPECT_GE(dropped, 10u);
  ASSERT_TRUE(wait([&] { return b.got.size() == sent; }));
  for (size_t i = 0; i < b.got.size(); ++i)
    EXPECT_EQ(b.got[i], std::string(1000, static_cast<char>('a' + i)));
  // And it goes on.
  EXPECT_EQ(send("after").datagrams, 1u);
  ASSERT_TRUE(wait([&] { return b.got.back() == "after"; }));
}

TEST_F(TunnelTest, BadCapsulesEndIt) {
  auto [left, right] = test::MemoryStream::pair(*loop);
  a.tunnel = std::make_unique<DatagramTunnel>(*loop, std::move(left), a);
  a.destroy = true;
  const uint8_t bad[] = {0, 0};
  right->write(bad);
  ASSERT_TRUE(wait([&] { return a.ended; }));
  EXPECT_TRUE(a.failed);
}

TEST_F(TunnelTest, TheEndOfOneSideIsNoFailure) {
  connect();
  b.destroy = true;
  a.tunnel->finish();
  ASSERT_TRUE(wait([&] { return b.ended; }));
  EXPECT_FALSE(b.failed);
}

TEST_F(TunnelTest, ClosingTunnelsWaitForTheOtherSide) {
  connect();
  ClosingTunnels closing(*loop);
  closing.add(std::move(a.tunnel));
  EXPECT_EQ(closing.size(), 1u);
  ASSERT_TRUE(wait([&] { return b.ended; }));
  EXPECT_EQ(closing.size(), 1u);
  b.tunnel->finish();
  b.tunnel.reset();
  ASSERT_TRUE(wait([&] { return closing.size() == 0; }));
}

}  // namespace
}  // namespace edgemesh::proxy::testing_parts
