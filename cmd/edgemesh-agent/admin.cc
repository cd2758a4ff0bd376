#include "cmd/edgemesh-agent/admin.h"

#include <nlohmann/json.hpp>

#include "core/base/log.h"

namespace edgemesh::cmd {

namespace {

using nlohmann::json;

void send_text(const std::shared_ptr<http::ResponseWriter>& writer, int status, std::string body,
               const char* type = "text/plain; charset=utf-8") {
  writer->respond({status, {{"Content-Type", type}}, std::move(body)});
}

void send_json(const std::shared_ptr<http::ResponseWriter>& writer, const json& body, int status = 200) {
  send_text(writer, status,
            body.dump(2, ' ', false, json::error_handler_t::replace) + "\n", "application/json");
}

void send_error(const std::shared_ptr<http::ResponseWriter>& writer, int status, const std::string& what) {
  send_json(writer, json{{"error", what}}, status);
}

// Answers with a result that comes later.
auto answer_later(const std::shared_ptr<http::ResponseWriter>& writer) {
  return [writer](Result<json> result) {
    if (result)
      send_json(writer, *result);
    else
      send_error(writer, result.error().code == ErrorCode::kNotFound ? 404 : 503, result.error().message);
  };
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
  EM_TRY(admin->server_, http::Server::create(loop, options,
                                              [a = admin.get()](http::Request request, Writer writer) {
                                                a->handle(request, writer);
                                              }));
  return admin;
}

bool Admin::handle_get(const std::string& path, const Writer& writer) {
  if (path == "/healthz") {
    send_text(writer, 200, "ok\n");
  } else if (path == "/readyz") {
    std::string reason = sources_.not_ready();
    send_text(writer, reason.empty() ? 200 : 503, reason.empty() ? "ok\n" : reason + "\n");
  } else if (path == "/metrics") {
    send_text(writer, 200, registry_.text(), "text/plain; version=0.0.4; charset=utf-8");
  } else if (path == "/config_dump") {
    send_json(writer, sources_.config());
  } else if (path == "/status") {
    send_json(writer, sources_.status());
  } else if (path == "/peers") {
    send_json(writer, sources_.peers());
  } else if (path == "/services") {
    send_json(writer, sources_.services());
  } else {
    return false;
  }
  return true;
}

void Admin::handle(const http::Request& request, const Writer& writer) {
  bool get = request.method == "GET" || request.method == "HEAD";
  if (!get && request.method != "POST") return send_error(writer, 405, "use GET or POST");
  // A web page that a local browser shows must not be able to steer the agent: browsers send Origin.
  if (!get && request.headers.has("Origin"))
    return send_error(writer, 403, "requests from web pages are refused");
  std::string path = request.path();
  if (get && handle_get(path, writer)) return;
  if (path == "/log") return handle_log(request, writer);
  if (path == "/path") return handle_path(request, writer);
  if (path == "/netcheck") {
    if (get) return send_error(writer, 405, "use POST: a check sends packets");
    return sources_.netcheck(answer_later(writer));
  }
  send_error(writer, 404,
             "no such page; there are /healthz /readyz /metrics /config_dump /status /peers /services "
             "/path /netcheck /log");
}

void Admin::handle_log(const http::Request& request, const Writer& writer) {
  auto text = request.query("level");
  if (text) {
    auto level = log::parse_level(*text);
    if (!level)
      return send_error(writer, 400, "level must be error, warn, info, debug or trace");
    if (auto component = request.query("component"))
      log::set_level(*component, *level);
    else
      log::set_level(*level);
  }
  send_json(writer, json{{"level", log::to_string(log::level())}});
}

void Admin::handle_path(const http::Request& request, const Writer& writer) {
  auto node = request.query("node");
  if (!node || node->empty()) return send_error(writer, 400, "name a node: /path?node=NAME");
  sources_.path(*node, request.method == "POST", answer_later(writer));
}

}  // namespace edgemesh::cmd
