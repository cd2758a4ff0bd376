// Scheduler: gives every pod without a node one on which it fits (fit.h): a node that is ready and
// takes pods. Of those that fit, the one with the fewest pods of the same owner, then the least
// asked for. A pod that fits nowhere says so in its condition PodScheduled and is tried again when
// a node changes or a pod goes. Threads: the cluster's loop.
#pragma once

#include <map>
#include <set>
#include <string>
#include <unordered_map>

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/fit.h"
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
  struct Choice {
    SharedObject node;
    std::map<std::string, int> refusals;  // reason -> nodes
    int nodes = 0;
  };

  void on_pod(const SharedObject& before, const SharedObject& after);
  void account(const SharedObject& pod, int sign);
  void try_waiting();
  void reconcile(const std::string& key, WorkQueue::Done done);
  Choice choose(const ClusterObject& pod) const;
  // Empty: it fits.
  std::string refusal(const ClusterObject& pod, const ClusterObject& node) const;
  void bind(const SharedObject& pod, const SharedObject& node, WorkQueue::Done done);
  void assume(const SharedObject& pod, const std::string& node);
  void say_unschedulable(const SharedObject& pod, const Choice& choice, WorkQueue::Done done);

  Cluster& cluster_;
  WorkQueue queue_;
  std::unordered_map<std::string, Load> loads_;  // by node
  std::set<std::string> waiting_;                // keys of pods that fit nowhere
};

}  // namespace edgemesh::cloud::controllers
