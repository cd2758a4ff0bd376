// Scheduler: gives every pod without a node one on which it fits (fit.h, placement.h): a node that
// is ready and takes pods. Of those that fit, the one that the pod prefers, without taints that it
// would rather avoid, with the fewest pods like it, then the least asked for. A pod that fits
// nowhere says so in its condition PodScheduled and in an event, and is tried again when a node
// changes or a pod goes; pods of a higher priority first, but none is ended for another.
//
// A pod that is pinned to one node (a daemon's) is tried on that one only. Threads: the cluster's
// loop.
#pragma once

#include <map>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/events.h"
#include "cloud/controllers/fit.h"
#include "cloud/controllers/placement.h"
#include "cloud/controllers/work_queue.h"

namespace edgemesh::cloud::controllers {

class Scheduler {
 public:
  explicit Scheduler(Cluster& cluster);
  void start() { queue_.start(); }

 private:
  struct Load {
    Resources asked;
    std::multiset<std::string> ports;
    std::unordered_map<std::string, int> by_owner;
  };
  // What is asked of every node.
  struct Wish {
    Resources asked;
    std::set<std::string> ports;
    PlacementRules rules;
  };
  struct Choice {
    SharedObject node;
    std::map<std::string, int> refusals;  // reason -> nodes
    int nodes = 0;
  };
  using Cost = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>;

  void on_pod(const SharedObject& before, const SharedObject& after);
  void on_node(const SharedObject& before, const SharedObject& after);
  void account(const SharedObject& pod, int sign);
  void enqueue(const ClusterObject& pod);
  std::string next();
  void wait_for(const std::string& node, const std::string& pod);
  void forget(const ClusterObject& pod);
  // What waits for anything, and what waits for this node.
  void try_waiting(const std::string& node);
  void schedule_next(WorkQueue::Done done);
  Choice choose(const ClusterObject& pod, const std::string& pinned) const;
  std::vector<std::string> refusals(const ClusterObject& pod, const Wish& wish,
                                    const ClusterObject& node) const;
  Cost cost(const ClusterObject& pod, const Wish& wish, const ClusterObject& node) const;
  void bind(const SharedObject& pod, const SharedObject& node, WorkQueue::Done done);
  void assume(const SharedObject& pod, const std::string& node);
  void say_unschedulable(const SharedObject& pod, const Choice& choice, WorkQueue::Done done);

  Cluster& cluster_;
  WorkQueue queue_;  // turns: whose it is says pending_
  Events events_;
  Placement placement_;
  std::unordered_map<std::string, Load> loads_;  // by node
  std::unordered_map<std::string, Resources> rooms_;
  std::set<std::tuple<int64_t, uint64_t, std::string>> pending_;  // -priority, order, key
  std::unordered_map<std::string, std::pair<int64_t, uint64_t>> pending_at_;
  uint64_t order_ = 0;
  std::set<std::string> waiting_;                                       // keys; fit nowhere
  std::unordered_map<std::string, std::set<std::string>> waiting_for_;  // pinned, by node
  TimePoint tried_{};
  io::Timer retry_timer_;
};

}  // namespace edgemesh::cloud::controllers
