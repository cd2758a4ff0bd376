// FlowTable: the flows of one listener by (client, destination), and which of them is idle. A flow
// is in one of two lists by its timeout, in the order of its last datagram, so that a datagram
// costs O(1) and no timer, and the least recently used flow is known. Threads: one loop's.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>

#include "core/base/clock.h"
#include "core/base/net_addr.h"
#include "proxy/upstream/hash.h"
#include "proxy/upstream/list.h"

namespace edgemesh::proxy {

struct FlowKey {
  SockAddr client;
  SockAddr destination;
  friend bool operator==(const FlowKey&, const FlowKey&) = default;
};

// What a flow is to the table. Derived classes add the rest.
class FlowNode : public ListNode<FlowNode> {
 public:
  explicit FlowNode(const FlowKey& key) : key_(key) {}
  virtual ~FlowNode() = default;
  const FlowKey& key() const { return key_; }
  TimePoint last_used() const { return last_used_; }

 private:
  friend class FlowTable;
  FlowKey key_;
  TimePoint last_used_{};
  bool answered_ = false;
};

class FlowTable {
 public:
  // `answered`: for flows that were marked as such, whose question has its answer.
  FlowTable(Duration idle, Duration answered, uint64_t seed);
  ~FlowTable();
  FlowTable(const FlowTable&) = delete;
  FlowTable& operator=(const FlowTable&) = delete;

  FlowNode* find(const FlowKey& key) const;
  // The key must be new. The table owns the flow.
  void insert(std::unique_ptr<FlowNode> flow, TimePoint now);
  // A datagram of the flow. `answered`: nothing more is expected.
  void touch(FlowNode& flow, TimePoint now, bool answered = false);
  // The flow leaves the table; destroy it when it is not in use.
  std::unique_ptr<FlowNode> take(FlowNode& flow);

  FlowNode* oldest() const;                // least recently used; null: there is none
  FlowNode* expired(TimePoint now) const;  // one that is idle for its timeout; null: none
  // When expired() can find one next.
  std::optional<TimePoint> next_deadline() const;
  size_t size() const { return flows_.size(); }

 private:
  struct Hash {
    uint64_t seed;  // clients choose their ports: they must not choose the buckets
    size_t operator()(const FlowKey& key) const {
      return hash64(key.client, hash64(key.destination, seed));
    }
  };

  Duration idle_, answered_timeout_;
  std::unordered_map<FlowKey, std::unique_ptr<FlowNode>, Hash> flows_;
  List<FlowNode> by_use_;
  List<FlowNode> answered_;
};

}  // namespace edgemesh::proxy
