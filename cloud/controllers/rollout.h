// The arithmetic of a rolling update: how many pods the new ReplicaSet and the old ones may have
// next. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace edgemesh::cloud::controllers {

struct RolloutLimits {
  int64_t surge = 0;        // pods beyond the wanted number
  int64_t unavailable = 0;  // pods that may lack; never both 0
};
// Of spec.strategy.rollingUpdate: numbers, or percentages of `replicas` (surge rounded up,
// unavailable down).
RolloutLimits rollout_limits(const nlohmann::json* rolling_update, int64_t replicas);

// Of a DaemonSet's spec.updateStrategy.rollingUpdate: percentages of `desired` pods, both rounded
// up; by default one pod at a time and no surge.
RolloutLimits daemon_limits(const nlohmann::json* rolling_update, int64_t desired);

struct SetSize {
  int64_t replicas = 0;   // spec
  int64_t available = 0;  // status
};
struct RolloutStep {
  int64_t fresh = 0;         // replicas of the new set
  std::vector<int64_t> old;  // of the old ones, in the order given (oldest first)
};
// `wanted`: the deployment's replicas.
RolloutStep rolling_step(int64_t wanted, RolloutLimits limits, SetSize fresh,
                         const std::vector<SetSize>& old);
// Recreate: the new set begins when no pod of the old ones is left.
RolloutStep recreate_step(int64_t wanted, SetSize fresh, const std::vector<SetSize>& old,
                          bool old_pods_left);

}  // namespace edgemesh::cloud::controllers
