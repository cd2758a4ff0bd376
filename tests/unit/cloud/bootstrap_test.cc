#include "cloud/bootstrap.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cloud/node_controller.h"

#include "tests/support/fake_kube.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/cloud/fake_link.h"

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
    kube_ = std::make_unique<test::FakeKube>(*loop_);
    claims_ = std::make_unique<NodeClaims>(*kube_, link_, clock_);
    options.claim = [this](NodeClaim claim, NodeClaims::Done done) {
      claims_->claim(std::move(claim), std::move(done));
    };
    auto bootstrap = Bootstrap::create(*loop_, *ca_, options, registry_);
    ASSERT_TRUE(bootstrap) << bootstrap.error().message;
    bootstrap_ = std::move(*bootstrap);
    key_ = *tls::generate_key_pem();
  }
  http::Response answer(const http::Request& request) {
    std::optional<http::Response> out;
    bootstrap_->answer(request, [&out](http::Response response) { out = std::move(response); });
    EXPECT_TRUE(loop_->run_until([&] { return out.has_value(); }, std::chrono::seconds(5)));
    return out.value_or(http::Response{});
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
  std::string jwt(const TokenRights& rights = {}) {
    const std::string token = ca_->new_token(hours(1), rights);
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
  test::FakeLink link_;
  std::unique_ptr<test::FakeKube> kube_;
  std::unique_ptr<NodeClaims> claims_;
  std::unique_ptr<Ca> ca_;
  std::unique_ptr<Bootstrap> bootstrap_;
  std::string key_;
};

TEST_F(BootstrapTest, GivesTheCaToAnyone) {
  const http::Response response = answer(get("/ca.crt"));

  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(tls::sha256_hex(response.body), ca_->hash());
}

TEST_F(BootstrapTest, GivesACertificateForAToken) {
  const http::Response response = answer(ask("edge-1", jwt()));

  ASSERT_EQ(response.status, 200) << response.body;
  const auto info = tls::parse_cert_der(response.body);
  EXPECT_EQ(info->common_name, "system:node:edge-1");
  EXPECT_EQ(info->not_after, now() + 24 * 3600);
  EXPECT_TRUE(tls::key_matches(key_, *tls::cert_der_to_pem(response.body)));
}

TEST_F(BootstrapTest, RefusesWithoutAGoodToken) {
  const std::string late = jwt();

  EXPECT_EQ(answer(ask("edge-1", "")).status, 401);
  EXPECT_EQ(answer(ask("edge-1", "a.b.c")).status, 401);
  http::Request basic = ask("edge-1", "");
  basic.headers.add("Authorization", "Basic eDp5");
  EXPECT_EQ(answer(basic).status, 401);
  clock_.advance(hours(2));
  const http::Response response = answer(ask("edge-1", late));
  EXPECT_EQ(response.status, 401);
  EXPECT_TRUE(response.body.starts_with("token validation failure, ")) << response.body;
}

TEST_F(BootstrapTest, RefusesRequestsThatAreNotRight) {
  http::Request no_name = ask("edge-1", jwt());
  no_name.headers.remove("NodeName");
  EXPECT_EQ(answer(no_name).status, 400);
  http::Request other = ask("edge-1", jwt());
  other.headers.set("NodeName", "edge-2");
  EXPECT_EQ(answer(other).status, 400);
  http::Request empty = ask("edge-1", jwt());
  empty.body.clear();
  EXPECT_EQ(answer(empty).status, 400);
  http::Request usage = ask("edge-1", jwt());
  usage.headers.add("ExtKeyUsages", "[99]");
  EXPECT_EQ(answer(usage).status, 400);
  EXPECT_EQ(answer(get("/")).status, 404);
  http::Request del = get("/ca.crt");
  del.method = "DELETE";
  EXPECT_EQ(answer(del).status, 405);
}

TEST_F(BootstrapTest, RenewsWithTheNodesOwnCertificate) {
  http::Request request = ask("edge-1", "");
  request.peer = peer("edge-1", now() + 3600);
  EXPECT_EQ(answer(request).status, 200);

  request.peer = peer("edge-1", now() - 30 * 86400);  // ran out while the node was off
  EXPECT_EQ(answer(request).status, 200);
  request.peer = peer("edge-1", now() - 366 * 86400);
  EXPECT_EQ(answer(request).status, 401);
  request.peer = peer("edge-2", now() + 3600);
  EXPECT_EQ(answer(request).status, 401);
  auto server = peer("edge-1", now() + 3600);
  server->organization = "other";
  request.peer = server;
  EXPECT_EQ(answer(request).status, 401);
}

TEST_F(BootstrapTest, ATokenDoesNotGiveANameTwice) {
  ASSERT_EQ(answer(ask("edge-1", jwt())).status, 200);
  const std::string first_key = std::exchange(key_, *tls::generate_key_pem());

  const http::Response refused = answer(ask("edge-1", jwt()));
  EXPECT_EQ(refused.status, 409);
  EXPECT_NE(refused.body.find("kubectl delete node edge-1"), std::string::npos) << refused.body;
  EXPECT_EQ(answer(ask("edge-2", jwt())).status, 200);

  key_ = first_key;  // its answer was lost
  EXPECT_EQ(answer(ask("edge-1", jwt())).status, 200);
  http::Request renewal = ask("edge-1", "");
  renewal.peer = peer("edge-1", now() + 3600);
  EXPECT_EQ(answer(renewal).status, 200);
}

TEST_F(BootstrapTest, ADeletedNodesNameIsFree) {
  ASSERT_EQ(answer(ask("edge-1", jwt())).status, 200);
  key_ = *tls::generate_key_pem();
  kube_->erase(kube::kNodes, "", "edge-1");

  EXPECT_EQ(answer(ask("edge-1", jwt())).status, 200);
}

TEST_F(BootstrapTest, ATokenMayBeForOneNodeAndReplaceIt) {
  ASSERT_EQ(answer(ask("edge-1", jwt())).status, 200);
  key_ = *tls::generate_key_pem();

  EXPECT_EQ(answer(ask("edge-1", jwt({.node = "edge-1"}))).status, 409);
  EXPECT_EQ(answer(ask("edge-1", jwt({.node = "edge-2", .replace = true}))).status, 401);
  // Without a name it would be good for all of them.
  EXPECT_EQ(answer(ask("edge-1", jwt({.replace = true}))).status, 409);
  EXPECT_EQ(answer(ask("edge-1", jwt({.node = "edge-1", .replace = true}))).status, 200);
}

TEST_F(BootstrapTest, NodesThatCameBeforeNamesWereRemembered) {
  kube_->put(kube::kNodes, {{"metadata", {{"name", "kubelet"}}}});
  kube_->put(kube::kNodes, {{"metadata", {{"name", "old"}, {"annotations", {{kMeshAnnotation, "{}"}}}}}});
  link_.nodes.insert("edgecore");

  EXPECT_EQ(answer(ask("kubelet", jwt())).status, 200);
  EXPECT_EQ(answer(ask("old", jwt())).status, 409);
  EXPECT_EQ(answer(ask("edgecore", jwt())).status, 409);
  key_ = *tls::generate_key_pem();
  EXPECT_EQ(answer(ask("kubelet", jwt())).status, 409);
}

TEST_F(BootstrapTest, ABadRequestDoesNotTakeTheName) {
  http::Request bad = ask("edge-1", jwt());
  bad.body.pop_back();
  EXPECT_EQ(answer(bad).status, 400);
  EXPECT_EQ(kube_->find(kube::kNodes, "", "edge-1"), nullptr);
}

TEST_F(BootstrapTest, GivesNoCertificateWhileItCannotTellWhoHasTheName) {
  kube_->fail_with = Error{.code = ErrorCode::kUnavailable, .message = "down"};
  EXPECT_EQ(answer(ask("edge-1", jwt())).status, 503);
}

TEST_F(BootstrapTest, OfTwoAtTheSameTimeOneGetsTheName) {
  std::vector<int> statuses;
  const auto note = [&](http::Response response) { statuses.push_back(response.status); };
  bootstrap_->answer(ask("edge-1", jwt()), note);
  key_ = *tls::generate_key_pem();
  bootstrap_->answer(ask("edge-1", jwt()), note);
  ASSERT_TRUE(loop_->run_until([&] { return statuses.size() == 2; }, std::chrono::seconds(5)));

  EXPECT_EQ(statuses[0] + statuses[1], 200 + 409);
}

TEST_F(BootstrapTest, TellsWhetherANodeIsKnown) {
  EXPECT_EQ(answer(get("/node/edge-1")).status, 200);
  EXPECT_EQ(answer(get("/node/edge-2")).status, 404);
}

TEST_F(BootstrapTest, LimitsGuessesFromOneAddress) {
  int refused = 0;
  for (int i = 0; i < 100; ++i) {
    refused += answer(ask("edge-1", "a.b.c")).status == 429 ? 1 : 0;
  }
  EXPECT_EQ(refused, 50);
  http::Request other = ask("edge-1", jwt());
  other.peer_addr.ip = *IpAddr::parse("127.0.0.2");
  EXPECT_EQ(answer(other).status, 200);
}

}  // namespace
}  // namespace edgemesh::cloud
