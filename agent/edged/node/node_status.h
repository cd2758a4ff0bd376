// The status of this Node as edged knows it (v1.NodeStatus): capacity, what pods may use of it,
// pressures, versions, images. Whether the node is ready, and its addresses, is the cloud's to say,
// which sees the connection. Pure.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "agent/edged/node/node_facts.h"

namespace edgemesh::edged {

inline constexpr int kMostPods = 110;

struct NodeImage {
  std::vector<std::string> names;  // tags and digests
  int64_t bytes = 0;
};

struct NodeStatusInput {
  const NodeFacts& facts;
  std::string runtime;  // "containerd://1.6.20"; empty: it does not answer
  const std::vector<NodeImage>& images;
  bool memory_pressure = false, disk_pressure = false, pid_pressure = false;
  int64_t now_s = 0;
  const nlohmann::json* previous = nullptr;  // the status before: times of conditions that hold on
};

nlohmann::json make_node_status(const NodeStatusInput& in);

// Does `have`, the Node's status in the cloud, say what `want` says, times left aside?
bool same_node_status(const nlohmann::json& have, const nlohmann::json& want);

}  // namespace edgemesh::edged
