// The sub-commands of edgemesh. Each prints its result to stdout; errors are one line.
#pragma once

#include <cstdint>
#include <string>

#include "core/base/result.h"

namespace edgemesh::cli {

struct Common {
  std::string admin = "127.0.0.1:15000";
  std::string output = "text";
  bool json() const { return output == "json"; }
};

struct JoinFlags {
  std::string cloud, token, node;
  std::string state_dir = "/var/lib/edgemesh";
  std::string config = "/etc/edgemesh/agent.yaml";
  uint16_t hub_port = 10000;
  bool force = false;
};

struct ResetFlags {
  std::string state_dir = "/var/lib/edgemesh";
  std::string config = "/etc/edgemesh/agent.yaml";
  bool purge = false;
};

Result<> join(JoinFlags flags, const Common& common);
Result<> reset(const ResetFlags& flags, const Common& common);
Result<> status(const Common& common);
Result<> netcheck(const Common& common);
Result<> path(const std::string& node, const Common& common);

}  // namespace edgemesh::cli
