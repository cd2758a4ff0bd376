// DeploymentController: one ReplicaSet a version of the template; the newest grows while the others
// shrink, by the limits of a rolling update or after them (Recreate). Old ones are kept for
// `kubectl rollout undo`, which puts an old template back: its ReplicaSet is then the newest again,
// with the next revision. Threads: the cluster's loop.
#pragma once

#include <memory>
#include <vector>

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/rollout.h"
#include "cloud/controllers/work_queue.h"

namespace edgemesh::cloud::controllers {

class DeploymentController {
 public:
  explicit DeploymentController(Cluster& cluster);
  void start() { queue_.start(); }

 private:
  // What one round looks at.
  struct View {
    SharedObject deployment;
    SharedObject fresh;             // null: not made yet
    std::vector<SharedObject> old;  // by age
    int64_t wanted = 1;
    int64_t revision = 0;  // the highest there is
  };

  View look(const SharedObject& deployment) const;
  void reconcile(const std::string& key, WorkQueue::Done done);
  void make_set(const View& view, WorkQueue::Done done);
  void scale(const View& view, WorkQueue::Done done);
  void finish(const std::string& key, WorkQueue::Done done);
  nlohmann::json status_of(const View& view) const;
  bool old_pods_left(const View& view) const;

  Cluster& cluster_;
  WorkQueue queue_;
};

}  // namespace edgemesh::cloud::controllers
