#include "cloud/api/apply.h"

#include <nlohmann/json.hpp>

#include "cloud/api/fields.h"
#include "cloud/api/store.h"
#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

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
  if (element.starts_with("f:")) return path + "." + element.substr(2);
  if (element.starts_with("v:")) return path + "[=" + element.substr(2) + "]";
  const json id = json::parse(element.substr(2), nullptr, false);
  if (!id.is_object()) return path + "[" + element.substr(2) + "]";
  std::string out;
  for (const auto& [key, value] : id.items()) {
    out += fmt::format("{}{}={}", out.empty() ? "" : ",", key, kube::to_text(value));
  }
  return path + "[" + out + "]";
}

// Paths where `applied` wants another value than `live` has and `owner` has the field.
void find_conflicts(const json& set, const json& owner, json* live, json* applied,
                    const std::string& path, std::vector<std::string>* out, json* taken) {
  for (const auto& [element, inner] : set.items()) {
    auto owned = owner.find(element);
    if (element == "." || owned == owner.end()) continue;
    json* have = child_of(live, element);
    json* want = child_of(applied, element);
    if (have == nullptr || want == nullptr) continue;
    if (is_leaf(inner) || is_leaf(*owned)) {
      // Having an element, or an empty map, takes nothing from who has fields in it.
      bool same_field = is_leaf(inner) && is_leaf(*owned) && !element.starts_with("k:");
      if (!same_field || *have == *want) continue;
      out->push_back(dotted(path, element));
      (*taken)[element] = json::object();
    } else {
      json inner_taken = json::object();
      find_conflicts(inner, *owned, have, want, dotted(path, element), out, &inner_taken);
      if (!inner_taken.empty()) (*taken)[element] = std::move(inner_taken);
    }
  }
}

ApiError conflict_error(const ResourceInfo& resource, const std::string& name,
                        const std::vector<std::pair<std::string, std::string>>& conflicts) {
  ApiError out = ApiError::conflict(resource, name, "");
  out.message = fmt::format("Apply failed with {} conflict{}:", conflicts.size(),
                            conflicts.size() == 1 ? "" : "s");
  for (const auto& [manager, field] : conflicts) {
    out.message += fmt::format(" conflict with {}: {}", manager, field);
    out.causes.push_back({"FieldManagerConflict", field, "conflict with " + manager});
  }
  return out;
}

std::string shown_manager(const json& entry, const ResourceInfo& resource) {
  std::string out = "\"" + kube::text_at(entry, "manager") + "\"";
  if (std::string sub = kube::text_at(entry, "subresource"); !sub.empty()) {
    out += " with subresource \"" + sub + "\"";
  }
  if (kube::text_at(entry, "operation") == "Update") {
    out += " using " + kube::text_at(entry, "apiVersion");
    if (std::string time = kube::text_at(entry, "time"); !time.empty()) out += " at " + time;
  }
  static_cast<void>(resource);
  return out;
}

struct Managers {
  json others = json::array();  // entries of managedFields
  json own_fields = json::object();
  bool own = false;
};

Managers split_managers(const json& object, const kube::WriteOptions& options,
                        std::string_view operation) {
  Managers out;
  const json* list = kube::find(object, "metadata", "managedFields");
  if (list == nullptr || !list->is_array()) return out;
  for (const json& entry : *list) {
    if (!entry.is_object() || kube::text_at(entry, "manager").empty()) continue;
    const json* fields = kube::find(entry, "fieldsV1");
    bool own = kube::text_at(entry, "manager") == options.field_manager &&
               kube::text_at(entry, "operation") == operation &&
               kube::text_at(entry, "subresource") == options.subresource;
    if (own) {
      out.own = true;
      if (fields != nullptr && fields->is_object()) add_fields(&out.own_fields, *fields);
    } else {
      out.others.push_back(entry);
    }
  }
  return out;
}

json new_entry(const ResourceInfo& resource, const kube::WriteOptions& options,
               std::string_view operation, std::chrono::system_clock::time_point now, json set) {
  json entry = {{"manager", options.field_manager},
                {"operation", operation},
                {"apiVersion", resource.type.api_version()},
                {"time", kube::rfc3339(now)},
                {"fieldsType", "FieldsV1"},
                {"fieldsV1", std::move(set)}};
  if (!options.subresource.empty()) entry["subresource"] = options.subresource;
  return entry;
}

// What an object that nobody managed so far has belongs to a manager of its own.
void adopt_fields(const ResourceInfo& resource, const Shape& shape, json* object) {
  if (object->empty() || kube::find(*object, "metadata", "managedFields") != nullptr) return;
  json set = owned_fields(*object, shape, false);
  if (set.empty()) return;
  kube::WriteOptions before;
  before.field_manager = "before-first-apply";
  json entry = new_entry(resource, before, "Update", {}, std::move(set));
  entry.erase("time");
  (*object)["metadata"]["managedFields"] = json::array({std::move(entry)});
}

void drop_empty(json* entries) {
  json kept = json::array();
  for (json& entry : *entries) {
    const json* fields = kube::find(entry, "fieldsV1");
    if (fields != nullptr && fields->is_object() && !fields->empty()) {
      kept.push_back(std::move(entry));
    }
  }
  *entries = std::move(kept);
}

json without_nulls(const json& value) {
  if (!value.is_object()) return value;
  json out = json::object();
  for (const auto& [key, inner] : value.items()) {
    if (!inner.is_null()) out[key] = without_nulls(inner);
  }
  return out;
}

ApiResult<void> check_applied(const json& applied, const kube::WriteOptions& options) {
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
  if (const json* managed = kube::find(applied, "metadata", "managedFields");
      managed != nullptr && !managed->empty()) {
    return refuse(ApiError::bad_request("metadata.managedFields must be nil"));
  }
  return {};
}

}  // namespace

ApiResult<void> apply_fields(const ResourceInfo& resource, const json& applied,
                             const kube::WriteOptions& options,
                             std::chrono::system_clock::time_point now, json* object) {
  if (auto good = check_applied(applied, options); !good) return good;
  const Shape shape = shape_of(resource);
  json wanted = without_nulls(applied);
  if (wanted.contains("metadata")) wanted["metadata"].erase("managedFields");
  if (options.subresource.empty() && resource.has_status) wanted.erase("status");
  json set = owned_fields(wanted, shape, true);
  adopt_fields(resource, shape, object);
  Managers managers = split_managers(*object, options, "Apply");
  std::vector<std::pair<std::string, std::string>> conflicts;
  std::vector<const json*> other_sets;
  for (json& entry : managers.others) {
    auto fields = entry.find("fieldsV1");
    if (fields == entry.end() || !fields->is_object()) continue;
    std::vector<std::string> paths;
    json taken = json::object();
    find_conflicts(set, *fields, object, &wanted, "", &paths, &taken);
    for (std::string& path : paths) {
      conflicts.emplace_back(shown_manager(entry, resource), std::move(path));
    }
    if (options.force) subtract_fields(&*fields, taken);
    other_sets.push_back(&*fields);
  }
  if (!conflicts.empty() && !options.force) {
    return refuse(conflict_error(resource, kube::text_at(applied, "metadata", "name"), conflicts));
  }
  remove_dropped(object, managers.own_fields, set, other_sets);
  merge_fields(wanted, shape, object);
  // An apply that changes nothing must not change the object by its time.
  if (managers.own && set == managers.own_fields && conflicts.empty()) return {};
  json list = std::move(managers.others);
  drop_empty(&list);
  list.push_back(new_entry(resource, options, "Apply", now, std::move(set)));
  (*object)["metadata"]["managedFields"] = std::move(list);
  return {};
}

void track_update(const ResourceInfo& resource, const json& before,
                  const kube::WriteOptions& options, std::chrono::system_clock::time_point now,
                  json* object) {
  const std::string& kind = resource.type.kind;
  // Written all the time, applied by nobody.
  if (kind == "Lease" || kind == "Event" || options.field_manager.empty()) return;
  const json* managed = kube::find(*object, "metadata", "managedFields");
  bool has_managers = managed != nullptr && managed->is_array() && !managed->empty();
  constexpr std::string_view kOurs = "edgemesh";
  if (!has_managers && (options.field_manager == kOurs || !before.empty())) return;
  const Shape shape = shape_of(resource);
  json changed = json::object(), removed = json::object();
  auto trim = [&](json value) {
    json out = json::object();
    for (const auto& [key, inner] : value.items()) {
      if (key != "f:kind" && key != "f:apiVersion") out[key] = inner;
    }
    auto meta = out.find("f:metadata");
    if (meta == out.end()) return out;
    json kept = json::object();
    for (const char* name : {"f:labels", "f:annotations", "f:finalizers", "f:ownerReferences"}) {
      if (auto it = meta->find(name); it != meta->end()) kept[name] = *it;
    }
    if (kept.empty()) {
      out.erase("f:metadata");
    } else {
      *meta = std::move(kept);
    }
    return out;
  };
  compare_fields(before, *object, shape, &changed, &removed);
  changed = trim(std::move(changed));
  removed = trim(std::move(removed));
  if (changed.empty() && removed.empty()) return;
  Managers managers = split_managers(*object, options, "Update");
  for (json& entry : managers.others) {
    auto fields = entry.find("fieldsV1");
    if (fields == entry.end() || !fields->is_object()) continue;
    subtract_fields(&*fields, changed);
    subtract_fields(&*fields, removed);
  }
  json list = std::move(managers.others);
  drop_empty(&list);
  json set = std::move(managers.own_fields);
  add_fields(&set, changed);
  subtract_fields(&set, removed);
  if (!set.empty()) list.push_back(new_entry(resource, options, "Update", now, std::move(set)));
  (*object)["metadata"]["managedFields"] = std::move(list);
}

}  // namespace edgemesh::cloud
