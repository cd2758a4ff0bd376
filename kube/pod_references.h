// What a pod names of its own namespace: config maps and secrets. Pure functions, thread-safe.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "kube/types.h"

namespace edgemesh::kube {

struct PodReference {
  const ResourceType* type;  // kConfigMaps or kSecrets
  std::string name;
  friend auto operator<=>(const PodReference&, const PodReference&) = default;
};

// Sorted, each once: volumes (projected ones too), env, envFrom, image pull secrets.
std::vector<PodReference> pod_references(const nlohmann::json& pod);

}  // namespace edgemesh::kube
