// PodCollector: deletes pods that nobody will end any more: bound to a node that is gone for a
// while, being deleted without ever having had a node, and the oldest of those that have ended when
// there are very many. Threads: the cluster's loop.
#pragma once

#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/work_queue.h"

namespace edgemesh::cloud::controllers {

class PodCollector {
 public:
  struct Options {
    Duration node_gone_for = std::chrono::seconds(40);
    size_t max_ended = 12'500;
  };
  PodCollector(Cluster& cluster, Options options);
  void start() { queue_.start(); }

 private:
  void on_pod(const SharedObject& before, const SharedObject& after);
  void on_node(const SharedObject& before, const SharedObject& after);
  void reconcile(const std::string& key, WorkQueue::Done done);
  void remove_now(const SharedObject& pod, WorkQueue::Done done);
  void trim_ended();

  Cluster& cluster_;
  Options options_;
  WorkQueue queue_;                                                 // of pods
  std::unordered_map<std::string, std::set<std::string>> by_node_;  // keys
  std::set<std::pair<std::string, std::string>> ended_;             // creation time, key
  std::unordered_map<std::string, TimePoint> missing_;              // nodes, since when
};

}  // namespace edgemesh::cloud::controllers
