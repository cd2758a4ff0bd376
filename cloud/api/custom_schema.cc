#include "cloud/api/custom_schema.h"

#include <re2/re2.h>

#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "cloud/api/store.h"
#include "kube/json_util.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using nlohmann::json;

namespace {

constexpr size_t kMaxErrors = 20;

bool flag(const json& schema, std::string_view name) {
  const json* value = find(schema, name);
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

// The schema of a member; null: none. `kept`: a member without a schema stays.
const json* member_schema(const json& schema, const std::string& name, bool* kept) {
  *kept = flag(schema, "x-kubernetes-preserve-unknown-fields");
  if (const json* own = find(schema, "properties", name)) return own;
  const json* others = find(schema, "additionalProperties");
  if (others == nullptr) return nullptr;
  if (others->is_object()) return others;
  *kept = *kept || *others == json(true);
  return nullptr;
}

bool of_every_object(const std::string& name) {
  return name == "kind" || name == "apiVersion" || name == "metadata";
}

std::string joined(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

// Compiled patterns; Go's expressions are RE2's. Few: one a pattern of a definition.
const re2::RE2* compiled(const std::string& pattern) {
  constexpr size_t kMaxPatterns = 4096;
  static thread_local std::map<std::string, std::unique_ptr<re2::RE2>> all;
  auto it = all.find(pattern);
  if (it == all.end()) {
    if (all.size() >= kMaxPatterns) all.clear();
    re2::RE2::Options options;
    options.set_log_errors(false);
    it = all.emplace(pattern, std::make_unique<re2::RE2>(pattern, options)).first;
  }
  return it->second->ok() ? it->second.get() : nullptr;
}

void add(FieldErrors* out, const char* reason, const std::string& path, std::string message) {
  if (out->size() < kMaxErrors) out->push_back({reason, path, std::move(message)});
}

void invalid(FieldErrors* out, const std::string& path, const json& value, std::string detail) {
  std::string shown = value.is_object()  ? "\"object\""
                      : value.is_array() ? "\"array\""
                                         : kube::to_text(value);
  if (out->size() < kMaxErrors) {
    out->push_back(FieldError::invalid(path, shown, fmt::format("{} in body {}", path, detail)));
  }
}

const char* type_of(const json& value) {
  if (value.is_null()) return "null";
  if (value.is_object()) return "object";
  if (value.is_array()) return "array";
  if (value.is_string()) return "string";
  if (value.is_boolean()) return "boolean";
  return value.is_number_integer() ? "integer" : "number";
}

bool has_type(const json& value, const std::string& type) {
  if (type.empty() || type == type_of(value)) return true;
  if (type == "number") return value.is_number();
  if (type != "integer" || !value.is_number_float()) return false;
  return std::trunc(value.get<double>()) == value.get<double>();
}

void check_number(const json& schema, const std::string& path, const json& value,
                  FieldErrors* out) {
  auto number = value.get<double>();
  if (const json* low = find(schema, "minimum"); low != nullptr && low->is_number()) {
    bool beyond = flag(schema, "exclusiveMinimum");
    if (number < low->get<double>() || (beyond && number == low->get<double>())) {
      invalid(
          out, path, value,
          fmt::format("should be greater than {}{}", beyond ? "" : "or equal to ", low->dump()));
    }
  }
  if (const json* high = find(schema, "maximum"); high != nullptr && high->is_number()) {
    bool beyond = flag(schema, "exclusiveMaximum");
    if (number > high->get<double>() || (beyond && number == high->get<double>())) {
      invalid(out, path, value,
              fmt::format("should be less than {}{}", beyond ? "" : "or equal to ", high->dump()));
    }
  }
  if (const json* step = find(schema, "multipleOf"); step != nullptr && step->is_number()) {
    double ratio = number / step->get<double>();
    if (std::isfinite(ratio) && std::abs(ratio - std::round(ratio)) > 1e-9) {
      invalid(out, path, value, fmt::format("should be a multiple of {}", step->dump()));
    }
  }
}

int64_t limit(const json& schema, std::string_view name, int64_t otherwise) {
  const json* value = find(schema, name);
  return value != nullptr && value->is_number() ? static_cast<int64_t>(value->get<double>())
                                                : otherwise;
}

size_t characters(const std::string& text) {
  size_t out = 0;
  for (char c : text) out += (static_cast<uint8_t>(c) & 0xc0) != 0x80 ? 1 : 0;
  return out;
}

void check_string(const json& schema, const std::string& path, const json& value,
                  FieldErrors* out) {
  const auto& text = value.get_ref<const std::string&>();
  auto length = static_cast<int64_t>(characters(text));
  if (length < limit(schema, "minLength", 0)) {
    invalid(out, path, value,
            fmt::format("should be at least {} chars long", limit(schema, "minLength", 0)));
  }
  if (length > limit(schema, "maxLength", INT64_MAX)) {
    add(out, "FieldValueTooLong", path,
        fmt::format("Too long: may not be more than {} bytes", limit(schema, "maxLength", 0)));
  }
  std::string pattern = text_at(schema, "pattern");
  if (pattern.empty()) return;
  const re2::RE2* expression = compiled(pattern);
  if (expression != nullptr && !re2::RE2::PartialMatch(text, *expression)) {
    invalid(out, path, value, fmt::format("should match '{}'", pattern));
  }
}

// Of a list of the types set and map: what makes an element the same as another.
std::string element_id(const json& schema, const json& item) {
  if (text_at(schema, "x-kubernetes-list-type") == "set") return kube::to_text(item);
  json id = json::object();
  const json* keys = find(schema, "x-kubernetes-list-map-keys");
  if (keys == nullptr) return {};
  for (const json& key : *keys) {
    if (!key.is_string()) continue;
    if (const json* value = find(item, key.get<std::string>())) id[key.get<std::string>()] = *value;
  }
  return kube::to_text(id);
}

void check_array(const json& schema, const std::string& path, const json& value, FieldErrors* out) {
  auto size = static_cast<int64_t>(value.size());
  if (size < limit(schema, "minItems", 0)) {
    invalid(out, path, value,
            fmt::format("should have at least {} items", limit(schema, "minItems", 0)));
  }
  if (size > limit(schema, "maxItems", INT64_MAX)) {
    add(out, "FieldValueTooMany", path,
        fmt::format("Too many: {}: must have at most {} items", size,
                    limit(schema, "maxItems", 0)));
  }
  std::string list = text_at(schema, "x-kubernetes-list-type");
  std::set<std::string> seen;
  for (size_t i = 0; i < value.size() && out->size() < kMaxErrors; ++i) {
    std::string at = fmt::format("{}[{}]", path, i);
    if ((list == "set" || list == "map") && !seen.insert(element_id(schema, value[i])).second) {
      out->push_back(FieldError::duplicate(at, element_id(schema, value[i])));
    }
    if (const json* items = find(schema, "items"))
      validate_by_schema(*items, at, false, value[i], out);
  }
}

void check_object(const json& schema, const std::string& path, bool root, const json& value,
                  FieldErrors* out) {
  if (const json* required = find(schema, "required");
      required != nullptr && required->is_array()) {
    for (const json& name : *required) {
      if (!name.is_string() || value.contains(name.get<std::string>())) continue;
      add(out, "FieldValueRequired", joined(path, name.get<std::string>()), "Required value");
    }
  }
  auto size = static_cast<int64_t>(value.size());
  if (size < limit(schema, "minProperties", 0)) {
    invalid(out, path, value,
            fmt::format("should have at least {} properties", limit(schema, "minProperties", 0)));
  }
  if (size > limit(schema, "maxProperties", INT64_MAX)) {
    invalid(out, path, value,
            fmt::format("should have at most {} properties", limit(schema, "maxProperties", 0)));
  }
  for (const auto& [name, inner] : value.items()) {
    if (root && of_every_object(name)) continue;
    bool kept = false;
    const json* own = member_schema(schema, name, &kept);
    if (own != nullptr) validate_by_schema(*own, joined(path, name), false, inner, out);
  }
}

size_t fitting(const json& schemas, const std::string& path, bool root, const json& value) {
  size_t out = 0;
  for (const json& one : schemas) {
    FieldErrors errors;
    validate_by_schema(one, path, root, value, &errors);
    if (errors.empty()) ++out;
  }
  return out;
}

void check_combined(const json& schema, const std::string& path, bool root, const json& value,
                    FieldErrors* out) {
  if (const json* all = find(schema, "allOf"); all != nullptr && all->is_array()) {
    for (const json& one : *all) validate_by_schema(one, path, root, value, out);
  }
  if (const json* any = find(schema, "anyOf"); any != nullptr && any->is_array() && !any->empty()) {
    if (fitting(*any, path, root, value) == 0) {
      invalid(out, path, value, "must validate at least one schema (anyOf)");
    }
  }
  if (const json* one = find(schema, "oneOf"); one != nullptr && one->is_array() && !one->empty()) {
    if (fitting(*one, path, root, value) != 1) {
      invalid(out, path, value, "must validate one and only one schema (oneOf)");
    }
  }
  if (const json* none = find(schema, "not")) {
    if (fitting(json::array({*none}), path, root, value) != 0) {
      invalid(out, path, value, "must not validate the schema (not)");
    }
  }
}

}  // namespace

void prune_by_schema(const json& schema, bool root, const std::string& path, json* value,
                     std::vector<std::string>* dropped) {
  if (value->is_array()) {
    const json* items = find(schema, "items");
    if (items == nullptr) return;
    for (size_t i = 0; i < value->size(); ++i) {
      std::string at = dropped != nullptr ? fmt::format("{}[{}]", path, i) : std::string();
      prune_by_schema(*items, false, at, &(*value)[i], dropped);
    }
    return;
  }
  if (!value->is_object()) return;
  root = root || flag(schema, "x-kubernetes-embedded-resource");
  for (auto it = value->begin(); it != value->end();) {
    if (root && of_every_object(it.key())) {
      ++it;
      continue;
    }
    bool kept = false;
    const json* own = member_schema(schema, it.key(), &kept);
    if (own == nullptr && !kept) {
      if (dropped != nullptr && dropped->size() < kMaxErrors) {
        dropped->push_back(joined(path, it.key()));
      }
      it = value->erase(it);
      continue;
    }
    if (own != nullptr) {
      std::string at = dropped != nullptr ? joined(path, it.key()) : std::string();
      prune_by_schema(*own, false, at, &*it, dropped);
    }
    ++it;
  }
}

void default_by_schema(const json& schema, json* value) {
  if (value->is_array()) {
    if (const json* items = find(schema, "items")) {
      for (json& item : *value) default_by_schema(*items, &item);
    }
    return;
  }
  if (!value->is_object()) return;
  if (const json* properties = find(schema, "properties"); properties && properties->is_object()) {
    for (const auto& [name, own] : properties->items()) {
      auto have = value->find(name);
      bool null_here = have != value->end() && have->is_null() && !flag(own, "nullable");
      const json* given = find(own, "default");
      if (given != nullptr && (have == value->end() || null_here)) (*value)[name] = *given;
    }
  }
  for (auto& [name, inner] : value->items()) {
    bool kept = false;
    if (const json* own = member_schema(schema, name, &kept)) default_by_schema(*own, &inner);
  }
}

void validate_by_schema(const json& schema, const std::string& path, bool root, const json& value,
                        FieldErrors* out) {
  if (out->size() >= kMaxErrors || !schema.is_object()) return;
  std::string type = text_at(schema, "type");
  if (value.is_null() && flag(schema, "nullable")) return;
  bool either = flag(schema, "x-kubernetes-int-or-string");
  if (either ? !value.is_number_integer() && !value.is_string() : !has_type(value, type)) {
    std::string wanted = either ? "integer,string" : type;
    out->push_back({"FieldValueTypeInvalid", path,
                    fmt::format("Invalid value: \"{}\": {} in body must be of type {}: \"{}\"",
                                type_of(value), path, wanted, type_of(value))});
    return;
  }
  if (const json* allowed = find(schema, "enum"); allowed != nullptr && allowed->is_array()) {
    if (std::find(allowed->begin(), allowed->end(), value) == allowed->end()) {
      std::vector<std::string> shown;
      for (const json& one : *allowed) {
        shown.push_back(one.is_string() ? one.get<std::string>() : kube::to_text(one));
      }
      out->push_back(FieldError::not_supported(
          path, value.is_string() ? value.get<std::string>() : kube::to_text(value), shown));
    }
  }
  if (value.is_number()) check_number(schema, path, value, out);
  if (value.is_string()) check_string(schema, path, value, out);
  if (value.is_array()) check_array(schema, path, value, out);
  if (value.is_object()) check_object(schema, path, root, value, out);
  check_combined(schema, path, root, value, out);
}

void validate_schema(const json& schema, const std::string& path, FieldErrors* out) {
  if (!schema.is_object() || out->size() >= kMaxErrors) return;
  std::string pattern = text_at(schema, "pattern");
  if (!pattern.empty() && compiled(pattern) == nullptr) {
    out->push_back(FieldError::invalid(path + ".pattern", json(pattern).dump(),
                                       "must be a valid regular expression"));
  }
  std::string type = text_at(schema, "type");
  static const std::set<std::string> kTypes = {"",       "array",  "boolean", "integer",
                                               "number", "object", "string"};
  if (!kTypes.contains(type)) {
    out->push_back(FieldError::not_supported(
        path + ".type", type, {"array", "boolean", "integer", "number", "object", "string"}));
  }
  bool typed = !type.empty() || flag(schema, "x-kubernetes-int-or-string") ||
               flag(schema, "x-kubernetes-preserve-unknown-fields");
  if (!typed)
    out->push_back(
        FieldError::required(path + ".type", "must not be empty for specified object fields"));
  if (const json* properties = find(schema, "properties"); properties && properties->is_object()) {
    for (const auto& [name, own] : properties->items()) {
      validate_schema(own, fmt::format("{}.properties[{}]", path, name), out);
    }
  }
  if (const json* items = find(schema, "items")) validate_schema(*items, path + ".items", out);
  if (const json* others = find(schema, "additionalProperties")) {
    validate_schema(*others, path + ".additionalProperties", out);
  }
}

}  // namespace edgemesh::cloud
