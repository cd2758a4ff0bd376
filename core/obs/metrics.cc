#include "core/obs/metrics.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "core/base/result.h"

namespace edgemesh::obs {

namespace {

std::string escape(std::string_view text, bool quotes) {
  std::string out;
  for (char c : text) {
    if (c == '\\')
      out += "\\\\";
    else if (c == '\n')
      out += "\\n";
    else if (c == '"' && quotes)
      out += "\\\"";
    else
      out += c;
  }
  return out;
}

std::string render_labels(const Labels& labels) {
  std::string out;
  for (const auto& [key, value] : labels)
    out += fmt::format("{}{}=\"{}\"", out.empty() ? "" : ",", key, escape(value, true));
  return out;
}

std::string braces(const std::string& labels) { return labels.empty() ? "" : "{" + labels + "}"; }

enum class Kind { kCounter, kGauge, kHistogram };

struct Series {
  std::unique_ptr<Counter> counter;
  std::unique_ptr<Gauge> gauge;
  std::unique_ptr<Histogram> histogram;
};

struct Family {
  Kind kind;
  std::string help;
  std::map<std::string, Series> series;  // by rendered labels
};

void render_histogram(std::string& out, const std::string& name, const std::string& labels,
                      const Histogram& h) {
  std::string comma = labels.empty() ? "" : ",";
  uint64_t total = 0;
  for (size_t i = 0; i <= h.bounds().size(); ++i) {
    total += h.bucket(i);
    std::string le = i < h.bounds().size() ? fmt::format("{}", h.bounds()[i]) : "+Inf";
    out += fmt::format("{}_bucket{{{}{}le=\"{}\"}} {}\n", name, labels, comma, le, total);
  }
  out += fmt::format("{}_sum{} {}\n{}_count{} {}\n", name, braces(labels), h.sum(), name,
                     braces(labels), total);
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), buckets_(bounds_.size() + 1) {}

void Histogram::observe(double value) {
  auto it = std::lower_bound(bounds_.begin(), bounds_.end(), value);
  buckets_[static_cast<size_t>(it - bounds_.begin())].add();
  sum_.store(sum_.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
}

uint64_t Histogram::count() const {
  uint64_t total = 0;
  for (const auto& bucket : buckets_) total += bucket.value();
  return total;
}

std::vector<double> latency_buckets() {
  return {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};
}

struct Registry::Impl {
  std::mutex mutex;  // guards all below
  std::map<std::string, Family, std::less<>> families;
  std::vector<std::function<void()>> on_scrape;
  std::vector<std::function<void(std::string&)>> on_text;

  std::string render();

  Series& series(std::string_view name, std::string_view help, Kind kind, const Labels& labels) {
    auto it = families.find(name);
    if (it == families.end())
      it = families.emplace(std::string(name), Family{kind, std::string(help), {}}).first;
    EM_CHECK(it->second.kind == kind);
    return it->second.series[render_labels(labels)];
  }
};

Registry::Registry() : impl_(std::make_unique<Impl>()) {}
Registry::~Registry() = default;

Counter& Registry::counter(std::string_view name, std::string_view help, const Labels& labels) {
  std::lock_guard lock(impl_->mutex);
  auto& series = impl_->series(name, help, Kind::kCounter, labels);
  if (!series.counter) series.counter = std::make_unique<Counter>();
  return *series.counter;
}

Gauge& Registry::gauge(std::string_view name, std::string_view help, const Labels& labels) {
  std::lock_guard lock(impl_->mutex);
  auto& series = impl_->series(name, help, Kind::kGauge, labels);
  if (!series.gauge) series.gauge = std::make_unique<Gauge>();
  return *series.gauge;
}

Histogram& Registry::histogram(std::string_view name, std::string_view help,
                               std::vector<double> bounds, const Labels& labels) {
  std::lock_guard lock(impl_->mutex);
  auto& series = impl_->series(name, help, Kind::kHistogram, labels);
  if (!series.histogram) series.histogram = std::make_unique<Histogram>(std::move(bounds));
  return *series.histogram;
}

void Registry::on_scrape(std::function<void()> callback) {
  std::lock_guard lock(impl_->mutex);
  impl_->on_scrape.push_back(std::move(callback));
}

void Registry::on_text(std::function<void(std::string&)> append) {
  std::lock_guard lock(impl_->mutex);
  impl_->on_text.push_back(std::move(append));
}

std::string Registry::text() {
  std::vector<std::function<void()>> callbacks;
  std::vector<std::function<void(std::string&)>> appends;
  {
    std::lock_guard lock(impl_->mutex);
    callbacks = impl_->on_scrape;
    appends = impl_->on_text;
  }
  for (const auto& callback : callbacks) callback();
  std::string out = impl_->render();
  for (const auto& append : appends) append(out);
  return out;
}

std::string Registry::Impl::render() {
  std::lock_guard lock(mutex);
  std::string out;
  for (const auto& [name, family] : families) {
    const char* kind = family.kind == Kind::kCounter ? "counter"
                       : family.kind == Kind::kGauge ? "gauge"
                                                     : "histogram";
    out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, escape(family.help, false), name, kind);
    for (const auto& [labels, series] : family.series) {
      if (series.counter) out += fmt::format("{}{} {}\n", name, braces(labels), series.counter->value());
      if (series.gauge) out += fmt::format("{}{} {}\n", name, braces(labels), series.gauge->value());
      if (series.histogram) render_histogram(out, name, labels, *series.histogram);
    }
  }
  return out;
}

}  // namespace edgemesh::obs
