#include "proxy/telemetry/request_stats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace edgemesh::proxy {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string text_of(const RequestStats& stats) {
  std::string out;
  stats.append_text(out);
  return out;
}

RequestRecord request(LabelSetId source, LabelSetId destination) {
  RequestRecord what;
  what.source = source;
  what.destination = destination;
  what.status = 200;
  what.duration_us = 4'000;
  what.request_bytes = 7;
  what.response_bytes = 70;
  return what;
}

TEST(RequestStats, IstiosLabelsSummedOverWorkers) {
  RequestStats stats({.workers = 2, .flags_text = [](uint32_t) -> std::string_view { return "UF"; }});
  StatsPeer from, to;
  from.workload = "web";
  from.ns = "shop";
  from.principal = "spiffe://cluster.local/ns/shop/sa/web";
  to.workload = "cart-v1";
  const auto source = stats.intern_source(from);
  const auto destination =
      stats.intern_destination(to, {"cart.shop.svc.cluster.local", "cart", "shop"});
  EXPECT_EQ(source, stats.intern_source(from));
  auto what = request(source, destination);
  what.reporter = StatsReporter::kDestination;
  what.security = StatsSecurity::kMutualTls;
  what.flags = 1;
  what.status = 503;
  stats.worker(0).record(what);
  stats.worker(1).record(what);
  const std::string text = text_of(stats);
  const std::string labels =
      "reporter=\"destination\",source_workload=\"web\",source_canonical_service=\"unknown\","
      "source_canonical_revision=\"unknown\",source_workload_namespace=\"shop\","
      "source_principal=\"spiffe://cluster.local/ns/shop/sa/web\",source_app=\"unknown\","
      "source_version=\"unknown\",source_cluster=\"unknown\",destination_workload=\"cart-v1\","
      "destination_canonical_service=\"unknown\",destination_canonical_revision=\"unknown\","
      "destination_workload_namespace=\"unknown\",destination_principal=\"unknown\","
      "destination_app=\"unknown\",destination_version=\"unknown\",destination_cluster=\"unknown\","
      "destination_service=\"cart.shop.svc.cluster.local\",destination_service_name=\"cart\","
      "destination_service_namespace=\"shop\",request_protocol=\"http\",response_code=\"503\","
      "grpc_response_status=\"\",response_flags=\"UF\",connection_security_policy=\"mutual_tls\"";
  EXPECT_THAT(text, HasSubstr("istio_requests_total{" + labels + "} 2\n"));
  const std::string bucket = "istio_request_duration_milliseconds_bucket{" + labels;
  EXPECT_THAT(text, HasSubstr(bucket + ",le=\"1\"} 0\n"));
  EXPECT_THAT(text, HasSubstr(bucket + ",le=\"5\"} 2\n"));
  EXPECT_THAT(text, HasSubstr(bucket + ",le=\"+Inf\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("istio_request_duration_milliseconds_sum{" + labels + "} 8\n"));
  EXPECT_THAT(text, HasSubstr("istio_request_bytes_sum{" + labels + "} 14\n"));
  EXPECT_THAT(text, HasSubstr("istio_response_bytes_count{" + labels + "} 2\n"));
}

TEST(RequestStats, BoundsAreIncluded) {
  RequestStats stats({});
  auto what = request(0, 0);
  for (const int64_t us : std::initializer_list<int64_t>{500, 501, 1000, 3'600'000'000, 3'600'000'001}) {
    what.duration_us = us;
    what.request_bytes = us == 500 ? 0 : 1;
    stats.worker(0).record(what);
  }
  const std::string text = text_of(stats);
  const auto value = [&](const std::string& name, const std::string& le) {
    size_t at = text.find(name + "_bucket{");
    at = text.find(",le=\"" + le + "\"} ", at);
    return std::stoi(text.substr(text.find("} ", at) + 2));
  };
  EXPECT_EQ(value("istio_request_duration_milliseconds", "0.5"), 1);
  EXPECT_EQ(value("istio_request_duration_milliseconds", "1"), 3);
  EXPECT_EQ(value("istio_request_duration_milliseconds", "3600000"), 4);
  EXPECT_EQ(value("istio_request_duration_milliseconds", "+Inf"), 5);
  EXPECT_EQ(value("istio_request_bytes", "0.5"), 1);
  EXPECT_EQ(value("istio_request_bytes", "1"), 5);
}

TEST(RequestStats, Grpc) {
  RequestStats stats({});
  auto what = request(0, 0);
  what.protocol = StatsProtocol::kGrpc;
  what.grpc_status = 14;
  stats.worker(0).record(what);
  what.grpc_status = 1'000'000;
  stats.worker(0).record(what);
  const std::string text = text_of(stats);
  EXPECT_THAT(text, HasSubstr("request_protocol=\"grpc\",response_code=\"200\",grpc_response_status=\"14\""));
  EXPECT_THAT(text, HasSubstr("grpc_response_status=\"2\""));
}

TEST(RequestStats, Tcp) {
  RequestStats stats({.workers = 2});
  TcpRecord what;
  what.opened = 1;
  stats.worker(0).record(what);
  what = {};
  what.closed = 1;
  what.sent = 10;
  what.received = 20;
  stats.worker(1).record(what);
  const std::string text = text_of(stats);
  for (const auto* line :
       {"istio_tcp_connections_opened_total{", "istio_tcp_connections_closed_total{"})
    EXPECT_THAT(text, HasSubstr(line));
  const auto value = [&](const std::string& name) {
    return text.substr(text.find("} ", text.find("\n" + name + "{")) + 2, 2);
  };
  EXPECT_EQ(value("istio_tcp_connections_opened_total"), "1\n");
  EXPECT_EQ(value("istio_tcp_connections_closed_total"), "1\n");
  EXPECT_EQ(value("istio_tcp_sent_bytes_total"), "10");
  EXPECT_EQ(value("istio_tcp_received_bytes_total"), "20");
  EXPECT_THAT(text, HasSubstr("request_protocol=\"tcp\",response_flags=\"-\""));
}

TEST(RequestStats, TooManySetsAreOther) {
  RequestStats stats({.workers = 2, .max_sets = 100});
  auto what = request(0, 0);
  for (int i = 0; i < 1000; ++i) {
    what.flags = static_cast<uint32_t>(i);
    stats.worker(0).record(what);
    stats.worker(1).record(what);
  }
  const std::string text = text_of(stats);
  size_t lines = 0, at = 0;
  uint64_t total = 0;
  while ((at = text.find("\nistio_requests_total{", at)) != std::string::npos) {
    ++lines;
    at = text.find("} ", at);
    total += std::stoull(text.substr(at + 2));
  }
  EXPECT_EQ(lines, 101u);
  EXPECT_EQ(total, 2000u);
  EXPECT_THAT(text, HasSubstr("edgemesh_stats_overflow_total 1800\n"));
  EXPECT_THAT(text, HasSubstr("{reporter=\"other\",source_workload=\"other\""));
}

TEST(RequestStats, TooManyPeersAreOther) {
  RequestStats stats({.max_sets = 10});
  StatsPeer peer;
  LabelSetId last = 0;
  for (int i = 0; i < 100; ++i) {
    peer.workload = std::to_string(i);
    last = stats.intern_source(peer);
  }
  EXPECT_EQ(last, kOtherPeer);
  stats.worker(0).record(request(last, 0));
  EXPECT_THAT(text_of(stats), HasSubstr("reporter=\"source\",source_workload=\"other\""));
}

TEST(RequestStats, LabelsAreEscapedAndCut) {
  RequestStats stats({});
  StatsPeer peer;
  peer.workload = "a\"b\\c\nd";
  peer.app = std::string(1000, 'x');
  stats.worker(0).record(request(stats.intern_source(peer), 0));
  const std::string text = text_of(stats);
  EXPECT_THAT(text, HasSubstr("source_workload=\"a\\\"b\\\\c\\nd\""));
  EXPECT_THAT(text, HasSubstr("source_app=\"" + std::string(253, 'x') + "\""));
}

TEST(RequestStats, PeerOfCertificate) {
  EXPECT_EQ(peer_of(nullptr).principal, "");
  tls::PeerIdentity identity;
  identity.common_name = "node-1";
  EXPECT_EQ(peer_of(&identity).principal, "node-1");
  identity.uri_sans = {"https://x", "spiffe://cluster.local/ns/shop/sa/web"};
  EXPECT_EQ(peer_of(&identity).principal, "spiffe://cluster.local/ns/shop/sa/web");
  EXPECT_EQ(peer_of(&identity).ns, "shop");
}

TEST(RequestStats, ScrapedWhileWorkersRecord) {
  RequestStats stats({.workers = 2, .max_sets = 500});
  std::vector<std::thread> workers;
  for (size_t w = 0; w < 2; ++w)
    workers.emplace_back([&, w] {
      for (uint32_t i = 0; i < 20'000; ++i) {
        StatsPeer peer;
        peer.workload = std::to_string(i % 300);
        auto what = request(stats.intern_source(peer), 0);
        stats.worker(w).record(what);
      }
    });
  for (int i = 0; i < 5; ++i) EXPECT_THAT(text_of(stats), HasSubstr("istio_requests_total"));
  for (auto& worker : workers) worker.join();
  const std::string text = text_of(stats);
  uint64_t total = 0;
  for (size_t at = 0; (at = text.find("\nistio_requests_total{", at)) != std::string::npos;) {
    at = text.find("} ", at);
    total += std::stoull(text.substr(at + 2));
  }
  EXPECT_EQ(total, 40'000u);
}

}  // namespace
}  // namespace edgemesh::proxy
