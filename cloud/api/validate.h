// Defaults and validation of the built-in kinds, with the messages that Kubernetes users know.
// I/O-free.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "cloud/api/error.h"

namespace edgemesh::cloud {

// Empty: fine; else why not. RFC 1123 label and subdomain, RFC 1035 label (services).
std::string_view check_dns_label(std::string_view text);
std::string_view check_dns_subdomain(std::string_view text);
std::string_view check_dns_1035(std::string_view text);
std::string_view check_label_value(std::string_view text);
std::string_view check_qualified_name(std::string_view text);  // "example.com/name"

// Wrong JSON types that would break everything behind; kInvalidArgument with the path.
Result<> check_shape(const ResourceInfo& resource, const nlohmann::json& object);

void set_defaults(const ResourceInfo& resource, nlohmann::json* object);
FieldErrors validate_meta(const ResourceInfo& resource, const nlohmann::json& object);
FieldErrors validate(const ResourceInfo& resource, const nlohmann::json& object);
// What may not change; both are with defaults.
FieldErrors validate_change(const ResourceInfo& resource, const nlohmann::json& before,
                            const nlohmann::json& after);

}  // namespace edgemesh::cloud
