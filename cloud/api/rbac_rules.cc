#include "cloud/api/rbac_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "kube/json_util.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

constexpr std::string_view kAll = "*";

std::vector<std::string> texts(const json& rule, const char* name) {
  std::vector<std::string> out;
  const json* list = kube::find(rule, name);
  if (list == nullptr || !list->is_array()) return out;
  for (const json& item : *list) {
    if (item.is_string()) out.push_back(item.get<std::string>());
  }
  return out;
}

bool has(const std::vector<std::string>& list, std::string_view value) {
  return std::any_of(list.begin(), list.end(),
                     [&](const std::string& one) { return one == value; });
}

bool has_or_all(const std::vector<std::string>& list, std::string_view value) {
  return std::any_of(list.begin(), list.end(),
                     [&](const std::string& one) { return one == value || one == kAll; });
}

// "pods/log" without putting it together.
bool is_pair(std::string_view text, std::string_view resource, std::string_view subresource) {
  return text.size() == resource.size() + 1 + subresource.size() && text.starts_with(resource) &&
         text[resource.size()] == '/' && text.ends_with(subresource);
}

bool resource_fits(const std::vector<std::string>& list, std::string_view resource,
                   std::string_view subresource) {
  for (const std::string& one : list) {
    if (one == kAll) return true;
    if (subresource.empty()
            ? one == resource
            : is_pair(one, resource, subresource) || is_pair(one, kAll, subresource))
      return true;
  }
  return false;
}

bool url_fits(std::string_view pattern, std::string_view path) {
  if (pattern == kAll || pattern == path) return true;
  if (!pattern.ends_with('*')) return false;
  pattern.remove_suffix(1);
  return path.starts_with(pattern);
}

// One verb on one thing: what `wanted` falls into.
struct Atom {
  std::string verb, group, resource, name, url;
};

std::vector<Atom> atoms_of(const RbacRule& rule) {
  std::vector<Atom> out;
  const std::vector<std::string> any{""};
  const auto& names = rule.names.empty() ? any : rule.names;
  for (const std::string& verb : rule.verbs) {
    for (const std::string& url : rule.urls) out.push_back({verb, "", "", "", url});
    for (const std::string& group : rule.groups) {
      for (const std::string& resource : rule.resources) {
        for (const std::string& name : names) out.push_back({verb, group, resource, name, ""});
      }
    }
  }
  return out;
}

bool gives(const RbacRule& rule, const Atom& atom) {
  if (!has_or_all(rule.verbs, atom.verb)) return false;
  if (!atom.url.empty()) {
    return std::any_of(rule.urls.begin(), rule.urls.end(),
                       [&](const std::string& url) { return url_fits(url, atom.url); });
  }
  std::string_view resource = atom.resource, subresource;
  if (size_t slash = resource.find('/'); slash != std::string_view::npos) {
    subresource = resource.substr(slash + 1);
    resource = resource.substr(0, slash);
  }
  return has_or_all(rule.groups, atom.group) &&
         resource_fits(rule.resources, resource, subresource) &&
         (rule.names.empty() || (!atom.name.empty() && has(rule.names, atom.name)));
}

std::string list_text(const std::vector<std::string>& list) {
  std::string out;
  for (const std::string& one : list) out += fmt::format("{}\"{}\"", out.empty() ? "" : " ", one);
  return out;
}

}  // namespace

RbacRules parse_rules(const json& role) {
  RbacRules out;
  const json* list = kube::find(role, "rules");
  if (list == nullptr || !list->is_array()) return out;
  for (const json& rule : *list) {
    out.push_back({texts(rule, "verbs"), texts(rule, "apiGroups"), texts(rule, "resources"),
                   texts(rule, "resourceNames"), texts(rule, "nonResourceURLs")});
  }
  return out;
}

json rule_json(const RbacRule& rule) {
  json out = {{"verbs", rule.verbs}};
  if (!rule.groups.empty()) out["apiGroups"] = rule.groups;
  if (!rule.resources.empty()) out["resources"] = rule.resources;
  if (!rule.names.empty()) out["resourceNames"] = rule.names;
  if (!rule.urls.empty()) out["nonResourceURLs"] = rule.urls;
  return out;
}

bool rule_allows(const RbacRule& rule, const ApiAttributes& what) {
  if (!has_or_all(rule.verbs, what.verb)) return false;
  if (what.resource.empty()) {
    return std::any_of(rule.urls.begin(), rule.urls.end(),
                       [&](const std::string& url) { return url_fits(url, what.path); });
  }
  return has_or_all(rule.groups, what.group) &&
         resource_fits(rule.resources, what.resource, what.subresource) &&
         (rule.names.empty() || has(rule.names, what.name));
}

RbacRules rules_not_held(const std::vector<const RbacRule*>& held, const RbacRules& wanted) {
  // Verbs of one thing stand together.
  std::map<std::vector<std::string>, RbacRule> missing;
  for (const RbacRule& rule : wanted) {
    for (Atom& atom : atoms_of(rule)) {
      bool covered = std::any_of(held.begin(), held.end(),
                                 [&](const RbacRule* one) { return gives(*one, atom); });
      if (covered) continue;
      RbacRule& entry = missing[{atom.url, atom.group, atom.resource, atom.name}];
      if (!has(entry.verbs, atom.verb)) entry.verbs.push_back(std::move(atom.verb));
      if (!atom.url.empty()) {
        entry.urls = {atom.url};
        continue;
      }
      entry.groups = {atom.group};
      entry.resources = {atom.resource};
      if (!atom.name.empty()) entry.names = {atom.name};
    }
  }
  RbacRules out;
  for (auto& [key, rule] : missing) {
    std::sort(rule.verbs.begin(), rule.verbs.end());
    out.push_back(std::move(rule));
  }
  return out;
}

std::string rule_text(const RbacRule& rule) {
  std::string out;
  const auto add = [&out](std::string_view name, const std::vector<std::string>& list) {
    if (list.empty()) return;
    out += fmt::format("{}{}:[{}]", out.empty() ? "" : ", ", name, list_text(list));
  };
  add("APIGroups", rule.groups);
  add("Resources", rule.resources);
  add("ResourceNames", rule.names);
  add("NonResourceURLs", rule.urls);
  add("Verbs", rule.verbs);
  return "{" + out + "}";
}

}  // namespace edgemesh::cloud
