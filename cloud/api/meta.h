// metadata: what the server decides and what a client may set. I/O-free.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "cloud/api/error.h"
#include "cloud/api/store.h"

namespace edgemesh::cloud {

// kind, apiVersion and namespace of a body must agree with the request; what is missing is filled
// in.
ApiResult<void> check_type_and_namespace(const ResourceInfo& resource, std::string_view ns,
                                         nlohmann::json* body);
// Five letters and digits, as generateName adds them.
std::string random_suffix();
// Drops what only the server sets; makes a name from generateName.
ApiResult<void> reset_meta_for_create(const ResourceInfo& resource, nlohmann::json* body);
// metadata.resourceVersion and uid, where the body has them, are those of `stored`.
ApiResult<void> check_preconditions(const ResourceInfo& resource, const StoredObject& stored,
                                    const nlohmann::json& body);
// uid, timestamps and generation stay; managedFields stay when the body has none.
void keep_system_meta(const nlohmann::json& before, nlohmann::json* body);
void keep_managed_fields(const nlohmann::json& from, nlohmann::json* to);

bool has_generation(const ResourceInfo& resource);
bool same_spec(const nlohmann::json& a, const nlohmann::json& b);
void bump_generation(const nlohmann::json& before, nlohmann::json* body);

bool is_deleting(const nlohmann::json& object);
bool has_finalizers(const nlohmann::json& object);
bool has_grace(const nlohmann::json& object);  // deletionGracePeriodSeconds > 0

}  // namespace edgemesh::cloud
