// The fields of the built-in kinds: for `kubectl explain` and for strict field validation. Not
// every kind is described in full; a type that is not marked complete accepts fields that are not
// listed. I/O-free, immutable.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cloud/api/resource.h"

namespace edgemesh::cloud {

// Schemas for components.schemas of an OpenAPI v3 document, of the resource and what it refers to.
void add_schemas(const ResourceInfo& resource, nlohmann::json* schemas);
std::string schema_name(const ResourceInfo& resource);  // "io.k8s.api.core.v1.Service"

// Paths of fields that the kind does not have ("spec.prots"), for fieldValidation Strict and Warn.
std::vector<std::string> unknown_fields(const ResourceInfo& resource, const nlohmann::json& object);

}  // namespace edgemesh::cloud
