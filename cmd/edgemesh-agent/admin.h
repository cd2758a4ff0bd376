// The agent's pages on its admin endpoint (cmd/admin has health, metrics, log levels and who may ask;
// cmd/proxy_pages clusters, listeners, routes, stats, traffic). Only
// netcheck and path probes act.
//   GET  /config_dump /status /peers /services
//   GET  /path?node=N     the path to a node as it is; POST opens one and waits for it
//   POST /netcheck        what the network allows: it sends packets
// Threads: main loop.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cmd/admin/admin_server.h"
#include "cmd/proxy_pages/proxy_pages.h"

namespace edgemesh::cmd {

// Where the answers come from. Asynchronous ones call back on the main loop.
struct AdminSources {
  std::function<std::string()> not_ready;  // empty: ready
  std::function<nlohmann::json()> status;
  std::function<nlohmann::json()> peers;
  std::function<nlohmann::json()> services;
  std::function<nlohmann::json()> config;
  proxy::L7Proxy* l7 = nullptr;  // null: no HTTP
  proxy::Telemetry* telemetry = nullptr;
  std::function<void(std::function<void(Result<nlohmann::json>)>)> netcheck;
  std::function<void(const std::string& node, bool open,
                     std::function<void(Result<nlohmann::json>)>)> path;
};

Result<std::unique_ptr<AdminServer>> make_admin(io::Loop& loop, const SockAddr& listen,
                                                obs::Registry& registry, AdminSources sources);

}  // namespace edgemesh::cmd
