#include "cloud/cloud_config.h"

#include <gtest/gtest.h>

namespace edgemesh::cloud {
namespace {

std::string error_of(std::string_view text) {
  const auto config = parse_cloud_config(text, "cloud.yaml");
  return config ? std::string() : config.error().message;
}

TEST(CloudConfigTest, TheSampleIsGoodAndSaysTheDefaults) {
  const auto sample = load_cloud_config(std::string(EDGEMESH_SOURCE_DIR) + "/configs/cloud.yaml");

  ASSERT_TRUE(sample) << sample.error().message;
  const CloudConfig defaults;
  EXPECT_EQ(sample->state_dir, defaults.state_dir);
  EXPECT_EQ(sample->admin_listen, defaults.admin_listen);
  EXPECT_EQ(sample->api_listen, defaults.api_listen);
  EXPECT_EQ(sample->hub_listen, defaults.hub_listen);
  EXPECT_EQ(sample->bootstrap_listen, defaults.bootstrap_listen);
  EXPECT_EQ(sample->max_nodes, defaults.max_nodes);
  EXPECT_EQ(sample->token_lifetime, defaults.token_lifetime);
  EXPECT_EQ(sample->node_certificate_lifetime, defaults.node_certificate_lifetime);
  EXPECT_EQ(sample->turn_lifetime, defaults.turn_lifetime);
  EXPECT_EQ(sample->service_cidrs, defaults.service_cidrs);
  EXPECT_EQ(sample->trust_domain, defaults.trust_domain);
  EXPECT_EQ(sample->cluster_domain, defaults.cluster_domain);
  EXPECT_EQ(sample->turn_server.port, 3478);
  EXPECT_EQ(sample->service_accounts, defaults.service_accounts);
  EXPECT_EQ(sample->clean_tokens, defaults.clean_tokens);
  EXPECT_EQ(sample->audit.file, "");
  EXPECT_EQ(sample->audit.level, defaults.audit.level);
  EXPECT_EQ(sample->audit.max_megabytes, defaults.audit.max_megabytes);
  EXPECT_EQ(sample->audit.max_files, defaults.audit.max_files);
}

TEST(CloudConfigTest, AnEmptyFileIsTheDefaults) {
  EXPECT_EQ(error_of(""), "");
}

TEST(CloudConfigTest, ListensOnEveryAddressUnlessTold) {
  EXPECT_TRUE(CloudConfig().api_listen.empty());
  const auto config = parse_cloud_config("kubernetes: {listen: '[::1]:6443'}\n", "cloud.yaml");
  ASSERT_TRUE(config) << config.error().message;
  ASSERT_EQ(config->api_listen.size(), 1U);
  EXPECT_EQ(config->api_listen[0].to_string(), "[::1]:6443");
}

TEST(CloudConfigTest, SwitchesAndAuditLog) {
  const auto config = parse_cloud_config(
      "kubernetes: {controllers: {serviceAccount: false, tokenCleaner: false}}\n"
      "audit: {file: /a/b, level: Request, maxMegabytes: 5, maxFiles: 0}\n",
      "cloud.yaml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_FALSE(config->service_accounts);
  EXPECT_FALSE(config->clean_tokens);
  EXPECT_EQ(config->audit.file, "/a/b");
  EXPECT_EQ(config->audit.level, AuditLevel::kRequest);
  EXPECT_EQ(config->audit.max_megabytes, 5);
  EXPECT_EQ(config->audit.max_files, 0);
}

TEST(CloudConfigTest, NamesWhatIsWrong) {
  EXPECT_NE(error_of("audit: {file: a.log}\n").find("absolute"), std::string::npos);
  EXPECT_NE(error_of("audit: {level: All}\n").find("Metadata"), std::string::npos);
  EXPECT_NE(error_of("audit: {file: /a}\nkubernetes: {kubeconfig: /k}\n").find("--audit-log-path"),
            std::string::npos);
  EXPECT_EQ(error_of("hub:\n  maxNodes: 0\n"),
            "cloud.yaml:2: hub.maxNodes: '0' is not allowed (want 1 to 100000)");
  EXPECT_NE(error_of("hubb: {}\n").find("unknown key"), std::string::npos);
  EXPECT_NE(error_of("admin: {listen: 0.0.0.0:15100}\n").find("loopback"), std::string::npos);
  EXPECT_NE(error_of("mesh: {turn: {server: a.example}}\n").find("secretFile"), std::string::npos);
  EXPECT_NE(error_of("advertise: ['a b']\n").find("'a b'"), std::string::npos);
  EXPECT_NE(error_of("mesh: {serviceCidrs: [10.0.0.0/16, 10.1.0.0/16]}\n").find("one block"),
            std::string::npos);
}

}  // namespace
}  // namespace edgemesh::cloud
