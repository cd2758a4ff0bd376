// The agent's admin endpoint, on loopback: health, metrics, state, log levels. Plain HTTP; whoever may
// open a local connection may read it, and only log levels, netcheck and path probes act.
//   GET  /healthz /readyz /metrics /config_dump /status /peers /services
//   GET  /path?node=N     the path to a node as it is; POST opens one and waits for it
//   POST /netcheck        what the network allows
//   GET  /log             the level; /log?level=L[&component=C] sets one
// Threads: main loop.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "core/http/server.h"
#include "core/obs/metrics.h"

namespace edgemesh::cmd {

// Where the answers come from. Asynchronous ones call back on the main loop.
struct AdminSources {
  std::function<std::string()> not_ready;  // empty: ready
  std::function<nlohmann::json()> status;
  std::function<nlohmann::json()> peers;
  std::function<nlohmann::json()> services;
  std::function<nlohmann::json()> config;
  std::function<void(std::function<void(Result<nlohmann::json>)>)> netcheck;
  std::function<void(const std::string& node, bool open,
                     std::function<void(Result<nlohmann::json>)>)> path;
};

class Admin {
 public:
  static Result<std::unique_ptr<Admin>> create(io::Loop& loop, const SockAddr& listen,
                                               obs::Registry& registry, AdminSources sources);
  SockAddr local_addr() const { return server_->local_addr(); }

 private:
  using Writer = std::shared_ptr<http::ResponseWriter>;
  Admin(obs::Registry& registry, AdminSources sources)
      : registry_(registry), sources_(std::move(sources)) {}
  void handle(const http::Request& request, const Writer& writer);
  bool handle_get(const std::string& path, const Writer& writer);
  void handle_log(const http::Request& request, const Writer& writer);
  void handle_path(const http::Request& request, const Writer& writer);

  obs::Registry& registry_;
  AdminSources sources_;
  std::unique_ptr<http::Server> server_;
};

}  // namespace edgemesh::cmd
