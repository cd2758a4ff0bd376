// Does a pod fit on a node? The rules of Kubernetes' scheduler that users at the edge rely on: node
// selector, node affinity, taints and tolerations, requests against what is allocatable,
// host ports. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <string_view>

#include "cloud/controllers/cluster.h"

namespace edgemesh::cloud::controllers {

struct Resources {
  int64_t milli_cpu = 0;
  int64_t memory = 0;  // bytes
  int64_t pods = 0;
  Resources& operator+=(const Resources& other);
  Resources& operator-=(const Resources& other);
};

// "500m", "2", "1.5", "128Mi", "1e3", "1k": the value in thousandths; -1 when it cannot be read.
int64_t parse_quantity(const nlohmann::json* quantity);

// Of all containers, sidecars among them, and the pod's overhead; where an init container with the
// sidecars before it asks for more, that counts.
Resources pod_requests(const nlohmann::json& pod);
// A node that says nothing of the kind runs no pods: all is 0.
Resources node_allocatable(const nlohmann::json& node);
// "TCP/8080" of containers with a hostPort; of pods on the host network all their ports.
std::set<std::string> host_ports(const nlohmann::json& pod);

// Matches spec.nodeSelector and the required node affinity.
bool affinity_allows(const nlohmann::json& pod, const ClusterObject& node);
// The first taint with an effect that keeps pods away (NoSchedule, NoExecute) and is not tolerated;
// "" for none.
std::string untolerated_taint(const nlohmann::json& pod, const nlohmann::json& node);
// The first taint with one of these effects that is not tolerated; null: none.
const nlohmann::json* find_untolerated(const nlohmann::json& pod, const nlohmann::json& node,
                                       std::initializer_list<std::string_view> effects);
bool tolerates(const nlohmann::json& pod, const nlohmann::json& taint);
// Taints with the effect PreferNoSchedule that are not tolerated.
int64_t avoided_taints(const nlohmann::json& pod, const nlohmann::json& node);
// The weights of the preferred node affinities that the node has.
int64_t preferred_weight(const nlohmann::json& pod, const ClusterObject& node);

}  // namespace edgemesh::cloud::controllers
