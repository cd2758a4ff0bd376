// NodeLifecycle: what follows from a node's conditions. A node in trouble gets the taints that keep
// new pods away (node.kubernetes.io/unreachable, not-ready, memory-pressure, ...; cordoned:
// unschedulable). A node that does not answer keeps its pods: they are still bound to it and it
// still runs them; only their condition Ready says False with reason NodeNotReady, so that services
// go by the others, and says again what it said when the node is back.
//
// Taints with the effect NoExecute, which users set, end the pods that do not tolerate them, after
// the time they ask for. Only with `evicts` a node that does not answer gets such a taint, too.
//
// A node that renews a lease (kube-node-lease) is believed for `grace` after it stood still; what
// is connected to our hub is cloud/node_controller's. Clocks of nodes do not matter. Threads: the
// cluster's loop.
#pragma once

#include <set>
#include <string>
#include <unordered_map>

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/events.h"
#include "cloud/controllers/work_queue.h"

namespace edgemesh::cloud::controllers {

class NodeLifecycle {
 public:
  struct Options {
    Duration grace = std::chrono::seconds(40);
    bool evicts = false;  // pods of nodes that do not answer, after their toleration's time
  };
  NodeLifecycle(Cluster& cluster, Options options);
  void start() { queue_.start(); }

 private:
  void on_node(const SharedObject& before, const SharedObject& after);
  void on_pod(const SharedObject& before, const SharedObject& after);
  void on_lease(const SharedObject& before, const SharedObject& after);
  void reconcile(const std::string& node, WorkQueue::Done done);
  // The lease stood still: the condition Ready is Unknown.
  bool lapsed(const SharedObject& node);
  void say_unknown(const SharedObject& node, WorkQueue::Done done);
  nlohmann::json wanted_taints(const ClusterObject& node) const;
  void settle_pods(const SharedObject& node, WorkQueue::Done done);
  // Null: nothing to change.
  nlohmann::json ready_patch(const ClusterObject& pod, bool away) const;
  // Zero: it may stay for ever; negative: it goes now.
  Duration may_stay(const ClusterObject& pod, const ClusterObject& node) const;

  Cluster& cluster_;
  Options options_;
  WorkQueue queue_;
  Events events_;
  std::unordered_map<std::string, std::set<std::string>> pods_;  // active ones, by node: keys
  std::unordered_map<std::string, TimePoint> renewed_;           // by node, of those with a lease
};

}  // namespace edgemesh::cloud::controllers
