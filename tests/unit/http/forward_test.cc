#include "core/http/forward.h"

#include <gtest/gtest.h>

#include "tests/support/memory_stream.h"
#include "tests/support/test_pki.h"

namespace edgemesh::http {
namespace {

using namespace std::chrono_literals;  // NOLINT
using test::Collector;
using test::MemoryStream;
using test::TestPki;

// A client over memory, a server that forwards all it gets, and the far end that the test plays.
class ForwardTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.adopt_only = true;
    server_ = TestPki::take(Server::create(
        *loop_, options, [this](Request request, std::shared_ptr<ResponseWriter> writer) {
          auto [near, far] = MemoryStream::pair(*loop_, pipe_);
          near_ = near.get();
          far_ = std::make_unique<Collector>(std::move(far));
          ForwardRequest out{request.method, request.target, "node",
                             Forward::end_to_end(request.headers, true), request.body};
          forward_ = Forward::start(*loop_, std::move(out), std::move(near), std::move(writer),
                                    options_, [this](const Result<>& result) {
                                      ended_ = true;
                                      if (!result) error_ = result.error().message;
                                      forward_.reset();
                                    });
        }));
    auto [client, server] = MemoryStream::pair(*loop_, pipe_);
    server_->adopt(std::move(server), SockAddr{});
    client_ = std::make_unique<Collector>(std::move(client));
  }
  bool until(const std::function<bool()>& done) { return loop_->run_until(done, 10s); }
  bool request(const std::string& text) {
    client_->send(text);
    return until([&] { return far_ && far_->received.find("\r\n\r\n") != std::string::npos; });
  }

  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_ = TestPki::take(io::Loop::create(clock_));
  test::MemoryStreamOptions pipe_;
  ForwardOptions options_;
  std::unique_ptr<Forward> forward_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<Collector> client_, far_;
  MemoryStream* near_ = nullptr;
  bool ended_ = false;
  std::string error_;
};

constexpr const char* kGet =
    "GET /logs?follow=1 HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer x\r\n\r\n";
constexpr const char* kUpgrade =
    "POST /exec HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    "X-Stream-Protocol-Version: v4\r\nContent-Length: 0\r\n\r\n";

TEST_F(ForwardTest, PassesTheAnswerOnAsItComes) {
  ASSERT_TRUE(request(kGet));
  EXPECT_EQ(far_->received.substr(0, far_->received.find("\r\n\r\n")),
            "GET /logs?follow=1 HTTP/1.1\r\nHost: node\r\nConnection: close");  // no credentials
  far_->send(
      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: "
      "chunked\r\n\r\n3\r\none\r\n");
  ASSERT_TRUE(until([&] { return client_->received.ends_with("3\r\none\r\n"); }))
      << client_->received;
  EXPECT_FALSE(ended_);
  far_->send("3\r\ntwo\r\n0\r\n\r\n");
  ASSERT_TRUE(until([&] { return ended_ && client_->received.ends_with("3\r\ntwo\r\n0\r\n\r\n"); }))
      << client_->received;
  EXPECT_EQ(error_, "");
}

TEST_F(ForwardTest, HandsTheConnectionsOverToEachOther) {
  ASSERT_TRUE(request(kUpgrade));
  EXPECT_NE(far_->received.find("Upgrade: SPDY/3.1\r\n"), std::string::npos);
  far_->send(
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
      "X-Stream-Protocol-Version: v4\r\n\r\nearly");
  ASSERT_TRUE(until([&] { return client_->received.ends_with("\r\n\r\nearly"); }))
      << client_->received;
  EXPECT_NE(client_->received.find("X-Stream-Protocol-Version: v4\r\n"), std::string::npos);
  const std::string large(300'000, 'x');
  far_->received.clear();
  client_->send(large);
  client_->finish();
  ASSERT_TRUE(until([&] { return far_->eof; }));
  EXPECT_EQ(far_->received, large);
  far_->send("bye");
  far_->finish();
  ASSERT_TRUE(until([&] { return ended_ && client_->received.ends_with("bye"); }));
  EXPECT_EQ(error_, "");
}

TEST_F(ForwardTest, TellsTheClientWhenThereIsNoAnswer) {
  options_.failure = [](const Error& e) { return Response{503, {}, e.message}; };
  ASSERT_TRUE(request(kGet));
  far_->drop();
  ASSERT_TRUE(until([&] { return client_->received.starts_with("HTTP/1.1 503"); }));
  EXPECT_TRUE(until([&] { return ended_; }));
}

TEST_F(ForwardTest, TellsTheClientWhenTheAnswerTakesTooLong) {
  ASSERT_TRUE(request(kGet));
  clock_.advance(31s);
  ASSERT_TRUE(until([&] { return ended_ && client_->received.starts_with("HTTP/1.1 502"); }));
  EXPECT_NE(error_.find("in time"), std::string::npos);
}

TEST_F(ForwardTest, ABodyThatBreaksOffDoesNotLookWhole) {
  ASSERT_TRUE(request(kGet));
  far_->send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
  ASSERT_TRUE(until([&] { return client_->received.ends_with("one\r\n"); }));
  far_->drop();
  ASSERT_TRUE(until([&] { return client_->eof || client_->failed; }));
  EXPECT_TRUE(client_->received.ends_with("one\r\n"));
}

TEST_F(ForwardTest, AClientThatGoesEndsTheFarSide) {
  ASSERT_TRUE(request(kGet));
  client_->drop();
  ASSERT_TRUE(until([&] { return far_->eof || far_->failed; }));
  EXPECT_TRUE(ended_);
}

TEST_F(ForwardTest, AClientThatDoesNotReadHoldsTheFarSideBack) {
  ASSERT_TRUE(request(kGet));
  client_->stop_reading();
  const std::string body(8 << 20, 'x');
  far_->send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n");
  far_->send(body);
  EXPECT_FALSE(loop_->run_until([&] { return far_->unsent.empty(); }, 50ms));
  EXPECT_LT(near_->bytes_read(), 1u << 20);
  client_->start_reading();
  ASSERT_TRUE(until([&] { return ended_; }));
  ASSERT_TRUE(until([&] { return client_->received.ends_with(body); }));
}

}  // namespace
}  // namespace edgemesh::http
