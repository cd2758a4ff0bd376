#include "cloud/api/node_authorizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/api/rbac_defaults.h"
#include "kube/json_util.h"

namespace edgemesh::cloud {

using kube::text_at;

namespace {

constexpr std::string_view kStorageGroup = "storage.k8s.io";

// Of a resource with rules of its own: whether it may, and if not, why.
struct Verdict {
  bool allowed = false;
  std::string why;
};

bool is_one_of(std::string_view verb, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), verb) != list.end();
}
bool reads(const ApiAttributes& what) {
  return is_one_of(what.verb, {"get", "list", "watch"});
}

Verdict related(const NodeObjects* objects, std::string_view node, const ApiAttributes& what) {
  if (what.name.empty()) return {false, "No Object name found"};
  if (objects != nullptr && objects->uses(node, what.resource, what.ns, what.name))
    return {true, ""};
  return {false, fmt::format("no relationship found between node '{}' and this object", node)};
}

Verdict read_named(const NodeObjects* objects, std::string_view node, const ApiAttributes& what) {
  if (!reads(what)) return {false, "can only read resources of this type"};
  if (!what.subresource.empty()) return {false, "cannot read subresource"};
  return related(objects, node, what);
}

Verdict get_one(const NodeObjects* objects, std::string_view node, const ApiAttributes& what) {
  if (what.verb != "get") return {false, "can only get individual resources of this type"};
  if (!what.subresource.empty()) return {false, "cannot get subresource"};
  return related(objects, node, what);
}

Verdict account(const NodeObjects* objects, std::string_view node, const ApiAttributes& what) {
  if (what.verb == "get" && what.subresource.empty()) return related(objects, node, what);
  if (what.verb != "create" || what.subresource != "token") {
    return {false, "can only create tokens for individual service accounts"};
  }
  return related(objects, node, what);
}

Verdict own_node(std::string_view node, const ApiAttributes& what) {
  if (what.subresource == "status") return {is_one_of(what.verb, {"update", "patch"}), ""};
  if (!what.subresource.empty()) return {};
  // Whose it is, is looked at when it is written.
  if (is_one_of(what.verb, {"create", "update", "patch"})) return {true, ""};
  if (!reads(what)) return {};
  if (what.name == node) return {true, ""};
  if (what.name.empty()) {
    return {false, fmt::format("node '{}' cannot read all nodes, only its own Node object", node)};
  }
  return {false,
          fmt::format("node '{}' cannot read '{}', only its own Node object", node, what.name)};
}

Verdict pod(const NodeObjects* objects, std::string_view node, const ApiAttributes& what) {
  if (what.subresource == "status") return {is_one_of(what.verb, {"update", "patch"}), ""};
  if (what.subresource == "eviction") return {what.verb == "create", ""};
  if (!what.subresource.empty()) return {};
  if (is_one_of(what.verb, {"create", "delete"})) return {true, ""};
  if (what.verb == "get") return get_one(objects, node, what);
  if (!reads(what)) return {};
  if (!node.empty() && what.node_name == node) return {true, ""};
  if (what.name.empty())
    return {false, "can only list/watch pods with spec.nodeName field selector"};
  return read_named(objects, node, what);
}

// An object that has the node's name.
Verdict own_object(std::string_view node, const ApiAttributes& what, std::string_view kind) {
  if (!is_one_of(what.verb, {"get", "create", "update", "patch", "delete"})) {
    return {false, fmt::format("can only get, create, update, patch, or delete a {}", kind)};
  }
  if (!what.subresource.empty())
    return {false, fmt::format("cannot authorize {} subresources", kind)};
  // The name of what is made is not in the path.
  if (what.verb != "create" && what.name != node) {
    return {false,
            fmt::format("can only access {} with the same name as the requesting node", kind)};
  }
  return {true, ""};
}

Verdict lease(std::string_view node, const ApiAttributes& what) {
  if (what.ns != "kube-node-lease") {
    return {false, "can only access leases in the \"kube-node-lease\" system namespace"};
  }
  return own_object(node, what, "node lease");
}

// nullopt: there are only the rules that hold for every node.
std::optional<Verdict> judge(const NodeObjects* objects, std::string_view node,
                             const ApiAttributes& what) {
  const std::string& resource = what.resource;
  if (what.group.empty()) {
    if (resource == "secrets" || resource == "configmaps") return read_named(objects, node, what);
    if (resource == "persistentvolumeclaims" || resource == "persistentvolumes") {
      return get_one(objects, node, what);
    }
    if (resource == "serviceaccounts") return account(objects, node, what);
    if (resource == "nodes") return own_node(node, what);
    if (resource == "pods") return pod(objects, node, what);
  }
  if (what.group == "coordination.k8s.io" && resource == "leases") return lease(node, what);
  if (what.group == kStorageGroup && resource == "csinodes") {
    return own_object(node, what, "CSINode");
  }
  if (what.group == kStorageGroup && resource == "volumeattachments") {
    return get_one(objects, node, what);
  }
  return std::nullopt;
}

}  // namespace

NodeAuthorizer::NodeAuthorizer(std::shared_ptr<const NodeObjects> objects)
    : objects_(std::move(objects)) {
  for (const nlohmann::json& role : default_cluster_roles()) {
    if (text_at(role, "metadata", "name") == "system:node") rules_ = parse_rules(role);
  }
  const std::vector<std::string> read{"get", "list", "watch"};
  rules_.push_back({read, {""}, {"namespaces"}, {}, {}});
  rules_.push_back({read, {"discovery.k8s.io"}, {"endpointslices"}, {}, {}});
}

bool NodeAuthorizer::allows(const ApiUser& user, const ApiAttributes& what,
                            std::string* reason) const {
  const std::string_view node = node_of(user);
  if (node.empty() || what.resource.empty()) return false;
  if (auto verdict = judge(objects_.get(), node, what)) {
    if (reason != nullptr) *reason = std::move(verdict->why);
    return verdict->allowed;
  }
  return std::any_of(rules_.begin(), rules_.end(),
                     [&](const RbacRule& rule) { return rule_allows(rule, what); });
}

}  // namespace edgemesh::cloud
