#include "cloud/api/bootstrap_tokens.h"

#include <gmock/gmock.h>

#include "core/tls/x509.h"
#include "kube/time.h"
#include "tests/unit/cloud/api_fixture.h"
#include "tests/unit/cloud/api_server_fixture.h"

namespace edgemesh::cloud {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;

class BootstrapTokensTest : public ApiFixture {
 protected:
  void SetUp() override {
    loop_ = std::move(*io::Loop::create(clock_));
    options_.path = dir_.file("api.db");
    open();
    tokens_ = std::make_unique<BootstrapTokens>(*core_, true);
    tokens_->start();
  }
  void TearDown() override {
    tokens_.reset();
    ApiFixture::TearDown();
  }
  std::string in(std::chrono::seconds time) { return kube::rfc3339(clock_.wall_now() + time); }
  // A good one for an hour, with these changes; an empty value takes a key away.
  void put(const std::map<std::string, std::string>& changes = {},
           const std::string& name = "bootstrap-token-abcdef") {
    std::map<std::string, std::string> all{{"token-id", "abcdef"},
                                           {"token-secret", "0123456789abcdef"},
                                           {"usage-bootstrap-authentication", "true"},
                                           {"expiration", in(1h)}};
    for (const auto& [key, value] : changes) all[key] = value;
    json data = json::object();
    for (const auto& [key, value] : all) {
      if (!value.empty()) data[key] = tls::base64_encode(value);
    }
    if (store_->latest(info(kube::kSecrets), "kube-system", name) != nullptr) {
      ASSERT_TRUE(remove(kube::kSecrets, "kube-system", name));
    }
    ASSERT_TRUE(create(kube::kSecrets, "kube-system",
                       {{"metadata", {{"name", name}}},
                        {"type", "bootstrap.kubernetes.io/token"},
                        {"data", std::move(data)}}));
  }
  std::string user(const std::string& token = "abcdef.0123456789abcdef") {
    auto found = tokens_->authenticate(token);
    return found ? found->name : "";
  }
  bool there(const std::string& name = "bootstrap-token-abcdef") {
    return store_->get(info(kube::kSecrets), "kube-system", name) != nullptr;
  }
  ManualClock clock_;
  std::unique_ptr<BootstrapTokens> tokens_;
};

TEST_F(BootstrapTokensTest, ATokenSaysWhoComes) {
  put({{"auth-extra-groups", "system:bootstrappers:edge,system:bootstrappers:kubeadm:x-1"}});

  auto found = tokens_->authenticate("abcdef.0123456789abcdef");

  ASSERT_TRUE(found);
  EXPECT_EQ(found->name, "system:bootstrap:abcdef");
  EXPECT_THAT(found->groups,
              ElementsAre("system:bootstrappers", "system:bootstrappers:edge",
                          "system:bootstrappers:kubeadm:x-1", "system:authenticated"));
}

TEST_F(BootstrapTokensTest, WhatDoesNotFitIsRefused) {
  put();
  ASSERT_EQ(user(), "system:bootstrap:abcdef");
  for (const char* bad :
       {"abcdef.0123456789abcdeg", "abcdef.0123456789abcde", "ABCDEF.0123456789abcdef",
        "abcdeg.0123456789abcdef", "abcdef", "abcdef.0123456789abcdef.x", ""})
    EXPECT_EQ(user(bad), "") << bad;
  const std::map<std::string, std::string> wrong[] = {
      {{"usage-bootstrap-authentication", "false"}},
      {{"usage-bootstrap-authentication", ""}},
      {{"token-id", "abcdeg"}},
      {{"token-secret", ""}},
      {{"auth-extra-groups", "system:masters"}},
      {{"auth-extra-groups", "system:bootstrappers:a,system:bootstrappersb"}},
      {{"auth-extra-groups", "system:bootstrappers:"}}};
  for (const auto& change : wrong) {
    put(change);
    EXPECT_EQ(user(), "") << change.begin()->first << "=" << change.begin()->second;
  }
  put({{"expiration", ""}});
  EXPECT_NE(user(), "") << "without an end it lasts";
}

TEST_F(BootstrapTokensTest, OneThatHasExpiredIsNoneAndIsDeleted) {
  put({{"expiration", in(30min)}});
  put({{"token-id", "abcdeg"}, {"expiration", ""}}, "bootstrap-token-abcdeg");
  clock_.advance(29min);
  for (int i = 0; i < 20; ++i) loop_->run_once();
  EXPECT_NE(user(), "");
  EXPECT_TRUE(there());

  clock_.advance(61s);
  EXPECT_EQ(user(), "") << "before anyone has cleaned up";
  settle([&] { return !there(); });
  EXPECT_TRUE(there("bootstrap-token-abcdeg"));
}

TEST_F(BootstrapTokensTest, WhatExpiredWhileNobodyRanIsDeletedAtTheStart) {
  tokens_.reset();
  put({{"expiration", in(-1h)}});
  put({{"expiration", "some day"}, {"token-id", "abcdeg"}}, "bootstrap-token-abcdeg");
  put({{"expiration", in(-1h)}}, "another-name");
  tokens_ = std::make_unique<BootstrapTokens>(*core_, true);

  tokens_->start();

  settle([&] { return !there() && !there("bootstrap-token-abcdeg"); });
  EXPECT_TRUE(there("another-name"));
}

TEST_F(BootstrapTokensTest, TheCleanerCanBeSwitchedOff) {
  tokens_ = std::make_unique<BootstrapTokens>(*core_, false);
  tokens_->start();
  put({{"expiration", in(-1h)}});
  for (int i = 0; i < 20; ++i) loop_->run_once();
  EXPECT_TRUE(there());
  EXPECT_EQ(user(), "");
}

TEST_F(ApiServerTest, ABootstrapTokenIsACredential) {
  const json secret{{"metadata", {{"name", "bootstrap-token-abcdef"}}},
                    {"type", "bootstrap.kubernetes.io/token"},
                    {"stringData",
                     {{"token-id", "abcdef"},
                      {"token-secret", "0123456789abcdef"},
                      {"usage-bootstrap-authentication", "true"}}}};
  ASSERT_EQ(send("POST", "/api/v1/namespaces/kube-system/secrets", secret.dump()).status, 201);
  token_ = "abcdef.0123456789abcdef";

  const auto answer = send("GET", "/api/v1/nodes");

  EXPECT_EQ(answer.status, 403);
  EXPECT_NE(answer.body.find("system:bootstrap:abcdef"), std::string::npos) << answer.body;
  token_ = "abcdef.0123456789abcdee";
  EXPECT_EQ(send("GET", "/api/v1/nodes").status, 401);
}

}  // namespace
}  // namespace edgemesh::cloud
