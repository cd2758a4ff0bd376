#include "cmd/admin/admin_server.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "core/base/log_output.h"

namespace edgemesh::cmd {
namespace {

using nlohmann::json;

void show_level(const AdminServer::Writer& writer) {
  AdminServer::send_json(writer, json{{"level", log::to_string(log::level())}});
}

void set_level(const http::Request& request, const AdminServer::Writer& writer) {
  const auto level = log::parse_level(request.query("level").value_or(""));
  if (!level) {
    return AdminServer::send_error(writer, 400, "level must be error, warn, info, debug or trace");
  }
  const auto component = request.query("component");
  component ? log::set_level(*component, *level) : log::set_level(*level);
  show_level(writer);
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
           return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
         });
}

}  // namespace

bool admin_host_allowed(std::string_view host, const IpAddr& listen) {
  if (host.starts_with('[')) {
    const size_t end = host.find(']');
    if (end == std::string_view::npos) return false;
    host = host.substr(1, end - 1);
  } else {
    host = host.substr(0, host.find(':'));
  }
  if (equal_ignoring_case(host, "localhost")) return true;
  const auto ip = IpAddr::parse(host);
  return ip && (ip->is_loopback() || *ip == listen || listen.is_unspecified());
}

void AdminServer::send_text(const Writer& writer, int status, std::string body, const char* type) {
  writer->respond({status, {{"Content-Type", type}}, std::move(body)});
}

void AdminServer::send_json(const Writer& writer, const json& body, int status) {
  send_text(writer, status, body.dump(2, ' ', false, json::error_handler_t::replace) + "\n",
            "application/json");
}

void AdminServer::send_error(const Writer& writer, int status, const std::string& what) {
  send_json(writer, json{{"error", what}}, status);
}

Result<std::unique_ptr<AdminServer>> AdminServer::create(io::Loop& loop, const SockAddr& listen,
                                                         obs::Registry& registry,
                                                         std::function<std::string()> not_ready,
                                                         io::Fd socket) {
  std::unique_ptr<AdminServer> admin(new AdminServer);
  admin->listen_ = listen;
  admin->add_common(registry, std::move(not_ready));
  http::ServerOptions options;
  options.listen = listen;
  if (socket.valid()) options.socket = std::make_shared<io::Fd>(std::move(socket));
  options.max_body = 64 << 10;
  options.max_connections = 64;
  options.name = "admin";
  EM_TRY(admin->server_, http::Server::create(loop, options,
                                              [a = admin.get()](http::Request request, Writer writer) {
                                                a->handle(request, writer);
                                              }));
  return admin;
}

void AdminServer::add_common(obs::Registry& registry, std::function<std::string()> not_ready) {
  get("/healthz", [](const auto&, const Writer& writer) { send_text(writer, 200, "ok\n"); });
  get("/readyz", [not_ready = std::move(not_ready)](const auto&, const Writer& writer) {
    const std::string reason = not_ready();
    send_text(writer, reason.empty() ? 200 : 503, (reason.empty() ? "ok" : reason) + "\n");
  });
  get("/metrics", [&registry](const auto&, const Writer& writer) {
    send_text(writer, 200, registry.text(), "text/plain; version=0.0.4; charset=utf-8");
  });
  registry.on_text([](std::string& out) {
    out += fmt::format("# HELP edgemesh_log_dropped_total Access log lines dropped: the log's reader was slow.\n"
                       "# TYPE edgemesh_log_dropped_total counter\nedgemesh_log_dropped_total {}\n",
                       log::LogOutput::instance().dropped());
  });
  get("/log", [](const http::Request& request, const Writer& writer) {
    request.query("level") ? send_error(writer, 405, "use POST to set a level") : show_level(writer);
  });
  post("/log", set_level);
}

void AdminServer::get_json(const std::string& path, std::function<json()> body) {
  get(path, [body = std::move(body)](const auto&, const Writer& writer) { send_json(writer, body()); });
}

std::string AdminServer::page_list() const {
  std::string out;
  for (const auto& [path, methods] : pages_) out += " " + path;
  return out;
}

void AdminServer::handle(const http::Request& request, const Writer& writer) const {
  const bool reads = request.method == "GET" || request.method == "HEAD";
  if (!reads && request.method != "POST") return send_error(writer, 405, "use GET or POST");
  if (request.headers.has("Origin")) {
    return send_error(writer, 403, "requests from web pages are refused");
  }
  // Health checkers that speak HTTP/1.0 send none; every browser does.
  if (request.headers.has("Host") &&
      !admin_host_allowed(request.headers.get_or("Host", ""), listen_.ip)) {
    return send_error(writer, 403, "ask by a loopback address or as localhost");
  }
  const auto it = pages_.find(request.path());
  if (it == pages_.end()) return send_error(writer, 404, "no such page; there are" + page_list());
  const Page& page = reads ? it->second.get : it->second.post;
  if (!page) return send_error(writer, 405, reads ? "use POST" : "use GET");
  page(request, writer);
}

}  // namespace edgemesh::cmd
