#include "proxy/telemetry/telemetry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/telemetry/response_flags.h"

namespace edgemesh::proxy {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class TelemetryTest : public ::testing::Test {
 protected:
  std::unique_ptr<Telemetry> make(TelemetryOptions options) {
    auto made = Telemetry::make(*loop_, std::move(options));
    EXPECT_TRUE(made) << made.error().message;
    return std::move(*made);
  }
  static std::string text_of(const Telemetry& telemetry) {
    std::string out;
    telemetry.append_text(out);
    return out;
  }
  std::unique_ptr<io::Loop> loop_ = std::move(*io::Loop::create());
};

TEST_F(TelemetryTest, LabelsAreMadeOnceAWorker) {
  auto telemetry = make({.workers = 2, .node = "edge-1", .flags_text = flags_text});
  WorkerTelemetry& worker = telemetry->worker(0);
  tls::PeerIdentity web;
  web.sha256 = "aa";
  web.uri_sans = {"spiffe://mesh/ns/shop/sa/web"};
  EXPECT_EQ(worker.source_of(nullptr, false), kUnknownPeer);
  const auto own = worker.source_of(nullptr, true);
  EXPECT_NE(own, kUnknownPeer);
  const auto id = worker.source_of(&web, true);
  EXPECT_NE(id, own);
  EXPECT_EQ(id, worker.source_of(&web, false));
  EXPECT_EQ(id, telemetry->worker(1).source_of(&web, false));
  EXPECT_EQ(worker.source_node("edge-1"), own);
  const auto* service = worker.service("shop", "cart", 80, "edge-2");
  ASSERT_NE(service, nullptr);
  EXPECT_EQ(service->scope->name(), "outbound|80||cart.shop");
  const auto destination = service->destination;
  EXPECT_EQ(worker.service("shop", "cart", 80, "edge-2")->destination, destination);
  EXPECT_NE(worker.service("shop", "cart", 80, "edge-3")->destination, destination);
  worker.requests()->record(RequestRecord{id, destination});
  const std::string text = text_of(*telemetry);
  EXPECT_THAT(text, HasSubstr("source_principal=\"spiffe://mesh/ns/shop/sa/web\""));
  EXPECT_THAT(text, HasSubstr("destination_node=\"edge-2\""));
  EXPECT_THAT(text, HasSubstr("destination_service_name=\"cart\""));
}

TEST_F(TelemetryTest, WithoutMetricsNothingIsCounted) {
  TelemetryOptions options;
  options.spec.metrics = false;
  auto telemetry = make(std::move(options));
  EXPECT_EQ(telemetry->requests(), nullptr);
  EXPECT_EQ(telemetry->worker(0).requests(), nullptr);
  EXPECT_EQ(telemetry->worker(0).spans(), nullptr);
  EXPECT_EQ(telemetry->worker(0).service("a", "b", 1, ""), nullptr);
  EXPECT_EQ(telemetry->worker(0).source_of(nullptr, true), kUnknownPeer);
  EXPECT_THAT(text_of(*telemetry), Not(HasSubstr("istio_")));
}

TEST_F(TelemetryTest, ScopesAreBounded) {
  TrafficStats stats(1, 3);
  std::vector<TrafficScopePtr> held;
  for (int i = 0; i < 10; ++i)
    held.push_back(stats.scope(TrafficScope::Kind::kRoute, std::to_string(i)));
  EXPECT_EQ(held[2]->name(), "2");
  EXPECT_EQ(held[3]->name(), "_other");
  EXPECT_EQ(held[3], held[9]);
  held.erase(held.begin());  // "_other" takes a place
  EXPECT_EQ(stats.scope(TrafficScope::Kind::kRoute, "new")->name(), "_other");
  held.erase(held.begin());
  EXPECT_EQ(stats.scope(TrafficScope::Kind::kRoute, "new")->name(), "new");
}

TEST_F(TelemetryTest, ErrorsNameTheUrl) {
  TelemetryOptions options;
  options.spec.tracing.url = "http://";
  EXPECT_FALSE(Telemetry::make(*loop_, std::move(options)));
}

}  // namespace
}  // namespace edgemesh::proxy
