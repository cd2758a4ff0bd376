// HubClient: the node's end of the control channel, as the bus module "edgehub" (group "hub").
//
//   wss://<hub>/<project>/<node>/events, headers node_id, project_id, ConnectionUse: msg, client
//   certificate. KubeEdge's cloudcore takes it as one of its edges.
//
// - Pings every 1.5 s; a link that was silent for 4.4 s is cut. KubeEdge's keepalive every 15 s.
// - Reconnects after 0.5 s, doubling to 30 s, each with jitter; from 0.5 s again after a minute of
//   connection; at once on kick() (the network changed) and after a renewed certificate.
// - Messages from the cloud go to the module group that KubeEdge names for them: resource, func ->
//   meta; twin -> twin; user -> bus; mesh -> mesh; answers (parent id) to the request that waits.
// - What the bus sends to "edgehub" goes to the cloud. Requests (Bus::request) work through it. A
//   message that cannot be sent comes back to the module that is its source: operation error, its
//   resource, content {"reason"}.
// - Groups twin, meta, bus, mesh and edged get node/connection "cloud_connected" / "cloud_disconnected".
// - What waits to be sent is bounded by max_queued_bytes: send() then fails, nothing is dropped
//   silently.
// Threads: the loop given.
#pragma once

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "agent/identity.h"
#include "core/bus/bus.h"
#include "core/channel/session.h"
#include "core/config/reader.h"
#include "core/http/websocket.h"
#include "core/io/loop.h"
#include "core/obs/metrics.h"

namespace edgemesh::agent {

inline constexpr const char* kHubModule = "edgehub";

struct HubClientOptions {
  config::HostPort hub;
  // Further ones (replicas). Each node begins at one of them all by its name, so that nodes spread,
  // and goes to the next after an attempt that failed.
  std::vector<config::HostPort> more_hubs;
  std::string node;
  std::string project = "e632aba927ea4ac2b575ec1603d56f10";  // KubeEdge's default
  channel::SessionOptions session;
  Duration connect_timeout = std::chrono::seconds(5);  // of each step
  Duration backoff_min = std::chrono::milliseconds(500);
  Duration backoff_max = std::chrono::seconds(30);
  Duration stable_after = std::chrono::minutes(1);
  uint32_t mark = 0;  // SO_MARK
  uint64_t seed = 0;  // of the jitter; 0: random
};

class HubClient final : public bus::Module {
 public:
  struct Status {
    bool connected = false;
    std::string hub;
    int64_t connected_since = 0;  // Unix seconds; 0: not connected
    int64_t rtt_us = -1;
    uint64_t connects = 0;
    uint64_t tx_messages = 0, rx_messages = 0;
    uint64_t tx_bytes = 0, rx_bytes = 0;  // of all connections
    size_t queued_bytes = 0;
    int64_t next_try_ms = -1;  // until the next attempt; -1: none planned
    std::string last_error;    // why there is no connection, or why the last one ended
  };

  HubClient(io::Loop& loop, HubClientOptions options, Identity identity, obs::Registry& registry);
  ~HubClient() override;

  std::string_view name() const override { return kHubModule; }
  std::string_view group() const override { return "hub"; }
  Result<> start(bus::Bus& bus) override;
  void stop() override;
  void on_message(bus::Message message) override;

  // kUnavailable: not connected. kResourceExhausted: too much waits; try after on_drain.
  Result<> send(const bus::Message& message);
  bool connected() const { return session_ != nullptr; }
  // With the node's certificate as it is now; for other connections to the hub.
  std::shared_ptr<tls::Context> tls() const { return tls_; }
  Status status() const;
  // Connects at once if not connected; if connected, the link is tested at once.
  void kick();
  // Used from the next connection on. The one that is open is renewed when `reconnect`.
  Result<> set_identity(const Identity& identity, bool reconnect);
  // Called when the queue of unsent bytes became empty.
  void on_drain(std::function<void()> callback) { on_drain_ = std::move(callback); }

  // For tests: how connections are made. The default is http::WebSocket::connect.
  using Connector = std::function<std::unique_ptr<http::Call>(http::WebSocket::OnConnected)>;
  void set_connector(Connector connector) { connector_ = std::move(connector); }

 private:
  void connect();
  const config::HostPort& hub() const;
  void next_hub();
  std::unique_ptr<http::Call> connect_websocket(http::WebSocket::OnConnected done);
  void on_connected(Result<std::unique_ptr<http::WebSocket>> socket);
  void on_closed(const std::string& reason);
  void retry_later();
  void drop_session();
  void receive(bus::Message message);
  void announce(bool connected);

  io::Loop& loop_;
  HubClientOptions options_;
  std::shared_ptr<tls::Context> tls_;
  Error tls_error_;
  Identity identity_;
  bus::Bus* bus_ = nullptr;
  Connector connector_;
  size_t hub_at_ = 0;
  std::unique_ptr<http::Call> connecting_;
  std::unique_ptr<channel::Session> session_;
  io::Timer retry_;
  io::Timer stable_;
  Duration backoff_;
  std::mt19937_64 random_;
  Status totals_;
  std::function<void()> on_drain_;
  bool failing_ = false;  // the failure was logged; further ones are debug
  obs::Gauge& up_;
  obs::Counter& connects_;
  obs::Counter& failures_;
  obs::Counter& received_;
  obs::Counter& sent_;
  obs::Counter& unroutable_;
};

}  // namespace edgemesh::agent
