#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "kube/patch.h"
#include "kube/type_table.h"

namespace edgemesh::kube {

using nlohmann::json;

namespace {

constexpr std::string_view kOrder = "$setElementOrder/";
constexpr std::string_view kDeletePrimitive = "$deleteFromPrimitiveList/";

template <class... Args>
tl::unexpected<Error> bad(fmt::format_string<Args...> format, Args&&... args) {
  return fail(ErrorCode::kInvalidArgument, "strategic merge patch: {}",
              fmt::format(format, std::forward<Args>(args)...));
}

Result<> merge_map(json& target, const json& patch, const TypeInfo* type);

// The identity of a list element: the value of its merge key, or the scalar itself.
const json* identity(const json& item, std::string_view merge_key) {
  if (merge_key.empty()) return item.is_primitive() ? &item : nullptr;
  if (!item.is_object()) return nullptr;
  auto it = item.find(merge_key);
  return it == item.end() ? nullptr : &*it;
}

std::optional<size_t> index_of(const json& list, std::string_view merge_key, const json* id) {
  if (id == nullptr || !list.is_array()) return std::nullopt;
  for (size_t i = 0; i < list.size(); ++i) {
    const json* other = identity(list[i], merge_key);
    if (other != nullptr && *other == *id) return i;
  }
  return std::nullopt;
}

// Brings `merged` into the order of `wanted` (elements or identities); elements that `wanted` does
// not name keep their place relative to their neighbours in `before`.
json reorder(const json& merged, const json& wanted, const json& before,
             std::string_view merge_key) {
  std::vector<const json*> named, others;
  for (const json& item : wanted) {
    if (auto at = index_of(merged, merge_key, identity(item, merge_key))) {
      const json* found = &merged[*at];
      if (std::find(named.begin(), named.end(), found) == named.end()) named.push_back(found);
    }
  }
  for (const json& item : merged) {
    if (std::find(named.begin(), named.end(), &item) == named.end()) others.push_back(&item);
  }
  json out = json::array();
  size_t n = 0, o = 0;
  while (n < named.size() || o < others.size()) {
    bool take_other = n == named.size();
    if (!take_other && o < others.size()) {
      auto named_at = index_of(before, merge_key, identity(*named[n], merge_key));
      auto other_at = index_of(before, merge_key, identity(*others[o], merge_key));
      take_other = named_at && other_at && *other_at < *named_at;
    }
    out.push_back(take_other ? *others[o++] : *named[n++]);
  }
  return out;
}

std::string directive_of(const json& item) {
  if (!item.is_object()) return {};
  auto it = item.find("$patch");
  return it != item.end() && it->is_string() ? it->get<std::string>() : std::string();
}

json without_directive(json item) {
  item.erase("$patch");
  return item;
}

Result<> merge_objects(json& list, const json& patch, const TypeField& rule) {
  json before = list;
  json named = json::array();
  bool replace = std::any_of(patch.begin(), patch.end(),
                             [](const json& item) { return directive_of(item) == "replace"; });
  if (replace) list = json::array();
  for (const json& item : patch) {
    std::string directive = directive_of(item);
    if (directive == "replace") {
      // {"$patch":"replace"} alone clears the list; with fields it is also an element.
      if (item.size() > 1) list.push_back(without_directive(item));
      continue;
    }
    const json* id = identity(item, rule.merge_key);
    if (id == nullptr) {
      return bad("an element of '{}' has no '{}'", rule.name, rule.merge_key);
    }
    if (directive == "delete") {
      while (auto at = index_of(list, rule.merge_key, id)) list.erase(*at);
      continue;
    }
    if (!directive.empty() && directive != "merge")
      return bad("$patch: '{}' is not known", directive);
    named.push_back(json{{std::string(rule.merge_key), *id}});
    auto at = index_of(list, rule.merge_key, id);
    if (!at) {
      list.push_back(json::object());
      at = list.size() - 1;
    }
    EM_TRY_VOID(merge_map(list[*at], without_directive(item), rule.type));
  }
  if (!replace) list = reorder(list, named, before, rule.merge_key);
  return {};
}

Result<> merge_set(json& list, const json& patch) {
  json before = list;
  for (const json& item : patch) {
    if (!item.is_primitive()) return bad("want a list of plain values");
    if (std::find(list.begin(), list.end(), item) == list.end()) list.push_back(item);
  }
  list = reorder(list, patch, before, {});
  return {};
}

Result<> merge_field(json& target, const std::string& key, const json& value,
                     const TypeInfo* type) {
  const TypeField* rule = type != nullptr ? type->find(key) : nullptr;
  json& into = target[key];
  if (value.is_object()) {
    if (!into.is_object()) into = json::object();
    return merge_map(into, value, rule != nullptr ? rule->type : nullptr);
  }
  bool merges = value.is_array() && rule != nullptr && rule->merges;
  if (!merges) {
    into = value;
    return {};
  }
  if (!into.is_array()) into = json::array();
  return rule->merge_key.empty() ? merge_set(into, value) : merge_objects(into, value, *rule);
}

Result<> retain_keys(json& target, const json& patch) {
  auto it = patch.find("$retainKeys");
  if (it == patch.end()) return {};
  if (!it->is_array()) return bad("$retainKeys: want a list of names");
  for (const auto& [key, value] : patch.items()) {
    if (key.starts_with("$") || value.is_null()) continue;
    if (std::find(it->begin(), it->end(), json(key)) == it->end()) {
      return bad("'{}' is set but not in $retainKeys", key);
    }
  }
  for (auto at = target.begin(); at != target.end();) {
    bool keep = std::find(it->begin(), it->end(), json(at.key())) != it->end();
    at = keep ? std::next(at) : target.erase(at);
  }
  return {};
}

Result<> list_directives(json& target, const json& patch, const TypeInfo* type,
                         const json& before) {
  for (const auto& [key, value] : patch.items()) {
    if (key.starts_with(kDeletePrimitive)) {
      auto it = target.find(key.substr(kDeletePrimitive.size()));
      if (!value.is_array()) return bad("{}: want a list", key);
      if (it == target.end() || !it->is_array()) continue;
      json kept = json::array();
      for (const json& item : *it) {
        if (std::find(value.begin(), value.end(), item) == value.end()) kept.push_back(item);
      }
      *it = std::move(kept);
    }
  }
  for (const auto& [key, value] : patch.items()) {
    if (!key.starts_with(kOrder)) continue;
    std::string field = key.substr(kOrder.size());
    const TypeField* rule = type != nullptr ? type->find(field) : nullptr;
    auto it = target.find(field);
    if (!value.is_array()) return bad("{}: want a list", key);
    if (it == target.end() || !it->is_array() || rule == nullptr) continue;
    auto old = before.find(field);
    json order = old != before.end() ? *old : json::array();
    *it = reorder(*it, value, order, rule->merge_key);
  }
  return {};
}

Result<> merge_map(json& target, const json& patch, const TypeInfo* type) {
  std::string directive = directive_of(patch);
  if (directive == "delete") {
    target = json::object();
    return {};
  }
  if (directive == "replace") {
    target = json::object();  // what follows builds it anew, without the directives
  } else if (patch.contains("$patch") && directive != "merge") {
    return bad("$patch: want merge, replace or delete");
  }
  if (!target.is_object()) target = json::object();
  EM_TRY_VOID(retain_keys(target, patch));
  bool orders = std::any_of(patch.items().begin(), patch.items().end(),
                            [](const auto& item) { return item.key().starts_with(kOrder); });
  json before = orders ? target : json::object();
  for (const auto& [key, value] : patch.items()) {
    if (key == "$patch" || key == "$retainKeys" || key.starts_with(kOrder) ||
        key.starts_with(kDeletePrimitive)) {
      continue;
    }
    if (value.is_null()) {
      target.erase(key);
      continue;
    }
    EM_TRY_VOID(merge_field(target, key, value, type));
  }
  return list_directives(target, patch, type, before);
}

}  // namespace

Result<> apply_strategic_patch(json& target, const json& patch, std::string_view kind) {
  if (!patch.is_object()) return bad("want a JSON object");
  return merge_map(target, patch, type_of_kind(kind));
}

}  // namespace edgemesh::kube
