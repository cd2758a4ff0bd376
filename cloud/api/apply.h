// Server-side apply: merges what a manager applies, remembers its fields in metadata.managedFields,
// takes away what it applied before and does not any more, and refuses to overwrite the fields of
// another manager without force. Other writes are remembered as operation Update. I/O-free.
#pragma once

#include <chrono>
#include <nlohmann/json_fwd.hpp>

#include "cloud/api/error.h"
#include "kube/client.h"

namespace edgemesh::cloud {

// `object`: the live object, or {} when there is none yet; becomes the result.
ApiResult<void> apply_fields(const ResourceInfo& resource, const nlohmann::json& applied,
                             const kube::WriteOptions& options,
                             std::chrono::system_clock::time_point now, nlohmann::json* object);

// Remembers what a write other than apply changed from `before` ({}: a creation) to `object`.
// Writes of the cloud itself to objects that nobody else manages are not remembered: nobody could
// be in conflict.
void track_update(const ResourceInfo& resource, const nlohmann::json& before,
                  const kube::WriteOptions& options, std::chrono::system_clock::time_point now,
                  nlohmann::json* object);

}  // namespace edgemesh::cloud
