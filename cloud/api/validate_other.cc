// Storage, RBAC, networking, policy, scheduling.
#include <nlohmann/json.hpp>

#include "cloud/api/validate.h"
#include "cloud/api/validate_kinds.h"
#include "kube/json_util.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using nlohmann::json;

namespace {

const json& list_of(const json* list) {
  static const json kNone = json::array();
  return list != nullptr && list->is_array() ? *list : kNone;
}

void validate_claim(const json& object, FieldErrors* out) {
  const json& modes = list_of(find(object, "spec", "accessModes"));
  if (modes.empty()) {
    out->push_back(FieldError::required("spec.accessModes", "at least 1 access mode is required"));
  }
  for (const json& mode : modes) {
    static const std::vector<std::string> kModes = {"ReadOnlyMany", "ReadWriteMany",
                                                    "ReadWriteOnce", "ReadWriteOncePod"};
    if (std::find(kModes.begin(), kModes.end(), mode) != kModes.end()) continue;
    out->push_back(FieldError::not_supported(
        "spec.accessModes", mode.is_string() ? mode.get<std::string>() : "", kModes));
  }
  bool claim = text_at(object, "kind") == "PersistentVolumeClaim";
  const json* amount = claim ? find(object, "spec", "resources", "requests", "storage")
                             : find(object, "spec", "capacity", "storage");
  if (amount == nullptr) {
    out->push_back(FieldError::required(claim ? "spec.resources[storage]" : "spec.capacity"));
  }
}

void validate_binding(const json& object, FieldErrors* out) {
  std::string kind = text_at(object, "roleRef", "kind");
  if (kind != "Role" && kind != "ClusterRole") {
    std::vector<std::string> allowed = {"ClusterRole"};
    if (text_at(object, "kind") == "RoleBinding") allowed.emplace_back("Role");
    out->push_back(FieldError::not_supported("roleRef.kind", kind, allowed));
  }
  if (text_at(object, "roleRef", "name").empty())
    out->push_back(FieldError::required("roleRef.name"));
  const json& subjects = list_of(find(object, "subjects"));
  for (size_t i = 0; i < subjects.size(); ++i) {
    std::string at = fmt::format("subjects[{}]", i);
    std::string subject = text_at(subjects[i], "kind");
    if (text_at(subjects[i], "name").empty()) out->push_back(FieldError::required(at + ".name"));
    if (subject != "User" && subject != "Group" && subject != "ServiceAccount") {
      out->push_back(
          FieldError::not_supported(at + ".kind", subject, {"Group", "ServiceAccount", "User"}));
    }
    if (subject == "ServiceAccount" && text_at(subjects[i], "namespace").empty()) {
      out->push_back(FieldError::required(at + ".namespace"));
    }
  }
}

void validate_role(const json& object, FieldErrors* out) {
  const json& rules = list_of(find(object, "rules"));
  for (size_t i = 0; i < rules.size(); ++i) {
    std::string at = fmt::format("rules[{}]", i);
    if (list_of(find(rules[i], "verbs")).empty()) {
      out->push_back(FieldError::required(at + ".verbs", "verbs must contain at least one value"));
    }
    bool urls = !list_of(find(rules[i], "nonResourceURLs")).empty();
    if (!urls && list_of(find(rules[i], "resources")).empty()) {
      out->push_back(FieldError::required(at + ".resources",
                                          "resource rules must supply at least one resource"));
    }
    if (urls && text_at(object, "kind") == "Role") {
      out->push_back(FieldError::invalid(at + ".nonResourceURLs",
                                         find(rules[i], "nonResourceURLs")->dump(),
                                         "namespaced rules cannot apply to non-resource URLs"));
    }
  }
}

void validate_ingress(const json& object, FieldErrors* out) {
  const json& rules = list_of(find(object, "spec", "rules"));
  if (rules.empty() && find(object, "spec", "defaultBackend") == nullptr) {
    out->push_back(
        FieldError::invalid("spec", "{}", "either `defaultBackend` or `rules` must be specified"));
  }
  for (size_t i = 0; i < rules.size(); ++i) {
    const json& paths = list_of(find(rules[i], "http", "paths"));
    for (size_t j = 0; j < paths.size(); ++j) {
      std::string at = fmt::format("spec.rules[{}].http.paths[{}]", i, j);
      std::string type = text_at(paths[j], "pathType");
      if (type.empty()) {
        out->push_back(FieldError::required(at + ".pathType", "pathType must be specified"));
      } else if (type != "Exact" && type != "Prefix" && type != "ImplementationSpecific") {
        out->push_back(FieldError::not_supported(at + ".pathType", type,
                                                 {"Exact", "ImplementationSpecific", "Prefix"}));
      }
    }
  }
}

}  // namespace

void validate_other(const json& object, FieldErrors* out) {
  std::string kind = text_at(object, "kind");
  if (kind == "PersistentVolumeClaim" || kind == "PersistentVolume") validate_claim(object, out);
  if (kind == "RoleBinding" || kind == "ClusterRoleBinding") validate_binding(object, out);
  if (kind == "Role" || kind == "ClusterRole") validate_role(object, out);
  if (kind == "Ingress") validate_ingress(object, out);
  if (kind == "StorageClass" && text_at(object, "provisioner").empty()) {
    out->push_back(FieldError::required("provisioner"));
  }
  if (kind == "PodDisruptionBudget" && find(object, "spec", "minAvailable") != nullptr &&
      find(object, "spec", "maxUnavailable") != nullptr) {
    out->push_back(
        FieldError::invalid("spec", "{}", "minAvailable and maxUnavailable cannot be both set"));
  }
  if (kind == "PriorityClass") {
    const json* value = find(object, "value");
    std::string name = text_at(object, "metadata", "name");
    constexpr int64_t kHighest = 1'000'000'000;
    if (value != nullptr && value->is_number_integer() && value->get<int64_t>() > kHighest &&
        !name.starts_with("system-")) {
      out->push_back(FieldError::forbidden(
          "value",
          fmt::format("maximum allowed value of a user defined priority is {}", kHighest)));
    }
  }
}

void validate_other_change(const json& before, const json& after, FieldErrors* out) {
  std::string kind = text_at(after, "kind");
  auto keep = [&](const char* name) {
    if (before.value(name, json()) == after.value(name, json())) return;
    out->push_back(
        FieldError::invalid(name, after.value(name, json()).dump(), "field is immutable"));
  };
  if (kind == "RoleBinding" || kind == "ClusterRoleBinding") keep("roleRef");
  if (kind == "PriorityClass") keep("value");
  if (kind == "StorageClass") {
    for (const char* name : {"provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"})
      keep(name);
  }
}

}  // namespace edgemesh::cloud
