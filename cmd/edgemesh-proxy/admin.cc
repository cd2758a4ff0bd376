#include "cmd/edgemesh-proxy/admin.h"

#include <nlohmann/json.hpp>

#include "cmd/proxy_pages/proxy_pages.h"

namespace edgemesh::cmd {

namespace {
using Writer = AdminServer::Writer;
}

Result<std::unique_ptr<AdminServer>> make_admin(io::Loop& loop, const SockAddr& listen,
                                                obs::Registry& registry,
                                                const AdminSources& sources, io::Fd socket) {
  auto not_ready = [draining = sources.draining] {
    return std::string(draining() ? "draining" : "");
  };
  EM_TRY(auto admin,
         AdminServer::create(loop, listen, registry, std::move(not_ready), std::move(socket)));
  add_proxy_pages(*admin, {sources.l7, sources.telemetry, &registry});
  admin->get_json("/config_dump", [l7 = sources.l7] { return config_dump(*l7); });
  admin->post("/drain", [drain = sources.drain](const http::Request&, const Writer& writer) {
    AdminServer::send_text(writer, 200, "draining\n");
    drain();
  });
  admin->post("/reload", [reload = sources.reload](const http::Request&, const Writer& writer) {
    reload([writer](Result<> done) {
      done ? AdminServer::send_text(writer, 200, "ok\n")
           : AdminServer::send_error(writer, 400, done.error().message);
    });
  });
  return admin;
}

}  // namespace edgemesh::cmd
