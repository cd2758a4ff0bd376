// What the edge controller needs to know of a pod or a node: whose it is, what it names, and
// whether a change means anything to the node. Pure functions, thread-safe.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "kube/types.h"

namespace edgemesh::cloud {

// An object that a pod's spec names in its own namespace.
struct PodReference {
  const kube::ResourceType* type;  // kube::kConfigMaps or kube::kSecrets
  std::string name;
  friend auto operator<=>(const PodReference&, const PodReference&) = default;
};

// Sorted, each once: volumes (projected ones too), env, envFrom, image pull secrets.
std::vector<PodReference> pod_references(const nlohmann::json& pod);

// A digest of what a node acts on. It leaves out what nodes write themselves (status), and what
// changes with every write (resourceVersion, managedFields): such a change is not sent down.
uint64_t pod_meaning(const nlohmann::json& pod);
uint64_t node_meaning(const nlohmann::json& node);

}  // namespace edgemesh::cloud
