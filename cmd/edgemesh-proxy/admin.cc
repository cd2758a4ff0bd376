#include "cmd/edgemesh-proxy/admin.h"

#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "proxy/upstream/cluster_report.h"

namespace edgemesh::cmd {

namespace {

using nlohmann::json;
using Writer = std::shared_ptr<http::ResponseWriter>;

void send_text(const Writer& writer, int status, std::string body,
               const char* type = "text/plain; charset=utf-8") {
  writer->respond({status, {{"Content-Type", type}}, std::move(body)});
}

void send_json(const Writer& writer, const json& body) {
  send_text(writer, 200, body.dump(2, ' ', false, json::error_handler_t::replace) + "\n",
            "application/json");
}

bool wants_json(const http::Request& request) {
  return request.query("format") == std::optional<std::string>("json");
}

}  // namespace

Result<std::unique_ptr<Admin>> Admin::create(io::Loop& loop, const SockAddr& listen,
                                             obs::Registry& registry, AdminSources sources) {
  std::unique_ptr<Admin> admin(new Admin(registry, std::move(sources)));
  http::ServerOptions options;
  options.listen = listen;
  options.max_body = 64 << 10;
  options.max_connections = 64;
  options.name = "admin";
  EM_TRY(admin->server_,
         http::Server::create(loop, options, [a = admin.get()](http::Request request, Writer writer) {
           a->handle(request, writer);
         }));
  return admin;
}

void Admin::handle(const http::Request& request, const Writer& writer) {
  if (request.method == "GET" || request.method == "HEAD") return get(request, writer);
  if (request.method != "POST") return send_text(writer, 405, "use GET or POST\n");
  // A web page that a local browser shows must not be able to steer the proxy: browsers send Origin.
  if (request.headers.has("Origin"))
    return send_text(writer, 403, "requests from web pages are refused\n");
  post(request, writer);
}

void Admin::get(const http::Request& request, const Writer& writer) {
  const std::string path = request.path();
  if (path == "/healthz") return send_text(writer, 200, "ok\n");
  if (path == "/readyz") {
    const bool draining = sources_.draining();
    return send_text(writer, draining ? 503 : 200, draining ? "draining\n" : "ok\n");
  }
  if (path == "/metrics" || path == "/stats") {
    return send_text(writer, 200, registry_.text(), "text/plain; version=0.0.4; charset=utf-8");
  }
  if (path == "/clusters") {
    std::string text;
    const auto sets = sources_.l7->clusters();
    if (wants_json(request)) {
      proxy::append_clusters_json(text, sets);
      return send_text(writer, 200, std::move(text), "application/json");
    }
    proxy::append_clusters_text(text, sets);
    return send_text(writer, 200, std::move(text));
  }
  if (path == "/listeners")
    return send_text(writer, 200, listeners(wants_json(request)),
                     wants_json(request) ? "application/json" : "text/plain; charset=utf-8");
  if (path == "/routes") return send_text(writer, 200, routes());
  if (path == "/drain" || path == "/reload") return send_text(writer, 405, "use POST\n");
  send_text(writer, 404,
            "no such page; GET /healthz /readyz /metrics /stats /clusters /listeners /routes, POST "
            "/drain /reload /log?level=LEVEL\n");
}

void Admin::post(const http::Request& request, const Writer& writer) {
  const std::string path = request.path();
  if (path == "/drain") {
    send_text(writer, 200, "draining\n");
    return sources_.drain();
  }
  if (path == "/reload") {
    auto done = sources_.reload();
    return send_text(writer, done ? 200 : 400, done ? "ok\n" : done.error().message + "\n");
  }
  if (path == "/log") {
    const auto level = log::parse_level(request.query("level").value_or(""));
    if (!level)
      return send_text(writer, 400, "level must be error, warn, info, debug or trace\n");
    log::set_level(*level);
    return send_json(writer, json{{"level", log::to_string(*level)}});
  }
  send_text(writer, 404, "no such action\n");
}

std::string Admin::listeners(bool as_json) const {
  json list = json::array();
  std::string text;
  for (const auto& [name, addr] : sources_.l7->listen_addrs()) {
    list.push_back({{"name", name}, {"address", addr.to_string()}});
    text += name + "::" + addr.to_string() + "\n";
  }
  return as_json ? json{{"listeners", list}}.dump(2) + "\n" : text;
}

std::string Admin::routes() const {
  std::string text;
  for (const auto& [name, config] : sources_.l7->config()->routes)
    for (const auto& host : config->hosts)
      for (const auto& route : host->routes) {
        std::string domains;
        for (const auto& domain : host->domains) domains += (domains.empty() ? "" : ",") + domain;
        text += fmt::format("{}::{}::{}::{} {}\n", name, host->name, domains, route.name,
                            route.match.path.path);
      }
  return text;
}

}  // namespace edgemesh::cmd
