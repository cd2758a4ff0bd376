// AdminServer: what the admin endpoints of all programs have in common. Plain HTTP on loopback, without a
// login: whoever may open a local connection may read.
//   GET  /healthz /readyz /metrics
//   GET  /log                           the level
//   POST /log?level=L[&component=C]     sets one
// and the pages that the program adds.
//
// A web page that a local browser shows must not get at it. Requests with an Origin are refused, and so are those
// whose Host is a name other than localhost: such a name was made to point here (DNS rebinding), and what it
// serves counts as one origin with this endpoint. What acts takes POST alone.
// Threads: the loop given.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "core/http/server.h"
#include "core/obs/metrics.h"

namespace edgemesh::cmd {

class AdminServer {
 public:
  using Writer = std::shared_ptr<http::ResponseWriter>;
  using Page = std::function<void(const http::Request&, const Writer&)>;

  // `not_ready` is empty when ready, or says why not. `socket`: listens already; else one is opened.
  static Result<std::unique_ptr<AdminServer>> create(io::Loop& loop, const SockAddr& listen,
                                                     obs::Registry& registry,
                                                     std::function<std::string()> not_ready,
                                                     io::Fd socket = {});
  // Before the loop's next turn.
  void get(const std::string& path, Page page) { pages_[path].get = std::move(page); }
  void post(const std::string& path, Page page) { pages_[path].post = std::move(page); }
  void get_json(const std::string& path, std::function<nlohmann::json()> body);

  SockAddr local_addr() const { return server_->local_addr(); }
  int listening_fd() const { return server_->listening_fd(); }
  // Connections that are open have one more answer.
  void stop_accepting() { server_->stop_accepting(); }

  static void send_text(const Writer& writer, int status, std::string body,
                        const char* type = "text/plain; charset=utf-8");
  static void send_json(const Writer& writer, const nlohmann::json& body, int status = 200);
  static void send_error(const Writer& writer, int status, const std::string& what);

 private:
  struct Methods {
    Page get, post;
  };
  AdminServer() = default;
  void add_common(obs::Registry& registry, std::function<std::string()> not_ready);
  void handle(const http::Request& request, const Writer& writer) const;
  std::string page_list() const;

  SockAddr listen_;
  std::map<std::string, Methods> pages_;
  std::unique_ptr<http::Server> server_;
};

// Whether a request with this Host field may be answered by an endpoint that listens on `listen`. Loopback addresses,
// localhost and the address itself may; where it listens on every address, any address may.
bool admin_host_allowed(std::string_view host, const IpAddr& listen);

}  // namespace edgemesh::cmd
