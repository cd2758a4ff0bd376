#include "agent/config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace edgemesh::agent {
namespace {

std::string error_of(std::string_view text) {
  auto config = parse_config(text, "agent.yaml", false);
  return config ? "accepted" : config.error().message;
}

TEST(AgentConfigTest, TheSampleHoldsTheDefaults) {
  auto sample = load_config(EDGEMESH_SOURCE_DIR "/configs/agent.yaml");
  ASSERT_TRUE(sample) << sample.error().message;
  EXPECT_EQ(sample->cloud.bootstrap.to_string(), "cloud.example.com:10002");
  AgentConfig defaults;
  // The three that the sample marks as examples.
  defaults.node_name = sample->node_name;
  defaults.cloud = sample->cloud;
  EXPECT_EQ(config_json(*sample), config_json(defaults));
}

TEST(AgentConfigTest, TheSampleShowsEveryKey) {
  auto document = config::Document::from_file(EDGEMESH_SOURCE_DIR "/configs/agent.yaml");
  ASSERT_TRUE(document) << document.error().message;
  config::Reader root = document->root();
  const auto all = nlohmann::json::parse(config_json({}));
  for (const auto& [section, keys] : all.items()) {
    EXPECT_TRUE(root.has(section)) << section;
    if (!keys.is_object()) continue;
    for (const auto& [key, value] : keys.items())
      EXPECT_TRUE(root.section(section).has(key)) << section << "." << key;
  }
}

TEST(AgentConfigTest, TheSmallestFileNamesTheHub) {
  auto config = parse_config("cloud: {hub: cloud.example.com}\n", "agent.yaml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->cloud.hub.to_string(), "cloud.example.com:10000");
  EXPECT_TRUE(config->cloud.more_hubs.empty());
  EXPECT_TRUE(config->module_enabled("mesh"));

  EXPECT_EQ(parse_config("zone: a\n", "agent.yaml").error().message, "agent.yaml:1: cloud: is missing");
  EXPECT_EQ(parse_config("cloud:\n  bootstrap: x\n", "agent.yaml").error().message,
            "agent.yaml:2: cloud.hub: is missing");
}

TEST(AgentConfigTest, ValuesAreTaken) {
  auto config = parse_config(
      "nodeName: edge-7\ncloud: {hub: '[fd00::1]:7'}\ncapture: {mode: redirect, serviceCidrs: [10.0.0.0/8]}\n"
      "proxy: {workers: 0, connectTimeout: 250ms}\np2p: {directListen: 0.0.0.0:7008}\n"
      "log: {level: warn, format: json, components: {p2p: trace}}\nmodules: {mesh: {enable: false}}\n",
      "agent.yaml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->node_name, "edge-7");
  EXPECT_EQ(config->capture.mode, CaptureMode::kRedirect);
  EXPECT_EQ(config->proxy.workers, 0);
  EXPECT_EQ(config->log.components.at("p2p"), log::Level::kTrace);
  EXPECT_FALSE(config->module_enabled("mesh"));
}

TEST(AgentConfigTest, DnsMayHaveASecondAddress) {
  EXPECT_EQ(AgentConfig().dns.addresses(), std::vector{*IpAddr::parse("169.254.96.16")});
  auto config = parse_config("cloud: {hub: c}\ndns: {listenAddressV6: 'fd00:96::16'}\n", "agent.yaml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->dns.addresses(),
            (std::vector{*IpAddr::parse("169.254.96.16"), *IpAddr::parse("fd00:96::16")}));
  for (const char* bad : {"10.0.0.1", "'::'", "'fe80::1'", "'::ffff:10.0.0.1'", "name"})
    EXPECT_NE(error_of(fmt::format("dns: {{listenAddressV6: {}}}\n", bad)).find("want an IPv6 address"),
              std::string::npos)
        << bad;
}

TEST(AgentConfigTest, PeersMayComeByBothFamilies) {
  EXPECT_EQ(AgentConfig().p2p.direct_listen, *SockAddr::parse("[::]:15008"));
}

TEST(AgentConfigTest, MistakesAreNamed) {
  EXPECT_NE(error_of("nodeName: Edge_1\n").find("agent.yaml:1: nodeName: 'Edge_1' is no node name"), std::string::npos);
  EXPECT_NE(error_of("node_name: a\n").find("did you mean 'nodeName'?"), std::string::npos);
  EXPECT_NE(error_of("capture: {serviceCidrs: [0.0.0.0/0]}\n").find("too wide"), std::string::npos);
  EXPECT_NE(error_of("stateDir: here\n").find("want an absolute path"), std::string::npos);
  EXPECT_NE(error_of("admin:\n  listen: 0.0.0.0:15000\n").find("agent.yaml:2: admin.listen: '0.0.0.0:15000' is not allowed"),
            std::string::npos);
  EXPECT_NE(error_of("dns: {listenAddress: 0.0.0.0}\n").find("wildcard"), std::string::npos);
  EXPECT_EQ(error_of("log: {components: {p2p: loud}}\n"),
            "agent.yaml:1: log.components.p2p: 'loud' is not allowed (want one of error, warn, info, debug, trace)");
  EXPECT_NE(error_of("modules: {devices: {enable: true}}\n").find("(allowed here: edgehub, mesh, metamanager, edged, metaServer)"), std::string::npos);
  EXPECT_NE(error_of("modules: {edged: {enable: true}, metamanager: {enable: false}}\n").find("which is switched off"), std::string::npos);
  EXPECT_NE(error_of("edged: {runtime: /run/c.sock}\n").find("want unix:///path"), std::string::npos);
  EXPECT_NE(error_of("metaServer: {listen: '0.0.0.0:10550'}\n").find("want a loopback address"), std::string::npos);
  EXPECT_NE(error_of("edged: {nodeIp: here}\n").find("want an address of this machine"), std::string::npos);
}

TEST(AgentConfigTest, WhatJoinWritesIsRead) {
  AgentConfig config;
  config.node_name = "edge-1";
  config.state_dir = "/tmp/with \"quotes\" and: colon";
  config.cloud.hub = {"fd00::1", 10000};
  config.cloud.bootstrap = {"cloud", 10002};
  auto back = parse_config(render_join_config(config), "agent.yaml");
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(config_json(*back), config_json(config));
}

TEST(NodeNameTest, FollowsKubernetes) {
  for (const char* good : {"a", "edge-1", "edge.site-2.example", "0"}) EXPECT_TRUE(check_node_name(good)) << good;
  for (const char* bad : {"", "-a", "a-", "a..b", ".a", "a.", "A", "a_b", "a/b", "a.-b", "a-.b"})
    EXPECT_FALSE(check_node_name(bad)) << bad;
  EXPECT_FALSE(check_node_name(std::string(254, 'a')));
}

}  // namespace
}  // namespace edgemesh::agent
