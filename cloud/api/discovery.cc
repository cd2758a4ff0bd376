#include "cloud/api/discovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/version.h"
#include "kube/json_util.h"
#include "kube/type_table.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

json verbs(const ResourceInfo& resource) {
  if (resource.review) return json::array({"create"});
  if (resource.computed) return {"get", "list"};
  return {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"};
}

std::vector<std::pair<std::string, std::string>> group_versions(const ResourceRegistry& registry) {
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& info : registry.all()) {
    if (!info->served) continue;
    std::pair<std::string, std::string> gv{info->type.group, info->type.version};
    if (std::find(out.begin(), out.end(), gv) == out.end()) out.push_back(std::move(gv));
  }
  return out;
}

// "v2" before "v1" before "v1beta1" before anything that is not of this form.
int rank(std::string_view version) {
  if (!version.starts_with("v") || version.size() < 2) return 0;
  int major = std::atoi(std::string(version.substr(1)).c_str());
  if (major == 0) return 0;
  bool alpha = version.find("alpha") != std::string_view::npos;
  bool beta = version.find("beta") != std::string_view::npos;
  size_t digits = version.find_last_not_of("0123456789");
  int minor = alpha || beta ? std::atoi(std::string(version.substr(digits + 1)).c_str()) : 0;
  return (alpha  ? 1
          : beta ? 2
                 : 3) *
             1'000'000 +
         std::min(major, 999) * 1000 + std::min(minor, 999);
}

using Groups = std::vector<std::pair<std::string, std::vector<std::string>>>;
Groups groups_of(const ResourceRegistry& registry) {
  Groups out;
  for (const auto& [group, version] : group_versions(registry)) {
    auto it = std::find_if(out.begin(), out.end(), [&](const auto& g) { return g.first == group; });
    if (it == out.end()) it = out.insert(out.end(), {group, {}});
    it->second.push_back(version);
  }
  for (auto& [group, versions] : out) {
    std::stable_sort(versions.begin(), versions.end(),
                     [](const auto& a, const auto& b) { return rank(a) > rank(b); });
  }
  return out;
}

json resource_list(const ResourceRegistry& registry, std::string_view group,
                   std::string_view version) {
  json resources = json::array();
  for (const auto& info : registry.all()) {
    if (!info->served || info->type.group != group || info->type.version != version) continue;
    json item = {{"name", info->type.plural},
                 {"singularName", info->singular},
                 {"namespaced", info->type.namespaced},
                 {"kind", info->type.kind},
                 {"verbs", verbs(*info)}};
    if (!info->short_names.empty()) item["shortNames"] = info->short_names;
    if (!info->categories.empty()) item["categories"] = info->categories;
    resources.push_back(std::move(item));
    for (const Subresource& sub : info->subresources) {
      resources.push_back({{"name", info->type.plural + "/" + sub.name},
                           {"singularName", ""},
                           {"namespaced", info->type.namespaced},
                           {"kind", sub.kind},
                           {"verbs", sub.verbs}});
      if (sub.group == group && sub.version == version) continue;
      if (!sub.group.empty()) resources.back()["group"] = sub.group;
      resources.back()["version"] = sub.version;
    }
    if (!info->has_status) continue;
    resources.push_back({{"name", info->type.plural + "/status"},
                         {"singularName", ""},
                         {"namespaced", info->type.namespaced},
                         {"kind", info->type.kind},
                         {"verbs", {"get", "patch", "update"}}});
  }
  std::string gv = group.empty() ? std::string(version) : fmt::format("{}/{}", group, version);
  return {{"kind", "APIResourceList"},
          {"apiVersion", "v1"},
          {"groupVersion", gv},
          {"resources", std::move(resources)}};
}

json aggregated_resources(const ResourceRegistry& registry, std::string_view group,
                          std::string_view version) {
  json resources = json::array();
  for (const auto& info : registry.all()) {
    if (!info->served || info->type.group != group || info->type.version != version) continue;
    json kind = {{"group", group}, {"version", version}, {"kind", info->type.kind}};
    json item = {{"resource", info->type.plural},
                 {"responseKind", kind},
                 {"scope", info->type.namespaced ? "Namespaced" : "Cluster"},
                 {"singularResource", info->singular},
                 {"verbs", verbs(*info)}};
    if (!info->short_names.empty()) item["shortNames"] = info->short_names;
    if (!info->categories.empty()) item["categories"] = info->categories;
    json below = json::array();
    for (const Subresource& sub : info->subresources) {
      below.push_back(
          {{"subresource", sub.name},
           {"responseKind", {{"group", sub.group}, {"version", sub.version}, {"kind", sub.kind}}},
           {"verbs", sub.verbs}});
    }
    if (info->has_status) {
      below.push_back({{"subresource", "status"},
                       {"responseKind", kind},
                       {"verbs", {"get", "patch", "update"}}});
    }
    if (!below.empty()) item["subresources"] = std::move(below);
    resources.push_back(std::move(item));
  }
  return resources;
}

// `core`: /api, otherwise /apis.
json aggregated(const ResourceRegistry& registry, bool core, std::string_view version_of_list) {
  json items = json::array();
  for (const auto& [group, versions] : groups_of(registry)) {
    if (group.empty() != core) continue;
    json meta = json::object();
    if (!core) meta["name"] = group;
    meta["creationTimestamp"] = nullptr;
    json all = json::array();
    for (const std::string& version : versions) {
      all.push_back({{"version", version},
                     {"freshness", "Current"},
                     {"resources", aggregated_resources(registry, group, version)}});
    }
    items.push_back({{"metadata", meta}, {"versions", std::move(all)}});
  }
  return {{"kind", "APIGroupDiscoveryList"},
          {"apiVersion", fmt::format("apidiscovery.k8s.io/{}", version_of_list)},
          {"metadata", json::object()},
          {"items", std::move(items)}};
}

json group_entry(const std::string& group, const std::vector<std::string>& versions) {
  json all = json::array();
  for (const std::string& version : versions) {
    all.push_back({{"groupVersion", group + "/" + version}, {"version", version}});
  }
  return {{"name", group}, {"versions", all}, {"preferredVersion", all[0]}};
}

json group_list(const ResourceRegistry& registry) {
  json groups = json::array();
  for (const auto& [group, versions] : groups_of(registry)) {
    if (!group.empty()) groups.push_back(group_entry(group, versions));
  }
  return {{"kind", "APIGroupList"}, {"apiVersion", "v1"}, {"groups", std::move(groups)}};
}

json version_info() {
  return {{"major", kApiMajor},
          {"minor", kApiMinor},
          {"gitVersion", fmt::format("v{}.{}.0+edgemesh-{}", kApiMajor, kApiMinor, kVersion)},
          {"gitCommit", ""},
          {"gitTreeState", "clean"},
          {"buildDate", "1970-01-01T00:00:00Z"},
          {"goVersion", ""},
          {"compiler", "c++"},
          {"platform", "linux"}};
}

std::string gv_path(const std::string& group, const std::string& version) {
  return group.empty() ? "api/" + version : "apis/" + group + "/" + version;
}

// Clients cache a document under its hash for good: it stands for everything the document is made
// of.
size_t openapi_hash(const ResourceRegistry& registry, const std::string& group,
                    const std::string& version) {
  static const std::string kBase =
      fmt::format("{} {}", kVersion, std::hash<std::string_view>()(kube::type_tables()));
  std::string from = kBase + group + version;
  for (const auto& info : registry.all()) {
    if (!info->served || info->type.group != group || info->type.version != version) continue;
    from += info->type.kind;
    if (info->schema != nullptr) from += kube::to_text(*info->schema);
  }
  return std::hash<std::string>()(from);
}

json openapi_index(const ResourceRegistry& registry) {
  json paths = json::object();
  for (const auto& [group, version] : group_versions(registry)) {
    std::string path = gv_path(group, version);
    size_t hash = openapi_hash(registry, group, version);
    paths[path] = {{"serverRelativeURL", fmt::format("/openapi/v3/{}?hash={:X}", path, hash)}};
  }
  return {{"paths", std::move(paths)}};
}

DiscoveryAnswer plain(const json& value) {
  return {"application/json", kube::to_text(value)};
}

// kubectl asks for version 2 when it is given a List, and checks on its own side what is described
// there. Nothing is: the server checks each object, by the schemas of version 3. In protobuf
// (gnostic's Document) the same is: field 1, swagger, "2.0"; field 2, info, with 1, title, and 2,
// version.
DiscoveryAnswer openapi_v2(std::string_view accept) {
  if (accept.find("openapi.spec.v2") != std::string_view::npos) {
    return {"application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
            "\x0a\x03"
            "2.0"
            "\x12\x0e"
            "\x0a\x08"
            "EdgeMesh"
            "\x12\x02"
            "v1"};
  }
  return plain({{"swagger", "2.0"},
                {"info", {{"title", "EdgeMesh"}, {"version", "v1"}}},
                {"paths", json::object()},
                {"definitions", json::object()}});
}

std::optional<DiscoveryAnswer> aggregated_answer(const ResourceRegistry& registry, bool core,
                                                 std::string_view accept) {
  if (accept.find("as=APIGroupDiscoveryList") == std::string_view::npos) return std::nullopt;
  size_t v2 = accept.find("v=v2;");
  bool stable = v2 != std::string_view::npos || accept.find("v=v2,") != std::string_view::npos ||
                accept.ends_with("v=v2");
  std::string_view version = stable ? "v2" : "v2beta1";
  return DiscoveryAnswer{
      fmt::format("application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList", version),
      kube::to_text(aggregated(registry, core, version))};
}

// "<group>/<version>" or "<group>".
std::optional<DiscoveryAnswer> group_answer(const ResourceRegistry& registry,
                                            std::string_view rest) {
  size_t slash = rest.find('/');
  std::string group(rest.substr(0, slash));
  if (slash != std::string_view::npos) {
    std::string version(rest.substr(slash + 1));
    if (group.empty() || !registry.has_group_version(group, version)) return std::nullopt;
    return plain(resource_list(registry, group, version));
  }
  for (const auto& [name, versions] : groups_of(registry)) {
    if (name != group || name.empty()) continue;
    json entry = group_entry(name, versions);
    entry["kind"] = "APIGroup";
    entry["apiVersion"] = "v1";
    return plain(entry);
  }
  return std::nullopt;
}

}  // namespace

std::optional<DiscoveryAnswer> discovery(const ResourceRegistry& registry, std::string_view path,
                                         std::string_view accept) {
  while (path.size() > 1 && path.ends_with("/")) path.remove_suffix(1);
  if (path == "/version") return plain(version_info());
  if (path == "/api" || path == "/apis") {
    if (auto answer = aggregated_answer(registry, path == "/api", accept)) return answer;
    if (path == "/apis") return plain(group_list(registry));
    return plain(
        {{"kind", "APIVersions"},
         {"versions", {"v1"}},
         {"serverAddressByClientCIDRs", {{{"clientCIDR", "0.0.0.0/0"}, {"serverAddress", ""}}}}});
  }
  if (path == "/api/v1") return plain(resource_list(registry, "", "v1"));
  if (path == "/openapi/v3") return plain(openapi_index(registry));
  if (path == "/openapi/v2") return openapi_v2(accept);
  constexpr std::string_view kDocument = "/openapi/v3/";
  if (path.starts_with(kDocument)) {
    for (const auto& [group, version] : group_versions(registry)) {
      if (path.substr(kDocument.size()) != gv_path(group, version)) continue;
      return DiscoveryAnswer{"application/json", openapi_v3(registry, group, version)};
    }
    return std::nullopt;
  }
  constexpr std::string_view kGroups = "/apis/";
  if (path.starts_with(kGroups)) return group_answer(registry, path.substr(kGroups.size()));
  return std::nullopt;
}

}  // namespace edgemesh::cloud
