// EndpointsController: for every service with a selector the Endpoints object of its name, for
// clients that read it still (kubectl get endpoints, older ingress controllers). It says what the
// service's EndpointSlices say, in the service's first address family, and at most kMaxAddresses of
// them, as Kubernetes' endpoints controller. Those of services without a selector are their users'.
// Threads: the cluster's loop.
#pragma once

#include <string>

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/label_index.h"
#include "cloud/controllers/work_queue.h"

namespace edgemesh::cloud::controllers {

class EndpointsController {
 public:
  static constexpr size_t kMaxAddresses = 1000;

  explicit EndpointsController(Cluster& cluster);
  void start() { queue_.start(); }

 private:
  void on_slice(const SharedObject& before, const SharedObject& after);
  void reconcile(const std::string& key, WorkQueue::Done done);
  nlohmann::json wanted(const SharedObject& service) const;

  Cluster& cluster_;
  WorkQueue queue_;  // of services
  LabelIndex slices_;
};

}  // namespace edgemesh::cloud::controllers
