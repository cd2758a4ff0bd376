#include "cloud/bootstrap.h"

#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace edgemesh::cloud {
namespace {

using std::chrono::hours;

class BootstrapTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*io::Loop::create(clock_));
    ca_ = std::move(*Ca::open({.state_dir = dir_.path(), .node_lifetime = hours(24)}, clock_));
    const auto server = ca_->issue_server({"localhost"});
    BootstrapOptions options;
    options.listen = {SockAddr{IpAddr::loopback(), 0}};
    options.cert_pem = server->cert_pem;
    options.key_pem = server->key_pem;
    options.node_known = [](const std::string& node) { return node == "edge-1"; };
    auto bootstrap = Bootstrap::create(*loop_, *ca_, options, registry_);
    ASSERT_TRUE(bootstrap) << bootstrap.error().message;
    bootstrap_ = std::move(*bootstrap);
    key_ = *tls::generate_key_pem();
  }
  http::Request get(const std::string& target) {
    http::Request request;
    request.method = "GET";
    request.target = target;
    request.peer_addr = {IpAddr::loopback(), 1234};
    return request;
  }
  http::Request ask(const std::string& node, const std::string& token) {
    http::Request request = get("/edge.crt");
    request.headers.add("nodename", node);
    if (!token.empty()) request.headers.add("Authorization", "Bearer " + token);
    request.body = *tls::make_csr_der(key_, {.common_name = "system:node:" + node,
                                             .organizations = {"system:nodes"},
                                             .country = "CN",
                                             .locality = "Hangzhou",
                                             .province = "Zhejiang"});
    return request;
  }
  std::string jwt() {
    const std::string token = ca_->new_token(hours(1));
    return token.substr(token.find('.') + 1);
  }
  std::shared_ptr<tls::PeerIdentity> peer(const std::string& node, int64_t not_after) {
    auto identity = std::make_shared<tls::PeerIdentity>();
    identity->common_name = "system:node:" + node;
    identity->organization = "system:nodes";
    identity->not_after = not_after;
    return identity;
  }
  int64_t now() {
    return std::chrono::duration_cast<std::chrono::seconds>(clock_.wall_now().time_since_epoch())
        .count();
  }
  test::TempDir dir_;
  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_;
  obs::Registry registry_;
  std::unique_ptr<Ca> ca_;
  std::unique_ptr<Bootstrap> bootstrap_;
  std::string key_;
};

TEST_F(BootstrapTest, GivesTheCaToAnyone) {
  const http::Response response = bootstrap_->answer(get("/ca.crt"));

  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(tls::sha256_hex(response.body), ca_->hash());
}

TEST_F(BootstrapTest, GivesACertificateForAToken) {
  const http::Response response = bootstrap_->answer(ask("edge-1", jwt()));

  ASSERT_EQ(response.status, 200) << response.body;
  const auto info = tls::parse_cert_der(response.body);
  EXPECT_EQ(info->common_name, "system:node:edge-1");
  EXPECT_EQ(info->not_after, now() + 24 * 3600);
  EXPECT_TRUE(tls::key_matches(key_, *tls::cert_der_to_pem(response.body)));
}

TEST_F(BootstrapTest, RefusesWithoutAGoodToken) {
  const std::string late = jwt();

  EXPECT_EQ(bootstrap_->answer(ask("edge-1", "")).status, 401);
  EXPECT_EQ(bootstrap_->answer(ask("edge-1", "a.b.c")).status, 401);
  http::Request basic = ask("edge-1", "");
  basic.headers.add("Authorization", "Basic eDp5");
  EXPECT_EQ(bootstrap_->answer(basic).status, 401);
  clock_.advance(hours(2));
  const http::Response response = bootstrap_->answer(ask("edge-1", late));
  EXPECT_EQ(response.status, 401);
  EXPECT_TRUE(response.body.starts_with("token validation failure, ")) << response.body;
}

TEST_F(BootstrapTest, RefusesRequestsThatAreNotRight) {
  http::Request no_name = ask("edge-1", jwt());
  no_name.headers.remove("NodeName");
  EXPECT_EQ(bootstrap_->answer(no_name).status, 400);
  http::Request other = ask("edge-1", jwt());
  other.headers.set("NodeName", "edge-2");
  EXPECT_EQ(bootstrap_->answer(other).status, 400);
  http::Request empty = ask("edge-1", jwt());
  empty.body.clear();
  EXPECT_EQ(bootstrap_->answer(empty).status, 400);
  http::Request usage = ask("edge-1", jwt());
  usage.headers.add("ExtKeyUsages", "[99]");
  EXPECT_EQ(bootstrap_->answer(usage).status, 400);
  EXPECT_EQ(bootstrap_->answer(get("/")).status, 404);
  http::Request del = get("/ca.crt");
  del.method = "DELETE";
  EXPECT_EQ(bootstrap_->answer(del).status, 405);
}

TEST_F(BootstrapTest, RenewsWithTheNodesOwnCertificate) {
  http::Request request = ask("edge-1", "");
  request.peer = peer("edge-1", now() + 3600);
  EXPECT_EQ(bootstrap_->answer(request).status, 200);

  request.peer = peer("edge-1", now() - 30 * 86400);  // ran out while the node was off
  EXPECT_EQ(bootstrap_->answer(request).status, 200);
  request.peer = peer("edge-1", now() - 366 * 86400);
  EXPECT_EQ(bootstrap_->answer(request).status, 401);
  request.peer = peer("edge-2", now() + 3600);
  EXPECT_EQ(bootstrap_->answer(request).status, 401);
  auto server = peer("edge-1", now() + 3600);
  server->organization = "other";
  request.peer = server;
  EXPECT_EQ(bootstrap_->answer(request).status, 401);
}

TEST_F(BootstrapTest, TellsWhetherANodeIsKnown) {
  EXPECT_EQ(bootstrap_->answer(get("/node/edge-1")).status, 200);
  EXPECT_EQ(bootstrap_->answer(get("/node/edge-2")).status, 404);
}

TEST_F(BootstrapTest, LimitsGuessesFromOneAddress) {
  int refused = 0;
  for (int i = 0; i < 100; ++i) {
    refused += bootstrap_->answer(ask("edge-1", "a.b.c")).status == 429 ? 1 : 0;
  }
  EXPECT_EQ(refused, 50);
  http::Request other = ask("edge-1", jwt());
  other.peer_addr.ip = *IpAddr::parse("127.0.0.2");
  EXPECT_EQ(bootstrap_->answer(other).status, 200);
}

}  // namespace
}  // namespace edgemesh::cloud
