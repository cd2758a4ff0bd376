// How much data may wait in send buffers: SendPool is for the whole process, SendBudget for the streams of
// one connection. Each stream may hold about as much as is still free (the dynamic threshold of shared
// memory switches): one alone gets nearly all it can use, n greedy ones come to rest at 1/(n+1) each, and a
// stream that begins late finds its part free. A stream that holds little may always go on, so that no
// stream waits for another: the bound is the limit plus kMinimum a stream.
//
// Threads: SendPool any; SendBudget one loop.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>

namespace edgemesh::io {

class SendPool {
 public:
  explicit SendPool(size_t limit) : limit_(limit) {}
  SendPool(const SendPool&) = delete;
  SendPool& operator=(const SendPool&) = delete;

  // Of all tunnels of this process.
  static SendPool& process() {
    static SendPool pool(256 << 20);
    return pool;
  }
  size_t used() const { return used_.load(std::memory_order_relaxed); }
  size_t left() const { return limit_ - std::min(limit_, used()); }
  void add(size_t n) { used_.fetch_add(n, std::memory_order_relaxed); }
  void remove(size_t n) { used_.fetch_sub(n, std::memory_order_relaxed); }

 private:
  const size_t limit_;
  std::atomic<size_t> used_{0};
};

class SendBudget {
 public:
  static constexpr size_t kMinimum = 16 << 10;  // what every stream may hold

  SendBudget(size_t limit, SendPool& pool) : limit_(limit), pool_(pool) {}
  ~SendBudget() { pool_.remove(told_); }
  SendBudget(const SendBudget&) = delete;
  SendBudget& operator=(const SendBudget&) = delete;

  void take(size_t n) {
    used_ += n;
    if (used_ >= told_ + kStep) tell();
  }
  void give(size_t n) {
    used_ -= std::min(used_, n);
    if (used_ + kStep <= told_ || used_ == 0) tell();
  }
  size_t used() const { return used_; }

  // What a stream that holds `held` bytes may take now. Never a crumb: 0, or at least 1 KiB.
  size_t room(size_t held) const {
    size_t left = std::min(limit_ - std::min(limit_, used_), pool_.left());
    size_t n = left > held ? (left - held) / 2 : 0;  // what it takes is no longer free
    n = std::max(n, kMinimum - std::min(kMinimum, held));
    return n < kCrumb ? 0 : n;
  }

 private:
  static constexpr size_t kStep = 64 << 10;  // the pool, which threads share, is told in steps
  static constexpr size_t kCrumb = 1024;

  void tell() {
    if (used_ > told_)
      pool_.add(used_ - told_);
    else
      pool_.remove(told_ - used_);
    told_ = used_;
  }

  const size_t limit_;
  SendPool& pool_;
  size_t used_ = 0;
  size_t told_ = 0;
};

}  // namespace edgemesh::io
