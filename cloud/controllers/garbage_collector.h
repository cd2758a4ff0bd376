// GarbageCollector: objects whose owners are all gone go, too (metadata.ownerReferences). It also
// ends the deletions that wait for dependents: finalizers foregroundDeletion (they go first) and
// orphan (they stay, without the reference). Only kinds that the cluster follows are looked at.
// Threads: the cluster's loop.
#pragma once

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/work_queue.h"

namespace edgemesh::cloud::controllers {

class GarbageCollector {
 public:
  // After the other controllers said what they follow.
  GarbageCollector(Cluster& cluster, const std::vector<const kube::ResourceType*>& types);
  void start() { queue_.start(); }

 private:
  void on_change(const SharedObject& before, const SharedObject& after);
  void reconcile(const std::string& uid, WorkQueue::Done done);
  void end_foreground(const SharedObject& owner, WorkQueue::Done done);
  void orphan(const SharedObject& owner, WorkQueue::Done done);
  void drop_finalizer(const SharedObject& owner, const char* name, WorkQueue::Done done);
  bool owners_gone(const ClusterObject& object) const;

  Cluster& cluster_;
  WorkQueue queue_;  // of uids
};

}  // namespace edgemesh::cloud::controllers
