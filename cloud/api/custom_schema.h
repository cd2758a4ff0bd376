// Structural schemas of CustomResourceDefinitions (OpenAPI v3 with Kubernetes' extensions).
// I/O-free.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cloud/api/error.h"

namespace edgemesh::cloud {

// Takes away what the schema does not know; the paths go to `dropped` (may be null; then nothing
// else is remembered of them). `root`: kind, apiVersion and metadata stay.
void prune_by_schema(const nlohmann::json& schema, bool root, const std::string& path,
                     nlohmann::json* value, std::vector<std::string>* dropped);
void default_by_schema(const nlohmann::json& schema, nlohmann::json* value);
void validate_by_schema(const nlohmann::json& schema, const std::string& path, bool root,
                        const nlohmann::json& value, FieldErrors* out);
// Patterns that do not compile, missing types, ...
void validate_schema(const nlohmann::json& schema, const std::string& path, FieldErrors* out);

}  // namespace edgemesh::cloud
