// What a Kubernetes cluster's usual admission adds to new objects: service account (with the volume
// of its token), priority and tolerations of pods, the default storage class. I/O-free but for
// reading the store.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "cloud/api/error.h"
#include "cloud/api/store.h"

namespace edgemesh::cloud {

ApiResult<void> admit_new(const ApiStore& store, const ResourceRegistry& registry,
                          const ResourceInfo& resource, bool mount_tokens, nlohmann::json* object);

}  // namespace edgemesh::cloud
