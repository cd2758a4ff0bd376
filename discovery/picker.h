// Picker: chooses an endpoint for a connection. One a worker: no locks. What it remembers of a service
// or an endpoint is forgotten when it grew over its limit and is not in use.
//
// Order: the endpoint that a client of a service with ClientIP affinity had last; then the nearest
// tier that has a usable endpoint (same node, same zone, the rest); within it the service's policy.
// An endpoint that failed is passed over for a time that doubles from 1 s to 30 s; when all failed,
// that is not looked at. A success ends it, and so does a minute without another failure.
//
// ClientIP affinity: pickers of several workers know nothing of each other, so the first choice is
// computed from the client's address and the endpoints' keys (rendezvous hashing, in place of the
// policy) and is the same for all of them. Each then keeps the client where it is for the service's
// timeout after its last connection, when endpoints come, or when a failure moved it. After that the
// client has its computed choice again, which is the endpoint that it had if nothing changed: unlike
// with kube-proxy a timeout alone moves nobody. Two workers differ for a client only while one of
// them remembers it from before a change of the endpoints, or saw a failure that the other did not.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/base/clock.h"
#include "discovery/snapshot.h"

namespace edgemesh::discovery {

class Picker {
 public:
  Picker(std::string node, std::string zone, Clock& clock = system_clock());

  // null: the port has no endpoint outside `exclude`. The pointer lives as long as the snapshot.
  const Endpoint* pick(const Snapshot::Target& target, const IpAddr& client,
                       const std::vector<const Endpoint*>& exclude = {});
  // Around each connection to an endpoint.
  void on_start(const Endpoint& endpoint);
  void on_end(const Endpoint& endpoint);
  // Endpoints whose failures are remembered.
  size_t failed() const { return failures_.size(); }
  // A connect failed, or succeeded.
  void on_failure(const Endpoint& endpoint);
  void on_success(const Endpoint& endpoint);

 private:
  struct Failures {
    uint32_t in_a_row = 0;
    TimePoint blocked_until{};
  };
  template <class Value>
  using EndpointMap = std::unordered_map<EndpointKey, Value, EndpointHash, EndpointEqual>;
  struct AffinityKey {
    IpAddr client;
    uint64_t service = 0;
    friend bool operator==(const AffinityKey&, const AffinityKey&) = default;
  };
  struct AffinityHash {
    size_t operator()(const AffinityKey& key) const noexcept {
      return std::hash<IpAddr>()(key.client) ^ (key.service * 0x9e3779b97f4a7c15ULL);
    }
  };
  struct Affinity {
    EndpointKey endpoint;
    TimePoint until{};
  };

  int tier(const Endpoint& endpoint) const;
  bool blocked(const Endpoint& endpoint, TimePoint now) const;
  uint32_t active(const Endpoint& endpoint) const;
  const Endpoint* nth(const Port& port, int wanted_tier, bool use_blocked, uint32_t n, TimePoint now,
                      const std::vector<const Endpoint*>& exclude) const;
  const Endpoint* choose(const Snapshot::Target& target, int wanted_tier, bool use_blocked,
                         uint32_t count, TimePoint now, const std::vector<const Endpoint*>& exclude);
  const Endpoint* computed(const Snapshot::Target& target, const IpAddr& client, int wanted_tier,
                           bool use_blocked, TimePoint now,
                           const std::vector<const Endpoint*>& exclude) const;
  const Endpoint* sticky(const Snapshot::Target& target, const IpAddr& client, TimePoint now,
                         const std::vector<const Endpoint*>& exclude);
  void remember(const Snapshot::Target& target, const IpAddr& client, const Endpoint& endpoint,
                TimePoint now);
  uint32_t random(uint32_t below);
  void forget_failures(TimePoint now);

  std::string node_, zone_;
  Clock& clock_;
  uint64_t seed_;
  EndpointMap<Failures> failures_;  // empty nearly always, which skips all look-ups
  TimePoint next_forget_{};         // when the first of them may have become old
  EndpointMap<uint32_t> active_;    // connections; 0 is kept until the table is full
  std::unordered_map<uint64_t, uint32_t> turns_;  // round robin, by service id and port
  std::unordered_map<AffinityKey, Affinity, AffinityHash> affinity_;
};

}  // namespace edgemesh::discovery
