// The resources that controllers work on, beyond kube/types.h.
#pragma once

#include "kube/types.h"

namespace edgemesh::cloud::controllers {

inline const kube::ResourceType kReplicaSets{"apps", "v1", "replicasets", "ReplicaSet", true};
inline const kube::ResourceType kDeployments{"apps", "v1", "deployments", "Deployment", true};
inline const kube::ResourceType kDaemonSets{"apps", "v1", "daemonsets", "DaemonSet", true};
inline const kube::ResourceType kControllerRevisions{"apps", "v1", "controllerrevisions",
                                                     "ControllerRevision", true};
inline const kube::ResourceType kJobs{"batch", "v1", "jobs", "Job", true};
inline const kube::ResourceType kCronJobs{"batch", "v1", "cronjobs", "CronJob", true};

}  // namespace edgemesh::cloud::controllers
