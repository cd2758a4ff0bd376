#include "core/io/resolver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "core/io/tcp.h"
#include "core/io/udp.h"

namespace edgemesh::io {
namespace {

using namespace std::chrono_literals;
using Bytes = std::vector<uint8_t>;

// "a.test" A, with OPT.
Bytes query(uint16_t id) {
  return {static_cast<uint8_t>(id >> 8), static_cast<uint8_t>(id), 1, 0, 0, 1, 0, 0, 0, 0, 0, 1,
          1, 'a', 4, 't', 'e', 's', 't', 0, 0, 1, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0};
}

// The question of `from` answered with one address, or with rcode.
Bytes reply_to(std::span<const uint8_t> from, uint8_t rcode, bool truncated = false) {
  size_t question = 12;
  while (from[question] != 0) question += 1u + from[question];
  question += 5;
  Bytes r(from.begin(), from.begin() + static_cast<ptrdiff_t>(question));
  bool is_a = from[question - 3] == 1;
  r[2] = static_cast<uint8_t>(0x81 | (truncated ? 2 : 0));
  r[3] = static_cast<uint8_t>(0x80 | rcode);
  r[7] = rcode == 0 && !truncated && is_a ? 1 : 0;
  r[11] = 0;
  if (r[7] == 1) {
    Bytes record = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7};
    r.insert(r.end(), record.begin(), record.end());
  }
  return r;
}

class ResolverTest : public testing::Test, public Stream::Handler {
 protected:
  void SetUp() override {
    // Both have the same port; one that is free for UDP may be taken for TCP.
    for (int i = 0; i < 100 && listener_ == nullptr; ++i) {
      udp_ = *UdpSocket::bind(*loop_, {IpAddr::loopback(), 0},
                              [this](auto data, size_t, const SockAddr& from) {
                                ++udp_queries_;
                                if (mute_) return;
                                (void)udp_->send_to(reply_to(data, rcode_, truncate_), from);
                              },
                              {});
      auto listener =
          TcpListener::listen(*loop_, udp_->local_addr(), [this](Fd fd, const SockAddr&) {
            stream_ = *TcpStream::adopt(*loop_, std::move(fd));
            stream_->set_handler(this);
            on_readable();
          });
      if (listener) listener_ = std::move(*listener);
    }
    ASSERT_NE(listener_, nullptr);
  }
  // The TCP server: one byte of the answer a write.
  void on_readable() override {
    uint8_t buffer[512];
    for (auto r = stream_->read(buffer); r.status == IoResult::kOk; r = stream_->read(buffer))
      tcp_in_.insert(tcp_in_.end(), buffer, buffer + r.n);
    while (tcp_in_.size() >= 2 && tcp_in_.size() >= 2u + tcp_in_[1]) {
      ++tcp_queries_;
      size_t size = 2u + tcp_in_[1];
      Bytes r = reply_to(std::span<const uint8_t>(tcp_in_).subspan(2, size - 2), 0);
      r.insert(r.begin(), {0, static_cast<uint8_t>(r.size())});
      for (uint8_t byte : r) stream_->write({&byte, 1});
      tcp_in_.erase(tcp_in_.begin(), tcp_in_.begin() + static_cast<ptrdiff_t>(size));
    }
  }
  void on_writable() override {}
  void on_error(const Error&) override {}

  void start(std::vector<SockAddr> servers = {}) {
    if (servers.empty()) servers = {udp_->local_addr()};
    resolver_ = *Resolver::create(*loop_, {servers, 100ms, 1, 0, 4});
  }
  void ask(uint16_t id = 7) {
    done_ = false;
    resolver_->query(query(id), [this](Result<std::span<const uint8_t>> answer) {
      done_ = true;
      error_.reset();
      if (answer)
        answer_.assign(answer->begin(), answer->end());
      else
        error_ = answer.error().code;
    });
    EXPECT_FALSE(done_);
  }
  bool wait() { return loop_->run_until([&] { return done_; }, 5s); }

  std::unique_ptr<Loop> loop_ = *Loop::create();
  std::unique_ptr<UdpSocket> udp_;
  std::unique_ptr<TcpListener> listener_;
  std::unique_ptr<TcpStream> stream_;
  std::unique_ptr<Resolver> resolver_;
  Bytes tcp_in_, answer_;
  std::optional<ErrorCode> error_;
  bool done_ = false, mute_ = false, truncate_ = false;
  uint8_t rcode_ = 0;
  int udp_queries_ = 0, tcp_queries_ = 0;
};

TEST_F(ResolverTest, PassesQueriesOn) {
  start();
  ask(0x1234);
  ASSERT_TRUE(wait());
  ASSERT_FALSE(error_);
  EXPECT_EQ(answer_[0], 0x12);
  EXPECT_EQ(answer_.back(), 7);
  EXPECT_EQ(resolver_->in_flight(), 0u);
}

TEST_F(ResolverTest, NxDomainIsAnAnswer) {
  rcode_ = 3;
  start();
  ask();
  ASSERT_TRUE(wait());
  ASSERT_FALSE(error_);
  EXPECT_EQ(answer_[3] & 15, 3);
}

TEST_F(ResolverTest, AsksAgainOverTcpWhenTruncated) {
  truncate_ = true;
  start();
  for (uint16_t i = 0; i < 3; ++i) {
    ask(i);
    ASSERT_TRUE(wait());
    ASSERT_FALSE(error_) << i;
    EXPECT_EQ(answer_.back(), 7);
  }
  EXPECT_EQ(tcp_queries_, 3);
}

TEST_F(ResolverTest, ReportsFailureAndSilence) {
  start();
  rcode_ = 2;
  ask();
  ASSERT_TRUE(wait());
  EXPECT_EQ(error_, ErrorCode::kUnavailable);
  mute_ = true;
  ask();
  ASSERT_TRUE(wait());
  EXPECT_EQ(error_, ErrorCode::kTimeout);
}

TEST_F(ResolverTest, GoesOnToTheNextServer) {
  SockAddr gone;
  {
    auto other = *UdpSocket::bind(*loop_, {IpAddr::loopback(), 0}, [](auto, size_t, auto&) {}, {});
    gone = other->local_addr();
  }
  start({gone, udp_->local_addr()});
  ask();
  ASSERT_TRUE(wait());
  EXPECT_FALSE(error_);
}

TEST_F(ResolverTest, RefusesBadQueriesAndTooMany) {
  mute_ = true;
  start();
  int refused = 0;
  for (int i = 0; i < 6; ++i)
    resolver_->query(query(9), [&](Result<std::span<const uint8_t>> r) {
      if (!r && r.error().code == ErrorCode::kResourceExhausted) ++refused;
    });
  bool bad = false;
  Bytes no_opt = query(1);
  no_opt.resize(24);
  resolver_->query(no_opt, [&](Result<std::span<const uint8_t>> r) {
    bad = !r && r.error().code == ErrorCode::kInvalidArgument;
  });
  EXPECT_EQ(refused, 0);
  ASSERT_TRUE(loop_->run_until([&] { return bad; }, 5s));
  EXPECT_EQ(refused, 2);
}

TEST_F(ResolverTest, MayBeDestroyedInItsCallback) {
  start();
  resolver_->query(query(3), [&](Result<std::span<const uint8_t>>) {
    done_ = true;
    resolver_.reset();
  });
  resolver_->query(query(4), [&](Result<std::span<const uint8_t>>) { FAIL(); });
  ASSERT_TRUE(wait());
  for (int i = 0; i < 5; ++i) loop_->run_once(10ms);
}

TEST_F(ResolverTest, ResolvesNamesAndLiterals) {
  start();
  std::vector<IpAddr> found;
  auto take = [&](Result<std::vector<IpAddr>> r) {
    done_ = true;
    found = r ? *r : std::vector<IpAddr>{};
    error_ = r ? std::nullopt : std::optional(r.error().code);
  };
  resolver_->resolve("a.test", Resolver::Family::kV4, take);
  ASSERT_TRUE(wait());
  EXPECT_THAT(found, testing::ElementsAre(*IpAddr::parse("192.0.2.7")));

  done_ = false;
  resolver_->resolve("fd00::1", Resolver::Family::kAny, take);
  EXPECT_FALSE(done_);
  ASSERT_TRUE(wait());
  EXPECT_THAT(found, testing::ElementsAre(*IpAddr::parse("fd00::1")));

  done_ = false;
  rcode_ = 3;
  resolver_->resolve("b.test", Resolver::Family::kAny, take);
  ASSERT_TRUE(wait());
  EXPECT_EQ(error_, ErrorCode::kNotFound);
}

TEST_F(ResolverTest, TellsHowLongAnAnswerMayBeKept) {
  start();
  Duration ttl{};
  resolver_->resolve_with_ttl("a.test", Resolver::Family::kV4,
                              [&](Result<std::vector<IpAddr>> r, Duration t) {
                                done_ = r.has_value();
                                ttl = t;
                              });
  ASSERT_TRUE(wait());
  EXPECT_EQ(ttl, 60s);
}

TEST(ResolvConfTest, FindsNameServers) {
  auto servers = parse_resolv_conf(
      "# nameserver 9.9.9.9\nnameserver 192.0.2.1\nsearch a b\nnameserver\t fd00::1  # x\n"
      "nameserver fe80::1%eth0\nnameservers 1.1.1.1\nnameserver 192.0.2.2");
  ASSERT_EQ(servers.size(), 3u);
  EXPECT_EQ(servers[0].to_string(), "192.0.2.1:53");
  EXPECT_EQ(servers[1].to_string(), "[fd00::1]:53");
  EXPECT_EQ(servers[2].to_string(), "192.0.2.2:53");
}

}  // namespace
}  // namespace edgemesh::io
