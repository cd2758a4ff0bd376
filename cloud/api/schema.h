// The fields of the kinds, from the table of built-in types: for `kubectl explain`, for strict
// field validation, and to bring a body into the form in which it is stored. I/O-free, immutable.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cloud/api/resource.h"
#include "core/base/result.h"

namespace edgemesh::cloud {

// Schemas for components.schemas of an OpenAPI v3 document, of the resource and what it refers to.
void add_schemas(const ResourceInfo& resource, nlohmann::json* schemas);
std::string schema_name(const ResourceInfo& resource);  // "io.k8s.api.core.v1.Service"

// Paths of fields that the kind does not have ("spec.prots"), for fieldValidation Strict and Warn.
std::vector<std::string> unknown_fields(const ResourceInfo& resource, const nlohmann::json& object);

// Takes away nulls and fields that the kind does not have, and refuses values of a wrong JSON type
// (kInvalidArgument names the field): what is behind it can rely on the types of known fields.
Result<> normalize(const ResourceInfo& resource, nlohmann::json* object);

}  // namespace edgemesh::cloud
