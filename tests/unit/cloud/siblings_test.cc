// Several clouds in one process: their hubs on loopback, one Kubernetes API, nodes as a fake.
#include "cloud/siblings.h"

#include <gtest/gtest.h>

#include "cloud/ca.h"
#include "cloud/hub.h"
#include "cloud/rendezvous.h"
#include "tests/support/fake_kube.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/cloud/fake_link.h"

namespace edgemesh::cloud {
namespace {

using std::chrono::seconds;

class SiblingsTest : public ::testing::Test {
 protected:
  struct Cloud {
    test::FakeLink link;
    obs::Registry registry;
    std::unique_ptr<Hub> hub;
    std::unique_ptr<Rendezvous> rendezvous;
    std::unique_ptr<Siblings> siblings;
  };
  void SetUp() override {
    auto made = Ca::open({.state_dir = dir_.path()});
    ASSERT_TRUE(made) << made.error().message;
    ca_ = std::move(*made);
  }
  std::shared_ptr<tls::Context> client(const tls::KeyAndCert& own) {
    tls::ContextOptions options;
    options.cert_pem = own.cert_pem;
    options.key_pem = own.key_pem;
    options.ca_pem = ca_->cert_pem();
    return *tls::Context::client(options);
  }
  std::unique_ptr<Cloud> start(std::set<std::string> nodes) {
    auto out = std::make_unique<Cloud>();
    out->link.nodes = std::move(nodes);
    const auto server = *ca_->issue_server({"127.0.0.1"});
    HubOptions hub;
    hub.listen = {*SockAddr::parse("127.0.0.1:0")};
    hub.cert_pem = server.cert_pem;
    hub.key_pem = server.key_pem;
    hub.ca_pem = ca_->cert_pem();
    out->hub = std::move(*Hub::create(*loop_, hub, out->registry));
    out->rendezvous =
        std::make_unique<Rendezvous>(*loop_, out->link, RendezvousOptions{}, out->registry);
    Siblings::Options options;
    options.host = "Cloud_1";
    options.hub = fmt::format("127.0.0.1:{}", out->hub->local_addr().port);
    options.identity = options.hub;
    options.tls = client(*ca_->issue_cloud());
    out->siblings = std::make_unique<Siblings>(*loop_, kube_, options, out->registry);
    out->rendezvous->set_elsewhere([s = out->siblings.get()](const auto& from, const auto& to,
                                                             std::string content, auto done) {
      s->pass(from, to, std::move(content), std::move(done));
    });
    out->hub->set_take_signal(
        [r = out->rendezvous.get()](const auto& from, const auto& to, const auto& content) {
          return r->deliver(from, to, content);
        });
    out->siblings->start();
    return out;
  }
  bool know_each_other(const std::vector<Cloud*>& clouds) {
    return until([&] {
      return std::all_of(clouds.begin(), clouds.end(), [&](Cloud* cloud) {
        return cloud->siblings->hubs().size() == clouds.size() - 1;
      });
    });
  }
  void signal(Cloud& cloud, const std::string& from, const std::string& to,
              const std::string& content) {
    channel::Message message;
    message.id = channel::new_id();
    message.resource = "peer/" + to;
    message.content = content;
    cloud.rendezvous->on_signal(from, message);
  }
  bool until(const std::function<bool()>& done) { return loop_->run_until(done, seconds(20)); }

  test::TempDir dir_;
  std::unique_ptr<io::Loop> loop_ = std::move(*io::Loop::create());
  test::FakeKube kube_{*loop_};
  std::unique_ptr<Ca> ca_;
};

TEST_F(SiblingsTest, ASignalReachesANodeOfAnotherCloud) {
  auto a = start({"edge-1"}), b = start({"edge-2"}), c = start({});
  ASSERT_TRUE(know_each_other({a.get(), b.get(), c.get()}));

  for (int i = 0; i < 40; ++i) signal(*a, "edge-1", "edge-2", std::to_string(i));

  auto& got = b->link.sent["edge-2"];
  ASSERT_TRUE(until([&] { return got.size() == 40; })) << got.size();
  for (int i = 0; i < 40; ++i) {
    EXPECT_EQ(got[static_cast<size_t>(i)].resource, "peer/edge-1");
    EXPECT_EQ(got[static_cast<size_t>(i)].operation, "signal");
    EXPECT_EQ(got[static_cast<size_t>(i)].content, std::to_string(i)) << "they keep their order";
  }
  EXPECT_TRUE(a->link.sent.empty());
}

TEST_F(SiblingsTest, ANodeThatWentToAThirdCloudIsFound) {
  auto a = start({"edge-1"}), b = start({"edge-2"}), c = start({});
  ASSERT_TRUE(know_each_other({a.get(), b.get(), c.get()}));
  signal(*a, "edge-1", "edge-2", "1");
  ASSERT_TRUE(until([&] { return b->link.sent["edge-2"].size() == 1; }));

  b->link.nodes.clear();
  c->link.nodes = {"edge-2"};
  signal(*a, "edge-1", "edge-2", "2");

  EXPECT_TRUE(until([&] { return c->link.sent["edge-2"].size() == 1; }));
  EXPECT_EQ(b->link.sent["edge-2"].size(), 1U);
}

TEST_F(SiblingsTest, TheSenderHearsThatTheOtherIsNowhere) {
  auto a = start({"edge-1"}), b = start({});
  ASSERT_TRUE(know_each_other({a.get(), b.get()}));

  signal(*a, "edge-1", "edge-2", "1");

  auto& heard = a->link.sent["edge-1"];
  ASSERT_TRUE(until([&] { return heard.size() == 1; }));
  EXPECT_EQ(heard[0].operation, "error");
  EXPECT_EQ(heard[0].content, R"({"reason":"node edge-2 is not connected"})");
}

TEST_F(SiblingsTest, ACloudThatDoesNotAnswerIsNamed) {
  auto a = start({"edge-1"}), b = start({});
  ASSERT_TRUE(know_each_other({a.get(), b.get()}));
  const std::string hub = a->siblings->hubs().front();
  b.reset();  // as by kill -9: its lease stays

  signal(*a, "edge-1", "edge-2", "1");

  auto& heard = a->link.sent["edge-1"];
  ASSERT_TRUE(until([&] { return heard.size() == 1; }));
  EXPECT_NE(heard[0].content.find(hub), std::string::npos) << heard[0].content;
}

TEST_F(SiblingsTest, WhatWaitsIsBounded) {
  auto a = start({"edge-1"}), b = start({"edge-2"});
  ASSERT_TRUE(know_each_other({a.get(), b.get()}));
  size_t passed = 0, refused = 0;

  for (int i = 0; i < 300; ++i)
    a->siblings->pass("edge-1", "edge-2", "x",
                      [&](const Result<>& result) { ++(result ? passed : refused); });

  ASSERT_TRUE(until([&] { return passed + refused == 300; }));
  EXPECT_EQ(passed, 100U);
}

TEST_F(SiblingsTest, ACloudThatStopsIsAskedNoMore) {
  auto a = start({"edge-1"}), b = start({"edge-2"});
  ASSERT_TRUE(know_each_other({a.get(), b.get()}));
  bool stopped = false;

  b->siblings->stop([&] { stopped = true; });

  EXPECT_TRUE(until([&] { return stopped && a->siblings->hubs().empty(); }));
}

TEST_F(SiblingsTest, OnlyCloudsBringSignals) {
  auto a = start({"edge-1"});
  auto post = [&](const tls::KeyAndCert& own, const std::string& method) {
    http::Client http(*loop_, {.tls = client(own)});
    int status = -1;
    http::ClientRequest request;
    request.method = method;
    request.url =
        fmt::format("https://127.0.0.1:{}{}edge-1", a->hub->local_addr().port, kSignalPath);
    request.headers = {{kSignalSender, "edge-9"}};
    request.body = "x";
    http.request(request, [&](const Result<http::Response>& r) { status = r ? r->status : 0; });
    (void)until([&] { return status >= 0; });
    return status;
  };
  EXPECT_EQ(post(*ca_->issue_admin(), "POST"), 403);
  EXPECT_TRUE(a->link.sent.empty());
  EXPECT_EQ(post(*ca_->issue_cloud(), "PUT"), 405);
  EXPECT_EQ(post(*ca_->issue_cloud(), "POST"), 204);
  EXPECT_EQ(a->link.sent["edge-1"].size(), 1U);
}

// A lease that nobody renews: its cloud is dead.
TEST(SiblingsLease, ThoseThatAreNotRenewedAreNotAsked) {
  ManualClock clock;
  auto loop = std::move(*io::Loop::create(clock));
  test::FakeKube kube(*loop);
  obs::Registry registry;
  Siblings::Options options;
  options.host = "one";
  options.hub = "127.0.0.1:1";
  Siblings one(*loop, kube, options, registry);
  options.host = "two";
  auto two = std::make_unique<Siblings>(*loop, kube, options, registry);
  one.start();
  two->start();
  auto pass = [&](int times) {
    for (int i = 0; i < times; ++i) {
      clock.advance(seconds(1));
      for (int turn = 0; turn < 4; ++turn) loop->run_once();
    }
  };
  pass(60);
  EXPECT_EQ(one.hubs().size(), 1U);
  two.reset();
  pass(25);
  EXPECT_EQ(one.hubs().size(), 1U);
  pass(10);
  EXPECT_TRUE(one.hubs().empty());
}

}  // namespace
}  // namespace edgemesh::cloud
