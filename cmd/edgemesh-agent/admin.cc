#include "cmd/edgemesh-agent/admin.h"

#include <nlohmann/json.hpp>

namespace edgemesh::cmd {

namespace {

using nlohmann::json;
using Writer = AdminServer::Writer;

// Answers with a result that comes later.
auto answer_later(const Writer& writer) {
  return [writer](Result<json> result) {
    if (result)
      AdminServer::send_json(writer, *result);
    else
      AdminServer::send_error(writer, result.error().code == ErrorCode::kNotFound ? 404 : 503,
                              result.error().message);
  };
}

}  // namespace

Result<std::unique_ptr<AdminServer>> make_admin(io::Loop& loop, const SockAddr& listen,
                                                obs::Registry& registry, AdminSources sources) {
  EM_TRY(auto admin, AdminServer::create(loop, listen, registry, std::move(sources.not_ready)));
  add_proxy_pages(*admin, {sources.l7, sources.telemetry, &registry});
  admin->get_json("/config_dump", std::move(sources.config));
  admin->get_json("/status", std::move(sources.status));
  admin->get_json("/peers", std::move(sources.peers));
  admin->get_json("/services", std::move(sources.services));
  auto path = [ask = std::move(sources.path)](bool open) {
    return [ask, open](const http::Request& request, const Writer& writer) {
      const auto node = request.query("node");
      if (!node || node->empty()) return AdminServer::send_error(writer, 400, "name a node: /path?node=NAME");
      ask(*node, open, answer_later(writer));
    };
  };
  admin->get("/path", path(false));
  admin->post("/path", path(true));
  admin->post("/netcheck", [check = std::move(sources.netcheck)](const http::Request&, const Writer& writer) {
    check(answer_later(writer));
  });
  return admin;
}

}  // namespace edgemesh::cmd
