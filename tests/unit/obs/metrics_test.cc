#include "core/obs/metrics.h"

#include <gtest/gtest.h>

#include <thread>

namespace edgemesh::obs {
namespace {

TEST(MetricsTest, TheSameNameAndLabelsAreTheSameObject) {
  Registry registry;
  Counter& a = registry.counter("x_total", "X.", {{"k", "1"}});

  EXPECT_EQ(&a, &registry.counter("x_total", "X.", {{"k", "1"}}));
  EXPECT_NE(&a, &registry.counter("x_total", "X.", {{"k", "2"}}));
}

TEST(MetricsTest, TextHasOneHelpAndTypeLineAFamily) {
  Registry registry;
  registry.counter("a_total", "Things.", {{"k", "1"}}).add(3);
  registry.counter("a_total", "Things.", {{"k", "2"}}).add();
  registry.gauge("b", "Level.").set(-5);

  EXPECT_EQ(registry.text(),
            "# HELP a_total Things.\n# TYPE a_total counter\na_total{k=\"1\"} 3\na_total{k=\"2\"} 1\n"
            "# HELP b Level.\n# TYPE b gauge\nb -5\n");
}

TEST(MetricsTest, HelpAndLabelValuesAreEscaped) {
  Registry registry;
  registry.gauge("g", "back\\slash and\nnewline \"kept\"", {{"l", "a\"b\\c\nd"}}).set(1);

  EXPECT_EQ(registry.text(),
            "# HELP g back\\\\slash and\\nnewline \"kept\"\n# TYPE g gauge\n"
            "g{l=\"a\\\"b\\\\c\\nd\"} 1\n");
}

TEST(MetricsTest, HistogramBucketsAreCumulativeAndBoundsInclusive) {
  Registry registry;
  Histogram& h = registry.histogram("h", "Times.", {0.1, 1}, {{"k", "v"}});
  for (double v : {0.05, 0.1, 0.5, 7.0}) h.observe(v);

  EXPECT_EQ(h.count(), 4U);
  EXPECT_EQ(registry.text(),
            "# HELP h Times.\n# TYPE h histogram\n"
            "h_bucket{k=\"v\",le=\"0.1\"} 2\nh_bucket{k=\"v\",le=\"1\"} 3\nh_bucket{k=\"v\",le=\"+Inf\"} 4\n"
            "h_sum{k=\"v\"} 7.65\nh_count{k=\"v\"} 4\n");
}

TEST(MetricsTest, ScrapeCallbacksRunBeforeTheText) {
  Registry registry;
  Gauge& g = registry.gauge("g", "G.");
  registry.on_scrape([&] { g.add(1); });

  registry.text();
  EXPECT_NE(registry.text().find("\ng 2\n"), std::string::npos);
}

TEST(MetricsTest, CreationIsThreadSafeAndEachWriterHasItsOwnCounter) {
  Registry registry;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&registry, t] {
      Counter& counter = registry.counter("n_total", "N.", {{"worker", std::to_string(t)}});
      for (int i = 0; i < 10'000; ++i) counter.add();
    });
  }
  registry.text();
  for (auto& thread : threads) thread.join();
  for (int t = 0; t < 4; ++t)
    EXPECT_EQ(registry.counter("n_total", "N.", {{"worker", std::to_string(t)}}).value(), 10'000U);
}

}  // namespace
}  // namespace edgemesh::obs
