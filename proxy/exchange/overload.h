// Overload: what a process takes on at most, and how much memory it has in use; shared by its
// workers. Past 90 % of a limit on memory (kTight) connections have one more request each; at the
// limit (kShed) requests are answered 503 and new connections are closed, until it is below 85 %
// again. Past 90 % of the connections each has one more request, so that others find room.
// Threads: set() and note_*() on the main loop, the rest on any worker; no lock.
#pragma once

#include <atomic>
#include <cstdint>

#include "proxy/model/overload.h"

namespace edgemesh::proxy {

// In access logs, of a request that was refused for want of memory.
inline constexpr const char* kNoMemory = "overload_memory";

class Overload {
 public:
  enum Level : uint8_t { kFine, kTight, kShed };

  void set(const model::Overload& limits, size_t workers);
  // In bytes. True when the level changed.
  bool note_memory(uint64_t in_use);
  // To be asked now and then. True when connections began to be refused since, or no longer are.
  bool note_refusals();
  bool refusing() const { return refusing_; }

  Level level() const { return level_.load(std::memory_order_relaxed); }
  uint64_t max_memory() const { return max_memory_; }
  // False: one too many; it is counted as refused.
  bool take_connection();
  void give_connection() { connections_.fetch_sub(1, std::memory_order_relaxed); }
  bool many_connections() const {
    const uint64_t soft = soft_connections_.load(std::memory_order_relaxed);
    return soft != UINT64_MAX && connections_.load(std::memory_order_relaxed) >= soft;
  }
  // Whether a worker that has `active` requests open has one too many.
  bool too_many_requests(uint64_t active) const {
    return active > max_requests_.load(std::memory_order_relaxed);
  }
  uint64_t connections() const { return connections_.load(std::memory_order_relaxed); }
  uint64_t refused() const { return refused_.load(std::memory_order_relaxed); }
  uint64_t max_connections() const { return max_connections_.load(std::memory_order_relaxed); }
  uint64_t memory() const { return memory_.load(std::memory_order_relaxed); }

 private:
  // Read with each request, seldom written.
  std::atomic<Level> level_{kFine};
  std::atomic<uint64_t> max_connections_{UINT64_MAX}, soft_connections_{UINT64_MAX};
  std::atomic<uint64_t> max_requests_{UINT64_MAX};  // of a worker
  uint64_t max_memory_ = 0;                         // 0: no limit
  uint64_t refused_before_ = 0;
  bool refusing_ = false;
  // Written with each connection: on a cache line of their own.
  alignas(64) std::atomic<uint64_t> connections_{0};
  std::atomic<uint64_t> refused_{0}, memory_{0};
};

// Resident memory of this process, in bytes; 0: the system does not say.
uint64_t resident_memory();

}  // namespace edgemesh::proxy
