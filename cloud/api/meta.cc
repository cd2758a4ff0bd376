#include "cloud/api/meta.h"

#include <nlohmann/json.hpp>
#include <random>

#include "kube/json_util.h"

namespace edgemesh::cloud {

using kube::text_at;
using nlohmann::json;

// No vowels and nothing that looks alike, so that no words come out.
std::string random_suffix() {
  constexpr std::string_view kLetters = "bcdfghjklmnpqrstvwxz2456789";
  static thread_local std::minstd_rand random{std::random_device()()};
  std::string out;
  for (int i = 0; i < 5; ++i) out += kLetters[random() % kLetters.size()];
  return out;
}

ApiResult<void> check_type_and_namespace(const ResourceInfo& resource, std::string_view ns,
                                         json* body) {
  if (!body->is_object()) return refuse(ApiError::bad_request("want a JSON object"));
  std::string kind = text_at(*body, "kind");
  std::string version = text_at(*body, "apiVersion");
  if (!kind.empty() && kind != resource.type.kind) {
    return refuse(ApiError::bad_request(
        fmt::format("{} in version \"{}\" cannot be handled as a {}", kind,
                    version.empty() ? resource.type.api_version() : version, resource.type.kind)));
  }
  if (!version.empty() && version != resource.type.api_version()) {
    return refuse(ApiError::bad_request(
        fmt::format("the API version in the data ({}) does not match the expected API version ({})",
                    version, resource.type.api_version())));
  }
  (*body)["kind"] = resource.type.kind;
  (*body)["apiVersion"] = resource.type.api_version();
  auto meta = body->find("metadata");
  if (meta == body->end() || meta->is_null()) {
    (*body)["metadata"] = json::object();
    meta = body->find("metadata");
  }
  if (!meta->is_object()) return refuse(ApiError::bad_request("metadata: want an object"));
  if (!resource.type.namespaced) {
    meta->erase("namespace");
    return {};
  }
  std::string own = text_at(*meta, "namespace");
  if (!own.empty() && own != ns) {
    return refuse(ApiError::bad_request(
        fmt::format("the namespace of the provided object does not match the namespace sent on the "
                    "request ({} is not {})",
                    own, ns)));
  }
  (*meta)["namespace"] = std::string(ns);
  return {};
}

ApiResult<void> reset_meta_for_create(const ResourceInfo&, json* body) {
  json& meta = (*body)["metadata"];
  std::string version = text_at(meta, "resourceVersion");
  if (!version.empty() && version != "0") {
    return refuse(
        ApiError::bad_request("resourceVersion should not be set on objects to be created"));
  }
  for (const char* name : {"resourceVersion", "uid", "creationTimestamp", "deletionTimestamp",
                           "deletionGracePeriodSeconds", "selfLink", "generation"}) {
    meta.erase(name);
  }
  std::string prefix = text_at(meta, "generateName");
  if (text_at(meta, "name").empty() && !prefix.empty()) {
    constexpr size_t kMaxPrefix = 58;
    meta["name"] = prefix.substr(0, kMaxPrefix) + random_suffix();
  }
  return {};
}

ApiResult<void> check_preconditions(const ResourceInfo& resource, const StoredObject& stored,
                                    const json& body) {
  std::string version = text_at(body, "metadata", "resourceVersion");
  if (!version.empty() && version != std::to_string(stored.version)) {
    return refuse(ApiError::conflict(resource, stored.name,
                                     "the object has been modified; please apply your changes to "
                                     "the latest version and try again"));
  }
  std::string uid = text_at(body, "metadata", "uid");
  if (!uid.empty() && uid != stored.uid) {
    return refuse(ApiError::conflict(
        resource, stored.name,
        fmt::format("Precondition failed: UID in precondition: {}, UID in object meta: {}", uid,
                    stored.uid)));
  }
  return {};
}

void keep_managed_fields(const json& from, json* to) {
  if (const json* fields = kube::find(from, "metadata", "managedFields")) {
    (*to)["metadata"]["managedFields"] = *fields;
  }
}

void keep_system_meta(const json& before, json* body) {
  json& meta = (*body)["metadata"];
  const json& old = before["metadata"];
  for (const char* name : {"uid", "creationTimestamp", "deletionTimestamp",
                           "deletionGracePeriodSeconds", "generation", "namespace", "name"}) {
    auto it = old.find(name);
    if (it != old.end()) {
      meta[name] = *it;
    } else {
      meta.erase(name);
    }
  }
  meta.erase("selfLink");
  if (!meta.contains("managedFields")) keep_managed_fields(before, body);
  // Written by many clients as null or {}; the same as absent.
  for (const char* name :
       {"labels", "annotations", "finalizers", "ownerReferences", "managedFields"}) {
    auto it = meta.find(name);
    if (it != meta.end() && (it->is_null() || it->empty())) meta.erase(it);
  }
}

bool has_generation(const ResourceInfo& resource) {
  const std::string& group = resource.type.group;
  const std::string& kind = resource.type.kind;
  if (resource.custom || group == "apps" || group == "batch" || group == "discovery.k8s.io")
    return true;
  return kind == "CustomResourceDefinition" || kind == "Ingress" || kind == "NetworkPolicy" ||
         kind == "PodDisruptionBudget" || kind == "ReplicationController" ||
         group == "admissionregistration.k8s.io";
}

bool same_spec(const json& a, const json& b) {
  // Everything that is neither metadata nor status: endpoint slices have no spec.
  json left = a, right = b;
  for (const char* name : {"metadata", "status"}) {
    left.erase(name);
    right.erase(name);
  }
  return left == right;
}

void bump_generation(const json& before, json* body) {
  const json* old = kube::find(before, "metadata", "generation");
  int64_t value = old != nullptr && old->is_number_integer() ? old->get<int64_t>() : 0;
  (*body)["metadata"]["generation"] = value + 1;
}

bool is_deleting(const json& object) {
  return kube::find(object, "metadata", "deletionTimestamp") != nullptr;
}

bool has_finalizers(const json& object) {
  const json* list = kube::find(object, "metadata", "finalizers");
  return list != nullptr && list->is_array() && !list->empty();
}

bool has_grace(const json& object) {
  const json* grace = kube::find(object, "metadata", "deletionGracePeriodSeconds");
  return grace != nullptr && grace->is_number_integer() && grace->get<int64_t>() > 0;
}

}  // namespace edgemesh::cloud
