// Token buckets, one or one a key. Not thread-safe.
#pragma once

#include <list>
#include <string>
#include <string_view>
#include <unordered_map>

#include "core/base/clock.h"

namespace edgemesh::cloud {

struct Rate {
  double per_second = 10;
  double burst = 20;
};

class TokenBucket {
 public:
  explicit TokenBucket(Rate rate) : rate_(rate), tokens_(rate.burst) {}
  // Takes one token; false when there is none.
  bool take(TimePoint now);
  // Full again: forgetting it changes nothing.
  bool full(TimePoint now) const;

 private:
  Rate rate_;
  double tokens_;
  TimePoint last_{};
};

// One bucket a key (an address, a node). Holds at most `max_keys`: the least recently used is
// forgotten, so that a sender of many keys costs bounded memory.
class KeyedLimiter {
 public:
  explicit KeyedLimiter(Rate rate, size_t max_keys = 10'000) : rate_(rate), max_keys_(max_keys) {}
  bool take(std::string_view key, TimePoint now);
  void forget(std::string_view key);
  size_t size() const { return index_.size(); }

 private:
  struct Entry {
    std::string key;
    TokenBucket bucket;
  };
  Rate rate_;
  size_t max_keys_;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_map<std::string_view, std::list<Entry>::iterator> index_;  // views into entries_
};

}  // namespace edgemesh::cloud
