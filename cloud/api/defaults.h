// Defaults of the built-in kinds, as kube-apiserver sets them. I/O-free.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "cloud/api/resource.h"

namespace edgemesh::cloud {

// What a field has that was left out, wherever its type stands: a pod's template as well as a pod.
void default_fields(const ResourceInfo& resource, nlohmann::json* object);
// What depends on other fields of a workload.
void default_workload(nlohmann::json* object);
void default_pod(nlohmann::json* object);

}  // namespace edgemesh::cloud
