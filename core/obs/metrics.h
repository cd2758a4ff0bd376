// Metrics: counters, gauges and histograms, shown in the Prometheus text format (0.0.4).
//
// Values are relaxed atomics: updating one costs a plain add and no lock. A counter that several
// threads would fight over is made once a thread (a label "worker") and summed when scraped by whoever
// reads. Objects live as long as the registry; the same name and labels give the same object.
// Threads: all thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace edgemesh::obs {

using Labels = std::vector<std::pair<std::string, std::string>>;

class Counter {
 public:
  void add(uint64_t n = 1) {
    // One writer a counter: no locked instruction is needed, and a lost race would only lose counts.
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

class Gauge {
 public:
  void set(int64_t v) { value_.store(v, std::memory_order_relaxed); }
  void add(int64_t n) { value_.fetch_add(n, std::memory_order_relaxed); }
  int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

// Fixed upper bounds, ascending; +Inf is added. One writer, as for Counter.
class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds);
  void observe(double value);
  uint64_t count() const;
  double sum() const { return sum_.load(std::memory_order_relaxed); }
  const std::vector<double>& bounds() const { return bounds_; }
  uint64_t bucket(size_t i) const { return buckets_[i].value(); }  // not cumulative

 private:
  std::vector<double> bounds_;
  std::vector<Counter> buckets_;
  std::atomic<double> sum_{0};
};

// 0.5 ms to 10 s, for latencies in seconds.
std::vector<double> latency_buckets();

class Registry {
 public:
  Registry();
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  // `name` follows Prometheus' rules ([a-zA-Z_:][a-zA-Z0-9_:]*); one name has one kind and one help.
  Counter& counter(std::string_view name, std::string_view help, const Labels& labels = {});
  Gauge& gauge(std::string_view name, std::string_view help, const Labels& labels = {});
  Histogram& histogram(std::string_view name, std::string_view help, std::vector<double> bounds,
                       const Labels& labels = {});
  // Runs before each text(): for gauges that are cheaper to read then than to keep. Called on the
  // thread that scrapes.
  void on_scrape(std::function<void()> callback);
  // Runs in each text(), after the registry's own lines: for modules whose rows come and go with the
  // configuration. It appends whole families in the text format. Same thread as on_scrape().
  void on_text(std::function<void(std::string&)> append);
  std::string text();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace edgemesh::obs
