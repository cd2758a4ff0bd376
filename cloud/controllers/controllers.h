// Controllers: what a cluster without Kubernetes needs so that a Deployment becomes pods on nodes
// and a service finds them: deployments, replica sets, daemon sets, jobs, cron jobs, node
// lifecycle, pod collector, scheduler, endpoint slices, garbage collector. For the embedded API; a
// real one has its own. Each can be switched off. Threads: the loop given.
#pragma once

#include <memory>

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/job.h"
#include "cloud/controllers/node_lifecycle.h"
#include "cloud/controllers/pod_collector.h"

namespace edgemesh::cloud::controllers {

struct ControllerOptions {
  bool deployment = true;  // with replica sets
  bool daemon_set = true;
  bool job = true;  // with cron jobs
  bool node_lifecycle = true;
  bool pod_collector = true;
  bool scheduler = true;
  bool endpoint_slice = true;
  bool endpoints = true;
  bool endpoints_mirror = true;
  bool garbage_collector = true;
  JobController::Options job_options;
  NodeLifecycle::Options node_options;
  PodCollector::Options pod_collector_options;
};

class Controllers {
 public:
  Controllers(io::Loop& loop, kube::Client& client, const ControllerOptions& options);
  ~Controllers();
  void start();
  bool ready() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace edgemesh::cloud::controllers
