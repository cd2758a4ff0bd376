// The scale subresource: an autoscaling/v1 Scale for everything that has replicas. I/O-free.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cloud/api/error.h"
#include "cloud/api/resource.h"

namespace edgemesh::cloud {

nlohmann::json scale_of(const ResourceInfo& resource, const nlohmann::json& object);
// {"matchLabels":{"a":"b"},"matchExpressions":[...]} -> "a=b,c in (d,e)"; text stays.
std::string selector_text(const nlohmann::json& selector);
// Takes the wanted replicas of `scale` over into `object`.
ApiResult<void> set_scale(const ResourceInfo& resource, const nlohmann::json& scale,
                          nlohmann::json* object);

}  // namespace edgemesh::cloud
