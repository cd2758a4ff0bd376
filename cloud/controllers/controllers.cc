#include "cloud/controllers/controllers.h"

#include <optional>

#include "cloud/controllers/cron_job.h"
#include "cloud/controllers/daemon_set.h"
#include "cloud/controllers/deployment.h"
#include "cloud/controllers/endpoint_slices.h"
#include "cloud/controllers/endpoints.h"
#include "cloud/controllers/endpoints_mirror.h"
#include "cloud/controllers/garbage_collector.h"
#include "cloud/controllers/replica_set.h"
#include "cloud/controllers/scheduler.h"
#include "cloud/controllers/types.h"

namespace edgemesh::cloud::controllers {

struct Controllers::Parts {
  Parts(io::Loop& loop, kube::Client& client, const ControllerOptions& options)
      : cluster(loop, client) {
    // In this order they hear of a change: who owns is told before who is owned.
    if (options.deployment) {
      deployment.emplace(cluster);
      replica_set.emplace(cluster);
    }
    if (options.daemon_set) daemon_set.emplace(cluster);
    if (options.job) {
      cron_job.emplace(cluster);
      job.emplace(cluster, options.job_options);
    }
    if (options.node_lifecycle) node_lifecycle.emplace(cluster, options.node_options);
    if (options.pod_collector) pod_collector.emplace(cluster, options.pod_collector_options);
    if (options.scheduler) scheduler.emplace(cluster);
    if (options.endpoint_slice) endpoint_slices.emplace(cluster);
    if (options.endpoints) endpoints.emplace(cluster);
    if (options.endpoints_mirror) endpoints_mirror.emplace(cluster);
    if (options.garbage_collector) {
      garbage.emplace(cluster,
                      std::vector<const kube::ResourceType*>{
                          &kDeployments, &kReplicaSets, &kDaemonSets, &kControllerRevisions, &kJobs,
                          &kCronJobs, &kube::kPods, &kube::kServices, &kube::kEndpointSlices,
                          &kube::kEndpoints, &kube::kConfigMaps, &kube::kSecrets});
    }
  }
  void begin() {
    if (deployment) deployment->start();
    if (replica_set) replica_set->start();
    if (daemon_set) daemon_set->start();
    if (cron_job) cron_job->start();
    if (job) job->start();
    if (node_lifecycle) node_lifecycle->start();
    if (pod_collector) pod_collector->start();
    if (scheduler) scheduler->start();
    if (endpoint_slices) endpoint_slices->start();
    if (endpoints) endpoints->start();
    if (endpoints_mirror) endpoints_mirror->start();
    if (garbage) garbage->start();
  }

  Cluster cluster;
  std::optional<DeploymentController> deployment;
  std::optional<ReplicaSetController> replica_set;
  std::optional<DaemonSetController> daemon_set;
  std::optional<CronJobController> cron_job;
  std::optional<JobController> job;
  std::optional<NodeLifecycle> node_lifecycle;
  std::optional<PodCollector> pod_collector;
  std::optional<Scheduler> scheduler;
  std::optional<EndpointSliceController> endpoint_slices;
  std::optional<EndpointsController> endpoints;
  std::optional<EndpointsMirror> endpoints_mirror;
  std::optional<GarbageCollector> garbage;
};

Controllers::Controllers(io::Loop& loop, kube::Client& client, const ControllerOptions& options)
    : parts_(std::make_unique<Parts>(loop, client, options)) {}

Controllers::~Controllers() = default;

void Controllers::start() {
  parts_->cluster.start([this] { parts_->begin(); });
}

bool Controllers::ready() const {
  return parts_->cluster.synced();
}

}  // namespace edgemesh::cloud::controllers
