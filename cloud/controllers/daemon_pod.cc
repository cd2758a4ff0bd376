#include "cloud/controllers/daemon_pod.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/controllers/fit.h"
#include "cloud/controllers/pods.h"
#include "cloud/controllers/revisions.h"
#include "kube/json_util.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

void add_tolerations(Json* spec) {
  Json& list = (*spec)["tolerations"];
  if (!list.is_array()) list = Json::array();
  auto add = [&](const char* key, const char* effect) {
    Json wanted{{"key", key}, {"operator", "Exists"}, {"effect", effect}};
    if (std::find(list.begin(), list.end(), wanted) == list.end()) list.push_back(wanted);
  };
  add("node.kubernetes.io/not-ready", "NoExecute");
  add("node.kubernetes.io/unreachable", "NoExecute");
  for (const char* key : {"node.kubernetes.io/disk-pressure", "node.kubernetes.io/memory-pressure",
                          "node.kubernetes.io/pid-pressure", "node.kubernetes.io/unschedulable"}) {
    add(key, "NoSchedule");
  }
  const Json* host = kube::find(*spec, "hostNetwork");
  if (host != nullptr && *host == Json(true))
    add("node.kubernetes.io/network-unavailable", "NoSchedule");
}

// As the pod would be, as far as a node's fitness goes.
Json probe_of(const ClusterObject& set) {
  const Json* spec = kube::find(set.json(), "spec", "template", "spec");
  Json pod{{"spec", spec == nullptr ? Json::object() : *spec}};
  add_tolerations(&pod["spec"]);
  return pod;
}

}  // namespace

Json daemon_pod(const ClusterObject& set, const std::string& node, const std::string& hash) {
  const Json* pod_template = kube::find(set.json(), "spec", "template");
  Json pod = pod_of_template(set, pod_template == nullptr ? Json::object() : *pod_template);
  pod["metadata"]["labels"][kRevisionHash] = hash;
  Json& spec = pod["spec"];
  add_tolerations(&spec);
  const Json pinned{{"key", "metadata.name"}, {"operator", "In"}, {"values", {node}}};
  spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = {
      {"nodeSelectorTerms", Json::array({{{"matchFields", Json::array({pinned})}}})}};
  return pod;
}

DaemonFit daemon_fit(const ClusterObject& set, const ClusterObject& node) {
  const Json pod = probe_of(set);
  const std::string named = kube::text_at(pod, "spec", "nodeName");
  if ((!named.empty() && named != node.name) || !affinity_allows(pod, node)) return {};
  DaemonFit out;
  out.stays = find_untolerated(pod, node.json(), {"NoExecute"}) == nullptr;
  out.runs = out.stays && find_untolerated(pod, node.json(), {"NoSchedule"}) == nullptr;
  return out;
}

std::string target_node(const Json& pod) {
  if (std::string bound = kube::text_at(pod, "spec", "nodeName"); !bound.empty()) return bound;
  const Json* terms =
      kube::find(pod, "spec", "affinity", "nodeAffinity",
                 "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms");
  if (terms == nullptr || !terms->is_array()) return "";
  for (const Json& term : *terms) {
    const Json* fields = kube::find(term, "matchFields");
    for (size_t i = 0; fields != nullptr && fields->is_array() && i < fields->size(); ++i) {
      const Json* values = kube::find((*fields)[i], "values");
      if (kube::text_at((*fields)[i], "key") == "metadata.name" && values != nullptr &&
          values->is_array() && values->size() == 1 && values->front().is_string())
        return values->front().get<std::string>();
    }
  }
  return "";
}

bool node_is_away(const ClusterObject& node) {
  return condition(node.json(), "Ready") == "Unknown";
}

}  // namespace edgemesh::cloud::controllers
