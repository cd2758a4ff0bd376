#include "cmd/edgemesh-proxy/admin.h"

#include <nlohmann/json.hpp>

#include "proxy/upstream/cluster_report.h"

namespace edgemesh::cmd {

namespace {

using nlohmann::json;
using Writer = AdminServer::Writer;

bool wants_json(const http::Request& request) {
  return request.query("format") == std::optional<std::string>("json");
}

void send_clusters(const proxy::L7Proxy& l7, const http::Request& request, const Writer& writer) {
  std::string text;
  const auto sets = l7.clusters();
  if (wants_json(request)) {
    proxy::append_clusters_json(text, sets);
    return AdminServer::send_text(writer, 200, std::move(text), "application/json");
  }
  proxy::append_clusters_text(text, sets);
  AdminServer::send_text(writer, 200, std::move(text));
}

void send_listeners(const proxy::L7Proxy& l7, const http::Request& request, const Writer& writer) {
  json list = json::array();
  std::string text;
  for (const auto& [name, addr] : l7.listen_addrs()) {
    list.push_back({{"name", name}, {"address", addr.to_string()}});
    text += name + "::" + addr.to_string() + "\n";
  }
  if (wants_json(request)) return AdminServer::send_json(writer, json{{"listeners", list}});
  AdminServer::send_text(writer, 200, std::move(text));
}

std::string routes(const proxy::L7Proxy& l7) {
  std::string text;
  for (const auto& [name, config] : l7.config()->routes)
    for (const auto& host : config->hosts)
      for (const auto& route : host->routes) {
        std::string domains;
        for (const auto& domain : host->domains) domains += (domains.empty() ? "" : ",") + domain;
        text += fmt::format("{}::{}::{}::{} {}\n", name, host->name, domains, route.name,
                            route.match.path.path);
      }
  return text;
}

}  // namespace

Result<std::unique_ptr<AdminServer>> make_admin(io::Loop& loop, const SockAddr& listen,
                                                obs::Registry& registry, const AdminSources& sources) {
  EM_TRY(auto admin, AdminServer::create(loop, listen, registry, [draining = sources.draining] {
           return std::string(draining() ? "draining" : "");
         }));
  proxy::L7Proxy* l7 = sources.l7;
  admin->get("/stats", [&registry](const http::Request&, const Writer& writer) {
    AdminServer::send_text(writer, 200, registry.text(), "text/plain; version=0.0.4; charset=utf-8");
  });
  admin->get("/clusters", [l7](const http::Request& request, const Writer& writer) {
    send_clusters(*l7, request, writer);
  });
  admin->get("/listeners", [l7](const http::Request& request, const Writer& writer) {
    send_listeners(*l7, request, writer);
  });
  admin->get("/routes", [l7](const http::Request&, const Writer& writer) {
    AdminServer::send_text(writer, 200, routes(*l7));
  });
  admin->post("/drain", [drain = sources.drain](const http::Request&, const Writer& writer) {
    AdminServer::send_text(writer, 200, "draining\n");
    drain();
  });
  admin->post("/reload", [reload = sources.reload](const http::Request&, const Writer& writer) {
    const auto done = reload();
    done ? AdminServer::send_text(writer, 200, "ok\n")
         : AdminServer::send_error(writer, 400, done.error().message);
  });
  return admin;
}

}  // namespace edgemesh::cmd
