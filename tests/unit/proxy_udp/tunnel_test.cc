#include "proxy/udp/tunnel.h"

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
  std::vector<std::string> got;
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
