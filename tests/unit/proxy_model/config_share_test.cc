// What does not change between two readings of a configuration is the same object.
#include <gtest/gtest.h>

#include "proxy/model/config.h"

namespace edgemesh::proxy::model {
namespace {

std::string yaml(int changed_cluster, int changed_host, const std::string& server = "a") {
  std::string out =
      "listeners:\n- name: l\n  address: 127.0.0.1:0\n  chains:\n  - name: one\n    http: {routes: "
      "r}\n"
      "  - name: two\n    match: {serverNames: [x]}\n    http: {routes: r, serverName: " +
      server +
      "}\n"
      "clusters:\n";
  for (int i = 0; i < 5; ++i) {
    out += fmt::format("- name: c{}\n  endpoints: [{{address: \"10.0.0.{}:80\"}}]\n", i,
                       i == changed_cluster ? 200 : i + 1);
  }
  out += "routes:\n- name: r\n  hosts:\n";
  for (int i = 0; i < 5; ++i) {
    out += fmt::format(
        "  - name: h{0}\n    domains: [\"{0}.example\"]\n    routes:\n"
        "    - {{match: {{prefix: {1}}}, cluster: c{0}}}\n",
        i, i == changed_host ? "/new" : "/");
  }
  return out;
}

std::shared_ptr<const Config> parse(const std::string& text) {
  auto config = parse_config(text, "p.yaml");
  EXPECT_TRUE(config) << config.error().message;
  return config ? *config : nullptr;
}

TEST(ConfigShare, NothingChanged) {
  const auto before = parse(yaml(-1, -1));
  const auto after = share_unchanged(parse(yaml(-1, -1)), *before);
  EXPECT_EQ(after->listeners, before->listeners);  // maps of pointers
  EXPECT_EQ(after->routes, before->routes);
  EXPECT_EQ(after->clusters, before->clusters);
}

TEST(ConfigShare, OneClusterAndOneHostChanged) {
  const auto before = parse(yaml(-1, -1));
  const auto after = share_unchanged(parse(yaml(2, 3)), *before);
  for (const auto& [name, cluster] : after->clusters)
    EXPECT_EQ(cluster == before->clusters.at(name), name != "c2") << name;
  EXPECT_EQ(after->clusters.at("c2")->endpoints[0].addr.to_string(), "10.0.0.200:80");
  const auto &hosts = after->routes.at("r")->hosts, &old = before->routes.at("r")->hosts;
  ASSERT_EQ(hosts.size(), 5U);
  EXPECT_NE(after->routes.at("r"), before->routes.at("r"));
  for (size_t i = 0; i < hosts.size(); ++i) EXPECT_EQ(hosts[i] == old[i], i != 3) << i;
  EXPECT_EQ(hosts[3]->routes[0].match.path.path, "/new");
  EXPECT_EQ(after->listeners, before->listeners);
}

TEST(ConfigShare, OneChainChanged) {
  const auto before = parse(yaml(-1, -1));
  const auto after = share_unchanged(parse(yaml(-1, -1, "b")), *before);
  const auto &chains = after->listeners.at("l")->chains, &old = before->listeners.at("l")->chains;
  ASSERT_EQ(chains.size(), 2U);
  EXPECT_EQ(chains[0], old[0]);
  EXPECT_NE(chains[1], old[1]);
  EXPECT_EQ(std::get<HttpChain>(chains[1]->network).server_name, "b");
}

TEST(ConfigShare, WhatIsGoneIsGone) {
  const auto before = parse(yaml(-1, -1));
  const auto after = share_unchanged(parse("clusters: []\n"), *before);
  EXPECT_TRUE(after->clusters.empty() && after->routes.empty() && after->listeners.empty());
}

// The limits of a proxy's file are not those of the other programs.
TEST(ConfigShare, TenThousandClustersAreTaken) {
  std::string text = "clusters:\n";
  for (int i = 0; i < 10'000; ++i)
    text += fmt::format(
        "- {{name: cluster-{}, endpoints: [{{address: \"10.0.{}.{}:80\"}}], "
        "connectTimeout: 3s, idleTimeout: 30s, maxStreams: 90, protocol: http2}}\n",
        i, i / 250, i % 250);
  const auto config = parse(text);
  ASSERT_NE(config, nullptr);
  EXPECT_EQ(config->clusters.size(), 10'000U);
}

}  // namespace
}  // namespace edgemesh::proxy::model
