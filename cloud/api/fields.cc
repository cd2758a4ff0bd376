#include "cloud/api/fields.h"

#include <nlohmann/json.hpp>

#include "kube/json_util.h"

namespace edgemesh::cloud {

using nlohmann::json;
using List = Member::List;

namespace {

Member schema_member(const json& schema) {
  Member out;
  out.shape.schema = &schema;
  out.atomic = kube::text_at(schema, "x-kubernetes-map-type") == "atomic";
  std::string list = kube::text_at(schema, "x-kubernetes-list-type");
  if (const json* items = kube::find(schema, "items")) out.shape.schema = items;
  if (list == "set") out.list = List::kSet;
  if (list != "map") return out;
  out.list = List::kMap;
  if (const json* keys = kube::find(schema, "x-kubernetes-list-map-keys")) {
    for (const json& key : *keys) {
      if (key.is_string()) out.keys.push_back(key.get<std::string>());
    }
  }
  return out;
}

// The value of a key of a list's element; one that may be left out has a default.
json key_value(const json& item, const std::string& key) {
  if (const json* value = kube::find(item, key)) return *value;
  if (key == "protocol") return "TCP";
  return nullptr;
}

// Name of an element in a set; empty: it has none.
std::string element_name(const json& item, const Member& member) {
  if (member.list == List::kSet) return item.is_primitive() ? "v:" + kube::to_text(item) : "";
  json id = json::object();
  for (const std::string& key : member.keys) {
    json value = key_value(item, key);
    if (!value.is_null()) id[key] = std::move(value);
  }
  return id.empty() ? "" : "k:" + kube::to_text(id);
}

bool is_list(const json& value, const Member& member) {
  return value.is_array() && member.list != List::kAtomic;
}
bool is_map(const json& value, const Member& member) {
  return value.is_object() && !member.atomic;
}

json list_set(const json& list, const Member& member) {
  json out = json::object();
  for (const json& item : list) {
    std::string name = element_name(item, member);
    if (name.empty()) continue;
    json fields = json::object();
    if (member.list == List::kMap) {
      fields = field_set(item, member.shape);
      fields["."] = json::object();
    }
    out[name] = std::move(fields);
  }
  return out;
}

void compare_lists(const json& before, const json& after, const Member& member, json* changed,
                   json* removed) {
  std::map<std::string, const json*> old;
  for (const json& item : before) old.emplace(element_name(item, member), &item);
  for (const json& item : after) {
    std::string name = element_name(item, member);
    if (name.empty()) continue;
    auto known = old.find(name);
    if (known == old.end()) {
      json fields = member.list == List::kMap ? field_set(item, member.shape) : json::object();
      if (member.list == List::kMap) fields["."] = json::object();
      (*changed)[name] = std::move(fields);
      continue;
    }
    json inner_changed = json::object(), inner_removed = json::object();
    compare_fields(*known->second, item, member.shape, &inner_changed, &inner_removed);
    if (!inner_changed.empty()) (*changed)[name] = std::move(inner_changed);
    if (!inner_removed.empty()) (*removed)[name] = std::move(inner_removed);
    old.erase(known);
  }
  for (const auto& [name, item] : old) {
    if (name.empty()) continue;
    json fields = member.list == List::kMap ? field_set(*item, member.shape) : json::object();
    if (member.list == List::kMap) fields["."] = json::object();
    (*removed)[name] = std::move(fields);
  }
}

json member_set(const json& value, const Member& member) {
  if (is_list(value, member)) return list_set(value, member);
  if (is_map(value, member)) return field_set(value, member.shape);
  return json::object();
}

void merge_list(const json& applied, const Member& member, json* live) {
  if (!live->is_array()) *live = json::array();
  for (const json& item : applied) {
    std::string name = element_name(item, member);
    json* have = name.empty() ? nullptr : child_of(live, name);
    if (have == nullptr) {
      live->push_back(item);
    } else if (member.list == List::kMap) {
      merge_fields(item, member.shape, have);
    }
  }
}

}  // namespace

Shape shape_of(const ResourceInfo& resource) {
  if (resource.schema != nullptr) return {nullptr, resource.schema.get()};
  return {kube::type_of_kind(resource.type.group, resource.type.version, resource.type.kind),
          nullptr};
}

Member member_of(const Shape& shape, std::string_view name) {
  if (shape.schema != nullptr) {
    // Metadata of every object is the same.
    if (const json* inner = kube::find(*shape.schema, "properties", name)) {
      return schema_member(*inner);
    }
    if (name == "metadata") return {{kube::find_type("meta.ObjectMeta"), nullptr}, {}, {}, false};
    const json* others = kube::find(*shape.schema, "additionalProperties");
    return others != nullptr && others->is_object() ? schema_member(*others) : Member();
  }
  const kube::TypeField* field = shape.type != nullptr ? shape.type->find(name) : nullptr;
  Member out;
  if (field == nullptr) return out;
  bool of_map = field->shape == kube::TypeField::Shape::kMap;
  out.shape.type = of_map ? nullptr : field->type;
  bool whole = field->type != nullptr && field->type->atomic && !of_map;
  out.atomic = field->atomic || whole || field->form == 'R' || field->form == 'F';
  if (field->set) out.list = List::kSet;
  if (!field->map_keys.empty()) {
    out.list = List::kMap;
    out.keys.assign(field->map_keys.begin(), field->map_keys.end());
  }
  return out;
}

json field_set(const json& value, const Shape& shape) {
  json out = json::object();
  if (!value.is_object()) return out;
  for (const auto& [key, inner] : value.items()) {
    out["f:" + key] = member_set(inner, member_of(shape, key));
  }
  return out;
}

json owned_fields(const json& object, const Shape& shape, bool with_status) {
  json trimmed = object;
  trimmed.erase("apiVersion");
  trimmed.erase("kind");
  if (!with_status) trimmed.erase("status");
  if (auto meta = trimmed.find("metadata"); meta != trimmed.end() && meta->is_object()) {
    for (const char* name : {"name", "namespace", "managedFields", "uid", "resourceVersion",
                             "creationTimestamp", "generation", "selfLink", "deletionTimestamp",
                             "deletionGracePeriodSeconds", "generateName"}) {
      meta->erase(name);
    }
    if (meta->empty()) trimmed.erase(meta);
  }
  return field_set(trimmed, shape);
}

void compare_fields(const json& before, const json& after, const Shape& shape, json* changed,
                    json* removed) {
  static const json kNone = json::object();
  const json& old = before.is_object() ? before : kNone;
  if (!after.is_object()) return;
  for (const auto& [key, value] : after.items()) {
    Member member = member_of(shape, key);
    auto known = old.find(key);
    if (known == old.end()) {
      (*changed)["f:" + key] = member_set(value, member);
      continue;
    }
    if (*known == value) continue;
    json inner_changed = json::object(), inner_removed = json::object();
    if (is_list(value, member) && known->is_array()) {
      compare_lists(*known, value, member, &inner_changed, &inner_removed);
    } else if (is_map(value, member) && known->is_object()) {
      compare_fields(*known, value, member.shape, &inner_changed, &inner_removed);
    } else {
      (*changed)["f:" + key] = member_set(value, member);
      continue;
    }
    if (!inner_changed.empty()) (*changed)["f:" + key] = std::move(inner_changed);
    if (!inner_removed.empty()) (*removed)["f:" + key] = std::move(inner_removed);
  }
  for (const auto& [key, value] : old.items()) {
    if (!after.contains(key)) (*removed)["f:" + key] = member_set(value, member_of(shape, key));
  }
}

void merge_fields(const json& applied, const Shape& shape, json* live) {
  if (!live->is_object()) *live = json::object();
  for (const auto& [key, value] : applied.items()) {
    if (value.is_null()) continue;
    Member member = member_of(shape, key);
    json& into = (*live)[key];
    if (is_list(value, member)) {
      merge_list(value, member, &into);
    } else if (is_map(value, member)) {
      merge_fields(value, member.shape, &into);
    } else {
      into = value;
    }
  }
}

bool is_leaf(const json& set) {
  return set.empty() || (set.size() == 1 && set.contains("."));
}

void add_fields(json* set, const json& more) {
  for (const auto& [element, inner] : more.items()) {
    json& into = (*set)[element];
    if (into.is_null()) into = json::object();
    add_fields(&into, inner);
  }
}

void subtract_fields(json* set, const json& taken) {
  for (const auto& [element, inner] : taken.items()) {
    auto it = set->find(element);
    if (it == set->end()) continue;
    if (is_leaf(inner)) {
      set->erase(it);
      continue;
    }
    bool was_leaf = is_leaf(*it);
    subtract_fields(&*it, inner);
    if (!was_leaf && it->empty()) set->erase(it);
  }
}

json* child_of(json* at, const std::string& element) {
  if (element.starts_with("f:")) {
    if (!at->is_object()) return nullptr;
    auto it = at->find(element.substr(2));
    return it == at->end() ? nullptr : &*it;
  }
  if (element.size() < 2 || !at->is_array()) return nullptr;
  json wanted = json::parse(element.substr(2), nullptr, false);
  if (wanted.is_discarded()) return nullptr;
  for (json& item : *at) {
    if (element.starts_with("v:") && item == wanted) return &item;
    if (!element.starts_with("k:") || !item.is_object() || !wanted.is_object()) continue;
    bool same = true;
    for (const auto& [key, value] : wanted.items()) {
      same = same && key_value(item, key) == value;
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

}  // namespace edgemesh::cloud
