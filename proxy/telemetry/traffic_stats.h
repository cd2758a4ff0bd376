// TrafficStats: requests by listener, cluster and route: counts by class of answer and a histogram of
// times, each worker with counts of its own, made when its first request comes. A scope is held by
// what it counts for; when the last owner lets go (the configuration dropped it), its rows vanish.
// Limits: at most `max` scopes of a kind; further names share one that is called "_other".
// Threads: TrafficScope::record() on the worker given; all else from any thread.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "core/obs/metrics.h"
#include "proxy/telemetry/latency_histogram.h"

namespace edgemesh::proxy {

class TrafficScope {
 public:
  enum class Kind : uint8_t { kListener, kCluster, kRoute };
  struct Totals {
    std::array<uint64_t, 6> by_class{};  // by the first digit of the status; 0: none was sent
    uint64_t retries = 0, timeouts = 0, resets = 0, bytes_received = 0, bytes_sent = 0;
    uint64_t connections_opened = 0, connections_closed = 0;  // of bytes
    LatencyHistogram::Snapshot latency;
    uint64_t requests() const {
      uint64_t total = 0;
      for (const uint64_t n : by_class) total += n;
      return total;
    }
  };
  struct Finished {
    int status = 0;
    int64_t duration_us = 0;
    uint64_t bytes_received = 0, bytes_sent = 0;  // of bodies
    uint32_t retries = 0;                         // tries after the first
    bool timeout = false, reset = false;          // of the endpoint
  };
  // Of connections that are forwarded as bytes: what became more since the last time.
  struct Bytes {
    uint32_t opened = 0, closed = 0;
    uint64_t received = 0, sent = 0;  // from and to the client
  };

  TrafficScope(Kind kind, std::string name, size_t workers)
      : kind_(kind), name_(std::move(name)), slots_(workers) {}
  ~TrafficScope();
  TrafficScope(const TrafficScope&) = delete;
  TrafficScope& operator=(const TrafficScope&) = delete;

  void record(size_t worker, const Finished& what);
  void record(size_t worker, const Bytes& what);
  Totals totals() const;
  Kind kind() const { return kind_; }
  const std::string& name() const { return name_; }

 private:
  struct Slot {
    std::array<obs::Counter, 6> by_class;
    obs::Counter retries, timeouts, resets, bytes_received, bytes_sent, opened, closed;
    LatencyHistogram latency;
  };
  const Kind kind_;
  const std::string name_;
  Slot& own(size_t worker);
  std::vector<std::atomic<Slot*>> slots_;  // by worker; null: no request yet
};
using TrafficScopePtr = std::shared_ptr<TrafficScope>;

class TrafficStats {
 public:
  explicit TrafficStats(size_t workers, size_t max = 1000) : workers_(workers), max_(max) {}
  // The same kind and name give the same scope while somebody holds it. For when a configuration is
  // taken, not for each request.
  TrafficScopePtr scope(TrafficScope::Kind kind, std::string_view name);
  // Those that are held, by name; of one kind.
  std::vector<std::shared_ptr<const TrafficScope>> scopes(TrafficScope::Kind kind) const;
  // Whole families in Prometheus' text format: for obs::Registry::on_text(). Scopes that no request
  // has come to are left out.
  void append_text(std::string& out) const;

 private:
  const size_t workers_, max_;
  mutable std::mutex mutex_;  // guards scopes_
  std::map<std::string, std::weak_ptr<TrafficScope>, std::less<>> scopes_[3];
  size_t prune_at_[3] = {64, 64, 64};
};

}  // namespace edgemesh::proxy
