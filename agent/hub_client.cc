#include "agent/hub_client.h"

#include <charconv>

#include "core/base/log.h"

namespace edgemesh::agent {

namespace {
// "[fd00::1]:10000" and "host:10000" -> the name that the server's certificate must hold.
std::string host_of(const std::string& address) {
  std::string host = address.substr(0, address.rfind(':'));
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  return host;
}
}  // namespace

HubClient::HubClient(io::Loop& loop, HubOptions options, std::shared_ptr<tls::Context> tls,
                     obs::Registry& registry)
    : loop_(loop),
      options_(std::move(options)),
      tls_(std::move(tls)),
      retry_(loop, [this] { connect(); }),
      ping_(loop, [this] { tick(); }),
      keepalive_(loop, [this] { send_keepalive(); }),
      backoff_(options_.backoff_first),
      random_(static_cast<uint64_t>(system_clock().now().time_since_epoch().count()) ^
              std::hash<std::string>()(options_.node)),
      up_(registry.gauge("edgemesh_channel_connected", "1 while the channel to the cloud is up.")),
      connects_(registry.counter("edgemesh_channel_connects_total", "Connections to the cloud.")),
      breaks_(registry.counter("edgemesh_channel_breaks_total", "Connections that broke.")),
      received_(registry.counter("edgemesh_channel_received_messages_total", "Messages from the cloud.")),
      sent_(registry.counter("edgemesh_channel_sent_messages_total", "Messages to the cloud.")) {
  status_.address = options_.address;
  status_.since = loop.now();
}

HubClient::~HubClient() = default;

void HubClient::start() { connect(); }

void HubClient::kick() {
  if (socket_ != nullptr) {
    tick();  // the old address may be gone: the ping tells
    return;
  }
  backoff_ = options_.backoff_first;
  connect();
}

void HubClient::set_tls(std::shared_ptr<tls::Context> tls, bool reconnect) {
  tls_ = std::move(tls);
  if (reconnect && socket_ != nullptr) broken("the certificate was renewed");
}

void HubClient::connect() {
  retry_.stop();
  std::string url = fmt::format("wss://{}/{}/{}/events", options_.address, options_.project_id, options_.node);
  http::Headers headers{{"node_id", options_.node}, {"project_id", options_.project_id},
                        {"ConnectionUse", "msg"}};
  http::WebSocketOptions ws{.max_message_bytes = channel::kMaxMessageBytes,
                            .max_queued_bytes = options_.max_queued_bytes,
                            .server_name = host_of(options_.address),
                            .mark = 0x4d45};
  dialing_ = http::WebSocket::connect(
      loop_, url, headers, tls_,
      [this](Result<std::unique_ptr<http::WebSocket>> result) {
        if (result)
          on_connected(std::move(*result));
        else
          broken(result.error().message);
      },
      ws);
}

void HubClient::on_connected(std::unique_ptr<http::WebSocket> socket) {
  socket_ = std::move(socket);
  socket_->set_handler(this);
  heard_ = loop_.now();
  status_.connected = true;
  status_.since = loop_.now();
  ++status_.connects;
  connects_.add();
  up_.set(1);
  EM_LOG(kInfo, "hub", "connected to {}", options_.address);
  ping_.start_repeating(options_.ping_every);
  keepalive_.start_repeating(options_.keepalive_every);
  send_keepalive();
  tick();
  for (auto* handler : handlers_)
    if (socket_ != nullptr) handler->on_hub_connected();
}

void HubClient::broken(const std::string& reason) {
  bool was_connected = socket_ != nullptr;
  // The socket may be the caller: it dies after this turn.
  if (socket_ != nullptr) {
    socket_->set_handler(nullptr);
    loop_.defer([s = std::shared_ptr<http::WebSocket>(std::move(socket_))] {});
  }
  if (dialing_ != nullptr) loop_.defer([d = std::shared_ptr<http::Call>(std::move(dialing_))] {});
  ping_.stop();
  keepalive_.stop();
  if (was_connected) {
    if (loop_.now() - status_.since >= options_.stable_after) backoff_ = options_.backoff_first;
    breaks_.add();
    up_.set(0);
  }
  if (was_connected || status_.reason != reason)
    EM_LOG(kWarn, "hub", "{} {}: {}", was_connected ? "lost" : "cannot connect to", options_.address, reason);
  if (was_connected) status_.since = loop_.now();
  status_.connected = false;
  status_.reason = reason;
  // Half of the wait is random, so that a fleet does not come back in step.
  random_ = random_ * 6364136223846793005ULL + 1442695040888963407ULL;
  auto jitter = static_cast<int64_t>((random_ >> 33) % 1000);
  retry_.start(backoff_ / 2 + backoff_ * jitter / 2000);
  backoff_ = std::min(backoff_ * 2, options_.backoff_max);
  if (was_connected)
    for (auto* handler : handlers_) handler->on_hub_disconnected(reason);
}

void HubClient::tick() {
  if (loop_.now() - heard_ >= options_.dead_after) {
    auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(loop_.now() - heard_).count();
    return broken(fmt::format("no sign of life for {} ms", ms));
  }
  auto now = loop_.clock().now().time_since_epoch().count();
  if (auto sent = socket_->send_ping(std::to_string(now)); !sent)
    broken(sent.error().message);
}

void HubClient::send_keepalive() {
  channel::Message message;
  message.id = channel::new_id();
  message.timestamp_ms = channel::now_ms();
  message.source = "websocket";
  message.group = "resource";
  message.operation = "keepalive";
  message.resource = "node";
  message.content = "\"ping\"";
  if (auto sent = send(message); !sent) EM_LOG(kDebug, "hub", "keepalive: {}", sent.error().message);
}

Result<> HubClient::send(const channel::Message& message) {
  if (socket_ == nullptr) return fail(ErrorCode::kUnavailable, "not connected to the cloud");
  EM_TRY_VOID(socket_->send_text(channel::encode(message)));
  sent_.add();
  return {};
}

void HubClient::on_message(std::string_view data, bool) {
  heard_ = loop_.now();
  auto message = channel::decode(data);
  if (!message) {
    // One bad message is the sender's bug, no reason to lose the others.
    EM_LOG(kWarn, "hub", "dropped a message: {}", message.error().message);
    return;
  }
  received_.add();
  for (auto* handler : handlers_) handler->on_hub_message(*message);
}

void HubClient::on_pong(std::string_view payload) {
  heard_ = loop_.now();
  int64_t sent = 0;
  std::from_chars(payload.data(), payload.data() + payload.size(), sent);
  if (sent > 0) status_.rtt_us = (loop_.clock().now().time_since_epoch().count() - sent) / 1000;
}

void HubClient::on_close(uint16_t code, const std::string& reason) {
  broken(reason.empty() ? fmt::format("closed with code {}", code) : reason);
}

}  // namespace edgemesh::agent
