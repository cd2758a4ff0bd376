// What is particular to the pods of a DaemonSet. Pure functions, thread-safe.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cloud/controllers/cluster.h"

namespace edgemesh::cloud::controllers {

// The pod of `set` for a node: with the tolerations that all daemons have (a node in trouble is no
// reason to end or not to start them), and bound to the node's name by its affinity.
nlohmann::json daemon_pod(const ClusterObject& set, const std::string& node,
                          const std::string& revision_hash);

struct DaemonFit {
  bool runs = false;   // a pod belongs on the node
  bool stays = false;  // one that is there may stay
};
DaemonFit daemon_fit(const ClusterObject& set, const ClusterObject& node);

// The node that a pod is bound to, or pinned to by daemon_pod(); empty: none.
std::string target_node(const nlohmann::json& pod);

// The node does not answer: the cloud cannot know what it does.
bool node_is_away(const ClusterObject& node);

}  // namespace edgemesh::cloud::controllers
