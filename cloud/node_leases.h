// NodeLeases: renews the leases (kube-node-lease/<node>) of connected nodes, for a real kube-apiserver's node
// lifecycle controller, and tells whether someone else renews a node's: another cloud that has it now, or its
// kubelet.
//
// Renewals go out a few at a time, whatever the number of nodes: a round that takes longer than the interval
// goes on, and nobody waits twice. A lease lives for four intervals, so a renewal that fails is just tried
// again in the next round; failures are counted and said once a minute.
// Threads: one loop.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "core/base/function.h"
#include "core/io/loop.h"
#include "kube/client.h"

namespace edgemesh::cloud {

class NodeLeases {
 public:
  struct Options {
    Duration lifetime = std::chrono::seconds(40);
    size_t max_in_flight = 16;
  };
  NodeLeases(io::Loop& loop, kube::Client& client, Options options);
  ~NodeLeases();

  // Renews the node's lease soon. Again while it waits: nothing.
  void renew(const std::string& node);

  enum class Sign {
    kAlive,     // it was renewed lately, by a clock like ours, or since the last question
    kAskAgain,  // it is there, and the next question will tell
    kDead,      // there is none, or it is as at the last question
  };
  // For nodes that are not connected here. Two questions of the same node should be more than a renewal
  // interval apart. Clocks need not agree: a lease that stood still between two questions is dead.
  void ask(const std::string& node, UniqueFunction<void(Result<Sign>)> done);

  uint64_t failures() const { return failures_; }
  size_t in_flight() const { return in_flight_; }

 private:
  void work();
  void send(const std::string& node);
  void finish(const std::string& node, const Result<std::string>& result);
  Sign judge(const std::string& node, const Result<std::string>& lease);

  io::Loop& loop_;
  kube::Client& client_;
  const Options options_;
  std::deque<std::string> queue_;
  std::unordered_set<std::string> waiting_;
  std::unordered_map<std::string, std::string> seen_;  // renewTime at the last question
  size_t in_flight_ = 0;
  uint64_t failures_ = 0;
  uint64_t failures_said_ = 0;
  TimePoint said_at_{};
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
