#include "cloud/api/schema.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "cloud/api/custom.h"
#include "cloud/api/schema_words.h"
#include "kube/json_util.h"
#include "kube/type_table.h"

namespace edgemesh::cloud {

using kube::TypeField;
using kube::TypeInfo;
using nlohmann::json;

namespace {

const TypeInfo* root_of(const ResourceInfo& resource) {
  if (resource.custom) return nullptr;
  return kube::type_of_kind(resource.type.group, resource.type.version, resource.type.kind);
}

// "apps.Deployment" -> "io.k8s.api.apps.v1.Deployment"
std::string public_name(std::string_view type) {
  size_t dot = type.find('.');
  if (dot == std::string_view::npos) return fmt::format("io.k8s.api.core.v1.{}", type);
  std::string_view group = type.substr(0, dot);
  std::string_view name = type.substr(dot + 1);
  if (group == "meta") return fmt::format("io.k8s.apimachinery.pkg.apis.meta.v1.{}", name);
  if (group == "apiextensions") {
    return fmt::format("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{}", name);
  }
  return fmt::format("io.k8s.api.{}.v1.{}", group, name);
}

json reference(const TypeInfo& type) {
  return {{"$ref", "#/components/schemas/" + public_name(type.name)}};
}

json value_schema(const TypeField& field) {
  switch (field.form) {
    case 's': return {{"type", "string"}};
    case 'b': return {{"type", "boolean"}};
    case 'i': return {{"type", "integer"}, {"format", "int32"}};
    case 'l': return {{"type", "integer"}, {"format", "int64"}};
    case 'd': return {{"type", "number"}, {"format", "double"}};
    case 'y': return {{"type", "string"}, {"format", "byte"}};
    case 'T':
    case 'M': return {{"type", "string"}, {"format", "date-time"}};
    case 'D': return {{"type", "string"}};
    case 'Q': return {{"oneOf", {{{"type", "string"}}, {{"type", "number"}}}}};
    case 'I':
      return {{"oneOf", {{{"type", "integer"}}, {{"type", "string"}}}},
              {"format", "int-or-string"}};
    case 'X': return {{"type", "array"}, {"items", {{"type", "string"}}}};
    case '<': return reference(*field.type);
    default: return json::object();
  }
}

json field_schema(const TypeInfo& type, const TypeField& field) {
  json value = value_schema(field);
  json out;
  switch (field.shape) {
    case TypeField::Shape::kList: out = {{"type", "array"}, {"items", std::move(value)}}; break;
    case TypeField::Shape::kMap:
      out = {{"type", "object"}, {"additionalProperties", std::move(value)}};
      break;
    case TypeField::Shape::kOne:
      // Beside a $ref nothing else counts.
      if (field.form == '<') value = {{"allOf", json::array({std::move(value)})}};
      out = std::move(value);
      break;
  }
  if (auto words = words_for(type.name, field.name); !words.empty()) out["description"] = words;
  if (field.merges) {
    out["x-kubernetes-patch-strategy"] = "merge";
    if (!field.merge_key.empty()) out["x-kubernetes-patch-merge-key"] = field.merge_key;
  }
  if (field.set) out["x-kubernetes-list-type"] = "set";
  if (!field.map_keys.empty()) {
    out["x-kubernetes-list-type"] = "map";
    out["x-kubernetes-list-map-keys"] = field.map_keys;
  }
  return out;
}

json properties_of(const TypeInfo& type) {
  json out = json::object();
  for (const TypeField* field : type.by_name) {
    out[std::string(field->name)] = field_schema(type, *field);
  }
  return out;
}

void add_type(const TypeInfo& type, json* schemas);

void add_targets(const TypeInfo& type, json* schemas) {
  for (const TypeField* field : type.by_name) {
    if (field->type != nullptr) add_type(*field->type, schemas);
  }
}

void add_type(const TypeInfo& type, json* schemas) {
  std::string name = public_name(type.name);
  if (schemas->contains(name)) return;
  (*schemas)[name] = {{"type", "object"}, {"properties", properties_of(type)}};
  add_targets(type, schemas);
}

void collect_unknown(const TypeInfo& type, const json& value, const std::string& path,
                     std::vector<std::string>* out) {
  constexpr size_t kMaxShown = 10;
  if (!value.is_object()) return;
  for (const auto& [name, inner] : value.items()) {
    if (out->size() >= kMaxShown) return;
    std::string at = path.empty() ? name : path + "." + name;
    bool root = path.empty() && (name == "kind" || name == "apiVersion");
    bool directive = name.starts_with("$");  // of a strategic merge patch
    if (root || directive) continue;
    const TypeField* field = type.find(name);
    if (field == nullptr) {
      out->push_back(at);
      continue;
    }
    if (field->type == nullptr) continue;
    if (field->shape == TypeField::Shape::kOne) collect_unknown(*field->type, inner, at, out);
    if (field->shape == TypeField::Shape::kMap && inner.is_object()) {
      for (const auto& [key, item] : inner.items()) {
        collect_unknown(*field->type, item, at + "." + key, out);
      }
    }
    if (field->shape != TypeField::Shape::kList || !inner.is_array()) continue;
    for (size_t i = 0; i < inner.size(); ++i) {
      collect_unknown(*field->type, inner[i], fmt::format("{}[{}]", at, i), out);
    }
  }
}

tl::unexpected<Error> wrong_type(const json& value, std::string_view path, const char* wanted) {
  return fail(ErrorCode::kInvalidArgument, "json: cannot unmarshal {} into field {} of type {}",
              value.type_name(), path, wanted);
}

Result<> fit_object(const TypeInfo& type, const std::string& path, bool root, json* value);

// Numbers that are whole may be written as 1.0.
Result<> fit_integer(const std::string& path, int64_t low, int64_t high, json* value) {
  if (value->is_number_float()) {
    double number = value->get<double>();
    if (std::trunc(number) == number && std::abs(number) < 9e15)
      *value = static_cast<int64_t>(number);
  }
  bool good = value->is_number_integer() && *value >= json(low) && *value <= json(high);
  return good ? Result<>() : wrong_type(*value, path, "integer");
}

Result<> fit_value(const TypeField& field, const std::string& path, json* value) {
  switch (field.form) {
    case 's':
    case 'y':
    case 'T':
    case 'M':
    case 'D': return value->is_string() ? Result<>() : wrong_type(*value, path, "string");
    case 'b': return value->is_boolean() ? Result<>() : wrong_type(*value, path, "bool");
    case 'i': return fit_integer(path, INT32_MIN, INT32_MAX, value);
    case 'l': return fit_integer(path, INT64_MIN, INT64_MAX, value);
    case 'd': return value->is_number() ? Result<>() : wrong_type(*value, path, "number");
    case 'Q':
      if (value->is_number()) *value = kube::to_text(*value);
      return value->is_string() ? Result<>() : wrong_type(*value, path, "Quantity");
    case 'I':
      if (value->is_string()) return {};
      return fit_integer(path, INT32_MIN, INT32_MAX, value);
    case 'R':
    case 'F': return value->is_object() ? Result<>() : wrong_type(*value, path, "object");
    case '<': return fit_object(*field.type, path, false, value);
    default: return {};
  }
}

Result<> fit_field(const TypeField& field, const std::string& path, json* value) {
  if (field.shape == TypeField::Shape::kOne) return fit_value(field, path, value);
  if (field.shape == TypeField::Shape::kList) {
    if (!value->is_array()) return wrong_type(*value, path, "list");
    for (size_t i = 0; i < value->size(); ++i) {
      json& item = (*value)[i];
      if (item.is_null() && field.form == '<') item = json::object();
      EM_TRY_VOID(fit_value(field, fmt::format("{}[{}]", path, i), &item));
    }
    return {};
  }
  if (!value->is_object()) return wrong_type(*value, path, "map");
  for (auto& [key, item] : value->items()) {
    if (item.is_null() && field.form == 's') item = "";
    if (item.is_null()) continue;
    EM_TRY_VOID(fit_value(field, path + "." + key, &item));
  }
  return {};
}

Result<> fit_object(const TypeInfo& type, const std::string& path, bool root, json* value) {
  if (!value->is_object()) return wrong_type(*value, path, "object");
  for (auto it = value->begin(); it != value->end();) {
    if (root && (it.key() == "kind" || it.key() == "apiVersion")) {
      ++it;
      continue;
    }
    const TypeField* field = type.find(it.key());
    if (field == nullptr || it->is_null()) {
      it = value->erase(it);
      continue;
    }
    EM_TRY_VOID(fit_field(*field, path.empty() ? it.key() : path + "." + it.key(), &*it));
    ++it;
  }
  return {};
}

json gvk_of(const ResourceInfo& resource) {
  return json::array({{{"group", resource.type.group},
                       {"version", resource.type.version},
                       {"kind", resource.type.kind}}});
}

}  // namespace

std::string schema_name(const ResourceInfo& resource) {
  if (const TypeInfo* type = root_of(resource)) return public_name(type->name);
  std::string group;  // "devices.kubeedge.io" -> "io.kubeedge.devices"
  std::string_view rest = resource.type.group;
  while (!rest.empty()) {
    size_t dot = rest.rfind('.');
    group += rest.substr(dot == std::string_view::npos ? 0 : dot + 1);
    group += '.';
    rest = dot == std::string_view::npos ? std::string_view() : rest.substr(0, dot);
  }
  return fmt::format("{}{}.{}", group, resource.type.version, resource.type.kind);
}

void add_schemas(const ResourceInfo& resource, json* schemas) {
  const TypeInfo* meta = kube::find_type("meta.ObjectMeta");
  add_type(*meta, schemas);
  const TypeInfo* type = root_of(resource);
  json schema;
  if (type != nullptr) {
    schema = {{"type", "object"}, {"properties", properties_of(*type)}};
    schema["description"] = resource.type.kind + " of the EdgeMesh API.";
  } else {
    schema = resource.schema != nullptr ? *resource.schema : json({{"type", "object"}});
  }
  json& properties = schema["properties"];
  properties["apiVersion"] = {{"type", "string"},
                              {"description", "Group and version of the kind."}};
  properties["kind"] = {{"type", "string"}, {"description", "What the object is."}};
  properties["metadata"] = {{"allOf", json::array({reference(*meta)})},
                            {"description", "Name, labels, ..."}};
  schema["x-kubernetes-group-version-kind"] = gvk_of(resource);
  (*schemas)[schema_name(resource)] = std::move(schema);
  if (type != nullptr) add_targets(*type, schemas);
}

std::vector<std::string> unknown_fields(const ResourceInfo& resource, const json& object) {
  std::vector<std::string> out;
  if (resource.custom) return unknown_custom_fields(resource, object);
  if (const TypeInfo* type = root_of(resource)) collect_unknown(*type, object, "", &out);
  return out;
}

Result<> normalize(const ResourceInfo& resource, json* object) {
  if (resource.custom) {
    auto meta = object->find("metadata");
    if (meta == object->end()) return {};
    return fit_object(*kube::find_type("meta.ObjectMeta"), "metadata", false, &*meta);
  }
  const TypeInfo* type = root_of(resource);
  return type == nullptr ? Result<>() : fit_object(*type, "", true, object);
}

}  // namespace edgemesh::cloud
