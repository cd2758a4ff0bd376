#include "cloud/bootstrap.h"

#include "core/base/log.h"

namespace edgemesh::cloud {
namespace {

constexpr size_t kMaxBody = 64 << 10;
constexpr std::string_view kBearer = "Bearer ";

http::Response text(int status, std::string_view line) {
  return {.status = status,
          .headers = {{"Content-Type", "text/plain; charset=utf-8"}},
          .body = std::string(line) + "\n"};
}

http::Response der(const std::string& bytes) {
  return {.status = 200, .headers = {{"Content-Type", "application/octet-stream"}}, .body = bytes};
}

}  // namespace

Bootstrap::Bootstrap(io::Loop& loop, const Ca& ca, BootstrapOptions options,
                     obs::Registry& registry)
    : loop_(loop),
      ca_(ca),
      options_(std::move(options)),
      limiter_(options_.rate),
      issued_(
          registry.counter("edgemesh_bootstrap_certificates_total", "Node certificates issued.")),
      refused_(registry.counter("edgemesh_bootstrap_refused_total",
                                "Bootstrap requests that were refused.")) {}

Result<std::unique_ptr<Bootstrap>> Bootstrap::create(io::Loop& loop, const Ca& ca,
                                                     BootstrapOptions options,
                                                     obs::Registry& registry) {
  std::unique_ptr<Bootstrap> self(new Bootstrap(loop, ca, std::move(options), registry));
  tls::ContextOptions tls;
  tls.cert_pem = self->options_.cert_pem;
  tls.key_pem = self->options_.key_pem;
  tls.ca_pem = ca.cert_pem();
  tls.verify = tls::ContextOptions::kOptional;
  tls.accept_expired_peer = true;  // authenticate() decides how long ago is too long
  tls.alpn = {"http/1.1"};
  http::ServerOptions server;
  EM_TRY(server.tls, tls::Context::server(tls));
  server.max_body = kMaxBody;
  server.max_head = 32 << 10;
  server.max_connections = 1024;
  server.idle_timeout = std::chrono::seconds(10);
  server.name = "bootstrap";
  Bootstrap* raw = self.get();
  for (const SockAddr& listen : self->options_.listen) {
    server.listen = listen;
    EM_TRY(auto listener,
           http::Server::create(loop, server, [raw](http::Request request, auto writer) {
             raw->answer(request, [writer](http::Response response) {
               writer->respond(std::move(response));
             });
           }));
    self->servers_.push_back(std::move(listener));
  }
  return self;
}

void Bootstrap::drain() {
  for (const auto& server : servers_) server->drain();
}

http::Response Bootstrap::refuse(const std::string& path, const IpAddr& peer, int status,
                                 std::string_view why) {
  refused_.add();
  EM_LOG(kWarn, "bootstrap", "refused {} from {}: {}", path, peer.to_string(), why);
  return text(status, why);
}

http::Response Bootstrap::refuse(const http::Request& request, int status, std::string_view why) {
  return refuse(std::string(request.raw_path()), request.peer_addr.ip, status, why);
}

void Bootstrap::answer(const http::Request& request, Answer done) {
  if (!limiter_.take(request.peer_addr.ip.to_string(), loop_.now())) {
    refused_.add();
    http::Response response = text(429, "too many requests from this address; try again later");
    response.headers.set("Retry-After", "1");
    return done(std::move(response));
  }
  const std::string path = request.path();
  if (request.method != "GET" && request.method != "HEAD" &&
      !(request.method == "POST" && path == "/edge.crt")) {
    return done(refuse(request, 405, "method not allowed"));
  }
  if (path == "/edge.crt") return edge_certificate(request, std::move(done));
  done(answer_at_once(request, path));
}

http::Response Bootstrap::answer_at_once(const http::Request& request, const std::string& path) {
  if (path == "/ca.crt") return der(ca_.cert_der());
  if (path.starts_with("/node/") && options_.node_known) {
    return options_.node_known(path.substr(6)) ? text(200, "Node founded")
                                               : text(404, "node not found");
  }
  return refuse(request, 404, "not found; this server has /ca.crt and /edge.crt");
}

Result<TokenRights> Bootstrap::check_token(std::string_view authorization,
                                           const std::string& node) const {
  if (!authorization.starts_with(kBearer)) {
    return fail(ErrorCode::kUnauthenticated, "want 'Authorization: Bearer <token>'");
  }
  EM_TRY(TokenRights rights, ca_.verify_token(authorization.substr(kBearer.size())));
  if (!rights.node.empty() && rights.node != node) {
    return fail(ErrorCode::kUnauthenticated, "the token is for node '{}' alone", rights.node);
  }
  return rights;
}

Result<> Bootstrap::check_renewal(const http::Request& request, const std::string& node) const {
  if (request.peer == nullptr) {
    return fail(ErrorCode::kUnauthenticated, "no token and no client certificate");
  }
  if (request.peer->common_name != std::string(kNodeUserPrefix) + node ||
      request.peer->organization != kNodesGroup) {
    return fail(ErrorCode::kUnauthenticated, "the client certificate is of '{}', not of node '{}'",
                request.peer->common_name, node);
  }
  const int64_t now =
      std::chrono::duration_cast<std::chrono::seconds>(loop_.clock().wall_now().time_since_epoch())
          .count();
  if (now > request.peer->not_after + options_.renew_grace.count()) {
    return fail(ErrorCode::kUnauthenticated,
                "the client certificate ran out too long ago; join again with a token");
  }
  if (options_.check_certificate) EM_TRY_VOID(options_.check_certificate(node, request.peer->not_before));
  return {};
}

http::Response Bootstrap::issue(const std::string& cert, const std::string& node, const IpAddr& peer,
                                bool by_token) {
  issued_.add();
  EM_LOG(kInfo, "bootstrap", "certificate issued to node {} at {} ({})", node, peer.to_string(),
         by_token ? "token" : "renewal");
  return der(cert);
}

void Bootstrap::edge_certificate(const http::Request& request, Answer done) {
  const std::string node(request.headers.get_or("NodeName", ""));
  if (auto ok = check_node_name(node); !ok) return done(refuse(request, 400, ok.error().message));
  const std::string_view authorization = request.headers.get_or("Authorization", "");
  const bool by_token = !authorization.empty();
  TokenRights rights;
  const Result<> known = [&]() -> Result<> {
    if (!by_token) return check_renewal(request, node);
    EM_TRY(rights, check_token(authorization, node));
    return {};
  }();
  if (!known) {
    return done(refuse(request, 401, "token validation failure, " + known.error().message));
  }
  // Before the name is taken: a request that is wrong in itself must not take it.
  const int64_t floor = options_.not_before_floor ? options_.not_before_floor(node, rights.replace) : 0;
  auto cert = ca_.sign_node(request.body, node, request.headers.get_or("ExtKeyUsages", ""), floor);
  if (!cert) {
    const bool theirs = cert.error().code == ErrorCode::kInvalidArgument;
    return done(refuse(request, theirs ? 400 : 500, cert.error().message));
  }
  const IpAddr peer = request.peer_addr.ip;
  if (!by_token || !options_.claim) return done(issue(*cert, node, peer, by_token));
  auto key = public_key_hash(*cert);
  if (!key) return done(refuse(request, 500, key.error().message));
  const auto info = tls::parse_cert_der(*cert);
  if (!info) return done(refuse(request, 500, info.error().message));
  auto claimed = [this, alive = std::weak_ptr<bool>(alive_), cert = std::move(*cert), node, peer,
                  done = std::move(done)](Result<> result) mutable {
    if (alive.expired()) return;
    if (result) return done(issue(cert, node, peer, true));
    const bool taken = result.error().code == ErrorCode::kAlreadyExists;
    done(refuse("/edge.crt", peer, taken ? 409 : 503,
                taken ? result.error().message
                      : "cannot tell whether the name is free: " + result.error().message));
  };
  options_.claim(
      {.node = node, .key_hash = std::move(*key), .replace = rights.replace, .not_before = info->not_before},
      std::move(claimed));
}

}  // namespace edgemesh::cloud
