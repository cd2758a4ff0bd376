#include "cloud/api/custom.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/api/custom_schema.h"
#include "cloud/api/validate.h"
#include "kube/json_util.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using nlohmann::json;

namespace {

const json& list_at(const json& object, std::string_view a, std::string_view b) {
  static const json kNone = json::array();
  const json* list = find(object, a, b);
  return list != nullptr && list->is_array() ? *list : kNone;
}

bool flag(const json& object, std::string_view name) {
  const json* value = find(object, name);
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

std::vector<std::string> strings(const json* list) {
  std::vector<std::string> out;
  if (list == nullptr || !list->is_array()) return out;
  for (const json& item : *list) {
    if (item.is_string()) out.push_back(item.get<std::string>());
  }
  return out;
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return text;
}

std::vector<PrinterColumn> columns_of(const json& version) {
  std::vector<PrinterColumn> out;
  const json* columns = find(version, "additionalPrinterColumns");
  if (columns == nullptr || columns->empty()) {
    return {{"Age", "date", ".metadata.creationTimestamp", false}};
  }
  for (const json& column : *columns) {
    const json* priority = find(column, "priority");
    bool wide =
        priority != nullptr && priority->is_number_integer() && priority->get<int64_t>() > 0;
    out.push_back(
        {text_at(column, "name"), text_at(column, "type"), text_at(column, "jsonPath"), wide});
  }
  return out;
}

void add_subresources(const json& version, ResourceInfo* info) {
  info->has_status = find(version, "subresources", "status") != nullptr;
  const json* scale = find(version, "subresources", "scale");
  if (scale == nullptr) return;
  info->scale = std::make_shared<ScalePaths>(ScalePaths{text_at(*scale, "specReplicasPath"),
                                                        text_at(*scale, "statusReplicasPath"),
                                                        text_at(*scale, "labelSelectorPath")});
  info->subresources.push_back({"scale", "autoscaling", "v1", "Scale", {"get", "patch", "update"}});
}

std::unique_ptr<ResourceInfo> resource_of(const json& definition, const json& version) {
  const json& spec = *find(definition, "spec");
  auto info = std::make_unique<ResourceInfo>();
  info->custom = true;
  info->type = {text_at(spec, "group"), text_at(version, "name"), text_at(spec, "names", "plural"),
                text_at(spec, "names", "kind"), text_at(spec, "scope") == "Namespaced"};
  info->singular = text_at(spec, "names", "singular");
  info->list_kind = text_at(spec, "names", "listKind");
  info->short_names = strings(find(spec, "names", "shortNames"));
  info->categories = strings(find(spec, "names", "categories"));
  info->served = flag(version, "served");
  info->terminating = find(definition, "metadata", "deletionTimestamp") != nullptr;
  if (const json* schema = find(version, "schema", "openAPIV3Schema")) {
    info->schema = std::make_shared<const json>(*schema);
  }
  info->columns = columns_of(version);
  add_subresources(version, info.get());
  if (const json* fields = find(version, "selectableFields"); fields && fields->is_array()) {
    for (const json& field : *fields) {
      std::string path = text_at(field, "jsonPath");
      if (path.size() > 1) info->fields.push_back(path.substr(1));
    }
  }
  if (flag(version, "deprecated")) {
    info->warning = text_at(version, "deprecationWarning");
    if (info->warning.empty()) {
      info->warning = fmt::format("{} {} is deprecated", info->type.api_version(), info->type.kind);
    }
  }
  return info;
}

json condition(const char* type, bool yes, const char* reason, const std::string& message,
               const std::string& now) {
  return {{"type", type},
          {"status", yes ? "True" : "False"},
          {"reason", reason},
          {"message", message},
          {"lastTransitionTime", now}};
}

void put_condition(json wanted, json* list) {
  for (json& have : *list) {
    if (text_at(have, "type") != text_at(wanted, "type")) continue;
    if (text_at(have, "status") != text_at(wanted, "status")) have = std::move(wanted);
    return;
  }
  list->push_back(std::move(wanted));
}

void validate_versions(const json& spec, FieldErrors* out) {
  const json* versions = find(spec, "versions");
  if (versions == nullptr || versions->empty()) {
    out->push_back(FieldError::required("spec.versions",
                                        "must have exactly one version marked as storage version"));
    return;
  }
  size_t stored = 0;
  std::vector<std::string> names;
  for (size_t i = 0; i < versions->size(); ++i) {
    const json& version = (*versions)[i];
    std::string at = fmt::format("spec.versions[{}]", i);
    std::string name = text_at(version, "name");
    if (auto why = check_dns_1035(name); !why.empty()) {
      out->push_back(FieldError::invalid(at + ".name", json(name).dump(), why));
    }
    if (std::find(names.begin(), names.end(), name) != names.end()) {
      out->push_back(FieldError::duplicate(at + ".name", json(name).dump()));
    }
    names.push_back(name);
    stored += flag(version, "storage") ? 1 : 0;
    const json* schema = find(version, "schema", "openAPIV3Schema");
    if (schema == nullptr) {
      out->push_back(FieldError::required(at + ".schema.openAPIV3Schema", "schemas are required"));
    } else {
      validate_schema(*schema, at + ".schema.openAPIV3Schema", out);
    }
  }
  if (stored != 1) {
    out->push_back(FieldError::invalid("spec.versions", json(names).dump(),
                                       "must have exactly one version marked as storage version"));
  }
}

}  // namespace

std::vector<std::unique_ptr<ResourceInfo>> resources_of(const json& definition) {
  std::vector<std::unique_ptr<ResourceInfo>> out;
  const json& versions = list_at(definition, "spec", "versions");
  for (const json& version : versions) {
    if (flag(version, "storage")) out.push_back(resource_of(definition, version));
  }
  if (out.empty()) return out;
  for (const json& version : versions) {
    if (flag(version, "storage") || !flag(version, "served")) continue;
    out.push_back(resource_of(definition, version));
    out.back()->stored_as = out.front().get();
  }
  return out;
}

std::string names_taken(const json& definition, const ResourceRegistry& registry) {
  const json& spec = *find(definition, "spec");
  std::string group = text_at(spec, "group");
  std::string plural = text_at(spec, "names", "plural");
  for (const auto& info : registry.all()) {
    if (info->type.group != group || info->storage() == text_at(definition, "metadata", "name"))
      continue;
    if (info->type.plural == plural) return fmt::format("\"{}\" is already in use", plural);
    if (info->type.kind == text_at(spec, "names", "kind")) {
      return fmt::format("\"{}\" is already in use", info->type.kind);
    }
  }
  return {};
}

bool set_definition_status(const std::string& taken, const std::string& now, json* definition) {
  json before = *definition;
  json& status = (*definition)["status"];
  if (!status.is_object()) status = json::object();
  json& conditions = status["conditions"];
  if (!conditions.is_array()) conditions = json::array();
  bool free = taken.empty();
  put_condition(condition("NamesAccepted", free, free ? "NoConflicts" : "PluralConflict",
                          free ? "no conflicts found" : taken, now),
                &conditions);
  put_condition(
      condition("Established", free, free ? "InitialNamesAccepted" : "NotAccepted",
                free ? "the initial names have been accepted" : "not all names are accepted", now),
      &conditions);
  if (free) status["acceptedNames"] = (*definition)["spec"]["names"];
  json& stored = status["storedVersions"];
  if (!stored.is_array()) stored = json::array();
  for (const json& version : list_at(*definition, "spec", "versions")) {
    json name = text_at(version, "name");
    bool known = std::find(stored.begin(), stored.end(), name) != stored.end();
    if (flag(version, "storage") && !known) stored.push_back(std::move(name));
  }
  json& meta = (*definition)["metadata"];
  bool deleting = find(meta, "deletionTimestamp") != nullptr;
  auto finalizers = strings(find(meta, "finalizers"));
  bool guarded =
      std::find(finalizers.begin(), finalizers.end(), kDefinitionFinalizer) != finalizers.end();
  if (!guarded && !deleting) {
    if (!meta.contains("finalizers")) meta["finalizers"] = json::array();
    meta["finalizers"].push_back(kDefinitionFinalizer);
  }
  return *definition != before;
}

void default_definition(json* definition) {
  json& spec = (*definition)["spec"];
  if (!spec.is_object()) spec = json::object();
  if (find(spec, "conversion") == nullptr) spec["conversion"] = {{"strategy", "None"}};
  json& names = spec["names"];
  if (!names.is_object()) names = json::object();
  std::string kind = text_at(names, "kind");
  if (text_at(names, "singular").empty()) names["singular"] = lower(kind);
  if (text_at(names, "listKind").empty()) names["listKind"] = kind + "List";
}

void validate_definition(const json& definition, FieldErrors* out) {
  const json& spec = *find(definition, "spec");
  std::string name = text_at(definition, "metadata", "name");
  std::string group = text_at(spec, "group"), plural = text_at(spec, "names", "plural");
  if (name != plural + "." + group) {
    out->push_back(FieldError::invalid("metadata.name", json(name).dump(),
                                       "must be spec.names.plural+\".\"+spec.group"));
  }
  if (auto why = check_dns_subdomain(group); !why.empty()) {
    out->push_back(FieldError::invalid("spec.group", json(group).dump(), why));
  } else if (group.find('.') == std::string::npos) {
    out->push_back(FieldError::invalid("spec.group", json(group).dump(),
                                       "should be a domain with at least one dot"));
  }
  if (auto why = check_dns_1035(plural); !why.empty()) {
    out->push_back(FieldError::invalid("spec.names.plural", json(plural).dump(), why));
  }
  std::string kind = text_at(spec, "names", "kind");
  if (auto why = check_dns_1035(lower(kind)); !why.empty()) {
    out->push_back(FieldError::invalid(
        "spec.names.kind", json(kind).dump(),
        fmt::format("may have mixed case, but should otherwise match: {}", why)));
  }
  std::string scope = text_at(spec, "scope");
  if (scope != "Cluster" && scope != "Namespaced") {
    out->push_back(FieldError::not_supported("spec.scope", scope, {"Cluster", "Namespaced"}));
  }
  if (text_at(spec, "conversion", "strategy") != "None") {
    out->push_back(FieldError::not_supported("spec.conversion.strategy",
                                             text_at(spec, "conversion", "strategy"), {"None"}));
  }
  validate_versions(spec, out);
}

void validate_definition_change(const json& before, const json& after, FieldErrors* out) {
  for (const char* name : {"group", "scope"}) {
    if (text_at(before, "spec", name) == text_at(after, "spec", name)) continue;
    out->push_back(FieldError::invalid(fmt::format("spec.{}", name),
                                       json(text_at(after, "spec", name)).dump(),
                                       "field is immutable"));
  }
  for (const char* name : {"plural", "kind"}) {
    if (text_at(before, "spec", "names", name) == text_at(after, "spec", "names", name)) continue;
    out->push_back(FieldError::invalid(fmt::format("spec.names.{}", name),
                                       json(text_at(after, "spec", "names", name)).dump(),
                                       "field is immutable"));
  }
}

FieldErrors complete_custom(const ResourceInfo& resource, json* object) {
  FieldErrors out = validate_meta(resource, *object);
  if (resource.schema == nullptr) return out;
  prune_by_schema(*resource.schema, true, "", object, nullptr);
  default_by_schema(*resource.schema, object);
  validate_by_schema(*resource.schema, "", true, *object, &out);
  return out;
}

std::vector<std::string> unknown_custom_fields(const ResourceInfo& resource, const json& object) {
  std::vector<std::string> out;
  if (resource.schema == nullptr) return out;
  json copy = object;
  prune_by_schema(*resource.schema, true, "", &copy, &out);
  return out;
}

}  // namespace edgemesh::cloud
