// Backoff: how long something that keeps failing waits, kubelet's rule: not at all the first time,
// then 10 s, doubled with each failure up to 5 min; forgotten when it held for 10 min. Pure.
#pragma once

#include <algorithm>
#include <chrono>
#include <map>
#include <string>

#include "core/base/clock.h"

namespace edgemesh::edged {

class Backoff {
 public:
  static constexpr Duration kFirst = std::chrono::seconds(10);
  static constexpr Duration kMost = std::chrono::minutes(5);

  // When it may be tried again that failed at `failed`; a time that has passed: now.
  TimePoint ready_at(const std::string& key, TimePoint failed) const {
    const auto it = entries_.find(key);
    if (it == entries_.end() || expired(it->second, failed)) return failed;
    return failed + it->second.wait;
  }
  // It is tried again after the failure at `failed`: the next failure waits longer. Several in one
  // moment count once.
  void next(const std::string& key, TimePoint failed, TimePoint now) {
    auto [it, fresh] = entries_.try_emplace(key, Entry{kFirst, now});
    if (fresh || it->second.updated == now) return;
    const bool over = expired(it->second, failed);
    it->second = {over ? kFirst : std::min(2 * it->second.wait, kMost), now};
  }
  Duration wait_of(const std::string& key) const {
    const auto it = entries_.find(key);
    return it == entries_.end() ? Duration::zero() : it->second.wait;
  }
  void forget(const std::string& key) { entries_.erase(key); }
  // Entries that mean nothing any more.
  void collect(TimePoint now) {
    std::erase_if(entries_, [&](const auto& e) { return expired(e.second, now); });
  }
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    Duration wait;
    TimePoint updated;
  };
  static bool expired(const Entry& entry, TimePoint at) { return at - entry.updated > 2 * kMost; }
  std::map<std::string, Entry> entries_;
};

}  // namespace edgemesh::edged
