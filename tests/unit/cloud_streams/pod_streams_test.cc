#include "cloud/streams/pod_streams.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cloud/streams/usage_metrics.h"
#include "core/channel/streams.h"
#include "tests/support/memory_stream.h"
#include "tests/support/test_pki.h"
#include "tests/unit/cloud/fake_link.h"

namespace edgemesh::cloud {
namespace {

using namespace std::chrono_literals;  // NOLINT
using test::Collector;
using test::MemoryStream;
using test::TestPki;
using ::testing::HasSubstr;

constexpr const char* kPod = R"({"metadata":{"name":"web","namespace":"default"},
  "spec":{"nodeName":"edge-1","initContainers":[{"name":"init"}],
          "containers":[{"name":"main","tty":true},{"name":"side"}]}})";
constexpr const char* kUpgrade = "POST";

http::Request ask(const std::string& method, const std::string& query, bool upgrade = false) {
  http::Request out;
  out.method = method;
  out.target = "/api/v1/namespaces/default/pods/web/x" + query;
  out.headers.add("Authorization", "Bearer secret");
  if (upgrade) {
    out.headers.add("Connection", "Upgrade");
    out.headers.add("Upgrade", "SPDY/3.1");
    out.headers.add("X-Stream-Protocol-Version", "v4.channel.k8s.io");
  }
  return out;
}
ResourcePath path(const std::string& subresource) {
  return {"", "v1", "pods", "default", "web", subresource};
}

TEST(NodeRequest, LogsNameTheirContainer) {
  const auto log = node_request(ask("GET", "?container=main&tailLines=5&follow=true&pretty=1"),
                                path("log"), kPod);
  ASSERT_TRUE(log);
  EXPECT_EQ(log->node, "edge-1");
  EXPECT_EQ(log->request.target, "/containerLogs/default/web/main?follow=true&tailLines=5");
  EXPECT_FALSE(log->request.headers.has("Authorization"));
  const auto unnamed = node_request(ask("GET", ""), path("log"), kPod);
  ASSERT_FALSE(unnamed);
  EXPECT_EQ(unnamed.error().code, 400);
  EXPECT_THAT(unnamed.error().message, HasSubstr("choose one of: [main side init]"));
  const auto absent = node_request(ask("GET", "?container=other"), path("log"), kPod);
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().message, "container other is not valid for pod web");
}

TEST(NodeRequest, ExecAndAttachAreUpgrades) {
  const auto exec = node_request(
      ask(kUpgrade,
          "?container=side&command=sh&command=-c&command=a%20b&stdin=true&stdout=true&stderr=true",
          true),
      path("exec"), kPod);
  ASSERT_TRUE(exec);
  EXPECT_EQ(exec->request.target,
            "/exec/default/web/side?command=sh&command=-c&command=a%20b&input=1&output=1&error=1");
  EXPECT_EQ(exec->request.headers.get_or("Upgrade", ""), "SPDY/3.1");
  EXPECT_EQ(exec->request.headers.get_or("X-Stream-Protocol-Version", ""), "v4.channel.k8s.io");
  EXPECT_FALSE(exec->request.headers.has("Authorization"));
  // The process has a terminal, so its outputs are one, whatever is asked for.
  const auto attach =
      node_request(ask(kUpgrade, "?container=main&stdin=true&stdout=true&stderr=true", true),
                   path("attach"), kPod);
  ASSERT_TRUE(attach);
  EXPECT_EQ(attach->request.target, "/attach/default/web/main?input=1&output=1&tty=1");
  const auto plain = node_request(ask("POST", "?container=main&command=ls"), path("exec"), kPod);
  ASSERT_FALSE(plain);
  EXPECT_EQ(plain.error().message, "Upgrade request required");
  const auto none = node_request(ask(kUpgrade, "?container=main", true), path("exec"), kPod);
  EXPECT_FALSE(none);
}

TEST(NodeRequest, PodsWithoutANodeHaveNoStreams) {
  const auto got =
      node_request(ask("GET", ""), path("log"), R"({"spec":{"containers":[{"name":"main"}]}})");
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().message, "pod web does not have a host assigned");
  EXPECT_FALSE(node_request(ask("GET", ""), path("log"), "not JSON"));
}

TEST(Summary, IsReadLeniently) {
  const auto usage = parse_summary(
      R"({"node":{"cpu":{"time":"t","usageNanoCores":5},"memory":{"workingSetBytes":2048}},
          "pods":[{"podRef":{"name":"web","namespace":"default"},
                   "containers":[{"name":"main","cpu":{"usageNanoCores":3},"memory":{}}]}, 7]})");
  ASSERT_TRUE(usage);
  EXPECT_EQ(usage->node.nano_cores, 5u);
  EXPECT_EQ(usage->node.memory_bytes, 2048u);
  ASSERT_EQ(usage->pods.size(), 1u);
  EXPECT_EQ(usage->pods[0].containers.at("main").nano_cores, 3u);
  for (const char* bad : {"", "[]", "{}", R"({"node":1})"}) EXPECT_FALSE(parse_summary(bad)) << bad;
}

// An API server with PodStreams in front of nodes that the test plays.
class PodStreamsTest : public ::testing::Test, public http::H2Session::Handler {
 protected:
  void SetUp() override {
    link_.nodes = {"edge-1"};
    NodeStreams::Options limits;
    limits.max_streams = 2;
    nodes_ = std::make_unique<NodeStreams>(*loop_, link_, limits, registry_);
    streams_ = std::make_unique<PodStreams>(
        *loop_, *nodes_,
        [](const std::string&, const std::string& name) { return name == "web" ? kPod : ""; },
        PodStreams::Options());
    http::ServerOptions options;
    options.adopt_only = true;
    server_ = TestPki::take(
        http::Server::create(*loop_, options, [this](const http::Request& request, auto writer) {
          auto p = path("log");
          p.name = request.path() == "/absent" ? "absent" : "web";
          EXPECT_TRUE(streams_->handle(request, writer, p));
        }));
  }
  std::unique_ptr<Collector> client(const std::string& target = "/x?container=main") {
    auto [near, far] = MemoryStream::pair(*loop_);
    server_->adopt(std::move(far), SockAddr{});
    auto out = std::make_unique<Collector>(std::move(near));
    out->send("GET " + target + " HTTP/1.1\r\nHost: api\r\n\r\n");
    return out;
  }
  // What a node does when it is asked to.
  void connect_node() {
    auto [near, far] = MemoryStream::pair(*loop_);
    at_node_ = TestPki::take(http::H2Session::server(*loop_, std::move(near), this));
    nodes_->take("edge-1", 0, std::move(far));
  }
  void on_connect(std::unique_ptr<http::H2Connect> connect) override {
    EXPECT_EQ(connect->authority(), channel::kStreamsAuthority);
    asked_.push_back(std::make_unique<Collector>(connect->accept()));
  }
  void on_close(const Error&) override { node_cut_ = true; }
  bool until(const std::function<bool()>& done) { return loop_->run_until(done, 10s); }

  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_ = TestPki::take(io::Loop::create(clock_));
  obs::Registry registry_;
  test::FakeLink link_;
  std::vector<std::unique_ptr<Collector>> asked_;
  std::unique_ptr<http::H2Session> at_node_;
  std::unique_ptr<NodeStreams> nodes_;
  std::unique_ptr<PodStreams> streams_;
  std::unique_ptr<http::Server> server_;
  bool node_cut_ = false;
};

TEST_F(PodStreamsTest, AsksTheNodeToConnectOnceAndGoesThroughThat) {
  auto first = client(), second = client();
  ASSERT_TRUE(until([&] { return !link_.sent["edge-1"].empty(); }));
  EXPECT_EQ(link_.sent["edge-1"][0].group, channel::kStreamsGroup);
  EXPECT_EQ(link_.sent["edge-1"][0].operation, channel::kStreamsOpen);
  connect_node();
  ASSERT_TRUE(
      until([&] { return asked_.size() == 2 && asked_[1]->received.ends_with("\r\n\r\n"); }));
  EXPECT_THAT(asked_[0]->received, HasSubstr("GET /containerLogs/default/web/main HTTP/1.1\r\n"));
  asked_[1]->send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
  ASSERT_TRUE(until(
      [&] { return first->received.ends_with("hello") || second->received.ends_with("hello"); }));
  EXPECT_EQ(link_.sent["edge-1"].size(), 1u);
  auto third = client();
  ASSERT_TRUE(until([&] { return asked_.size() == 3; }));  // one of the two had ended
  auto fourth = client();
  ASSERT_TRUE(until([&] { return fourth->received.starts_with("HTTP/1.1 429"); }));
}

TEST_F(PodStreamsTest, ANodeThatIsAwayIsNamed) {
  link_.nodes.clear();
  auto asking = client();
  ASSERT_TRUE(until([&] { return asking->received.ends_with("}"); })) << asking->received;
  EXPECT_THAT(asking->received, HasSubstr("HTTP/1.1 503"));
  EXPECT_THAT(asking->received, HasSubstr("node edge-1 is not connected"));
}

TEST_F(PodStreamsTest, ANodeThatDoesNotConnectIsNamedInTime) {
  auto asking = client();
  ASSERT_TRUE(until([&] { return !link_.sent["edge-1"].empty(); }));
  clock_.advance(11s);
  ASSERT_TRUE(until([&] { return asking->received.ends_with("}"); })) << asking->received;
  EXPECT_THAT(asking->received, HasSubstr("does not open a connection for streams"));
}

TEST_F(PodStreamsTest, NoSuchPod) {
  auto asking = client("/absent");
  ASSERT_TRUE(until([&] { return asking->received.ends_with("}"); }));
  EXPECT_THAT(asking->received, HasSubstr("pods \\\"absent\\\" not found"));
}

TEST_F(PodStreamsTest, AConnectionThatBreaksIsForgotten) {
  connect_node();
  EXPECT_EQ(nodes_->sessions(), 1u);
  at_node_.reset();
  ASSERT_TRUE(until([&] { return nodes_->sessions() == 0; }));
}

TEST_F(PodStreamsTest, ANodeThatDoesNotAnswerPingsIsCut) {
  auto [near, far] = MemoryStream::pair(*loop_);
  const Collector silent(std::move(near));
  nodes_->take("edge-1", 0, std::move(far));
  for (Duration step : {16s, 9s}) {
    clock_.advance(step);
    loop_->run_until([] { return false; }, 2ms);
    EXPECT_EQ(nodes_->sessions(), 1u);
  }
  clock_.advance(2s);
  EXPECT_TRUE(until([&] { return nodes_->sessions() == 0; }));
}

TEST_F(PodStreamsTest, ARefusedCertificateEndsTheConnection) {
  connect_node();
  nodes_->end_refused([](const std::string& node, int64_t) -> Result<> {
    return fail(ErrorCode::kPermissionDenied, "{} is revoked", node);
  });
  EXPECT_EQ(nodes_->sessions(), 0u);
  EXPECT_TRUE(until([&] { return node_cut_; }));
}

TEST_F(PodStreamsTest, AnIdleConnectionIsGivenUp) {
  connect_node();
  // In steps: each ping in between is answered.
  for (int i = 0; i < 40 && nodes_->sessions() > 0; ++i) {
    clock_.advance(8s);
    loop_->run_until([] { return false; }, 2ms);
  }
  EXPECT_EQ(nodes_->sessions(), 0u);
}

}  // namespace
}  // namespace edgemesh::cloud
