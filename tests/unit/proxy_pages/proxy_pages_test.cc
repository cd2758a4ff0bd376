#include "cmd/proxy_pages/proxy_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/http/client.h"

namespace edgemesh::cmd {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using Kind = proxy::TrafficScope::Kind;

constexpr const char* kConfig = R"(
telemetry: {accessLog: [{path: /dev/null}], tracing: {samplePercent: 1}}
clusters:
- name: shop
  endpoints: [{address: "127.0.0.1:1", weight: 3}]
  tls: {sni: shop, insecureSkipVerify: true}
routes:
- name: web
  hosts:
  - name: all
    domains: ["*"]
    routes:
    - {name: api, match: {segmentPrefix: /api}, cluster: shop}
    - {name: old, match: {path: /old}, redirect: {status: 308, path: /}}
listeners:
- name: web
  address: 127.0.0.1:0
  chains: [{http: {routes: web}}]
- name: raw
  address: 127.0.0.1:0
  chains: [{tcp: {cluster: shop}}]
)";

class ProxyPagesTest : public ::testing::Test {
 protected:
  ProxyPagesTest() {
    telemetry_ = std::move(*proxy::Telemetry::make(*loop_, {}));
    proxy::L7ProxyOptions options;
    options.telemetry = telemetry_.get();
    l7_ = std::move(*proxy::L7Proxy::create(*loop_, {loop_.get()}, options));
    auto config = proxy::model::parse_config(kConfig, "test");
    EXPECT_TRUE(config) << config.error().message;
    auto applied = l7_->apply(*config);
    EXPECT_TRUE(applied) << applied.error().message;
    admin_ = std::move(*AdminServer::create(*loop_, *SockAddr::parse("127.0.0.1:0"), registry_,
                                            [] { return std::string(); }));
    add_proxy_pages(*admin_, {l7_.get(), telemetry_.get(), &registry_});
    scope_ = telemetry_->traffic().scope(Kind::kCluster, "outbound|80||cart.shop");
    scope_->record(0, proxy::TrafficScope::Finished{.status = 200, .duration_us = 1500});
    scope_->record(0, proxy::TrafficScope::Finished{.status = 503, .duration_us = 3000});
    scope_->record(0, proxy::TrafficScope::Bytes{.opened = 2, .closed = 1, .received = 7, .sent = 9});
  }
  ~ProxyPagesTest() override { l7_->stop(); }
  std::string get(const std::string& target, int status = 200) {
    http::Client client(*loop_, {});
    std::optional<Result<http::Response>> answer;
    client.request({.url = "http://" + admin_->local_addr().to_string() + target},
                   [&](Result<http::Response> r) { answer = std::move(r); });
    EXPECT_TRUE(loop_->run_until([&] { return answer.has_value(); }, std::chrono::seconds(10)));
    if (!answer || !*answer) return "";
    EXPECT_EQ((*answer)->status, status) << target;
    return (*answer)->body;
  }
  std::unique_ptr<io::Loop> loop_ = std::move(*io::Loop::create());
  obs::Registry registry_;
  std::unique_ptr<proxy::Telemetry> telemetry_;
  std::unique_ptr<proxy::L7Proxy> l7_;
  std::unique_ptr<AdminServer> admin_;
  proxy::TrafficScopePtr scope_;
};

TEST_F(ProxyPagesTest, StatsInThreeForms) {
  const std::string text = get("/stats");
  EXPECT_THAT(text, HasSubstr("cluster.outbound|80||cart.shop.upstream_rq_2xx: 1\n"));
  EXPECT_THAT(text, HasSubstr("cluster.outbound|80||cart.shop.upstream_rq_5xx: 1\n"));
  EXPECT_THAT(text, HasSubstr("upstream_cx_tcp_active: 1\n"));
  EXPECT_THAT(text, HasSubstr("upstream_rq_time: P0("));
  EXPECT_THAT(text, HasSubstr("listener.web.downstream_rq_completed: 0\n"));
  const json stats = json::parse(get("/stats?format=json&filter=upstream_rq_5xx$"));
  ASSERT_EQ(stats["stats"].size(), 1u);
  EXPECT_EQ(stats["stats"][0]["value"], 1);
  EXPECT_THAT(get("/stats?format=prometheus"), HasSubstr("# TYPE "));
  EXPECT_THAT(get("/stats?filter=(", 400), HasSubstr("filter"));
}

TEST_F(ProxyPagesTest, TrafficByService) {
  const json traffic = json::parse(get("/traffic"));
  EXPECT_GT(traffic["timeUs"].get<int64_t>(), 0);
  ASSERT_EQ(traffic["services"].size(), 1u);
  const json& one = traffic["services"][0];
  EXPECT_EQ(one["service"], "cart.shop:80");
  EXPECT_EQ(one["requests"], 2);
  EXPECT_EQ(one["errors"], 1);
  EXPECT_EQ(one["connections"], 2);
  EXPECT_EQ(one["bytesReceived"], 7);
  ASSERT_EQ(one["latencyUs"].size(), 2u);
  EXPECT_LE(one["latencyUs"][0][0], 1500);
  EXPECT_GT(one["latencyUs"][0][1], 1500);
}

TEST_F(ProxyPagesTest, ListsAndTheConfiguration) {
  EXPECT_THAT(get("/listeners"), HasSubstr("web::127.0.0.1:"));
  EXPECT_THAT(get("/routes"), HasSubstr("web::all::*::api /api"));
  EXPECT_THAT(get("/clusters"), HasSubstr("shop::"));
  const json dump = config_dump(*l7_);
  EXPECT_EQ(dump["clusters"][0]["endpoints"][0]["weight"], 3);
  EXPECT_EQ(dump["clusters"][0]["tls"], true);
  EXPECT_EQ(dump["routes"][0]["hosts"][0]["routes"][0]["match"]["segmentPrefix"], "/api");
  EXPECT_EQ(dump["routes"][0]["hosts"][0]["routes"][1]["redirect"]["status"], 308);
  EXPECT_EQ(dump["listeners"].size(), 2u);
  EXPECT_EQ(dump["telemetry"]["tracing"]["samplePerMillion"], 10'000);
}

TEST(ServiceText, NamesForPeople) {
  EXPECT_EQ(service_text("outbound|80||cart.shop"), "cart.shop:80");
  EXPECT_EQ(service_text("outbound|80|v1|cart.shop.svc.cluster.local"), "cart.shop:80/v1");
  EXPECT_EQ(service_text("database"), "database");
  EXPECT_EQ(service_text("outbound|80"), "outbound|80");
}

}  // namespace
}  // namespace edgemesh::cmd
