// EndpointSliceController: for every service with a selector, EndpointSlices of the pods that it
// selects, by which the mesh (and kube-proxy, and kubectl) finds them. One slice for every family
// and set of ports that pods resolve named ports to, of at most kMaxEndpoints. Slices that others
// made are left alone. Threads: the cluster's loop.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/label_index.h"
#include "cloud/controllers/work_queue.h"

namespace edgemesh::cloud::controllers {

inline constexpr const char* kServiceLabel = "kubernetes.io/service-name";
inline constexpr const char* kManagedLabel = "endpointslice.kubernetes.io/managed-by";
inline constexpr const char* kManager = "endpointslice-controller.k8s.io";

class EndpointSliceController {
 public:
  static constexpr size_t kMaxEndpoints = 100;  // as Kubernetes

  explicit EndpointSliceController(Cluster& cluster);
  void start() { queue_.start(); }

 private:
  void on_service(const SharedObject& before, const SharedObject& after);
  void on_pod(const SharedObject& before, const SharedObject& after);
  void on_slice(const SharedObject& before, const SharedObject& after);
  void wake_services_of(const ClusterObject& pod);
  void reconcile(const std::string& key, WorkQueue::Done done);
  std::vector<nlohmann::json> wanted(const SharedObject& service) const;
  nlohmann::json endpoint_of(const SharedObject& service, const SharedObject& pod,
                             const std::string& address) const;

  Cluster& cluster_;
  WorkQueue queue_;      // of services
  LabelIndex services_;  // by one pair of their selectors
  LabelIndex pods_;
  LabelIndex slices_;
};

}  // namespace edgemesh::cloud::controllers
