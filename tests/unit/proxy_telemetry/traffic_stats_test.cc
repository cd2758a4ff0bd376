#include "proxy/telemetry/traffic_stats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace edgemesh::proxy {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Kind = TrafficScope::Kind;

TEST(LatencyHistogram, BucketsAreInOrderAndNarrow) {
  for (size_t i = 0; i + 1 < LatencyHistogram::kBuckets; ++i) {
    const uint64_t low = LatencyHistogram::lower_us(i), end = LatencyHistogram::lower_us(i + 1);
    ASSERT_LT(low, end);
    ASSERT_EQ(LatencyHistogram::bucket_of(low), i);
    ASSERT_EQ(LatencyHistogram::bucket_of(end - 1), i);
    if (low >= 64) {
      ASSERT_LE((end - low) * 8, low) << low;
    }
  }
  EXPECT_EQ(LatencyHistogram::lower_us(LatencyHistogram::kBuckets), uint64_t{1} << 30);
  EXPECT_EQ(LatencyHistogram::bucket_of(~uint64_t{0}), LatencyHistogram::kBuckets - 1);
}

TEST(LatencyHistogram, Quantiles) {
  LatencyHistogram histogram;
  EXPECT_EQ(histogram.snapshot().quantile_us(0.5), 0u);
  for (int i = 1; i <= 1000; ++i) histogram.record(i * 100);  // 0.1 to 100 ms
  const auto snapshot = histogram.snapshot();
  EXPECT_NEAR(static_cast<double>(snapshot.quantile_us(0.5)), 50'000, 50'000 * 0.07);
  EXPECT_NEAR(static_cast<double>(snapshot.quantile_us(0.99)), 99'000, 99'000 * 0.07);
  EXPECT_NEAR(static_cast<double>(snapshot.quantile_us(0)), 100, 8);
  EXPECT_NEAR(static_cast<double>(snapshot.quantile_us(1)), 100'000, 100'000 * 0.07);
  EXPECT_EQ(snapshot.count(), 1000u);
  EXPECT_EQ(snapshot.sum_us, 50'050'000u);
  EXPECT_EQ(snapshot.below_power(10), 10u);  // 1024 us
  EXPECT_EQ(snapshot.below_power(30), 1000u);
  histogram.record(-5);
  histogram.record(INT64_MAX);
  auto later = histogram.snapshot();
  later -= snapshot;
  EXPECT_EQ(later.count(), 2u);
  EXPECT_LE(later.quantile_us(0.5), 8u);
}

TEST(TrafficStats, CountsByWorkerAreSummed) {
  TrafficStats stats(2);
  const auto scope = stats.scope(Kind::kCluster, "cart\"1");
  EXPECT_EQ(scope, stats.scope(Kind::kCluster, "cart\"1"));
  EXPECT_NE(scope, stats.scope(Kind::kRoute, "cart\"1"));
  scope->record(0, {.status = 200, .duration_us = 1000, .bytes_received = 3, .bytes_sent = 9});
  scope->record(1, {.status = 503, .duration_us = 5000, .retries = 2, .timeout = true, .reset = true});
  scope->record(1, {.status = 0});
  scope->record(1, {.status = 999});
  std::string text;
  stats.append_text(text);
  for (const auto* line :
       {"edgemesh_http_upstream_rq_total{cluster=\"cart\\\"1\",code_class=\"2xx\"} 1\n",
        "edgemesh_http_upstream_rq_total{cluster=\"cart\\\"1\",code_class=\"5xx\"} 1\n",
        "edgemesh_http_upstream_rq_total{cluster=\"cart\\\"1\",code_class=\"none\"} 2\n",
        "edgemesh_http_upstream_rq_retry_total{cluster=\"cart\\\"1\"} 2\n",
        "edgemesh_http_upstream_rq_timeout_total{cluster=\"cart\\\"1\"} 1\n",
        "edgemesh_http_upstream_rq_reset_total{cluster=\"cart\\\"1\"} 1\n",
        "edgemesh_http_upstream_rq_received_bytes_total{cluster=\"cart\\\"1\"} 3\n",
        "edgemesh_http_upstream_rq_time_seconds_bucket{cluster=\"cart\\\"1\",le=\"0.001024\"} 3\n",
        "edgemesh_http_upstream_rq_time_seconds_bucket{cluster=\"cart\\\"1\",le=\"+Inf\"} 4\n",
        "edgemesh_http_upstream_rq_time_seconds_sum{cluster=\"cart\\\"1\"} 0.006\n"})
    EXPECT_THAT(text, HasSubstr(line));
  EXPECT_EQ(scope->totals().requests(), 4u);
}

TEST(TrafficStats, RowsGoWithTheirOwner) {
  TrafficStats stats(1);
  auto listener = stats.scope(Kind::kListener, "in");
  listener->record(0, {.status = 200});
  const auto idle = stats.scope(Kind::kListener, "idle");
  std::string text;
  stats.append_text(text);
  EXPECT_THAT(text, HasSubstr("edgemesh_http_downstream_rq_total{listener=\"in\",code_class=\"2xx\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("idle")));
  listener.reset();
  text.clear();
  stats.append_text(text);
  EXPECT_THAT(text, Not(HasSubstr("listener=\"in\"")));
  ASSERT_EQ(stats.scopes(Kind::kListener).size(), 1u);
  for (int i = 0; i < 1000; ++i) (void)stats.scope(Kind::kListener, std::to_string(i));
  EXPECT_EQ(stats.scopes(Kind::kListener).size(), 1u);
  EXPECT_EQ(idle, stats.scope(Kind::kListener, "idle"));
}

}  // namespace
}  // namespace edgemesh::proxy
