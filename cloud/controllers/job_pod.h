// What is particular to the pods of a Job. Pure functions, thread-safe.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cloud/controllers/cluster.h"

namespace edgemesh::cloud::controllers {

// A pod with it has not been counted yet: whoever deletes it, it stays until it is.
inline constexpr const char* kJobTracking = "batch.kubernetes.io/job-tracking";

bool is_indexed(const ClusterObject& job);
bool is_tracked(const ClusterObject& pod);
// -1: it has none.
int64_t completion_index(const ClusterObject& pod);

// `index`: -1 for a job that is not Indexed.
nlohmann::json job_pod(const ClusterObject& job, int64_t index);
// The finalizers of a pod without the one that tracks it, as a merge patch.
nlohmann::json without_tracking(const ClusterObject& pod);

enum class PodEnd { kNotYet, kSucceeded, kFailed };
// A pod that is being deleted has failed, unless the job replaces only those that have ended
// (podReplacementPolicy).
PodEnd end_of_pod(const ClusterObject& job, const ClusterObject& pod);

// What spec.podFailurePolicy makes of a failed pod.
struct FailureAction {
  enum class Kind { kCount, kIgnore, kFailJob } kind = Kind::kCount;
  std::string message;  // of kFailJob
};
FailureAction failure_action(const ClusterObject& job, const ClusterObject& pod);

// Restarts of containers, for pods with restartPolicy OnFailure.
int64_t restarts_of(const ClusterObject& pod);

}  // namespace edgemesh::cloud::controllers
