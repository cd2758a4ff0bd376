// Small helpers on JSON values that the code around Kubernetes objects shares. I/O-free.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace edgemesh::kube {

// Compact text. Bytes that are not UTF-8 become U+FFFD; never throws.
std::string to_text(const nlohmann::json& value);

// The member, or null when `object` is no object, has no such member, or the member is null.
inline const nlohmann::json* find(const nlohmann::json& object, std::string_view name) {
  if (!object.is_object()) return nullptr;
  auto it = object.find(name);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

template <class... Rest>
const nlohmann::json* find(const nlohmann::json& object, std::string_view name, Rest... rest) {
  const nlohmann::json* inner = find(object, name);
  return inner == nullptr ? nullptr : find(*inner, rest...);
}

// A string at a path of member names; empty when it is absent or no string.
template <class... Names>
std::string text_at(const nlohmann::json& object, Names... names) {
  const nlohmann::json* value = find(object, std::string_view(names)...);
  return value != nullptr && value->is_string() ? value->get<std::string>() : std::string();
}

}  // namespace edgemesh::kube
