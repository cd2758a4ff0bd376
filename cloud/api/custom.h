// CustomResourceDefinitions: what they define becomes resources of the registry, and their
// structural schemas prune, default and check the objects (apiextensions.k8s.io/v1). Rules in CEL
// (x-kubernetes-validations) are not evaluated, conversion webhooks are not called. I/O-free.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cloud/api/error.h"
#include "cloud/api/resource.h"

namespace edgemesh::cloud {

inline constexpr std::string_view kDefinitions = "customresourcedefinitions.apiextensions.k8s.io";
inline constexpr std::string_view kDefinitionFinalizer =
    "customresourcecleanup.apiextensions.k8s.io";

// The resources of a definition that is valid, the stored version first.
std::vector<std::unique_ptr<ResourceInfo>> resources_of(const nlohmann::json& definition);
// Empty: its names are free; else who has them.
std::string names_taken(const nlohmann::json& definition, const ResourceRegistry& registry);
// Sets conditions, acceptedNames, storedVersions and the finalizer. True: something changed.
bool set_definition_status(const std::string& taken, const std::string& now,
                           nlohmann::json* definition);

void default_definition(nlohmann::json* definition);
void validate_definition(const nlohmann::json& definition, FieldErrors* out);
void validate_definition_change(const nlohmann::json& before, const nlohmann::json& after,
                                FieldErrors* out);

// Prunes and defaults an object of a custom resource; what is wrong with it comes back.
FieldErrors complete_custom(const ResourceInfo& resource, nlohmann::json* object);
std::vector<std::string> unknown_custom_fields(const ResourceInfo& resource,
                                               const nlohmann::json& object);

}  // namespace edgemesh::cloud
