// Which endpoint a client has: a table of bounded size, the oldest of a few neighbours makes place
// for a new one. Threads: one worker's.
#pragma once

#include <cstdint>
#include <vector>

#include "core/base/clock.h"
#include "core/base/net_addr.h"
#include "proxy/upstream/hash.h"

namespace edgemesh::proxy {

class Host;

class AffinityTable {
 public:
  // Null: unknown, or its time is over.
  Host* find(const IpAddr& client, TimePoint now) const;
  void remember(const IpAddr& client, Host& host, TimePoint until, TimePoint now);
  void forget(const Host& host);
  void clear() { entries_ = {}; }

 private:
  static constexpr size_t kWays = 8;
  static constexpr size_t kFirstSize = 64;
  static constexpr size_t kMaxSize = 64 * 1024;  // entries
  struct Entry {
    IpAddr client;
    Host* host = nullptr;  // null: free
    TimePoint until{};
  };
  size_t set_of(const IpAddr& client) const {
    return hash64(client) % (entries_.size() / kWays) * kWays;
  }
  bool put(const IpAddr& client, Host& host, TimePoint until, TimePoint now, bool evict);
  std::vector<Entry> entries_;
};

}  // namespace edgemesh::proxy
