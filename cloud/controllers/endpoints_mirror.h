// EndpointsMirror: Endpoints objects that users made for services without a selector become
// EndpointSlices, by which the mesh finds them: servers outside the cluster get a name and a
// service address. As Kubernetes' endpointslice mirroring controller: not mirrored are those with
// the label endpointslice.kubernetes.io/skip-mirror=true and those that elect leaders. Threads: the
// cluster's loop.
#pragma once

#include <string>
#include <vector>

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/label_index.h"
#include "cloud/controllers/work_queue.h"

namespace edgemesh::cloud::controllers {

class EndpointsMirror {
 public:
  static constexpr size_t kMaxEndpoints = 1000;  // of one slice and subset; more are left out

  explicit EndpointsMirror(Cluster& cluster);
  void start() { queue_.start(); }

 private:
  void on_slice(const SharedObject& before, const SharedObject& after);
  void reconcile(const std::string& key, WorkQueue::Done done);
  bool mirrors(const std::string& key) const;
  std::vector<SharedObject> mine(const std::string& key) const;

  Cluster& cluster_;
  WorkQueue queue_;  // of Endpoints, by the name that is their service's too
  LabelIndex slices_;
};

}  // namespace edgemesh::cloud::controllers
