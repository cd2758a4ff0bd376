#include "proxy/model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace edgemesh::proxy::model {
namespace {

using testing::HasSubstr;

TEST(ProxyConfig, TheSampleLoads) {
  const auto config = load_config(EDGEMESH_SOURCE_DIR "/configs/proxy.yaml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ((*config)->listeners.size(), 2U);
  EXPECT_EQ((*config)->clusters.size(), 3U);
  const auto& host = *(*config)->routes.at("web")->hosts[0];
  ASSERT_EQ(host.routes.size(), 4U);
  const Route& api = host.routes[2];
  EXPECT_EQ(std::get<Forward>(api.action).clusters[1].weight, 10U);
  EXPECT_EQ(api.retry->on, retry_on::kConnectFailure | retry_on::k5xx);
  EXPECT_EQ(api.policies.fault->delay_share, 1000U);
  EXPECT_EQ(api.policies.cors->max_age, "3600");
  EXPECT_EQ(api.rewrite.prefix, "/");
  EXPECT_EQ(api.match.headers[0].text.kind, TextMatch::Kind::kRegex);
  EXPECT_EQ(std::get<Redirect>(host.routes[0].action).status, 308);
}

struct Bad {
  const char* yaml;
  const char* says;
};

TEST(ProxyConfig, ErrorsSayWhereAndWhatIsAllowed) {
  const std::string head = "routes:\n- name: r\n  hosts:\n  - domains: [a]\n    routes:\n    - ";
  const Bad cases[] = {
      {"match: {regex: \"(\"}\n      respond: {}\n",
       "p.yaml:6: routes[0].hosts[0].routes[0].match"},
      {"match: {prefix: api}\n      respond: {}\n", "begins with /"},
      {"match: {prefix: /}\n", "want cluster, clusters"},
      {"match: {prefix: /}\n      cluster: nowhere\n", "'nowhere' is not among the clusters"},
      {"match: {prefix: /}\n      respond: {}\n      rewirte: {}\n", "did you mean 'rewrite'"},
      {"match: {prefix: /}\n      redirect: {status: 200}\n", "one of 301, 302"},
      {"match: {prefix: /}\n      respond: {status: 99}\n", "200 to 599"},
      {"match: {prefix: /, percent: 101}\n      respond: {}\n", "0 to 100"},
      {"match: {prefix: /}\n      respond: {}\n      retry: {on: [never]}\n", "'never'"},
  };
  for (const Bad& bad : cases) {
    const auto config = parse_config(head + bad.yaml, "p.yaml");
    ASSERT_FALSE(config) << bad.yaml;
    EXPECT_THAT(config.error().message, HasSubstr(bad.says)) << bad.yaml;
    EXPECT_THAT(config.error().message, HasSubstr("p.yaml:")) << bad.yaml;
  }
}

TEST(ProxyConfig, FilesAreBounded) {
  const std::string head =
      "routes:\n- name: r\n  hosts:\n  - domains: [a]\n    routes:\n    - respond: {bodyFile: ";
  EXPECT_FALSE(parse_config(head + "/dev/zero}\n", "p"));
  EXPECT_FALSE(parse_config(head + "/no/such/file}\n", "p"));
  EXPECT_TRUE(parse_config(head + EDGEMESH_SOURCE_DIR + "/configs/proxy.yaml}\n", "p"));
}

TEST(ProxyConfig, AListenerNeedsRoutesThatAreThere) {
  const auto config = parse_config(
      "listeners:\n- name: l\n  address: 127.0.0.1:1\n  chains:\n  - http: {routes: gone}\n", "p");
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().message, HasSubstr("'gone'"));
}

}  // namespace
}  // namespace edgemesh::proxy::model
