#include "cloud/rate_limit.h"

#include <algorithm>

namespace edgemesh::cloud {

bool TokenBucket::take(TimePoint now) {
  if (last_ == TimePoint{}) last_ = now;
  const double seconds = std::chrono::duration<double>(now - last_).count();
  tokens_ = std::min(rate_.burst, tokens_ + seconds * rate_.per_second);
  last_ = now;
  if (tokens_ < 1) return false;
  tokens_ -= 1;
  return true;
}

bool TokenBucket::full(TimePoint now) const {
  const double seconds = std::chrono::duration<double>(now - last_).count();
  return tokens_ + seconds * rate_.per_second >= rate_.burst;
}

bool KeyedLimiter::take(std::string_view key, TimePoint now) {
  if (const auto it = index_.find(key); it != index_.end()) {
    entries_.splice(entries_.begin(), entries_, it->second);
    return it->second->bucket.take(now);
  }
  if (entries_.size() >= max_keys_) {
    index_.erase(entries_.back().key);
    entries_.pop_back();
  }
  entries_.push_front({std::string(key), TokenBucket(rate_)});
  index_.emplace(entries_.front().key, entries_.begin());
  return entries_.front().bucket.take(now);
}

void KeyedLimiter::forget(std::string_view key) {
  const auto it = index_.find(key);
  if (it == index_.end()) return;
  const auto entry = it->second;
  index_.erase(it);
  entries_.erase(entry);
}

}  // namespace edgemesh::cloud
