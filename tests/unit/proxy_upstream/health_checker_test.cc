#include "proxy/upstream/health_checker.h"

#include <gtest/gtest.h>

#include "proxy/upstream/health_attempt.h"
#include "tests/unit/proxy_upstream/cluster_fixture.h"
#include "tests/unit/proxy_upstream/fake_connector.h"

namespace edgemesh::proxy {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// One request at a time, answered by the test.
class ScriptCodec final : public HttpClientConnection, public HttpStream {
 public:
  explicit ScriptCodec(std::vector<ScriptCodec*>* all) : all_(all) { all_->push_back(this); }
  ~ScriptCodec() override { std::erase(*all_, this); }
  StreamPtr open(HttpStream::Handler* handler) override {
    handler_ = handler;
    return StreamPtr(this);
  }
  size_t available() const override { return handler_ == nullptr ? 1 : 0; }
  size_t active_streams() const override { return handler_ == nullptr ? 0 : 1; }
  bool closing() const override { return false; }
  void set_handler(HttpStream::Handler* handler) override { handler_ = handler; }
  void send_head(const Head& head, bool) override {
    line = fmt::format("{} {} {}", head.method, head.authority, head.path);
  }
  bool send_data(std::span<const uint8_t> data, bool) override {
    body.append(io::as_text(data));
    return true;
  }
  void send_trailers(const Head&) override {}
  void set_reading(bool) override {}
  const SockAddr& peer_addr() const override { return addr_; }
  const tls::PeerIdentity* peer_identity() const override { return nullptr; }
  void release() override { handler_ = nullptr; }

  void answer(int status) {
    HeadPtr head = take_head();
    head->status = status;
    handler_->on_head(std::move(head), false);
  }
  void answer_grpc(std::string_view message, std::string_view status) {
    answer(200);
    handler_->on_data(io::as_bytes(message), false);
    HeadPtr trailers = take_head();
    trailers->add("grpc-status", status);
    handler_->on_trailers(std::move(trailers));
  }
  HttpStream::Handler* handler_ = nullptr;
  std::string line, body;

 private:
  std::vector<ScriptCodec*>* all_;
  SockAddr addr_;
};

class HealthCheckerTest : public testing::Test {
 protected:
  HealthCheckerTest() {
    loop_ = std::move(io::Loop::create(cluster_.clock)).value();
    check_.interval = seconds(10);
    check_.timeout = seconds(2);
    check_.initial_jitter = {};
    check_.jitter_percent = 0;
    check_.healthy_threshold = 2;
    check_.unhealthy_threshold = 3;
    auto make = [this](std::unique_ptr<io::Stream> stream, const ClientTarget&,
                       HttpClientConnection::Handler&) {
      streams_.push_back(std::move(stream));
      return std::make_unique<ScriptCodec>(&codecs_);
    };
    checker_ = std::make_unique<HealthChecker>(
        HealthCheckerOptions{*loop_, connector_, make, make, 256, 1});
  }
  ~HealthCheckerTest() override {
    checker_.reset();
    turn();
  }
  void start(int n = 1) {
    cluster_.config.name = "c";
    cluster_.config.health_checks = {check_};
    cluster_.set(endpoints(n));
    checker_->set(cluster_.hosts);
    turn();
  }
  void turn() {
    for (int i = 0; i < 4; ++i) loop_->run_once();
  }
  void advance(Duration by) {
    cluster_.clock.advance(by);
    turn();
  }
  bool well(int n) { return !cluster_.host(n).shared().has(SharedHost::kCheckFailed); }
  // The check that runs passes or fails at connect; then it is time for the next one.
  void tcp_result(bool passes) {
    ASSERT_EQ(connector_.streams.size(), 1u);
    if (passes)
      connector_.accept();
    else
      connector_.fail_next();
    turn();
  }
  void http_result(int status) {
    ASSERT_EQ(connector_.streams.size(), 1u);
    connector_.accept();
    ASSERT_EQ(codecs_.size(), 1u);
    codecs_[0]->answer(status);
    turn();
  }

  TestCluster cluster_;
  model::HealthCheck check_;
  std::unique_ptr<io::Loop> loop_;
  FakeConnector connector_;
  std::vector<std::unique_ptr<io::Stream>> streams_;
  std::vector<ScriptCodec*> codecs_;
  std::unique_ptr<HealthChecker> checker_;
};

TEST_F(HealthCheckerTest, FirstSuccessIsEnoughLaterTheThresholdsCount) {
  start();
  EXPECT_FALSE(well(1));
  tcp_result(true);
  EXPECT_TRUE(well(1));

  for (int i = 0; i < 2; ++i) {
    advance(seconds(10));
    tcp_result(false);
    EXPECT_TRUE(well(1)) << i;
  }
  advance(seconds(10));
  tcp_result(false);
  EXPECT_FALSE(well(1));

  advance(seconds(10));
  tcp_result(true);
  EXPECT_FALSE(well(1));
  advance(seconds(10));
  tcp_result(true);
  EXPECT_TRUE(well(1));
  EXPECT_EQ(cluster_.host(1).shared().checks, 6u);
  EXPECT_EQ(cluster_.host(1).shared().check_failures, 3u);
}

// Sites with overlapping private networks.
TEST_F(HealthCheckerTest, TheSameAddressOnTwoNodesIsTwoHosts) {
  cluster_.config.name = "c";
  cluster_.config.health_checks = {check_};
  auto list = endpoints(1);
  list.push_back(list[0]);
  list[0].node = "site-a";
  list[1].node = "site-b";
  cluster_.set(list);
  checker_->set(cluster_.hosts);
  turn();
  EXPECT_EQ(checker_->hosts(), 2u);
  ASSERT_EQ(connector_.streams.size(), 2u);

  connector_.accept();
  connector_.fail_next();
  turn();

  const auto& entries = cluster_.hosts->entries();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_NE(entries[0].shared->has(SharedHost::kCheckFailed),
            entries[1].shared->has(SharedHost::kCheckFailed));
}

TEST_F(HealthCheckerTest, FlappingChangesNothing) {
  start();
  tcp_result(true);
  const uint32_t epoch = cluster_.hosts->shared()->epoch;
  for (int i = 0; i < 20; ++i) {
    advance(seconds(10));
    tcp_result(i % 3 == 2);  // two failures, one success
    EXPECT_TRUE(well(1));
  }
  EXPECT_EQ(cluster_.hosts->shared()->epoch, epoch);
}

TEST_F(HealthCheckerTest, SilenceIsAFailure) {
  start();
  tcp_result(true);
  for (int i = 0; i < 3; ++i) {
    advance(seconds(10));
    EXPECT_EQ(checker_->running(), 1u);
    connector_.pop();  // never answers
    advance(seconds(2));
    EXPECT_EQ(checker_->running(), 0u);
  }
  EXPECT_FALSE(well(1));
}

TEST_F(HealthCheckerTest, UnhealthyIntervalAndNoRoute) {
  check_.unhealthy_interval = seconds(1);
  connector_.refuse = true;
  start();
  turn();
  EXPECT_FALSE(well(1));
  connector_.refuse = false;
  advance(seconds(1));
  tcp_result(true);
  EXPECT_TRUE(well(1));
}

TEST_F(HealthCheckerTest, TcpSendsAndExpects) {
  check_.send = "PING\r\n";
  check_.expect = "+PONG";
  start();
  FakeStream* stream = connector_.streams.front();
  connector_.accept();
  EXPECT_EQ(stream->output, "PING\r\n");
  stream->input = "+PO";
  stream->handler_->on_readable();
  turn();
  EXPECT_FALSE(well(1));
  stream->input = "NG\r\n";
  stream->handler_->on_readable();
  turn();
  EXPECT_TRUE(well(1));

  for (int i = 0; i < 3; ++i) {
    advance(seconds(10));
    stream = connector_.streams.front();
    stream->ended = true;
    connector_.accept();
    turn();
  }
  EXPECT_FALSE(well(1));
}

TEST_F(HealthCheckerTest, HttpStatuses) {
  check_.kind = model::HealthCheck::Kind::kHttp;
  check_.path = "/healthz";
  check_.host = "h.example";
  check_.expected = {{200, 204}, {301, 301}};
  check_.unhealthy_threshold = 1;
  check_.healthy_threshold = 1;
  start();
  connector_.accept();
  EXPECT_EQ(codecs_[0]->line, "GET h.example /healthz");
  codecs_[0]->answer(100);
  turn();
  EXPECT_FALSE(well(1));
  codecs_[0]->answer(204);
  turn();
  EXPECT_TRUE(well(1));
  EXPECT_TRUE(codecs_.empty());

  for (auto [status, expected] : {std::pair{205, false}, {301, true}, {503, false}, {200, true}}) {
    advance(seconds(10));
    http_result(status);
    EXPECT_EQ(well(1), expected) << status;
  }
}

TEST_F(HealthCheckerTest, HttpResetIsAFailure) {
  check_.kind = model::HealthCheck::Kind::kHttp;
  check_.unhealthy_threshold = 1;
  start();
  http_result(200);
  EXPECT_TRUE(well(1));
  advance(seconds(10));
  connector_.accept();
  codecs_[0]->handler_->on_reset(ResetReason::kConnectionLost, "gone");
  turn();
  EXPECT_FALSE(well(1));
}

TEST_F(HealthCheckerTest, Grpc) {
  check_.kind = model::HealthCheck::Kind::kGrpc;
  check_.grpc_service = "shop.Cart";
  check_.unhealthy_threshold = 1;
  check_.healthy_threshold = 1;
  start();
  const std::string serving("\0\0\0\0\2\x08\x01", 7);
  const std::string not_serving("\0\0\0\0\2\x08\x02", 7);
  connector_.accept();
  EXPECT_EQ(codecs_[0]->line, "POST c /grpc.health.v1.Health/Check");
  EXPECT_EQ(codecs_[0]->body, std::string("\0\0\0\0\x0b\x0a\x09shop.Cart", 16));
  codecs_[0]->answer_grpc(serving, "0");
  turn();
  EXPECT_TRUE(well(1));

  struct Case {
    std::string message;
    std::string_view status;
    bool well;
  };
  for (const Case& c :
       {Case{not_serving, "0", false}, Case{serving, "0", true}, Case{serving, "12", false},
        Case{serving, "0", true}, Case{"", "0", false}}) {
    advance(seconds(10));
    connector_.accept();
    codecs_[0]->answer_grpc(c.message, c.status);
    turn();
    EXPECT_EQ(well(1), c.well);
  }
}

TEST(GrpcHealthTest, ReadsOnlyWholeMessages) {
  const auto framed = [](std::string_view message) {
    return std::string(5, '\0') + std::string(message);
  };
  EXPECT_TRUE(grpc_health_serving(framed("\x08\x01")));
  EXPECT_TRUE(grpc_health_serving(framed("\x12\x02xy\x08\x01")));
  EXPECT_FALSE(grpc_health_serving(framed("\x08")));
  EXPECT_FALSE(grpc_health_serving(framed("\x12\x7f")));
  EXPECT_FALSE(grpc_health_serving(framed("")));
  EXPECT_FALSE(grpc_health_serving("abc"));
  const std::string huge(10, '\xff');
  EXPECT_FALSE(grpc_health_serving(framed(huge)));
  EXPECT_EQ(grpc_health_request(""), std::string(5, '\0'));
  EXPECT_EQ(grpc_health_request(std::string(200, 'a')).substr(0, 8),
            std::string("\0\0\0\0\xcb\x0a\xc8\x01", 8));
}

TEST_F(HealthCheckerTest, EndpointsComeAndGoWhileChecksRun) {
  start(3);
  EXPECT_EQ(checker_->running(), 3u);
  for (int i = 0; i < 3; ++i) connector_.accept();
  turn();
  EXPECT_TRUE(well(1) && well(2) && well(3));

  advance(seconds(10));
  EXPECT_EQ(checker_->running(), 3u);
  cluster_.set({endpoint(2), endpoint(4)});
  checker_->set(cluster_.hosts);
  turn();
  EXPECT_EQ(checker_->hosts(), 2u);
  EXPECT_TRUE(well(2));  // kept
  EXPECT_FALSE(well(4));
  EXPECT_EQ(checker_->running(), 2u);
  checker_->remove("c");
  turn();
  EXPECT_EQ(checker_->running(), 0u);
  EXPECT_EQ(connector_.alive, 0);
}

TEST_F(HealthCheckerTest, NotMoreThanTheLimitAtATime) {
  checker_ = std::make_unique<HealthChecker>(
      HealthCheckerOptions{*loop_, connector_, nullptr, nullptr, 2, 1});
  start(5);
  EXPECT_EQ(checker_->running(), 2u);
  for (int i = 0; i < 5; ++i) {
    connector_.accept();
    turn();
  }
  for (int n = 1; n <= 5; ++n) EXPECT_TRUE(well(n));
}

TEST_F(HealthCheckerTest, ChecksThatAreNewDoNotStopWhatWorks) {
  cluster_.config.name = "c";
  cluster_.set(endpoints(1));
  EXPECT_TRUE(well(1));
  check_.unhealthy_threshold = 1;
  start();
  EXPECT_TRUE(well(1));
  tcp_result(false);
  EXPECT_FALSE(well(1));
}

TEST_F(HealthCheckerTest, RecoveredEndpointStartsSlowly) {
  cluster_.config.lb.slow_start.window = seconds(60);
  check_.unhealthy_threshold = 1;
  check_.healthy_threshold = 1;
  start(2);
  connector_.accept();
  connector_.accept();
  turn();
  EXPECT_EQ(cluster_.count(100)[1], 50);
  advance(seconds(10));
  connector_.fail_next();
  connector_.accept();
  turn();
  EXPECT_FALSE(well(1));
  advance(seconds(10));
  connector_.accept();
  connector_.accept();
  turn();
  EXPECT_TRUE(well(1));
  EXPECT_NEAR(cluster_.count(110)[1], 10, 2);
}

}  // namespace
}  // namespace edgemesh::proxy
