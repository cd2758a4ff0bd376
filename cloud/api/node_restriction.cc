// What nodes may write of what they may write: as Kubernetes' NodeRestriction.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/api/node_authorizer.h"
#include "kube/json_util.h"
#include "kube/pod_references.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using nlohmann::json;

namespace {

constexpr const char* kMirror = "kubernetes.io/config.mirror";

tl::unexpected<ApiError> no(const ApiCore::Admission& write, std::string_view why) {
  return refuse(ApiError::forbidden(write.resource, write.name, why));
}

bool has_some(const json& object, const char* name) {
  const json* value = find(object, "spec", name);
  return value != nullptr && !value->empty() && *value != json("");
}

// A pod that a node makes shows what it runs by itself: it names nothing of the cluster's, or a
// node could make itself a reader of any secret.
ApiResult<void> check_mirror(std::string_view node, const ApiCore::Admission& write) {
  const json& pod = *write.after;
  if (find(pod, "metadata", "annotations", kMirror) == nullptr) {
    return no(write, fmt::format("pod does not have \"{}\" annotation, node \"{}\" can only create "
                                 "mirror pods",
                                 kMirror, node));
  }
  if (text_at(pod, "spec", "nodeName") != node) {
    return no(
        write,
        fmt::format("node \"{}\" can only create pods with spec.nodeName set to itself", node));
  }
  const char* named = nullptr;
  if (has_some(pod, "serviceAccountName")) named = "a service account";
  if (has_some(pod, "resourceClaims")) named = "a resource claim";
  for (const kube::PodReference& reference : kube::pod_references(pod)) {
    named = *reference.type == kube::kSecrets ? "secrets" : "configmaps";
  }
  const json* volumes = find(pod, "spec", "volumes");
  for (const json& volume : volumes != nullptr && volumes->is_array() ? *volumes : json::array()) {
    if (find(volume, "persistentVolumeClaim") || find(volume, "ephemeral"))
      named = "persistentvolumeclaims";
    const json* sources = find(volume, "projected", "sources");
    for (const json& source :
         sources != nullptr && sources->is_array() ? *sources : json::array()) {
      if (find(source, "serviceAccountToken")) named = "a service account";
    }
  }
  if (named == nullptr) return {};
  return no(write, fmt::format("node \"{}\" can not create pods that reference {}", node, named));
}

ApiResult<void> check_pod(std::string_view node, const ApiCore::Admission& write) {
  if (write.before == nullptr) return check_mirror(node, write);
  const bool own = text_at(*write.before, "spec", "nodeName") == node;
  if (write.after == nullptr) {
    if (own) return {};
    return no(
        write,
        fmt::format("node \"{}\" can only delete pods with spec.nodeName set to itself", node));
  }
  if (write.subresource == "eviction") {
    if (own) return {};
    return no(write,
              fmt::format("node {} can only evict pods with spec.nodeName set to itself", node));
  }
  if (write.subresource != "status") {
    return no(write, fmt::format("unexpected pod subresource \"{}\"", write.subresource));
  }
  if (own) return {};
  return no(write, fmt::format("node \"{}\" can only update pod status for pods with spec.nodeName "
                               "set to itself",
                               node));
}

// Labels by which administrators place pods are not the node's to choose.
bool node_may_label(std::string_view key) {
  const size_t slash = key.find('/');
  if (slash == std::string_view::npos) return true;
  const std::string_view domain = key.substr(0, slash);
  const auto below = [domain](std::string_view parent) {
    return domain == parent || (domain.ends_with(parent) && domain.size() > parent.size() &&
                                domain[domain.size() - parent.size() - 1] == '.');
  };
  if (below("node-restriction.kubernetes.io")) return false;
  if (!below("kubernetes.io") && !below("k8s.io")) return true;
  if (below("kubelet.kubernetes.io") || below("node.kubernetes.io")) return true;
  constexpr std::string_view kAllowed[] = {"kubernetes.io/hostname",
                                           "kubernetes.io/os",
                                           "kubernetes.io/arch",
                                           "beta.kubernetes.io/os",
                                           "beta.kubernetes.io/arch",
                                           "beta.kubernetes.io/instance-type",
                                           "topology.kubernetes.io/region",
                                           "topology.kubernetes.io/zone",
                                           "failure-domain.beta.kubernetes.io/region",
                                           "failure-domain.beta.kubernetes.io/zone"};
  return std::find(std::begin(kAllowed), std::end(kAllowed), key) != std::end(kAllowed);
}

// Labels that differ and that a node must not touch.
std::string forbidden_labels(const json* before, const json& after) {
  static const json kNone = json::object();
  const json* old = before != nullptr ? find(*before, "metadata", "labels") : nullptr;
  const json* now = find(after, "metadata", "labels");
  const json& a = old != nullptr ? *old : kNone;
  const json& b = now != nullptr ? *now : kNone;
  std::string out;
  const auto compare = [&out](const json& from, const json& to, bool with_same_key) {
    for (const auto& [key, value] : from.items()) {
      auto it = to.find(key);
      const bool differs = it == to.end() || (with_same_key && *it != value);
      if (differs && !node_may_label(key)) out += (out.empty() ? "" : ", ") + key;
    }
  };
  compare(b, a, true);
  compare(a, b, false);
  return out;
}

json taints_of(const json& node) {
  const json* taints = find(node, "spec", "taints");
  return taints != nullptr ? *taints : json::array();
}

ApiResult<void> check_own_node(std::string_view node, const ApiCore::Admission& write) {
  if (write.name != node) {
    return no(write,
              fmt::format("node \"{}\" is not allowed to modify node \"{}\"", node, write.name));
  }
  if (write.after == nullptr) return {};
  const std::string labels = forbidden_labels(write.before, *write.after);
  if (!labels.empty()) {
    return no(write,
              write.before == nullptr
                  ? fmt::format("is not allowed to set the following node labels: {}", labels)
                  : fmt::format("is not allowed to modify labels: {}", labels));
  }
  if (write.before == nullptr) return {};
  if (taints_of(*write.before) != taints_of(*write.after)) {
    return no(write, fmt::format("node \"{}\" is not allowed to modify taints", node));
  }
  const json* owners = find(*write.before, "metadata", "ownerReferences");
  const json* now = find(*write.after, "metadata", "ownerReferences");
  if ((owners != nullptr ? *owners : json()) != (now != nullptr ? *now : json())) {
    return no(write, fmt::format("node \"{}\" is not allowed to modify ownerReferences", node));
  }
  return {};
}

ApiResult<void> check_token(const NodeObjects& objects, std::string_view node,
                            const ApiCore::Admission& write) {
  if (write.subresource != "token" || write.after == nullptr) return {};
  const json* reference = find(*write.after, "spec", "boundObjectRef");
  if (reference == nullptr || text_at(*reference, "kind") != "Pod" ||
      text_at(*reference, "name").empty()) {
    return no(write, "node requested token not bound to a pod");
  }
  if (text_at(*reference, "uid").empty()) {
    return no(write, "node requested token bound to a pod without uid");
  }
  if (objects.node_of_pod(write.ns, text_at(*reference, "name")) != node) {
    return no(write, "node requested token bound to a pod scheduled on a different node");
  }
  return {};
}

}  // namespace

ApiResult<void> check_node_write(const NodeObjects& objects, const ApiCore::Admission& write) {
  if (write.user == nullptr) return {};
  const std::string_view node = node_of(*write.user);
  if (node.empty() || write.resource.custom) return {};
  const std::string& kind = write.resource.type.kind;
  if (kind == "Pod") return check_pod(node, write);
  if (kind == "Node") return check_own_node(node, write);
  if (kind == "ServiceAccount") return check_token(objects, node, write);
  const bool named_as_it = kind == "CSINode" || kind == "Lease";
  if (named_as_it && write.before == nullptr && write.name != node) {
    return no(write, fmt::format("can only access {} with the same name as the requesting node",
                                 kind == "Lease" ? "node lease" : kind));
  }
  return {};
}

}  // namespace edgemesh::cloud
