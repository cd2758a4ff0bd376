// DaemonSetController: one pod of a DaemonSet on every node that fits: selectors and affinity of
// the template, taints that it does not tolerate. Each pod is pinned to its node by an affinity to
// the node's name; the scheduler binds it. A change of the template replaces pods as updateStrategy
// says; its versions are kept as ControllerRevisions.
//
// What is known of each node is kept (State), so that an event about one node or pod costs nothing
// for the others. Pods on a node that does not answer are left alone: an update neither ends them
// nor waits for them; it goes on there when the node is back. Threads: the cluster's loop.
#pragma once

#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/events.h"
#include "cloud/controllers/revisions.h"
#include "cloud/controllers/work_queue.h"

namespace edgemesh::cloud::controllers {

class DaemonSetController {
 public:
  explicit DaemonSetController(Cluster& cluster);
  void start() { queue_.start(); }

 private:
  struct Counts {
    int desired = 0, current = 0, misscheduled = 0, ready = 0, available = 0, updated = 0;
    int unavailable = 0;  // for the limit of an update: of nodes that answer
    int surged = 0;       // have a new pod next to the old one
    void add(const Counts& other, int sign);
  };
  struct Failures {
    int count = 0;
    TimePoint until{};
  };
  struct State {
    std::string key;
    int64_t generation = -1;
    std::string hash;
    std::unordered_map<std::string, std::set<std::string>> pods;  // by node: keys
    std::unordered_map<std::string, Counts> counts;               // by node
    std::set<std::string> dirty;                                  // nodes to look at
    std::set<std::string> maturing;  // nodes that time will change something on
    std::map<std::string, SharedObject> old, old_broken;  // by node: no new pod there yet
    std::unordered_map<std::string, Failures> failures;
    Counts sum;
  };
  // What a round is to do.
  struct Plan {
    std::vector<std::string> create;  // nodes
    std::vector<SharedObject> remove;
    Duration again{};  // zero: nothing waits for time
    void wait(Duration time) { again = again == Duration{} ? time : std::min(again, time); }
  };
  struct OnNode {
    std::vector<SharedObject> fresh, old;  // active, oldest first
    size_t ended = 0;                      // failed or succeeded
    size_t going = 0;                      // being deleted
    SharedObject oldest;                   // of all
  };

  void on_pod(const SharedObject& before, const SharedObject& after);
  void on_node(const SharedObject& before, const SharedObject& after);
  State& state_of(const SharedObject& set);
  void mark_all(State& state);
  void reconcile(const std::string& key, WorkQueue::Done done);
  void examine(const SharedObject& set, State& state, const std::string& node, Plan* plan);
  OnNode look(State& state, const std::string& node, Plan* plan);
  void count(const SharedObject& set, State& state, const std::string& node, const OnNode& here,
             bool away, Plan* plan);
  void prune(const SharedObject& set, const OnNode& here, bool surges, Plan* plan);
  void roll(const SharedObject& set, State& state, Plan* plan);
  void carry_out(const SharedObject& set, State& state, Plan plan, WorkQueue::Done done);
  void write_status(const SharedObject& set, const State& state, WorkQueue::Done done);
  bool available(const ClusterObject& set, const SharedObject& pod, Duration* wait) const;

  Cluster& cluster_;
  WorkQueue queue_;
  Events events_;
  std::unordered_map<std::string, State> states_;  // by the set's uid
};

}  // namespace edgemesh::cloud::controllers
