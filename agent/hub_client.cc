#include "agent/hub_client.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/log.h"

namespace edgemesh::agent {

namespace {

constexpr Duration kProbeLimit = std::chrono::seconds(2);
constexpr std::array<const char*, 5> kListeners = {"twin", "meta", "bus", "mesh", "edged"};

// Where KubeEdge's edge hands messages of the cloud to.
std::string_view target_group(std::string_view group) {
  if (group == "resource" || group == "func") return "meta";
  if (group == "user") return "bus";
  return group;  // mesh, twin, taskmanager: the same name
}

}  // namespace

HubClient::HubClient(io::Loop& loop, HubClientOptions options, Identity identity,
                     obs::Registry& registry)
    : loop_(loop),
      options_(std::move(options)),
      retry_(loop, [this] { connect(); }),
      stable_(loop, [this] { backoff_ = options_.backoff_min; }),
      backoff_(options_.backoff_min),
      random_(options_.seed != 0 ? options_.seed : std::random_device{}()),
      up_(registry.gauge("edgemesh_channel_connected",
                         "1 while the channel to the cloud is open.")),
      connects_(registry.counter("edgemesh_channel_connects_total", "Connections to the cloud.")),
      failures_(registry.counter("edgemesh_channel_failures_total",
                                 "Attempts to connect that failed, and connections that broke.")),
      received_(registry.counter("edgemesh_channel_messages_total", "Messages.", {{"dir", "in"}})),
      sent_(registry.counter("edgemesh_channel_messages_total", "Messages.", {{"dir", "out"}})),
      unroutable_(registry.counter("edgemesh_channel_unroutable_total",
                                   "Messages from the cloud that no module here takes.")) {
  hub_at_ = std::hash<std::string>()(options_.node) % (options_.more_hubs.size() + 1);
  totals_.hub = hub().to_string();
  connector_ = [this](http::WebSocket::OnConnected done) {
    return connect_websocket(std::move(done));
  };
  if (auto ok = set_identity(identity, false); !ok) tls_error_ = ok.error();
}

HubClient::~HubClient() = default;

const config::HostPort& HubClient::hub() const {
  return hub_at_ == 0 ? options_.hub : options_.more_hubs[hub_at_ - 1];
}

void HubClient::next_hub() {
  hub_at_ = (hub_at_ + 1) % (options_.more_hubs.size() + 1);
  totals_.hub = hub().to_string();
}

Result<> HubClient::set_identity(const Identity& identity, bool reconnect) {
  tls::ContextOptions options;
  options.cert_pem = identity.cert_pem;
  options.key_pem = identity.key_pem;
  options.ca_pem = identity.ca_pem;
  options.alpn = {"http/1.1"};  // KubeEdge's server would also take h2, which has no upgrade
  EM_TRY(tls_, tls::Context::client(options));
  if (bus_ == nullptr || !reconnect) return {};
  backoff_ = options_.backoff_min;
  if (session_ != nullptr) on_closed("the certificate was renewed");
  connect();
  return {};
}

Result<> HubClient::start(bus::Bus& bus) {
  if (tls_ == nullptr) return fail(tls_error_);
  bus_ = &bus;
  connect();
  return {};
}

void HubClient::stop() {
  bus_ = nullptr;
  retry_.stop();
  stable_.stop();
  if (connecting_ != nullptr) loop_.defer([call = std::move(connecting_)] {});
  if (session_ != nullptr) {
    session_->close(1001, "the node's agent is ending");
    drop_session();
  }
  up_.set(0);
}

std::unique_ptr<http::Call> HubClient::connect_websocket(http::WebSocket::OnConnected done) {
  const std::string url = fmt::format("wss://{}/{}/{}/events", hub().to_string(), options_.project,
                                      options_.node);
  const http::Headers headers{
      {"node_id", options_.node}, {"project_id", options_.project}, {"ConnectionUse", "msg"}};
  http::WebSocketOptions socket;
  socket.max_message_bytes = options_.session.max_message_bytes;
  // Room for pings on top of what the session lets through.
  socket.max_queued_bytes = options_.session.max_queued_bytes + (64 << 10);
  socket.connect_timeout = options_.connect_timeout;
  socket.mark = options_.mark;
  return http::WebSocket::connect(loop_, url, headers, tls_, std::move(done), socket);
}

void HubClient::connect() {
  if (bus_ == nullptr || session_ != nullptr) return;
  retry_.stop();
  if (connecting_ != nullptr) loop_.defer([call = std::move(connecting_)] {});
  connecting_ = connector_(
      [this](Result<std::unique_ptr<http::WebSocket>> socket) { on_connected(std::move(socket)); });
}

void HubClient::on_connected(Result<std::unique_ptr<http::WebSocket>> socket) {
  // It is what calls us.
  loop_.defer([call = std::move(connecting_)] {});
  if (!socket) {
    failures_.add();
    totals_.last_error = socket.error().message;
    if (!std::exchange(failing_, true))
      EM_LOG(kWarn, "hub", "no connection to {}: {}; trying on", totals_.hub, totals_.last_error);
    else
      EM_LOG(kDebug, "hub", "no connection to {}: {}", totals_.hub, totals_.last_error);
    next_hub();
    return retry_later();
  }
  channel::Session::Handlers handlers;
  handlers.on_message = [this](bus::Message message) { receive(std::move(message)); };
  handlers.on_closed = [this](const std::string& reason) { on_closed(reason); };
  handlers.on_drain = [this] {
    if (on_drain_) on_drain_();
  };
  session_ = std::make_unique<channel::Session>(loop_, std::move(*socket), options_.session,
                                                std::move(handlers));
  failing_ = false;
  totals_.last_error.clear();
  totals_.connected_since =
      std::chrono::duration_cast<std::chrono::seconds>(loop_.clock().wall_now().time_since_epoch())
          .count();
  ++totals_.connects;
  connects_.add();
  up_.set(1);
  stable_.start(options_.stable_after);
  EM_LOG(kInfo, "hub", "connected to {} as node {}", totals_.hub, options_.node);
  announce(true);
}

void HubClient::on_closed(const std::string& reason) {
  if (session_ == nullptr) return;
  drop_session();
  stable_.stop();
  failures_.add();
  up_.set(0);
  totals_.last_error = reason;
  totals_.connected_since = 0;
  EM_LOG(kWarn, "hub", "the connection to {} ended: {}", totals_.hub, reason);
  announce(false);
  retry_later();
}

// Its callback may be running, so it goes at the end of the turn.
void HubClient::drop_session() {
  const channel::Session::Counters& counters = session_->counters();
  totals_.tx_messages += counters.tx_messages;
  totals_.rx_messages += counters.rx_messages;
  totals_.tx_bytes += counters.tx_bytes;
  totals_.rx_bytes += counters.rx_bytes;
  session_->detach();
  loop_.defer([session = std::move(session_)] {});
}

void HubClient::retry_later() {
  if (bus_ == nullptr) return;
  // Many nodes lose the cloud at the same moment; they must not come back at the same one.
  const double jitter = std::uniform_real_distribution<double>(0.5, 1.5)(random_);
  const auto wait = Duration(static_cast<int64_t>(static_cast<double>(backoff_.count()) * jitter));
  retry_.start(std::min(wait, options_.backoff_max));
  backoff_ = std::min(backoff_ * 2, options_.backoff_max);
}

void HubClient::kick() {
  if (bus_ == nullptr) return;
  if (session_ != nullptr) return session_->probe(kProbeLimit);
  backoff_ = options_.backoff_min;
  connect();
}

void HubClient::announce(bool connected) {
  const bus::Message message =
      bus::make_message(kHubModule, "", "connect", "node/connection",
                        connected ? "\"cloud_connected\"" : "\"cloud_disconnected\"");
  for (const char* group : kListeners) {
    bus::Message copy = message;
    copy.group = group;
    if (auto sent = bus_->send_group(group, copy); !sent)
      EM_LOG(kError, "hub", "group {} does not hear of the connection: {}", group,
             sent.error().message);
  }
}

void HubClient::receive(bus::Message message) {
  received_.add();
  if (bus_ == nullptr) return;
  if (!message.parent_id.empty() && bus_->waits_for(message.parent_id)) {
    bus_->respond(std::move(message));
    return;
  }
  const std::string group(target_group(message.group));
  auto sent = bus_->send_group(group, message);
  if (!sent) {
    // Dropping it would leave a hole that nobody notices. A new connection syncs anew.
    return on_closed(sent.error().message);
  }
  if (*sent > 0) return;
  unroutable_.add();
  EM_LOG(kDebug, "hub", "no module takes {} {} of group '{}'", message.operation,
         message.resource.substr(0, 200), message.group.substr(0, 50));
}

Result<> HubClient::send(const bus::Message& message) {
  if (session_ == nullptr) return fail(ErrorCode::kUnavailable, "no connection to the cloud");
  EM_TRY_VOID(session_->send(message));
  sent_.add();
  return {};
}

void HubClient::on_message(bus::Message message) {
  auto sent = send(message);
  if (sent) return;
  bus::Message answer =
      bus::reply_to(message, nlohmann::json{{"reason", sent.error().message}}.dump(
                                 -1, ' ', false, nlohmann::json::error_handler_t::replace));
  answer.operation = "error";
  if (bus_->waits_for(message.id)) {
    bus_->respond(std::move(answer));
  } else if (auto back = bus_->send(message.source, std::move(answer)); !back) {
    EM_LOG(kDebug, "hub", "{} {} of {} is lost: {}", message.operation, message.resource,
           message.source, sent.error().message);
  }
}

HubClient::Status HubClient::status() const {
  Status out = totals_;
  out.connected = session_ != nullptr;
  if (retry_.active()) {
    out.next_try_ms = std::max<int64_t>(
        0, std::chrono::duration_cast<std::chrono::milliseconds>(retry_.deadline() - loop_.now())
               .count());
  }
  if (session_ == nullptr) return out;
  const channel::Session::Counters& counters = session_->counters();
  out.tx_messages += counters.tx_messages;
  out.rx_messages += counters.rx_messages;
  out.tx_bytes += counters.tx_bytes;
  out.rx_bytes += counters.rx_bytes;
  out.rtt_us = counters.rtt_us;
  out.queued_bytes = session_->queued_bytes();
  return out;
}

}  // namespace edgemesh::agent
