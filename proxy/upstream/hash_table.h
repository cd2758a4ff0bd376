// Tables for consistent hashing: a ring (Karger) and Maglev (Eisenbud et al., NSDI 2016,
// section 3.4) with weights. Built off the workers, immutable, shared by all of them. They hold all
// hosts, healthy or not: who meets one that cannot be used goes on with next(), so that a host's
// keys spread over the others while it is ill, no other key moves, and nothing is built anew when
// health changes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace edgemesh::proxy {

struct HashedHost {
  uint64_t key = 0;   // hash of its address: the same in every process
  double weight = 1;  // relative to the others, > 0
};

class HashTable {
 public:
  // At least ring_min points together, less than twice as many, at most about ring_max; each host
  // has one at least.
  static HashTable ring(std::span<const HashedHost> hosts, uint32_t ring_min, uint32_t ring_max);
  // `size` is a prime; more hosts than slots leave some without one.
  static HashTable maglev(std::span<const HashedHost> hosts, uint32_t size);

  // Walks the hosts of a key: host() first, then after each next() another candidate (the same host
  // may come again). The hosts must not be empty.
  class Walk {
   public:
    Walk(const HashTable& table, uint64_t hash);
    uint32_t host() const;
    void next();

   private:
    const HashTable& table_;
    uint64_t hash_;
    size_t at_;
  };

  bool empty() const { return points_.empty() && slots_.empty(); }
  size_t size() const { return points_.size() + slots_.size(); }

 private:
  struct Point {
    uint64_t hash;
    uint32_t host;
  };
  std::vector<Point> points_;    // ring: sorted by hash
  std::vector<uint32_t> slots_;  // Maglev
};

}  // namespace edgemesh::proxy
