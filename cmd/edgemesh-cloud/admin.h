// The cloud's admin endpoint, on loopback: health, metrics, connected nodes, log levels. Plain
// HTTP.
//   GET /healthz /readyz /metrics /nodes
//   GET /log, POST or GET /log?level=L[&component=C]
// Threads: the loop given.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "core/http/server.h"
#include "core/obs/metrics.h"

namespace edgemesh::cmd {

class CloudAdmin {
 public:
  struct Sources {
    std::function<std::string()> not_ready;  // empty: ready
    std::function<nlohmann::json()> nodes;
  };
  static Result<std::unique_ptr<CloudAdmin>> create(io::Loop& loop, const SockAddr& listen,
                                                    obs::Registry& registry, Sources sources);
  SockAddr local_addr() const { return server_->local_addr(); }

 private:
  CloudAdmin(obs::Registry& registry, Sources sources)
      : registry_(registry), sources_(std::move(sources)) {}
  http::Response answer(const http::Request& request);
  http::Response set_log(const http::Request& request);

  obs::Registry& registry_;
  Sources sources_;
  std::unique_ptr<http::Server> server_;
};

}  // namespace edgemesh::cmd
