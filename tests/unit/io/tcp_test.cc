#include "core/io/tcp.h"

#include <gtest/gtest.h>

#include <numeric>
#include <optional>

#include "core/io/process.h"
#include "core/io/socket_name.h"
#include "core/io/udp.h"

namespace edgemesh::io {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Recorder : Stream::Handler {
  void on_connected() override { ++connected; }
  void on_readable() override {
    ++readable;
    if (stream != nullptr && auto_read) drain();
  }
  void on_writable() override { ++writable; }
  void on_error(const Error& e) override {
    ++errors;
    error = e;
  }
  void drain() {
    uint8_t buffer[4096];
    for (;;) {
      IoResult r = stream->read(buffer);
      if (r.status == IoResult::kOk) {
        data.append(reinterpret_cast<char*>(buffer), r.n);
        continue;
      }
      if (r.status == IoResult::kEof) eof = true;
      return;
    }
  }
  Stream* stream = nullptr;
  bool auto_read = true, eof = false;
  int connected = 0, readable = 0, writable = 0, errors = 0;
  Error error;
  std::string data;
};

class TcpTest : public ::testing::Test {
 protected:
  void SetUp() override {
    listener_ = *TcpListener::listen(*loop_, *SockAddr::parse("127.0.0.1:0"), [this](Fd fd, const SockAddr&) {
      server_ = *TcpStream::adopt(*loop_, std::move(fd));
      at_server_.stream = server_.get();
      server_->set_handler(&at_server_);
    });
    client_ = *TcpStream::connect(*loop_, listener_->local_addr());
    at_client_.stream = client_.get();
    client_->set_handler(&at_client_);
    ASSERT_TRUE(loop_->run_until([&] { return server_ && at_client_.connected == 1; }, seconds(5)));
  }
  bool wait(const std::function<bool()>& done) { return loop_->run_until(done, seconds(5)); }

  std::unique_ptr<Loop> loop_ = *Loop::create();
  Recorder at_client_, at_server_;
  std::unique_ptr<TcpListener> listener_;
  std::unique_ptr<TcpStream> client_, server_;
};

TEST_F(TcpTest, CarriesBytesBothWaysAndHalfCloses) {
  ASSERT_EQ(client_->write(as_bytes("ping")).n, 4u);
  client_->shutdown_write();
  ASSERT_TRUE(wait([&] { return at_server_.eof; }));
  EXPECT_EQ(at_server_.data, "ping");

  ASSERT_EQ(server_->write(as_bytes("pong")).n, 4u);
  server_->shutdown_write();
  ASSERT_TRUE(wait([&] { return at_client_.eof; }));
  EXPECT_EQ(at_client_.data, "pong");
  EXPECT_EQ(at_client_.errors + at_server_.errors, 0);
}

TEST_F(TcpTest, ClosesBothDirectionsInOrder) {
  ASSERT_EQ(server_->write_before_end(as_bytes("bye")).n, 3u);
  EXPECT_TRUE(server_->close_both());
  EXPECT_FALSE(server_->close_both());
  server_.reset();
  ASSERT_TRUE(wait([&] { return at_client_.eof; }));
  EXPECT_EQ(at_client_.data, "bye");
  EXPECT_EQ(at_client_.errors, 0);
}

TEST_F(TcpTest, WhatAcceptedSocketsHaveIsToldByTheListeningOne) {
  for (bool no_delay : {true, false}) {
    auto fd = open_tcp_listener(*SockAddr::parse("127.0.0.1:0"), {.no_delay = no_delay});
    ASSERT_TRUE(fd);
    EXPECT_EQ(gives_no_delay(fd->get()), no_delay);
    EXPECT_EQ(only_local_addr(fd->get()), *local_name(fd->get()));
  }
  auto any = open_tcp_listener(*SockAddr::parse("0.0.0.0:0"));
  ASSERT_TRUE(any);
  EXPECT_EQ(only_local_addr(any->get()), std::nullopt);
}

TEST_F(TcpTest, ADroppedStreamLooksLikeAResetNotLikeAnEnd) {
  client_->write(as_bytes("half"));
  client_.reset();
  ASSERT_TRUE(wait([&] { return at_server_.errors == 1 || at_server_.eof; }));
  EXPECT_FALSE(at_server_.eof);
  EXPECT_EQ(at_server_.error.code, ErrorCode::kConnectionReset);
}

TEST_F(TcpTest, AFullPeerPushesBackAndRoomIsReported) {
  at_server_.auto_read = false;
  std::string chunk(64 * 1024, 'x');
  size_t sent = 0;
  for (;;) {
    IoResult r = client_->write(as_bytes(chunk));
    if (r.status != IoResult::kOk) break;
    sent += r.n;
  }
  EXPECT_EQ(at_client_.writable, 0);
  at_server_.auto_read = true;
  at_server_.drain();
  ASSERT_TRUE(wait([&] { return at_client_.writable == 1; }));
  ASSERT_TRUE(wait([&] { return at_server_.data.size() == sent; }));
}

TEST_F(TcpTest, AStreamMayBeDestroyedInItsOwnCallback) {
  struct Killer : Stream::Handler {
    explicit Killer(std::unique_ptr<TcpStream>& s) : stream(s) {}
    void on_readable() override {
      stream.reset();
      killed = true;
    }
    void on_writable() override { ADD_FAILURE(); }
    void on_error(const Error&) override { ADD_FAILURE(); }
    std::unique_ptr<TcpStream>& stream;
    bool killed = false;
  } killer(server_);
  server_->set_handler(&killer);
  client_->write(as_bytes("x"));
  ASSERT_TRUE(wait([&] { return killer.killed; }));
}

TEST_F(TcpTest, RefusedConnectionIsAnErrorInWords) {
  SockAddr addr = listener_->local_addr();
  listener_.reset();
  Recorder recorder;
  auto stream = TcpStream::connect(*loop_, addr);
  ASSERT_TRUE(stream);
  (*stream)->set_handler(&recorder);
  recorder.stream = stream->get();
  (*stream)->write(as_bytes("early"));
  ASSERT_TRUE(wait([&] { return recorder.errors == 1; }));
  EXPECT_EQ(recorder.error.code, ErrorCode::kConnectionRefused);
  EXPECT_EQ(recorder.connected, 0);
}

TEST_F(TcpTest, Ipv4PeersOfADualStackListenerAreIpv4) {
  std::optional<SockAddr> peer, destination, again;
  ListenOptions options;
  options.v6_only = false;
  auto listener = TcpListener::listen(
      *loop_, {IpAddr::any(true), 0},
      [&](Fd fd, const SockAddr& from) {
        peer = from;
        again = *peer_name(fd.get());
        destination = *original_dst(fd.get(), false);
      },
      options);
  if (!listener) GTEST_SKIP() << "no IPv6 here: " << listener.error().message;
  uint16_t port = (*listener)->local_addr().port;
  auto client = *TcpStream::connect(*loop_, {IpAddr::loopback(), port});
  ASSERT_TRUE(loop_->run_until([&] { return peer.has_value(); }, seconds(5)));

  EXPECT_EQ(peer->ip, IpAddr::loopback());
  EXPECT_EQ(*again, *peer);
  EXPECT_EQ(*destination, (SockAddr{IpAddr::loopback(), port}));
}

TEST_F(TcpTest, APortInUseIsNamed) {
  auto second = TcpListener::listen(*loop_, listener_->local_addr(), [](Fd, const SockAddr&) {});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kAlreadyExists);
  EXPECT_NE(second.error().message.find("in use"), std::string::npos);
}

TEST(TcpConnectTest, TimesOutByTheLoopsClock) {
  ManualClock clock;
  auto loop = *Loop::create(clock);
  // A listener whose backlog is full answers no more.
  auto listener = *TcpListener::listen(*loop, *SockAddr::parse("127.0.0.1:0"),
                                       [](Fd, const SockAddr&) {}, {.backlog = 0});
  listener->pause();
  std::vector<std::unique_ptr<TcpStream>> fill;
  Recorder recorder;
  for (int i = 0; i < 4; ++i) fill.push_back(*TcpStream::connect(*loop, listener->local_addr()));
  auto stream = *TcpStream::connect(*loop, listener->local_addr(), {.timeout = milliseconds(300)});
  stream->set_handler(&recorder);
  loop->run_once();
  clock.advance(milliseconds(300));
  ASSERT_TRUE(loop->run_until([&] { return recorder.errors == 1; }, seconds(5)));
  EXPECT_EQ(recorder.error.code, ErrorCode::kTimeout);
}

TEST(UdpTest, TrainsArriveWholeWithTheirSegmentSize) {
  auto loop = *Loop::create();
  std::vector<size_t> sizes;
  std::string got;
  auto receiver = *UdpSocket::bind(
      *loop, *SockAddr::parse("127.0.0.1:0"),
      [&](std::span<const uint8_t> data, size_t segment, const SockAddr&) {
        if (segment == 0) segment = data.size();
        for (size_t at = 0; at < data.size(); at += segment)
          sizes.push_back(std::min(segment, data.size() - at));
        got.append(as_text(data));
      },
      {.gro = true});
  auto sender = *UdpSocket::bind(*loop, *SockAddr::parse("127.0.0.1:0"),
                                 [](std::span<const uint8_t>, size_t, const SockAddr&) {}, {});
  std::string train(10'500, '\0');
  std::iota(train.begin(), train.end(), 0);
  auto sent = sender->send_train(as_bytes(train), 1000, receiver->local_addr());
  ASSERT_TRUE(sent);
  EXPECT_EQ(*sent, train.size());
  ASSERT_TRUE(loop->run_until([&] { return got.size() == train.size(); }, seconds(5)));
  EXPECT_EQ(got, train);
  EXPECT_EQ(sizes.size(), 11u);
  EXPECT_EQ(sizes.back(), 500u);
}

TEST(ProcessTest, PassesInputAndCollectsOutput) {
  auto result = system_executor().run({"cat"}, "hello");
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->out, "hello");
  EXPECT_EQ(result->exit_status, 0);
  EXPECT_EQ(system_executor().run({"false"}, "")->exit_status, 1);
  EXPECT_EQ(system_executor().run({"no-such-program"}, "").error().code, ErrorCode::kNotFound);
}

TEST(ProcessTest, EndsAProgramThatTakesTooLong) {
  auto result = system_executor().run({"cat", "/dev/zero"}, "", milliseconds(100));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kTimeout);
}

}  // namespace
}  // namespace edgemesh::io
