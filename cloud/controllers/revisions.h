// Revisions: the versions of a DaemonSet's or StatefulSet's template, each in a ControllerRevision
// object, which is what `kubectl rollout history` lists and `kubectl rollout undo` puts back. The
// data of one is a strategic merge patch that makes its owner's template what it was. A template
// that was there before gets the next number, not a second object. Threads: the cluster's loop.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <unordered_set>
#include <vector>

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/work_queue.h"

namespace edgemesh::cloud::controllers {

inline constexpr const char* kRevisionHash = "controller-revision-hash";

struct Revisions {
  SharedObject current;                // of the owner's template as it is; null: not made yet
  std::vector<SharedObject> in_order;  // all, by number

  // The label that names the current one.
  std::string hash() const;
  bool settled() const { return current != nullptr && current == in_order.back(); }
};

Revisions look_at_revisions(const Cluster& cluster, const ClusterObject& owner);
// Makes the current one, or gives it the highest number. Only when it is not settled(); its change
// is heard of through the cluster.
void settle_revisions(Cluster& cluster, const SharedObject& owner, const Revisions& revisions,
                      WorkQueue::Done done);
// Old ones beyond spec.revisionHistoryLimit that no pod is of any more: `live` are their hashes.
std::vector<SharedObject> surplus_revisions(const ClusterObject& owner, const Revisions& revisions,
                                            const std::unordered_set<std::string>& live);
// The template that a revision's data holds; null: it holds none.
const nlohmann::json* template_of_revision(const ClusterObject& revision);

}  // namespace edgemesh::cloud::controllers
