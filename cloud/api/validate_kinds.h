// Private to api_validate: one pair of functions a kind.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "cloud/api/error.h"

namespace edgemesh::cloud {

Result<> check_kind_shape(const ResourceInfo& resource, const nlohmann::json& object);

void default_service(nlohmann::json* object);
void default_namespace(nlohmann::json* object);
void default_endpoint_slice(nlohmann::json* object);
void fold_string_data(nlohmann::json* object);  // a Secret's stringData goes into data

void validate_service(const nlohmann::json& object, FieldErrors* out);
// `at`: where the spec stands, "spec" or "spec.template.spec".
void validate_pod_spec(const nlohmann::json& spec, const std::string& at, FieldErrors* out);
void validate_pod(const nlohmann::json& object, FieldErrors* out);
void validate_workload(const nlohmann::json& object, FieldErrors* out);
void validate_workload_change(const nlohmann::json& before, const nlohmann::json& after,
                              FieldErrors* out);
// Everything else that has rules: storage, RBAC, networking, policy, scheduling.
void validate_other(const nlohmann::json& object, FieldErrors* out);
void validate_other_change(const nlohmann::json& before, const nlohmann::json& after,
                           FieldErrors* out);
void validate_endpoint_slice(const nlohmann::json& object, FieldErrors* out);
void validate_data(const nlohmann::json& object, FieldErrors* out);

void validate_pod_change(const nlohmann::json& before, const nlohmann::json& after,
                         FieldErrors* out);
void validate_data_change(const nlohmann::json& before, const nlohmann::json& after,
                          FieldErrors* out);

}  // namespace edgemesh::cloud
