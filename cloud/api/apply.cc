#include "cloud/api/apply.h"

#include <nlohmann/json.hpp>

#include "cloud/api/store.h"
#include "kube/json_util.h"
#include "kube/patch.h"
#include "kube/strategic_schema.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

// A set of fields in the form of managedFields (FieldsV1):
// {"f:spec":{"f:ports":{"k:{...}":{".":{}}}}}.
json field_set(const json& value, std::string_view type);

json list_set(const json& list, const kube::FieldRule& rule) {
  json out = json::object();
  for (const json& item : list) {
    if (rule.set) {
      out["v:" + item.dump()] = json::object();
    } else if (const json* id = kube::find(item, rule.merge_key)) {
      json fields = field_set(item, rule.child);
      fields["."] = json::object();
      out["k:" + json{{std::string(rule.merge_key), *id}}.dump()] = std::move(fields);
    }
  }
  return out;
}

json field_set(const json& value, std::string_view type) {
  json out = json::object();
  if (!value.is_object()) return out;
  for (const auto& [key, inner] : value.items()) {
    const kube::FieldRule* rule = kube::find_rule(type, key);
    bool merges = inner.is_array() && rule != nullptr && (rule->set || !rule->merge_key.empty());
    if (merges) {
      out["f:" + key] = list_set(inner, *rule);
    } else {
      out["f:" + key] = field_set(inner, rule != nullptr ? rule->child : std::string_view());
    }
  }
  return out;
}

json owned_fields(const json& applied, std::string_view kind) {
  json trimmed = applied;
  trimmed.erase("apiVersion");
  trimmed.erase("kind");
  trimmed.erase("status");
  if (auto meta = trimmed.find("metadata"); meta != trimmed.end() && meta->is_object()) {
    for (const char* name :
         {"name", "namespace", "managedFields", "uid", "resourceVersion", "creationTimestamp"}) {
      meta->erase(name);
    }
    if (meta->empty()) trimmed.erase(meta);
  }
  return field_set(trimmed, kube::root_type(kind));
}

// The value that an element of a field set stands for, inside `at`; null when there is none.
json* child_of(json* at, const std::string& element) {
  if (element.starts_with("f:")) {
    if (!at->is_object()) return nullptr;
    auto it = at->find(element.substr(2));
    return it == at->end() ? nullptr : &*it;
  }
  if (element.size() < 2) return nullptr;
  json wanted = json::parse(element.substr(2), nullptr, false);
  if (!at->is_array() || wanted.is_discarded()) return nullptr;
  for (json& item : *at) {
    if (element.starts_with("v:") && item == wanted) return &item;
    if (!element.starts_with("k:") || !item.is_object() || !wanted.is_object()) continue;
    bool same = true;
    for (const auto& [key, value] : wanted.items()) {
      same = same && item.contains(key) && item[key] == value;
    }
    if (same) return &item;
  }
  return nullptr;
}

void erase_child(json* at, const std::string& element) {
  json* child = child_of(at, element);
  if (child == nullptr) return;
  if (at->is_object()) {
    at->erase(element.substr(2));
  } else {
    at->erase(static_cast<size_t>(child - &(*at)[0]));
  }
}

bool is_leaf(const json& set) {
  return set.empty() || (set.size() == 1 && set.contains("."));
}

// Takes away from `live` what `old_set` has and neither `new_set` nor another manager has.
void remove_dropped(json* live, const json& old_set, const json& new_set,
                    const std::vector<const json*>& others) {
  for (const auto& [element, old_inner] : old_set.items()) {
    if (element == ".") continue;
    std::vector<const json*> inner_others;
    for (const json* other : others) {
      if (auto it = other->find(element); it != other->end()) inner_others.push_back(&*it);
    }
    auto kept = new_set.find(element);
    bool element_owned = element.starts_with("k:") && old_inner.contains(".");
    if (kept == new_set.end() && inner_others.empty() && (is_leaf(old_inner) || element_owned)) {
      erase_child(live, element);
      continue;
    }
    json* child = child_of(live, element);
    if (child == nullptr || is_leaf(old_inner)) continue;
    static const json kNone = json::object();
    remove_dropped(child, old_inner, kept != new_set.end() ? *kept : kNone, inner_others);
    if (kept == new_set.end() && inner_others.empty() && child->empty()) erase_child(live, element);
  }
}

std::string dotted(const std::string& path, const std::string& element) {
  return element.starts_with("f:") ? path + "." + element.substr(2)
                                   : path + "[" + element.substr(2) + "]";
}

// Paths where `applied` wants another value than `live` has and `owner` has the field.
void find_conflicts(const json& set, const json& owner, json* live, json* applied,
                    const std::string& path, std::vector<std::string>* out) {
  for (const auto& [element, inner] : set.items()) {
    auto owned = owner.find(element);
    if (element == "." || owned == owner.end()) continue;
    json* have = child_of(live, element);
    json* want = child_of(applied, element);
    if (have == nullptr || want == nullptr) continue;
    if (is_leaf(inner) || is_leaf(*owned)) {
      if (*have != *want) out->push_back(dotted(path, element));
    } else {
      find_conflicts(inner, *owned, have, want, dotted(path, element), out);
    }
  }
}

// Takes the fields of `taken` out of `set`.
void subtract(json* set, const json& taken) {
  for (const auto& [element, inner] : taken.items()) {
    auto it = set->find(element);
    if (element == "." || it == set->end()) continue;
    if (is_leaf(inner)) {
      set->erase(it);
    } else {
      subtract(&*it, inner);
      if (it->empty()) set->erase(it);
    }
  }
}

ApiError conflict_error(const ResourceInfo& resource, const std::string& name,
                        const std::vector<std::pair<std::string, std::string>>& conflicts) {
  ApiError out = ApiError::conflict(resource, name, "");
  out.message = fmt::format("Apply failed with {} conflict{}:", conflicts.size(),
                            conflicts.size() == 1 ? "" : "s");
  for (const auto& [manager, field] : conflicts) {
    out.message += fmt::format(" conflict with \"{}\": {}", manager, field);
    out.causes.push_back(
        {"FieldManagerConflict", field, fmt::format("conflict with \"{}\"", manager)});
  }
  return out;
}

struct Managers {
  json others = json::array();  // entries of managedFields
  json own_fields = json::object();
};

Managers split_managers(const json& object, const std::string& manager) {
  Managers out;
  const json* list = kube::find(object, "metadata", "managedFields");
  if (list == nullptr || !list->is_array()) return out;
  for (const json& entry : *list) {
    const json* fields = kube::find(entry, "fieldsV1");
    bool own =
        kube::text_at(entry, "manager") == manager && kube::text_at(entry, "operation") == "Apply";
    if (own) {
      if (fields != nullptr && fields->is_object()) out.own_fields = *fields;
    } else {
      out.others.push_back(entry);
    }
  }
  return out;
}

}  // namespace

ApiResult<void> apply_fields(const ResourceInfo& resource, const json& applied,
                             const kube::WriteOptions& options,
                             std::chrono::system_clock::time_point now, json* object) {
  if (!applied.is_object()) return refuse(ApiError::bad_request("apply: want an object"));
  if (options.field_manager.empty()) {
    return refuse(
        ApiError::bad_request("PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: "
                              "Required value: is required for apply patch"));
  }
  const json* meta = kube::find(applied, "metadata");
  if (applied.contains("metadata") && (meta == nullptr || !meta->is_object())) {
    return refuse(ApiError::bad_request("metadata: want an object"));
  }
  if (kube::find(applied, "metadata", "managedFields") != nullptr) {
    return refuse(ApiError::bad_request("metadata.managedFields must be nil"));
  }
  json wanted = applied;
  json set = owned_fields(wanted, resource.type.kind);
  Managers managers = split_managers(*object, options.field_manager);
  std::vector<std::pair<std::string, std::string>> conflicts;
  std::vector<const json*> other_sets;
  for (json& entry : managers.others) {
    auto fields = entry.find("fieldsV1");
    if (fields == entry.end() || !fields->is_object()) continue;
    std::vector<std::string> paths;
    find_conflicts(set, *fields, object, &wanted, "", &paths);
    for (std::string& path : paths) {
      conflicts.emplace_back(kube::text_at(entry, "manager"), std::move(path));
    }
    if (options.force && !paths.empty()) subtract(&*fields, set);
    other_sets.push_back(&*fields);
  }
  if (!conflicts.empty() && !options.force) {
    return refuse(conflict_error(resource, kube::text_at(applied, "metadata", "name"), conflicts));
  }
  remove_dropped(object, managers.own_fields, set, other_sets);
  if (auto done = kube::apply_strategic_patch(*object, wanted, resource.type.kind); !done) {
    return refuse(ApiError::bad_request(done.error().message));
  }
  bool same = set == managers.own_fields && conflicts.empty();
  json entry = {{"manager", options.field_manager},
                {"operation", "Apply"},
                {"apiVersion", resource.type.api_version()},
                {"time", timestamp(now)},
                {"fieldsType", "FieldsV1"},
                {"fieldsV1", std::move(set)}};
  // An apply that changes nothing must not change the object by its time.
  if (same) return {};
  json list = std::move(managers.others);
  list.push_back(std::move(entry));
  (*object)["metadata"]["managedFields"] = std::move(list);
  return {};
}

}  // namespace edgemesh::cloud
