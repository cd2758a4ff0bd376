#include "agent/hub_client.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "core/channel/message.h"
#include "tests/support/memory_stream.h"
#include "tests/support/test_pki.h"

namespace edgemesh::agent {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class Recorder final : public bus::Module {
 public:
  Recorder(std::string name, std::string group) : name_(std::move(name)), group_(std::move(group)) {}
  std::string_view name() const override { return name_; }
  std::string_view group() const override { return group_; }
  Result<> start(bus::Bus&) override { return {}; }
  void stop() override {}
  void on_message(bus::Message message) override { received.push_back(std::move(message)); }
  std::vector<bus::Message> received;
  size_t count(const std::string& content) const {
    size_t n = 0;
    for (const auto& m : received) n += m.content == content ? 1 : 0;
    return n;
  }

 private:
  std::string name_, group_;
};

struct FakeHub final : http::WebSocket::Handler {
  void on_message(std::string_view data, bool) override {
    auto message = channel::decode(data);
    ASSERT_TRUE(message);
    if (message->operation != "keepalive") received.push_back(std::move(*message));
  }
  void on_close(uint16_t, const std::string&) override { closed = true; }
  std::unique_ptr<http::WebSocket> socket;
  std::vector<bus::Message> received;
  bool closed = false;
};

class NoCall final : public http::Call {};

class HubClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*io::Loop::create(clock_));
    bus_ = std::make_unique<bus::Bus>(*loop_);
    const tls::KeyAndCert pair = pki_.issue("system:node:edge-1");
    HubClientOptions options;
    options.hub = {"cloud", 10000};
    options.node = "edge-1";
    options.seed = 7;
    client_ = std::make_unique<HubClient>(
        *loop_, options,
        test::TestPki::take(make_identity(pair.cert_pem, pair.key_pem, pki_.ca().cert_pem)), registry_);
    client_->set_connector([this](http::WebSocket::OnConnected done) {
      ++attempts_;
      last_attempt_ = clock_.now();
      loop_->defer([this, done = std::move(done)]() mutable { answer(std::move(done)); });
      return std::make_unique<NoCall>();
    });
    ASSERT_TRUE(bus_->add(mesh_));
    ASSERT_TRUE(bus_->add(meta_));
    ASSERT_TRUE(bus_->add(*client_));
  }
  void TearDown() override { bus_->stop(); }
  void answer(http::WebSocket::OnConnected done) {
    if (!reachable_) return done(fail(ErrorCode::kConnectionRefused, "connection refused"));
    auto [near, far] = test::MemoryStream::pair(*loop_);
    hub_ = std::make_unique<FakeHub>();
    hub_->socket = http::WebSocket::over(*loop_, std::move(far), true);
    hub_->socket->set_handler(hub_.get());
    done(http::WebSocket::over(*loop_, std::move(near), false));
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
  void start() {
    ASSERT_TRUE(bus_->start());
    turn();
  }
  void from_cloud(const bus::Message& message) {
    ASSERT_TRUE(hub_->socket->send_text(channel::encode(message)));
    turn();
  }

  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_;
  test::TestPki pki_;
  obs::Registry registry_;
  std::unique_ptr<FakeHub> hub_;
  Recorder mesh_{"mesh", "mesh"};
  Recorder meta_{"metamanager", "meta"};
  std::unique_ptr<HubClient> client_;
  std::unique_ptr<bus::Bus> bus_;
  bool reachable_ = true;
  int attempts_ = 0;
  TimePoint last_attempt_{};
};

TEST_F(HubClientTest, NodesSpreadOverTheHubsAndGoToTheNextOne) {
  const tls::KeyAndCert pair = pki_.issue("system:node:edge-1");
  const auto identity =
      test::TestPki::take(make_identity(pair.cert_pem, pair.key_pem, pki_.ca().cert_pem));
  HubClientOptions options;
  options.hub = {"one", 10000};
  options.more_hubs = {{"two", 10000}, {"three", 10000}};
  std::map<std::string, int> first;
  for (int i = 0; i < 300; ++i) {
    options.node = "node-" + std::to_string(i);
    ++first[HubClient(*loop_, options, identity, registry_).status().hub];
  }
  ASSERT_EQ(first.size(), 3U);
  for (const auto& [hub, nodes] : first) EXPECT_GT(nodes, 60) << hub;

  bus_ = std::make_unique<bus::Bus>(*loop_);
  HubClient client(*loop_, options, identity, registry_);
  std::vector<std::string> tried;
  client.set_connector([&](http::WebSocket::OnConnected done) {
    tried.push_back(client.status().hub);
    loop_->defer([done = std::move(done)]() mutable {
      done(fail(ErrorCode::kConnectionRefused, "connection refused"));
    });
    return std::make_unique<NoCall>();
  });
  ASSERT_TRUE(bus_->add(client));
  start();
  advance(seconds(10));
  ASSERT_GE(tried.size(), 4U);
  EXPECT_EQ(std::set<std::string>(tried.begin(), tried.begin() + 3).size(), 3U);
  EXPECT_EQ(tried[0], tried[3]);
  bus_->stop();
  bus_ = std::make_unique<bus::Bus>(*loop_);
}

TEST_F(HubClientTest, ConnectsAndTellsTheGroups) {
  start();

  EXPECT_TRUE(client_->status().connected);
  EXPECT_GT(client_->status().connected_since, 0);
  ASSERT_EQ(mesh_.received.size(), 1U);
  EXPECT_EQ(mesh_.received[0].source, "edgehub");
  EXPECT_EQ(mesh_.received[0].resource, "node/connection");
  EXPECT_EQ(mesh_.received[0].operation, "connect");
  EXPECT_EQ(mesh_.received[0].content, "\"cloud_connected\"");
  EXPECT_EQ(meta_.received.size(), 1U);
}

TEST_F(HubClientTest, GroupsOfTheCloudReachTheirModules) {
  start();
  from_cloud(bus::make_message("edgecontroller", "resource", "update", "null/node/edge-1"));
  from_cloud(bus::make_message("meshcontroller", "mesh", "update", "config"));
  from_cloud(bus::make_message("x", "nobody", "update", "config"));

  EXPECT_EQ(meta_.received.back().resource, "null/node/edge-1");
  EXPECT_EQ(mesh_.received.back().resource, "config");
  EXPECT_NE(registry_.text().find("edgemesh_channel_unroutable_total 1"), std::string::npos);
}

TEST_F(HubClientTest, ARequestOfTheBusIsAnsweredByTheCloud) {
  start();
  Result<bus::Message> result = fail(ErrorCode::kInternal, "no call");
  bus_->request(kHubModule, bus::make_message("edged", "meta", "query", "default/secret/s"),
                [&](Result<bus::Message> answer) { result = std::move(answer); });
  turn();
  ASSERT_EQ(hub_->received.size(), 1U);
  EXPECT_TRUE(hub_->received[0].sync);
  from_cloud(bus::reply_to(hub_->received[0], "{\"x\":1}"));

  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->content, "{\"x\":1}");
  EXPECT_EQ(meta_.received.size(), 1U);  // the connection only
}

TEST_F(HubClientTest, WhatCannotBeSentComesBack) {
  reachable_ = false;
  start();
  ASSERT_TRUE(bus_->send(kHubModule, bus::make_message("mesh", "mesh", "signal", "peer/b", "{}")));
  turn();
  turn();

  ASSERT_EQ(mesh_.received.size(), 1U);
  EXPECT_EQ(mesh_.received[0].operation, "error");
  EXPECT_EQ(mesh_.received[0].resource, "peer/b");
  EXPECT_EQ(mesh_.received[0].content, R"({"reason":"no connection to the cloud"})");
  EXPECT_EQ(client_->send(bus::make_message("a", "b", "c", "d")).error().code, ErrorCode::kUnavailable);
}

TEST_F(HubClientTest, AHalfOpenLinkIsNoticedWithinFiveSecondsAndReplaced) {
  start();
  advance(seconds(20));
  EXPECT_EQ(attempts_, 1);
  hub_->socket->pause_reading();
  advance(seconds(5));

  EXPECT_EQ(mesh_.count("\"cloud_disconnected\""), 1U);
  advance(seconds(1));
  EXPECT_EQ(attempts_, 2);
  EXPECT_TRUE(client_->connected());
  EXPECT_EQ(mesh_.count("\"cloud_connected\""), 2U);
}

TEST_F(HubClientTest, BackOffDoublesFromHalfASecondToHalfAMinuteWithJitter) {
  reachable_ = false;
  start();
  Duration before = Duration::zero();
  const Duration nominal[] = {milliseconds(500), seconds(1), seconds(2), seconds(4), seconds(8),
                              seconds(16), seconds(30), seconds(30)};
  for (const Duration expected : nominal) {
    const TimePoint from = last_attempt_;
    const int attempts = attempts_;
    while (attempts_ == attempts) advance(milliseconds(50));
    const Duration waited = last_attempt_ - from;
    EXPECT_GE(waited, expected / 2) << expected.count();
    EXPECT_LE(waited, std::min<Duration>(expected * 3 / 2, seconds(30)) + milliseconds(50));
    before = waited;
  }
  EXPECT_GT(before, seconds(10));
  EXPECT_EQ(client_->status().last_error, "connection refused");
}

TEST_F(HubClientTest, AStableMinuteResetsTheBackOffAndAShortOneDoesNot) {
  reachable_ = false;
  start();
  while (attempts_ < 7) advance(milliseconds(100));
  reachable_ = true;
  client_->kick();
  turn();
  ASSERT_TRUE(client_->connected());
  advance(seconds(61));
  hub_->socket.reset();
  reachable_ = false;
  turn();
  EXPECT_LE(client_->status().next_try_ms, 750);
  EXPECT_GE(client_->status().next_try_ms, 200);
}

TEST_F(HubClientTest, AKickConnectsAtOnceOrTestsTheLink) {
  reachable_ = false;
  start();
  advance(seconds(20));
  const int attempts = attempts_;
  reachable_ = true;
  client_->kick();
  turn();
  EXPECT_EQ(attempts_, attempts + 1);
  EXPECT_TRUE(client_->connected());

  hub_->socket->pause_reading();
  client_->kick();
  advance(milliseconds(2400));
  EXPECT_FALSE(hub_ == nullptr);
  EXPECT_EQ(mesh_.count("\"cloud_disconnected\""), 1U);
}

TEST_F(HubClientTest, ARenewedCertificateMakesANewConnection) {
  start();
  const tls::KeyAndCert pair = pki_.issue("system:node:edge-1");
  const Identity next =
      test::TestPki::take(make_identity(pair.cert_pem, pair.key_pem, pki_.ca().cert_pem));
  ASSERT_TRUE(client_->set_identity(next, true));
  turn();
  EXPECT_EQ(attempts_, 2);
  EXPECT_TRUE(client_->connected());
  Identity broken = next;
  broken.key_pem = "x";
  EXPECT_FALSE(client_->set_identity(broken, true));
  EXPECT_TRUE(client_->connected());
}

TEST_F(HubClientTest, CountersAreOfAllConnections) {
  start();
  ASSERT_TRUE(client_->send(bus::make_message("a", "b", "c", "d")));
  turn();
  const uint64_t before = client_->status().tx_bytes;
  hub_->socket.reset();
  advance(seconds(1));

  EXPECT_EQ(client_->status().connects, 2U);
  EXPECT_GE(client_->status().tx_bytes, before);
  EXPECT_GT(before, 0U);
}

TEST_F(HubClientTest, StoppingEndsTheConnectionForGood) {
  start();
  bus_->stop();
  turn();
  EXPECT_TRUE(hub_->closed);
  advance(seconds(60));
  EXPECT_EQ(attempts_, 1);
}

}  // namespace
}  // namespace edgemesh::agent
