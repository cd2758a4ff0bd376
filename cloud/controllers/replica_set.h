// ReplicaSetController: keeps as many pods of a template as spec.replicas says, and the status that
// tells how many there are. Pods go in the order that harms least: not yet bound, not ready,
// youngest first. Threads: the cluster's loop.
#pragma once

#include <memory>

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/work_queue.h"

namespace edgemesh::cloud::controllers {

class ReplicaSetController {
 public:
  explicit ReplicaSetController(Cluster& cluster);
  void start() { queue_.start(); }

 private:
  void reconcile(const std::string& key, WorkQueue::Done done);
  void create_pods(const SharedObject& set, int64_t count, WorkQueue::Done done);
  void remove_pods(std::vector<SharedObject> active, size_t count, WorkQueue::Done done);
  void write_status(const SharedObject& set, WorkQueue::Done done);

  Cluster& cluster_;
  WorkQueue queue_;
};

}  // namespace edgemesh::cloud::controllers
