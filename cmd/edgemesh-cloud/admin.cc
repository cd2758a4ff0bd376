#include "cmd/edgemesh-cloud/admin.h"

#include <nlohmann/json.hpp>

#include "core/base/log.h"

namespace edgemesh::cmd {
namespace {

http::Response text(int status, std::string body) {
  return {status, {{"Content-Type", "text/plain; charset=utf-8"}}, std::move(body) + "\n"};
}

http::Response json(const nlohmann::json& body) {
  return {200,
          {{"Content-Type", "application/json"}},
          body.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n"};
}

}  // namespace

Result<std::unique_ptr<CloudAdmin>> CloudAdmin::create(io::Loop& loop, const SockAddr& listen,
                                                       obs::Registry& registry, Sources sources) {
  std::unique_ptr<CloudAdmin> self(new CloudAdmin(registry, std::move(sources)));
  http::ServerOptions options;
  options.listen = listen;
  options.max_body = 64 << 10;
  options.max_connections = 64;
  options.name = "admin";
  CloudAdmin* raw = self.get();
  EM_TRY(self->server_,
         http::Server::create(loop, options, [raw](http::Request request, auto writer) {
           writer->respond(raw->answer(request));
         }));
  return self;
}

http::Response CloudAdmin::answer(const http::Request& request) {
  const bool get = request.method == "GET" || request.method == "HEAD";
  if (!get && request.method != "POST") return text(405, "use GET or POST");
  // A page in a local browser must not steer this program: browsers send Origin.
  if (request.headers.has("Origin")) return text(403, "requests from web pages are refused");
  const std::string path = request.path();
  if (path == "/log") return set_log(request);
  if (path == "/healthz") return text(200, "ok");
  if (path == "/readyz") {
    const std::string reason = sources_.not_ready();
    return reason.empty() ? text(200, "ok") : text(503, reason);
  }
  if (path == "/metrics") {
    return {200, {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"}}, registry_.text()};
  }
  if (path == "/nodes") return json(sources_.nodes());
  return text(404, "no such page; there are /healthz /readyz /metrics /nodes /log");
}

http::Response CloudAdmin::set_log(const http::Request& request) {
  if (const auto wanted = request.query("level")) {
    const auto level = log::parse_level(*wanted);
    if (!level) return text(400, "level must be error, warn, info, debug or trace");
    const auto component = request.query("component");
    component ? log::set_level(*component, *level) : log::set_level(*level);
  }
  return json({{"level", log::to_string(log::level())}});
}

}  // namespace edgemesh::cmd
