// What the agent tells about itself: the JSON behind the admin endpoint.
#include <nlohmann/json.hpp>

#include "cmd/edgemesh-agent/app.h"
#include "core/base/version.h"
#include "p2p/netcheck.h"

namespace edgemesh::cmd {

namespace {

using nlohmann::json;

constexpr Duration kPathWait = std::chrono::seconds(6);
constexpr Duration kPathPoll = std::chrono::milliseconds(50);

json peer_json(const p2p::PeerStatus& peer) {
  return {{"node", peer.node},       {"path", p2p::to_string(peer.kind)},
          {"rttUs", peer.rtt_us},    {"txBytes", peer.tx_bytes},
          {"rxBytes", peer.rx_bytes}, {"streams", peer.streams},
          {"nat", peer.nat_kind},    {"reason", peer.reason},
          {"local", peer.local},     {"remote", peer.remote},
          {"since", peer.since}};
}

int64_t seconds(Duration d) { return std::chrono::duration_cast<std::chrono::seconds>(d).count(); }

// Receives the end of a stream that was opened only to make a path.
class PathProbe final : public io::Stream::Handler {
 public:
  void on_readable() override {}
  void on_writable() override {}
  void on_error(const Error&) override {}
  std::unique_ptr<io::Stream> stream;
};

}  // namespace

std::string App::not_ready() const {
  if (!serves_) return "no services known yet: never connected to the cloud";
  if (shutting_down_) return "shutting down";
  return "";
}

json App::status_json() {
  auto hub = hub_->status();
  auto snapshot = registry_.snapshot();
  auto wall = std::chrono::duration_cast<std::chrono::seconds>(
                  loop_.clock().wall_now().time_since_epoch()).count();
  json channel{{"connected", hub.connected},
               {"address", hub.hub},
               {"sinceSeconds", hub.connected ? wall - hub.connected_since : 0},
               {"rttUs", hub.rtt_us},
               {"connects", hub.connects},
               {"reason", hub.last_error}};
  std::string capture = "off", udp = "off";
  if (capture_) {
    capture = std::string(proxy::to_string(capture_->mode()));
    if (std::string error = capture_->last_error(); !error.empty()) capture += " (" + error + ")";
    const std::string missing = capture_->udp_missing();
    udp = missing.empty() ? "tproxy" : "off (" + missing + ")";
  }
  auto totals = proxy_->totals();
  return {{"node", config_.node_name},
          {"version", kVersion},
          {"uptimeSeconds", seconds(loop_.now() - started_)},
          {"ready", not_ready().empty()},
          {"channel", channel},
          {"capture", capture},
          {"captureUdp", udp},
          {"captureRepairs", capture_ ? capture_->repairs() : 0},
          {"dns", dns_ ? dns_->local_addrs().front().to_string() : "off"},
          {"nat", mesh_ ? mesh_->nat_kind() : ""},
          {"certificateExpires", identity_.not_after},
          {"services", snapshot->services()},
          {"endpoints", snapshot->endpoints()},
          {"connections",
           {{"opened", totals.opened}, {"active", totals.active}, {"failed", totals.failed},
            {"bytesSent", totals.bytes_sent}, {"bytesReceived", totals.bytes_received}}},
          {"peers", peers_json()}};
}

json App::peers_json() const {
  json out = json::array();
  if (mesh_)
    for (const auto& peer : mesh_->peers()) out.push_back(peer_json(peer));
  return out;
}

json App::services_json() {
  json out = json::array();
  registry_.snapshot()->for_each([&](const discovery::ServiceEntry& service) {
    json vips = json::array(), ports = json::array();
    for (const auto& vip : service.vips) vips.push_back(vip.to_string());
    for (const auto& port : service.ports) {
      json endpoints = json::array();
      for (const auto& e : port.endpoints)
        endpoints.push_back({{"address", e.addr.to_string()}, {"node", e.node}, {"zone", e.zone}});
      ports.push_back({{"name", port.name}, {"protocol", port.protocol}, {"port", port.port},
                       {"endpoints", endpoints}});
    }
    out.push_back({{"namespace", service.ns}, {"name", service.name}, {"addresses", vips},
                   {"headless", service.headless}, {"ports", ports}});
  });
  return out;
}

json App::config_json() {
  json cidrs = json::array();
  for (const auto& cidr : service_cidrs()) cidrs.push_back(cidr.to_string());
  const auto& told = mesh_module_->config();
  // Credentials stay out: whoever may open a local connection reads this.
  return {{"file", json::parse(agent::config_json(config_), nullptr, false)},
          {"cloud", {{"trustDomain", told.trust_domain}, {"clusterDomain", told.cluster_domain},
                     {"relay", told.turn.host}}},
          {"serviceCidrs", cidrs},
          {"snapshotVersion", registry_.snapshot()->version()},
          {"proxy", l7_ ? config_dump(*l7_) : json::object()},
          {"services", services_json()}};
}

void App::refresh_gauges() {
  auto snapshot = registry_.snapshot();
  metrics_.gauge("edgemesh_discovery_services", "Services known.")
      .set(static_cast<int64_t>(snapshot->services()));
  metrics_.gauge("edgemesh_discovery_endpoints", "Endpoints known.")
      .set(static_cast<int64_t>(snapshot->endpoints()));
  if (!mesh_) return;
  int64_t by_kind[5] = {};
  int64_t streams = 0;
  for (const auto& peer : mesh_->peers()) {
    ++by_kind[static_cast<int>(peer.kind)];
    streams += static_cast<int64_t>(peer.streams);
  }
  for (auto kind : {p2p::PathKind::kNone, p2p::PathKind::kDirect, p2p::PathKind::kPunched,
                    p2p::PathKind::kRelayed})
    metrics_.gauge("edgemesh_p2p_peers", "Peers by the kind of their path.",
                   {{"path", std::string(p2p::to_string(kind))}})
        .set(by_kind[static_cast<int>(kind)]);
  metrics_.gauge("edgemesh_p2p_streams", "Streams open to peers.").set(streams);
  if (capture_)
    metrics_.gauge("edgemesh_capture_repairs", "Times the capture rules were repaired.")
        .set(static_cast<int64_t>(capture_->repairs()));
}

void App::netcheck(JsonDone done) {
  if (checking_) return done(fail(ErrorCode::kUnavailable, "a check is running; try again in some seconds"));
  const auto& told = mesh_module_->config();
  p2p::NetcheckOptions options;
  options.turn = {told.turn.host, told.turn.port, told.turn.username, told.turn.password,
                  told.turn.expires};
  options.stun = told.stun;
  for (const auto& server : config_.p2p.stun_servers) options.stun.push_back(server.to_string());
  options.mark = kOwnMark;
  if (options.turn.host.empty() && options.stun.empty())
    return done(fail(ErrorCode::kUnavailable,
                     "the cloud has named no relay and no STUN server to check with (edgemesh-cloud "
                     "--turn HOST:PORT)"));
  checking_ = true;
  netcheck_ = p2p::Netcheck::start(
      loop_, options, [this, done = std::move(done), began = loop_.now()](const p2p::NetcheckReport& r) {
        checking_ = false;
        json local = json::array(), reflexive = json::array();
        for (const auto& ip : r.local) local.push_back(ip.to_string());
        for (const auto& addr : r.reflexive) reflexive.push_back(addr.to_string());
        auto took = std::chrono::duration_cast<std::chrono::milliseconds>(loop_.clock().now() - began);
        done(json{{"localAddresses", local}, {"reflexiveAddresses", reflexive}, {"nat", r.nat_kind},
                  {"udp", r.udp}, {"relayUdp", r.relay_udp}, {"relayTcp", r.relay_tcp},
                  {"rttUs", r.rtt_us}, {"note", r.advice}, {"elapsedMs", took.count()}});
      });
}

void App::path(const std::string& node, bool open_it, JsonDone done) {
  if (!mesh_) return done(fail(ErrorCode::kUnavailable, "p2p is switched off (p2p.enable: false)"));
  if (node == config_.node_name)
    return done(json{{"node", node}, {"path", "local"}, {"reason", "that is this node"}});
  if (!open_it) {
    for (const auto& peer : mesh_->peers())
      if (peer.node == node) return done(peer_json(peer));
    return done(fail(ErrorCode::kNotFound, "node '{}' was not contacted yet", node));
  }
  // Any stream makes the path. The far agent refuses this target, after the path stands. Nothing of this object is
  // used over there but what outlives the task: the dialer ends with the mesh, whose end waits for that loop's turn,
  // and the loop with the proxy.
  io::Loop& loop = proxy_->tunnel_loop();
  loop.post([&loop, dialer = &mesh_->dialer(), node] {
    auto probe = std::make_shared<PathProbe>();
    auto stream = dialer->open(node, SockAddr{IpAddr(), 0});
    if (!stream) return;
    probe->stream = std::move(*stream);
    probe->stream->set_handler(probe.get());
    auto timer = std::make_shared<std::unique_ptr<io::Timer>>();
    *timer = std::make_unique<io::Timer>(loop, [probe, timer]() mutable {
      probe->stream.reset();
      auto last = std::move(*timer);
    });
    (*timer)->start(kPathWait);
  });
  await_path(node, loop_.now() + kPathWait, std::move(done));
}

void App::await_path(const std::string& node, TimePoint end, JsonDone done) {
  std::string reason = "no answer";
  for (const auto& peer : mesh_->peers()) {
    if (peer.node != node) continue;
    if (peer.kind != p2p::PathKind::kNone) return done(peer_json(peer));
    if (!peer.reason.empty()) reason = peer.reason;
  }
  if (loop_.now() >= end)
    return done(fail(ErrorCode::kNotFound, "no path to node '{}': {}", node, reason));
  auto timer = std::make_shared<std::unique_ptr<io::Timer>>();
  *timer = std::make_unique<io::Timer>(
      loop_, [this, alive = alive_, node, end, done = std::move(done), timer]() mutable {
        auto last = std::move(*timer);
        if (*alive) await_path(node, end, std::move(done));
      });
  (*timer)->start(kPathPoll);
}

}  // namespace edgemesh::cmd
