#include "proxy/upstream/hash_table.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "proxy/upstream/hash.h"

namespace edgemesh::proxy {

HashTable HashTable::ring(std::span<const HashedHost> hosts, uint32_t ring_min, uint32_t ring_max) {
  HashTable table;
  if (hosts.empty()) return table;
  double sum = 0;
  double least = hosts[0].weight;
  for (const auto& host : hosts) {
    sum += host.weight;
    least = std::min(least, host.weight);
  }
  // Points of the lightest host: a power of two, so that a host more or less seldom changes how
  // many the others have (each change moves some of their keys).
  const double least_share = least / sum;
  const auto points = std::bit_ceil(static_cast<uint64_t>(std::ceil(least_share * ring_min)));
  double unit = static_cast<double>(points) / least;
  if (unit * sum > ring_max) unit = ring_max / sum;
  table.points_.reserve(static_cast<size_t>(unit * sum) + hosts.size());
  for (uint32_t i = 0; i < hosts.size(); ++i) {
    const auto count = static_cast<uint64_t>(std::max(std::round(unit * hosts[i].weight), 1.0));
    for (uint64_t n = 0; n < count; ++n)
      table.points_.push_back({mix64(hosts[i].key + n * 0x9e3779b97f4a7c15ULL), i});
  }
  std::sort(table.points_.begin(), table.points_.end(),
            [](const Point& a, const Point& b) { return a.hash < b.hash; });
  table.points_.shrink_to_fit();
  return table;
}

HashTable HashTable::maglev(std::span<const HashedHost> hosts, uint32_t size) {
  HashTable table;
  if (hosts.empty()) return table;
  struct Turn {
    uint64_t at, skip;
    double due = 0;
  };
  double most = 0;
  for (const auto& host : hosts) most = std::max(most, host.weight);
  std::vector<Turn> turns;
  turns.reserve(hosts.size());
  for (const auto& host : hosts)
    turns.push_back(
        {mix64(host.key) % size, mix64(host.key ^ 0x5851f42d4c957f2dULL) % (size - 1) + 1, 0});

  constexpr uint32_t kFree = UINT32_MAX;
  table.slots_.assign(size, kFree);
  // Hosts take turns at their next free slot; one with half the weight of the heaviest passes every
  // other turn.
  for (uint32_t filled = 0; filled < size;) {
    for (uint32_t i = 0; i < hosts.size() && filled < size; ++i) {
      turns[i].due += hosts[i].weight / most;
      if (turns[i].due < 1) continue;
      turns[i].due -= 1;
      while (table.slots_[turns[i].at] != kFree) turns[i].at = (turns[i].at + turns[i].skip) % size;
      table.slots_[turns[i].at] = i;
      ++filled;
    }
  }
  return table;
}

HashTable::Walk::Walk(const HashTable& table, uint64_t hash)
    : table_(table), hash_(mix64(hash)), at_(0) {
  if (!table.slots_.empty()) {
    at_ = hash_ % table.slots_.size();
    return;
  }
  auto it = std::lower_bound(table.points_.begin(), table.points_.end(), hash_,
                             [](const Point& point, uint64_t h) { return point.hash < h; });
  at_ = it == table.points_.end() ? 0 : static_cast<size_t>(it - table.points_.begin());
}

uint32_t HashTable::Walk::host() const {
  return table_.slots_.empty() ? table_.points_[at_].host : table_.slots_[at_];
}

void HashTable::Walk::next() {
  if (!table_.slots_.empty()) {
    // Another place for each key, so that an ill host's keys spread over all others.
    hash_ = mix64(hash_ + 0x9e3779b97f4a7c15ULL);
    at_ = hash_ % table_.slots_.size();
  } else if (++at_ == table_.points_.size()) {
    at_ = 0;
  }
}

}  // namespace edgemesh::proxy
