// What the edge controller needs to know of a pod or a node: what it names, and whether a change
// means anything to the node. Pure functions, thread-safe.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "kube/pod_references.h"

namespace edgemesh::cloud {

using kube::pod_references;
using kube::PodReference;

// A digest of what a node acts on. It leaves out what nodes write themselves (status), and what
// changes with every write (resourceVersion, managedFields): such a change is not sent down.
uint64_t pod_meaning(const nlohmann::json& pod);
uint64_t node_meaning(const nlohmann::json& node);

}  // namespace edgemesh::cloud
