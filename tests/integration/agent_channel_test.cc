// The agent's side of the control channel against the real cloud modules, over loopback and TLS.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "agent/bootstrap.h"
#include "agent/hub_client.h"
#include "agent/mesh_module.h"
#include "core/io/tcp.h"
#include "tests/integration/cloud_fixture.h"
#include "tests/support/test_pki.h"

namespace edgemesh {
namespace {

using Json = nlohmann::json;
using test::milliseconds;
using test::seconds;
using test::TestCloud;

struct Sink final : agent::MeshSink {
  void upsert_service(const kube::Service& s) override { services.insert(s.name); }
  void remove_service(const std::string&, const std::string& name) override { services.erase(name); }
  void upsert_slice(const kube::EndpointSlice&) override {}
  void remove_slice(const std::string&, const std::string&) override {}
  void on_config(const agent::MeshConfig& c) override { config = c; }
  void on_signal(const std::string& from, std::string_view json) override {
    signals.emplace_back(from, json);
  }
  void on_signal_error(const std::string& node, std::string_view reason) override {
    errors.emplace_back(node, reason);
  }
  std::set<std::string> services;
  agent::MeshConfig config;
  std::vector<std::pair<std::string, std::string>> signals, errors;
};

// An agent without its data path.
class Edge {
 public:
  Edge(io::Loop& loop, const agent::Identity& identity, config::HostPort hub_address)
      : loop_(loop),
        store(TestCloud::take(agent::Metastore::open(loop, dir_.path() + "/meta.db", registry))),
        mesh(loop, {.node = identity.node}, *store, sink, registry),
        hub(loop, options(identity, std::move(hub_address)), identity, registry),
        bus(loop) {
    EM_CHECK(bus.add(mesh).has_value());
    EM_CHECK(bus.add(hub).has_value());
    EM_CHECK(bus.start().has_value());
  }
  ~Edge() { bus.stop(); }
  bool wait(const std::function<bool()>& until, Duration limit = seconds(10)) {
    return loop_.run_until(until, limit);
  }
  bool synced() {
    return wait([this] { return mesh.status().synced; });
  }

 private:
  static agent::HubClientOptions options(const agent::Identity& identity, config::HostPort hub) {
    agent::HubClientOptions out;
    out.hub = std::move(hub);
    out.node = identity.node;
    out.backoff_min = milliseconds(50);
    return out;
  }
  io::Loop& loop_;
  test::TempDir dir_;

 public:
  obs::Registry registry;
  Sink sink;
  std::unique_ptr<agent::Metastore> store;
  agent::MeshModule mesh;
  agent::HubClient hub;
  bus::Bus bus;
};

class AgentChannelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*io::Loop::create());
    cloud_ = std::make_unique<TestCloud>(*loop_);
  }
  config::HostPort bootstrap_address() const {
    return {"127.0.0.1", cloud_->bootstrap->local_addr().port};
  }
  config::HostPort hub_address() const { return {"127.0.0.1", cloud_->hub->local_addr().port}; }
  Result<agent::Identity> join(const std::string& node, const std::string& token,
                               std::optional<config::HostPort> to = {}) {
    agent::Bootstrap bootstrap(*loop_, {.server = to.value_or(bootstrap_address()), .node = node});
    return run([&](agent::Bootstrap::Done done) { bootstrap.join(token, std::move(done)); });
  }
  Result<agent::Identity> renew(const agent::Identity& current) {
    agent::Bootstrap bootstrap(*loop_, {.server = bootstrap_address(), .node = current.node});
    return run([&](agent::Bootstrap::Done done) { bootstrap.renew(current, std::move(done)); });
  }
  Result<agent::Identity> run(const std::function<void(agent::Bootstrap::Done)>& start) {
    Result<agent::Identity> out = fail(ErrorCode::kInternal, "no answer");
    bool done = false;
    start([&](Result<agent::Identity> result) {
      out = std::move(result);
      done = true;
    });
    EXPECT_FALSE(done);
    EXPECT_TRUE(loop_->run_until([&] { return done; }, seconds(20)));
    return out;
  }
  agent::Identity joined(const std::string& node) {
    return TestCloud::take(join(node, cloud_->token()));
  }
  static Json service(const std::string& name) {
    return {{"metadata", {{"namespace", "default"}, {"name", name}}},
            {"spec", {{"clusterIP", "10.96.0.1"}, {"ports", {{{"port", 80}}}}}}};
  }

  std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<TestCloud> cloud_;
};

TEST_F(AgentChannelTest, ANodeJoinsConnectsAndLearnsTheMesh) {
  cloud_->kube.put(kube::kServices, service("hello"));
  auto identity = join("edge-1", cloud_->token() + "\n");
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ(identity->node, "edge-1");
  EXPECT_GT(identity->not_after, test::TestPki::now());

  Edge edge(*loop_, *identity, hub_address());
  ASSERT_TRUE(edge.synced()) << edge.hub.status().last_error;
  EXPECT_EQ(edge.sink.services, std::set<std::string>{"hello"});
  EXPECT_TRUE(edge.wait([&] { return !edge.sink.config.service_cidrs.empty(); }));
  cloud_->kube.put(kube::kServices, service("later"));
  EXPECT_TRUE(edge.wait([&] { return edge.sink.services.contains("later"); }));
  EXPECT_TRUE(edge.wait([&] { return edge.hub.status().rtt_us >= 0; }));
}

TEST_F(AgentChannelTest, WithoutTheCloudTheNodeKeepsWhatItKnew) {
  cloud_->kube.put(kube::kServices, service("a"));
  Edge edge(*loop_, joined("edge-1"), hub_address());
  ASSERT_TRUE(edge.synced());
  cloud_->hub->drain();
  ASSERT_TRUE(edge.wait([&] { return !edge.mesh.status().synced; }));
  EXPECT_EQ(edge.sink.services.size(), 1U);
  EXPECT_EQ(edge.store->count("service"), 1U);
  EXPECT_TRUE(edge.wait([&] { return !edge.hub.connected() && !edge.hub.status().last_error.empty(); }));
}

TEST_F(AgentChannelTest, ABrokenConnectionIsReplacedAndSyncsTheDifference) {
  cloud_->kube.put(kube::kServices, service("a"));
  const agent::Identity identity = joined("edge-1");
  Edge edge(*loop_, identity, hub_address());
  ASSERT_TRUE(edge.synced());
  ASSERT_TRUE(edge.hub.set_identity(identity, true));  // makes a new connection
  ASSERT_TRUE(edge.wait([&] { return edge.mesh.status().delta_syncs == 1; }));
  EXPECT_EQ(edge.mesh.status().full_syncs, 1U);
  EXPECT_EQ(edge.hub.status().connects, 2U);
}

TEST_F(AgentChannelTest, SignalsPassBetweenNodes) {
  Edge a(*loop_, joined("edge-a"), hub_address());
  Edge b(*loop_, joined("edge-b"), hub_address());
  ASSERT_TRUE(a.synced());
  ASSERT_TRUE(b.synced());
  a.mesh.send_signal("edge-b", R"({"candidate":1})");
  a.mesh.send_signal("edge-z", "{}");

  ASSERT_TRUE(b.wait([&] { return !b.sink.signals.empty() && !a.sink.errors.empty(); }));
  EXPECT_EQ(b.sink.signals[0].first, "edge-a");
  EXPECT_EQ(b.sink.signals[0].second, R"({"candidate":1})");
  EXPECT_EQ(a.sink.errors[0].first, "edge-z");
}

TEST_F(AgentChannelTest, WhatIsWrongWithAJoinIsSaidInOneLine) {
  const std::string token = cloud_->token();
  const auto error = [&](const std::string& t, std::optional<config::HostPort> to = {}) {
    auto result = join("edge-1", t, to);
    EXPECT_FALSE(result);
    const std::string message = result ? "" : result.error().message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return message;
  };
  EXPECT_NE(error("abc").find("the token is not complete"), std::string::npos);
  EXPECT_NE(error(std::string(64, '0') + token.substr(64)).find("is not the one in the token"),
            std::string::npos);
  std::string forged = token;
  forged.back() = forged.back() == 'A' ? 'B' : 'A';
  forged[forged.size() - 5] = forged[forged.size() - 5] == 'A' ? 'B' : 'A';
  EXPECT_NE(error(forged).find("refused the token"), std::string::npos);
  EXPECT_NE(error(cloud_->ca->new_token(seconds(-10))).find("refused the token"), std::string::npos);
  // A port that nothing listens on.
  auto probe = io::TcpListener::listen(*loop_, {IpAddr::loopback(), 0}, [](io::Fd, const SockAddr&) {});
  ASSERT_TRUE(probe);
  const uint16_t port = (*probe)->local_addr().port;
  probe->reset();
  EXPECT_NE(error(token, config::HostPort{"127.0.0.1", port}).find("cannot get a certificate from 127.0.0.1:"),
            std::string::npos);
}

TEST_F(AgentChannelTest, ACertificateIsRenewedWithItselfAndANewKey) {
  const agent::Identity first = joined("edge-1");
  auto second = renew(first);
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_EQ(second->node, "edge-1");
  EXPECT_NE(second->key_pem, first.key_pem);

  agent::Identity other = *second;
  other.node = "edge-2";
  auto refused = renew(other);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("refused to renew"), std::string::npos);
}

TEST_F(AgentChannelTest, ACertificateThatRanOutIsRenewedAtTheStart) {
  test::TempDir dir;
  agent::Identity identity = joined("edge-1");
  identity.not_before = 0;
  identity.not_after = 1000;  // what the renewal goes by
  int renewed = 0;
  agent::Renewal renewal(*loop_, {.server = bootstrap_address(), .node = "edge-1"}, dir.path(), identity,
                         [&](const agent::Identity& next) {
                           ++renewed;
                           EXPECT_GT(next.not_after, test::TestPki::now());
                         });
  renewal.start();
  ASSERT_TRUE(loop_->run_until([&] { return renewed == 1; }, seconds(10))) << renewal.last_error();
  auto stored = agent::load_identity(dir.path());
  ASSERT_TRUE(stored) << stored.error().message;
  EXPECT_EQ(stored->cert_pem, renewal.identity().cert_pem);
  EXPECT_GT(renewal.due(), test::TestPki::now());
}

}  // namespace
}  // namespace edgemesh
