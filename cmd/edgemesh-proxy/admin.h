// Admin: the proxy's endpoint for operators, on loopback.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/http/server.h"
#include "core/obs/metrics.h"
#include "proxy/listener/l7_proxy.h"

namespace edgemesh::cmd {

struct AdminSources {
  proxy::L7Proxy* l7 = nullptr;
  std::function<bool()> draining;
  std::function<void()> drain;
  std::function<Result<>()> reload;
};

class Admin {
 public:
  static Result<std::unique_ptr<Admin>> create(io::Loop& loop, const SockAddr& listen,
                                               obs::Registry& registry, AdminSources sources);

 private:
  using Writer = std::shared_ptr<http::ResponseWriter>;
  Admin(obs::Registry& registry, AdminSources sources)
      : registry_(registry), sources_(std::move(sources)) {}
  void handle(const http::Request& request, const Writer& writer);
  void get(const http::Request& request, const Writer& writer);
  void post(const http::Request& request, const Writer& writer);
  std::string listeners(bool as_json) const;
  std::string routes() const;

  obs::Registry& registry_;
  AdminSources sources_;
  std::unique_ptr<http::Server> server_;
};

}  // namespace edgemesh::cmd
