// LatencyHistogram: times from 8 microseconds to 18 minutes in buckets whose width grows with the
// value (8 a power of two: at most 12.5 % wide), in 1.6 KiB. For quantiles on an admin page.
// Threads: one writer; read by any thread. Snapshots are plain values: the difference of two is what
// came between them.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "core/obs/metrics.h"

namespace edgemesh::proxy {

class LatencyHistogram {
 public:
  static constexpr int kUnitShift = 3;    // the unit is 8 us
  static constexpr int kSubShift = 3;     // 8 buckets a power of two
  static constexpr int kMaxShift = 27;    // of units: 2^30 us; longer times are in the last bucket
  static constexpr size_t kBuckets = (kMaxShift - kSubShift + 1) << kSubShift;

  struct Snapshot {
    std::array<uint64_t, kBuckets> buckets{};
    uint64_t sum_us = 0;
    uint64_t count() const {
      uint64_t total = 0;
      for (const uint64_t n : buckets) total += n;
      return total;
    }
    // The middle of the bucket in which the share `q` (0 to 1) of all values is reached; 0: no values.
    uint64_t quantile_us(double q) const {
      const uint64_t total = count();
      const auto wanted = static_cast<uint64_t>(q * static_cast<double>(total) + 0.999999);
      uint64_t seen = 0;
      for (size_t i = 0; i < kBuckets && total > 0; ++i) {
        seen += buckets[i];
        if (seen >= wanted && seen > 0) return (lower_us(i) + lower_us(i + 1)) / 2;
      }
      return 0;
    }
    // Values below 2^shift us; shift from 6 to 30: whole buckets.
    uint64_t below_power(int shift) const {
      uint64_t total = 0;
      const size_t end = bucket_of(uint64_t{1} << shift);
      for (size_t i = 0; i < end; ++i) total += buckets[i];
      return shift >= kMaxShift + kUnitShift ? count() : total;
    }
    Snapshot& operator+=(const Snapshot& other) {
      for (size_t i = 0; i < kBuckets; ++i) buckets[i] += other.buckets[i];
      sum_us += other.sum_us;
      return *this;
    }
    Snapshot& operator-=(const Snapshot& other) {
      for (size_t i = 0; i < kBuckets; ++i) buckets[i] -= other.buckets[i];
      sum_us -= other.sum_us;
      return *this;
    }
  };

  void record(int64_t us) {
    const auto value = static_cast<uint64_t>(std::max<int64_t>(us, 0));
    buckets_[bucket_of(value)].add();
    sum_us_.add(value);
  }
  Snapshot snapshot() const {
    Snapshot out;
    for (size_t i = 0; i < kBuckets; ++i) out.buckets[i] = buckets_[i].value();
    out.sum_us = sum_us_.value();
    return out;
  }

  static constexpr size_t bucket_of(uint64_t us) {
    const uint64_t units = us >> kUnitShift;
    if (units < (1u << kSubShift)) return units;
    const int shift = std::bit_width(units) - 1 - kSubShift;  // the lowest bits that are not looked at
    const size_t bucket = (static_cast<size_t>(shift) << kSubShift) + (units >> shift);
    return std::min(bucket, kBuckets - 1);
  }
  // The least value of a bucket; of kBuckets: the end of the range.
  static constexpr uint64_t lower_us(size_t bucket) {
    if (bucket < (1u << kSubShift)) return bucket << kUnitShift;
    const size_t shift = (bucket >> kSubShift) - 1;
    return ((bucket & ((1u << kSubShift) - 1)) + (1u << kSubShift)) << shift << kUnitShift;
  }

 private:
  std::array<obs::Counter, kBuckets> buckets_;
  obs::Counter sum_us_;
};
static_assert(sizeof(LatencyHistogram) < 2048);

}  // namespace edgemesh::proxy
