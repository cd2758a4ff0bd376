#include "core/http/server.h"

#include <algorithm>
#include <ctime>

#include "core/base/log.h"
#include "core/http/server_conn.h"
#include "core/http/server_impl.h"
#include "core/tls/tls_stream.h"

namespace edgemesh::http {

Result<std::unique_ptr<Server>> Server::create(io::Loop& loop, ServerOptions options,
                                               Handler handler) {
  if (options.tls && !options.tls->is_server())
    return fail(ErrorCode::kInvalidArgument, "HTTP server: the TLS context is a client's");
  auto server = std::make_unique<ServerImpl>(loop, std::move(options), std::move(handler));
  if (!server->options.adopt_only) EM_TRY_VOID(server->listen());
  return std::unique_ptr<Server>(std::move(server));
}

namespace {
constexpr Duration kPatience = std::chrono::milliseconds(200);
}

ServerImpl::ServerImpl(io::Loop& l, ServerOptions o, Handler h)
    : loop(l),
      options(std::move(o)),
      handler(std::move(h)),
      handshake_room_(options.max_handshakes),
      patience_(loop, [this] {
        handshake_room_ = handshakes_ + options.max_handshakes;
        waiting_ = false;
        if (listener_ != nullptr) listener_->resume();
      }) {}

void ServerImpl::handshake_begins() {
  ++handshakes_;
  if (options.max_handshakes == 0 || handshakes_ < handshake_room_ || waiting_ || listener_ == nullptr) return;
  waiting_ = true;
  listener_->pause();
  patience_.start(kPatience);
}

void ServerImpl::handshake_over() {
  --handshakes_;
  if (!waiting_ || handshakes_ >= options.max_handshakes) return;
  handshake_room_ = options.max_handshakes;
  waiting_ = false;
  patience_.stop();
  if (listener_ != nullptr) listener_->resume();
}

ServerImpl::~ServerImpl() = default;

Result<> ServerImpl::listen() {
  io::ListenOptions listen_options;
  listen_options.reuse_port = options.reuse_port;
  listen_options.backlog = options.backlog;
  io::Fd socket;
  if (options.socket != nullptr) {
    socket = std::move(*options.socket);
  } else {
    EM_TRY(socket, io::open_tcp_listener(options.listen, listen_options));
  }
  EM_TRY(listener_, io::TcpListener::adopt(loop, std::move(socket),
                                           [this](io::Fd fd, const SockAddr& peer) {
                                             accept(std::move(fd), peer);
                                           }));
  local_ = listener_->local_addr();
  return {};
}

void ServerImpl::accept(io::Fd fd, const SockAddr& peer) {
  auto stream = io::TcpStream::adopt(loop, std::move(fd));
  if (stream) adopt(std::move(*stream), peer);
}

void ServerImpl::adopt(std::unique_ptr<io::Stream> stream, const SockAddr& peer) {
  if (draining_) return;
  if (conns_.size() >= options.max_connections) {
    EM_LOG(kDebug, options.name, "connection of {} refused: {} are open", peer.to_string(),
           conns_.size());
    return;
  }
  bool tls = options.tls != nullptr;
  if (tls) {
    auto secured = tls::TlsStream::server(loop, std::move(stream), options.tls);
    if (!secured) return;
    stream = std::move(*secured);
  }
  auto conn = std::make_unique<ServerConn>(*this, std::move(stream), peer, tls);
  ServerConn* key = conn.get();
  conns_.emplace(key, std::move(conn));
  if (tls) handshake_begins();
}

void ServerImpl::remove(ServerConn* conn) {
  auto it = conns_.find(conn);
  if (it == conns_.end()) return;
  // Its own frames may still be on the stack.
  loop.defer([dead = std::shared_ptr<ServerConn>(std::move(it->second))] {});
  conns_.erase(it);
}

void ServerImpl::stop_accepting() {
  draining_ = true;
  listener_.reset();
}

void ServerImpl::drain(bool streams_too) {
  stop_accepting();
  std::vector<ServerConn*> open;
  open.reserve(conns_.size());
  for (auto& [key, conn] : conns_) open.push_back(key);
  for (ServerConn* conn : open)
    if (conns_.count(conn) != 0) conn->drain(streams_too);
}

H1Limits ServerImpl::limits() const {
  H1Limits limits;
  limits.max_head = options.max_head;
  limits.max_start_line = std::max<size_t>(options.max_head / 2, 1024);
  limits.max_fields = std::min(options.max_headers, fields.size());
  return limits;
}

std::string_view ServerImpl::date() {
  int64_t now = std::chrono::system_clock::to_time_t(loop.clock().wall_now());
  if (now != date_second_ || date_.empty()) {
    date_second_ = now;
    std::time_t t = now;
    std::tm parts{};
    gmtime_r(&t, &parts);
    char text[64];
    size_t n = std::strftime(text, sizeof text, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &parts);
    date_.assign(text, n);
  }
  return date_;
}

}  // namespace edgemesh::http
