#include "cloud/hub.h"

#include <algorithm>

#include "cloud/ca.h"
#include "cloud/hub_metrics.h"
#include "cloud/hub_session.h"
#include "cloud/siblings.h"
#include "core/base/log.h"
#include "core/channel/streams.h"

namespace edgemesh::cloud {
namespace {

// Each session is looked at every kLook: all at once while they are few, else a part of them each
// turn, so that the pings of thousands do not stand before everything else.
constexpr Duration kLook = std::chrono::milliseconds(250);
constexpr Duration kPart = std::chrono::milliseconds(25);
constexpr size_t kFew = 200;
// Together about a second's work of one core. A node that finds no place tries again by itself,
// later and at another moment than its neighbours: work for a node that has given up meanwhile
// would be lost, and when all nodes come at once there would be nothing else.
constexpr size_t kMaxHandshakes = 128;
constexpr int kBacklog = 512;

http::Response text(int status, std::string_view line) {
  return {.status = status,
          .headers = {{"Content-Type", "text/plain; charset=utf-8"}},
          .body = std::string(line) + "\n"};
}

}  // namespace

Hub::Hub(io::Loop& loop, HubOptions options, obs::Registry& registry)
    : loop_(loop),
      options_(std::move(options)),
      metrics_(std::make_unique<Metrics>(registry)),
      tick_timer_(loop, [this] { tick(); }) {}

Hub::~Hub() {
  *alive_ = false;
  for (auto& [node, session] : sessions_) session->detach();
}

Result<std::unique_ptr<Hub>> Hub::create(io::Loop& loop, HubOptions options,
                                         obs::Registry& registry) {
  std::unique_ptr<Hub> self(new Hub(loop, std::move(options), registry));
  tls::ContextOptions tls;
  tls.cert_pem = self->options_.cert_pem;
  tls.key_pem = self->options_.key_pem;
  tls.ca_pem = self->options_.ca_pem;
  tls.verify = tls::ContextOptions::kRequired;
  tls.alpn = {"http/1.1"};
  http::ServerOptions server;
  EM_TRY(server.tls, tls::Context::server(tls));
  server.max_body = 40 << 10;  // a signal of another cloud
  server.max_head = 16 << 10;
  // Room for nodes that come back before their old connection is noticed to be dead.
  server.max_connections = self->options_.max_nodes + self->options_.max_nodes / 4 + 64;
  server.max_handshakes = kMaxHandshakes;
  server.backlog = kBacklog;
  server.name = "hub";
  Hub* raw = self.get();
  for (const SockAddr& listen : self->options_.listen) {
    server.listen = listen;
    EM_TRY(auto listener,
           http::Server::create(loop, server, [raw](http::Request request, auto writer) {
             raw->on_request(std::move(request), *writer);
           }));
    self->servers_.push_back(std::move(listener));
  }
  self->tick_timer_.start(kLook);
  return self;
}

Result<std::string> Hub::identify(const http::Request& request) const {
  if (request.peer == nullptr) {
    return fail(ErrorCode::kUnauthenticated, "a node's client certificate is required");
  }
  const std::string& name = request.peer->common_name;
  if (!name.starts_with(kNodeUserPrefix) || request.peer->organization != kNodesGroup) {
    return fail(ErrorCode::kPermissionDenied, "the client certificate '{}' is not a node's", name);
  }
  std::string node = name.substr(kNodeUserPrefix.size());
  EM_TRY_VOID(check_node_name(node));
  const std::string_view claimed = request.headers.get_or("node_id", node);
  if (claimed != node) {
    return fail(ErrorCode::kPermissionDenied,
                "node_id '{}' does not agree with the certificate ({})", claimed.substr(0, 80),
                node);
  }
  if (options_.check_certificate)
    EM_TRY_VOID(options_.check_certificate(node, request.peer->not_before));
  return node;
}

void Hub::on_request(http::Request request, http::ResponseWriter& writer) {
  const auto refuse = [&](int status, std::string_view why) {
    metrics_->refused.add();
    EM_LOG(kWarn, "hub", "refused {}: {}", request.peer_addr.to_string(), why);
    writer.respond(text(status, why));
  };
  if (request.raw_path().starts_with(kSignalPath)) return writer.respond(take_signal(request));
  const auto node = identify(request);
  if (!node) {
    return refuse(node.error().code == ErrorCode::kUnauthenticated ? 401 : 403,
                  node.error().message);
  }
  if (request.headers.get_or("ConnectionUse", "msg") != "msg") {
    return refuse(400, "ConnectionUse must be msg");
  }
  if (draining_) return refuse(503, "going away");
  if (request.headers.has_token("upgrade", channel::kStreamsProtocol) && take_streams_)
    return take_streams(*node, request, writer);
  if (sessions_.size() >= options_.max_nodes && !sessions_.contains(*node)) {
    return refuse(503, fmt::format("the limit of {} nodes is reached", options_.max_nodes));
  }
  http::WebSocketOptions options;
  options.max_message_bytes = options_.max_message_bytes;
  options.max_queued_bytes = options_.max_queued_bytes + options_.max_message_bytes;
  auto socket = http::WebSocket::accept(loop_, request, writer, options);
  if (!socket) {
    metrics_->refused.add();
    EM_LOG(kInfo, "hub", "no WebSocket from {}: {}", request.peer_addr.to_string(),
           socket.error().message);
    return;
  }
  add_session(*node, request, std::move(*socket));
}

http::Response Hub::take_signal(const http::Request& request) {
  const bool cloud = request.peer != nullptr && request.peer->common_name == kCloudUser &&
                     request.peer->organization == kCloudsGroup;
  if (!cloud) {
    metrics_->refused.add();
    EM_LOG(kWarn, "hub", "refused {}: signals are for other clouds to bring",
           request.peer_addr.to_string());
    return text(403, "the client certificate is not a cloud's");
  }
  if (request.method != "POST") return text(405, "POST alone");
  if (!take_signal_ || draining_) return text(503, "no signals are taken");
  const auto taken = take_signal_(std::string(request.headers.get_or(kSignalSender, "")),
                                  request.path().substr(kSignalPath.size()), request.body);
  if (taken) return {.status = 204};
  switch (taken.error().code) {
    case ErrorCode::kNotFound: return text(404, taken.error().message);
    case ErrorCode::kResourceExhausted: return text(429, taken.error().message);
    default: return text(400, taken.error().message);
  }
}

void Hub::take_streams(const std::string& node, const http::Request& request,
                       http::ResponseWriter& writer) {
  auto stream = writer.upgrade({{"Upgrade", channel::kStreamsProtocol}, {"Connection", "Upgrade"}});
  if (stream) take_streams_(node, request.peer->not_before, std::move(*stream));
}

void Hub::add_session(std::string node, const http::Request& request,
                      std::unique_ptr<http::WebSocket> socket) {
  if (HubSession* old = find(node)) {
    metrics_->replaced.add();
    end_session(*old, 1008, "replaced by a newer session of this node");
  }
  auto session = std::make_unique<HubSession>(*this, node, request.peer_addr.to_string(),
                                              request.peer->not_before, std::move(socket));
  session->set_place(order_.size());
  order_.push_back(session.get());
  sessions_.emplace(node, std::move(session));
  metrics_->accepted.add();
  metrics_->sessions.set(static_cast<int64_t>(sessions_.size()));
  EM_LOG(kInfo, "hub", "node {} connected from {}", node, request.peer_addr.to_string());
  events_->on_connected(node);
  wake(node);
}

void Hub::end_session(HubSession& session, uint16_t code, const std::string& reason) {
  if (const auto closing = closing_.find(&session); closing != closing_.end()) {
    // Its goodbye was answered, or will not be.
    loop_.defer([gone = std::move(closing->second)] {});
    closing_.erase(closing);
    return;
  }
  const auto it = sessions_.find(session.node());
  if (it == sessions_.end() || it->second.get() != &session) return;
  const std::string node = session.node();
  std::unique_ptr<HubSession> gone = std::move(it->second);
  sessions_.erase(it);
  HubSession* last = order_.back();
  order_[gone->place()] = last;
  last->set_place(gone->place());
  order_.pop_back();
  gone->detach();
  metrics_->sessions.set(static_cast<int64_t>(sessions_.size()));
  EM_LOG(kInfo, "hub", "node {} disconnected: {}", node, reason);
  if (code != 0) {
    gone->close(code, reason);
    closing_.emplace(gone.get(), std::move(gone));
  } else {
    loop_.defer([gone = std::move(gone)] {});
  }
  events_->on_disconnected(node);
}

HubSession* Hub::find(const std::string& node) const {
  const auto it = sessions_.find(node);
  return it == sessions_.end() ? nullptr : it->second.get();
}

bool Hub::connected(const std::string& node) const {
  return sessions_.contains(node);
}

bool Hub::send(const std::string& node, Frame frame) {
  HubSession* session = find(node);
  if (session == nullptr) return false;
  const bool taken = session->enqueue(std::move(frame));
  wake(node);  // sends it, or cuts the session: not here, the caller may be in its callback
  return taken;
}

void Hub::wake(const std::string& node) {
  if (!wake_all_) woken_.push_back(node);
  flush_later();
}

void Hub::wake_all() {
  wake_all_ = true;
  flush_later();
}

void Hub::flush_later() {
  if (std::exchange(flush_pending_, true)) return;
  loop_.defer([this, alive = alive_] {
    if (*alive) flush_woken();
  });
}

void Hub::flush_woken() {
  flush_pending_ = false;
  std::vector<std::string> nodes = std::move(woken_);
  woken_.clear();
  if (std::exchange(wake_all_, false)) {
    nodes.clear();
    for (const auto& [node, session] : sessions_) nodes.push_back(node);
  }
  for (const std::string& node : nodes) {
    HubSession* session = find(node);
    if (session == nullptr) continue;
    if (session->overflowed()) {
      metrics_->slow.add();
      end_session(*session, 0, "does not take its messages; it may come back and catch up");
    } else {
      session->pump();
    }
  }
}

void Hub::pause(const std::string& node) {
  if (HubSession* session = find(node)) session->pause();
}

void Hub::resume(const std::string& node) {
  if (HubSession* session = find(node)) session->resume();
}

TimePoint Hub::patient_now() const {
  return loop_.now() - stood_still_;
}

void Hub::tick() {
  // What nodes sent while this process had too much to do, or none of the processor, lies unread:
  // they were not silent for so long. Without this an overload would end good sessions, whose
  // return is more work still.
  const TimePoint now = loop_.now();
  if (const Duration late = now - due_; due_ != TimePoint{} && late > kPart) stood_still_ += late;
  const bool few = order_.size() <= kFew;
  const size_t part = few ? order_.size() : order_.size() / (kLook / kPart) + 1;
  for (size_t i = 0; i < part && !order_.empty(); ++i) {
    // It may end itself: then another stands in its place, and is looked at in the next round.
    order_[next_look_++ % order_.size()]->tick(patient_now());
  }
  if (!order_.empty()) next_look_ %= order_.size();
  due_ = now + (few ? kLook : kPart);
  tick_timer_.start(few ? kLook : kPart);
}

std::optional<int64_t> Hub::not_before(const std::string& node) const {
  const auto it = sessions_.find(node);
  return it == sessions_.end() ? std::nullopt : std::optional(it->second->not_before());
}

void Hub::close_refused() {
  if (!options_.check_certificate) return;
  std::vector<std::pair<HubSession*, std::string>> gone;
  for (const auto& [node, session] : sessions_) {
    if (auto ok = options_.check_certificate(node, session->not_before()); !ok) {
      gone.emplace_back(session.get(), ok.error().message);
    }
  }
  for (auto& [session, why] : gone) end_session(*session, 1008, why);
}

void Hub::drain() {
  draining_ = true;
  for (const auto& server : servers_) server->drain();
  std::vector<std::string> nodes;
  for (const auto& [node, session] : sessions_) nodes.push_back(node);
  for (const std::string& node : nodes) {
    if (HubSession* session = find(node)) end_session(*session, 1001, "the cloud goes away");
  }
}

std::vector<NodeStatus> Hub::nodes() const {
  std::vector<NodeStatus> out;
  out.reserve(sessions_.size());
  for (const auto& [node, session] : sessions_) out.push_back(session->status());
  std::sort(out.begin(), out.end(),
            [](const NodeStatus& a, const NodeStatus& b) { return a.node < b.node; });
  return out;
}

}  // namespace edgemesh::cloud
