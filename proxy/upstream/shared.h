// What all threads know of a cluster and of its endpoints: health, ejections, open requests against
// the limits, and each worker's counters. All of it is relaxed atomics; none is written in the
// steady state but a worker's own counters and, now and then, the breakers.
//
// Life: made on the main loop by HostSet::build(), kept for an endpoint's address (and a cluster's
// name) over all changes of the configuration.
// Threads: all, apart from what is marked.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "core/base/clock.h"
#include "core/base/net_addr.h"
#include "core/obs/metrics.h"
#include "proxy/model/cluster.h"

namespace edgemesh::proxy {

// A T for each worker, made when the worker first asks for it. One writer each.
template <class T>
class PerWorker {
 public:
  explicit PerWorker(int workers)
      : workers_(workers),
        slots_(std::make_unique<std::atomic<T*>[]>(static_cast<size_t>(workers))) {}
  ~PerWorker() {
    for (int i = 0; i < workers_; ++i) delete slots_[static_cast<size_t>(i)].load();
  }
  PerWorker(const PerWorker&) = delete;
  PerWorker& operator=(const PerWorker&) = delete;

  int workers() const { return workers_; }
  T& own(int worker) {  // on that worker only
    auto& slot = slots_[static_cast<size_t>(worker)];
    T* made = slot.load(std::memory_order_relaxed);
    if (made == nullptr) slot.store(made = new T(), std::memory_order_release);
    return *made;
  }
  const T* peek(int worker) const {
    return slots_[static_cast<size_t>(worker)].load(std::memory_order_acquire);
  }
  template <class Visit>
  void for_each(const Visit& visit) const {
    for (int i = 0; i < workers_; ++i)
      if (const T* made = peek(i)) visit(*made);
  }

 private:
  int workers_;
  std::unique_ptr<std::atomic<T*>[]> slots_;
};

// A number that may go down: one writer, any reader.
class Level {
 public:
  void up() { value_.store(value() + 1, std::memory_order_relaxed); }
  void down() { value_.store(value() - 1, std::memory_order_relaxed); }
  uint32_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint32_t> value_{0};
};

// One worker's counts of one endpoint.
struct alignas(64) HostStats {
  obs::Counter requests;          // that were given to it
  obs::Counter successes;         // answers below 500
  obs::Counter errors;            // answers from 500, resets, timeouts
  obs::Counter connections;       // opened
  obs::Counter connect_failures;  // and those that timed out
  Level active_requests;
  Level active_connections;
};

// One worker's counts of one cluster.
struct alignas(64) ClusterStats {
  obs::Counter requests, retries, retries_refused;
  obs::Counter successes, errors;
  obs::Counter connections, connect_failures, connect_timeouts, connections_closed;
  obs::Counter closed_by_peer, closed_idle, closed_max_requests, closed_host_removed;
  obs::Counter pending_total, pending_overflow, pending_failed, pending_cancelled;
  obs::Counter connection_overflow, request_overflow;
  obs::Counter no_host, panic_picks, fallback_picks, affinity_hits, retried_other_host;
  Level active_requests, active_connections, active_pending;
};

class SharedHost {
 public:
  enum Flag : uint32_t {
    kCheckFailed = 1,  // an active check failed, or none was made yet
    kEjected = 2,      // by outlier detection
  };
  SharedHost(const SockAddr& address, int workers) : addr(address), stats(workers) {}

  const SockAddr addr;
  PerWorker<HostStats> stats;
  std::atomic<uint32_t> flags{0};

  // Outlier detection (outlier.h).
  std::atomic<uint32_t> consecutive_5xx{0};
  std::atomic<uint32_t> consecutive_gateway{0};
  std::atomic<uint32_t> consecutive_local{0};
  std::atomic<uint32_t> ejections{0};     // in a row
  std::atomic<int64_t> ejected_until{0};  // TimePoint in ns
  std::atomic<uint64_t> ejected_total{0};
  // Slow start: when it joined or came back; 0: long ago.
  std::atomic<int64_t> fresh_since{0};

  // Active checks.
  std::atomic<uint64_t> checks{0}, check_failures{0};
  bool was_healthy = false;  // the checker's loop only

  // Main loop only.
  uint64_t swept_requests = 0, swept_successes = 0;  // totals at the last sweep
  double success_rate = -1;                          // percent, of the last interval; < 0: too few

  bool has(Flag flag) const { return (flags.load(std::memory_order_relaxed) & flag) != 0; }
  // True when that changed something. The caller raises the cluster's epoch.
  bool set(Flag flag, bool on) {
    const uint32_t before = on ? flags.fetch_or(flag) : flags.fetch_and(~uint32_t{flag});
    return ((before & flag) != 0) != on;
  }
};

// Open things of all workers together, against the limits of a CircuitBreaker.
struct alignas(64) BreakerCounts {
  std::atomic<uint32_t> connections{0}, pending{0}, requests{0}, retries{0};
};

class SharedCluster {
 public:
  SharedCluster(std::string cluster_name, int workers)
      : name(std::move(cluster_name)), stats(workers) {}

  const std::string name;
  PerWorker<ClusterStats> stats;
  // Raised when a flag of a host changed: workers then look at all hosts again.
  std::atomic<uint32_t> epoch{0};
  std::atomic<uint32_t> ejected{0};  // hosts
  BreakerCounts breakers[2];         // by RequestPriority

  void raise_epoch() { epoch.fetch_add(1, std::memory_order_release); }
};

}  // namespace edgemesh::proxy
