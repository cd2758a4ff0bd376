#include "cloud/ca.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>

#include "cloud/files.h"
#include "cloud/token.h"
#include "tests/support/temp_dir.h"

namespace edgemesh::cloud {
namespace {

class CaTest : public ::testing::Test {
 protected:
  std::unique_ptr<Ca> open() {
    auto ca = Ca::open({.state_dir = dir_.path()}, clock_);
    EXPECT_TRUE(ca) << ca.error().message;
    return ca ? std::move(*ca) : nullptr;
  }
  static std::string csr(const std::string& cn, const std::string& o = "system:nodes") {
    const auto key = tls::generate_key_pem();
    return *tls::make_csr_der(*key, {.common_name = cn, .organizations = {o}});
  }
  test::TempDir dir_;
  ManualClock clock_;
};

TEST_F(CaTest, IsMadeOnceAndKeptForTheOwnerOnly) {
  const auto first = open();
  const auto second = open();

  EXPECT_EQ(first->cert_pem(), second->cert_pem());
  EXPECT_EQ(first->hash(), tls::sha256_hex(first->cert_der()));
  EXPECT_EQ(tls::parse_cert_pem(first->cert_pem())->common_name, "KubeEdge");
  struct stat st {};
  ASSERT_EQ(::stat((dir_.path() + "/ca/ca.key").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600U);
}

TEST_F(CaTest, IsNotMadeWhereItMustExist) {
  const auto ca = Ca::open({.state_dir = dir_.path() + "/elsewhere", .must_exist = true}, clock_);
  ASSERT_FALSE(ca);
  EXPECT_NE(ca.error().message.find("--state-dir"), std::string::npos) << ca.error().message;
  EXPECT_NE(::access((dir_.path() + "/elsewhere").c_str(), F_OK), 0);
  open();
  EXPECT_TRUE(Ca::open({.state_dir = dir_.path(), .must_exist = true}, clock_));
}

TEST_F(CaTest, RefusesHalfACa) {
  open();
  ASSERT_EQ(::unlink((dir_.path() + "/ca/ca.key").c_str()), 0);

  const auto ca = Ca::open({.state_dir = dir_.path()}, clock_);

  ASSERT_FALSE(ca);
  EXPECT_NE(ca.error().message.find("ca.key is missing"), std::string::npos) << ca.error().message;
}

TEST_F(CaTest, RefusesAKeyOfAnotherCertificate) {
  open();
  ASSERT_TRUE(write_file(dir_.path() + "/ca/ca.key", *tls::generate_key_pem(), 0600));

  EXPECT_FALSE(Ca::open({.state_dir = dir_.path()}, clock_));
}

TEST_F(CaTest, SignsANodeWithItsSpiffeIdAndName) {
  const auto ca = open();

  const auto der = ca->sign_node(csr("system:node:edge-1"), "edge-1", "[1,2]");

  ASSERT_TRUE(der) << der.error().message;
  const auto info = tls::parse_cert_der(*der);
  EXPECT_EQ(info->common_name, "system:node:edge-1");
  EXPECT_EQ(info->organizations, std::vector<std::string>{"system:nodes"});
  EXPECT_EQ(info->sans.uri, std::vector<std::string>{"spiffe://edgemesh.local/node/edge-1"});
  // A node that is called like the cloud's host must not pass for it.
  EXPECT_TRUE(info->sans.dns.empty());
  EXPECT_FALSE(info->is_ca);
  EXPECT_TRUE(tls::verify_issued_by(*der, ca->cert_pem()));
}

TEST_F(CaTest, RefusesRequestsThatDoNotFitTheNode) {
  const auto ca = open();

  EXPECT_FALSE(ca->sign_node(csr("system:node:edge-2"), "edge-1", ""));
  EXPECT_FALSE(ca->sign_node(csr("system:node:edge-1", "system:masters"), "edge-1", ""));
  EXPECT_FALSE(ca->sign_node("rubbish", "edge-1", ""));
  EXPECT_FALSE(ca->sign_node("", "edge-1", ""));
  EXPECT_FALSE(ca->sign_node(csr("system:node:edge-1"), "edge-1", "[5]"));
  EXPECT_FALSE(ca->sign_node(csr("system:node:edge-1"), "edge-1", "client"));
  for (const char* name : {"", "Edge", "a b", "-a", "a-", "a..b", ".a", "a.", "a/b"}) {
    EXPECT_FALSE(ca->sign_node(csr(std::string("system:node:") + name), name, "")) << name;
  }
  EXPECT_TRUE(check_node_name("edge-1.site-2"));
  EXPECT_FALSE(check_node_name(std::string(53, 'a')));
}

TEST_F(CaTest, IssuesServerAndAdministratorCertificates) {
  const auto ca = open();

  const auto server = ca->issue_server({"localhost", "203.0.113.10", "::1"});
  const auto admin = ca->issue_admin();

  ASSERT_TRUE(server);
  const auto info = tls::parse_cert_pem(server->cert_pem);
  EXPECT_EQ(info->sans.dns, std::vector<std::string>{"localhost"});
  EXPECT_EQ(info->sans.ip.size(), 2U);
  ASSERT_TRUE(admin);
  EXPECT_EQ(tls::parse_cert_pem(admin->cert_pem)->organizations,
            std::vector<std::string>{"system:masters"});
}

TEST_F(CaTest, TokensHoldUntilTheyExpire) {
  const auto ca = open();
  const std::string token = ca->new_token(std::chrono::hours(1));
  const std::string jwt = token.substr(token.find('.') + 1);

  EXPECT_EQ(std::count(token.begin(), token.end(), '.'), 3);
  EXPECT_EQ(token.substr(0, 64), ca->hash());
  EXPECT_TRUE(ca->verify_token(token));
  EXPECT_TRUE(ca->verify_token(jwt));
  clock_.advance(std::chrono::hours(2));
  const auto late = ca->verify_token(jwt);
  ASSERT_FALSE(late);
  EXPECT_NE(late.error().message.find("expired"), std::string::npos);
}

TEST_F(CaTest, RefusesForgedTokens) {
  const auto ca = open();
  const std::string token = ca->new_token(std::chrono::hours(1));
  const std::string jwt = token.substr(token.find('.') + 1);
  std::string turned = jwt;
  turned[jwt.rfind('.') + 5] ^= 1;
  const int64_t later = 4'000'000'000;

  EXPECT_FALSE(ca->verify_token(turned));
  EXPECT_FALSE(ca->verify_token(make_jwt("another key", later)));
  EXPECT_FALSE(ca->verify_token(std::string(64, '0') + "." + jwt));
  // "alg": "none", no signature.
  EXPECT_FALSE(ca->verify_token("eyJhbGciOiJub25lIn0.eyJleHAiOjQwMDAwMDAwMDB9."));
  for (const char* bad : {"", ".", "..", "...", "a.b.c", "a.b", "a.b.c.d.e"}) {
    EXPECT_FALSE(ca->verify_token(bad)) << bad;
  }
  EXPECT_FALSE(ca->verify_token(std::string(100'000, '.')));
}

}  // namespace
}  // namespace edgemesh::cloud
