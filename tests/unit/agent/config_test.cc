#include "agent/config.h"

#include <gtest/gtest.h>

namespace edgemesh::agent {
namespace {

TEST(AgentConfigTest, TheSampleHoldsTheDefaults) {
  auto sample = load_config(EDGEMESH_SOURCE_DIR "/configs/agent.yaml");
  ASSERT_TRUE(sample) << sample.error().message;
  AgentConfig defaults;
  EXPECT_EQ(sample->state_dir, defaults.state_dir);
  EXPECT_EQ(sample->dns.listen, defaults.dns.listen);
  EXPECT_EQ(sample->dns.listen.to_string(), "169.254.96.16:53");
  EXPECT_EQ(sample->proxy.connect_timeout, defaults.proxy.connect_timeout);
  EXPECT_EQ(sample->proxy.max_connections, defaults.proxy.max_connections);
  EXPECT_EQ(sample->p2p.direct_listen, defaults.p2p.direct_listen);
  EXPECT_EQ(sample->admin_listen, defaults.admin_listen);
}

TEST(AgentConfigTest, WhatJoinWritesIsRead) {
  AgentConfig config;
  config.node = "node-a";
  config.state_dir = "/tmp/x";
  config.cloud = {"[fd00::1]:10000", "cloud:10002"};
  auto read = parse_config(render_config(config), "agent.yaml");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->node, "node-a");
  EXPECT_EQ(read->cloud.hub, "[fd00::1]:10000");
  EXPECT_EQ(read->cloud.bootstrap, "cloud:10002");
}

TEST(AgentConfigTest, AnAdminEndpointForTheWorldIsRefused) {
  auto read = parse_config("admin:\n  listen: 0.0.0.0:15000\n", "agent.yaml");
  ASSERT_FALSE(read);
  EXPECT_NE(read.error().message.find("agent.yaml:2: admin.listen: '0.0.0.0:15000' is not allowed"),
            std::string::npos);
}

TEST(AgentConfigTest, AddressesOfTheCloudAreChecked) {
  for (const char* bad : {"cloud", "cloud:", ":10000", "cloud:99999", "cloud:1x"})
    EXPECT_FALSE(parse_config(fmt::format("cloud:\n  hub: '{}'\n", bad), "f")) << bad;
}

}  // namespace
}  // namespace edgemesh::agent
