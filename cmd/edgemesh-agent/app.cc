#include "cmd/edgemesh-agent/app.h"

#include <malloc.h>
#include <sys/socket.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "core/base/log.h"
#include "core/base/version.h"
#include "proxy/telemetry/response_flags.h"

namespace edgemesh::cmd {

namespace {

using nlohmann::json;

constexpr const char* kDefaultServiceCidr = "10.96.0.0/12";
constexpr Duration kNodeInfoEvery = std::chrono::seconds(30);

proxy::CaptureMode capture_mode(agent::CaptureMode mode) {
  switch (mode) {
    case agent::CaptureMode::kAuto: return proxy::CaptureMode::kAuto;
    case agent::CaptureMode::kTproxy: return proxy::CaptureMode::kTproxy;
    case agent::CaptureMode::kRedirect: return proxy::CaptureMode::kRedirect;
  }
  return proxy::CaptureMode::kAuto;
}

// The host's name servers, without the mesh's own.
std::vector<SockAddr> system_name_servers(const std::vector<IpAddr>& own) {
  std::vector<SockAddr> out;
  std::ifstream in("/etc/resolv.conf");
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string keyword, address;
    words >> keyword >> address;
    auto ip = keyword == "nameserver" ? IpAddr::parse(address) : Result<IpAddr>(IpAddr());
    if (keyword != "nameserver" || !ip || std::find(own.begin(), own.end(), *ip) != own.end()) continue;
    out.push_back({*ip, 53});
  }
  return out;
}

// "[::]" takes IPv4, too. A machine without IPv6 has no such sockets: there it is IPv4 alone.
SockAddr usable(const SockAddr& listen) {
  if (!listen.ip.is_v6() || !listen.ip.is_unspecified()) return listen;
  io::Fd probe(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return probe.valid() ? listen : SockAddr{IpAddr::any(false), listen.port};
}

}  // namespace

App::App(io::Loop& loop, agent::AgentConfig config)
    : loop_(loop),
      config_(std::move(config)),
      started_(loop.now()),
      registry_(loop),
      node_info_timer_(loop, [this] { send_node_info(); }),
      trim_timer_(loop, [this] {
        changes_to_trim_ = 0;
        malloc_trim(0);
      }) {}

App::~App() {
  *alive_ = false;
  addresses_.reset();
  admin_.reset();
  local_api_.reset();
  cloud_calls_.reset();
  dns_.reset();
  renewal_.reset();
  if (bus_) bus_->stop();
  if (proxy_) proxy_->set_dialer(nullptr);
  proxy_file_.reset();
  if (l7_) {
    l7_->set_dialer(nullptr);
    l7_->stop();
  }
  mesh_.reset();
  capture_.reset();
  if (proxy_) proxy_->stop();
}

Result<std::unique_ptr<App>> App::create(io::Loop& loop, agent::AgentConfig config) {
  std::unique_ptr<App> app(new App(loop, std::move(config)));
  EM_TRY_VOID(app->open());
  return app;
}

Result<> App::open() {
  EM_TRY(identity_, agent::load_identity(config_.state_dir));
  if (!config_.node_name.empty() && config_.node_name != identity_.node)
    return fail(ErrorCode::kInvalidArgument,
                "the configuration names node '{}', the certificate in {} names '{}'; join again or "
                "correct nodeName",
                config_.node_name, config_.state_dir, identity_.node);
  config_.node_name = identity_.node;
  EM_TRY(metastore_, agent::Metastore::open(loop_, config_.state_dir + "/meta.db", metrics_));
  registry_.subscribe([this](const std::shared_ptr<const discovery::Snapshot>& snapshot) {
    proxy_->set_snapshot(snapshot);
    if (l7_) l7_->set_snapshot(snapshot);
    if (dns_ && serves_) dns_->update(snapshot);
  });
  EM_TRY_VOID(make_channel());
  EM_TRY_VOID(open_proxy());
  EM_TRY_VOID(open_capture());
  EM_TRY_VOID(open_dns());
  EM_TRY_VOID(open_local_api());
  EM_TRY_VOID(bus_->start());  // the node serves what it knew from here on, then the hub connects
  note_synced();
  proxy_->set_snapshot(registry_.snapshot());
  if (l7_) l7_->set_snapshot(registry_.snapshot());
  if (mesh_) {
    std::vector<p2p::KnownPeer> known;
    for (const auto& peer : mesh_module_->known_peers()) known.push_back({peer.node, peer.direct});
    mesh_->known_peers(std::move(known));
  }
  metrics_.on_scrape([this] { refresh_gauges(); });
  EM_TRY_VOID(open_admin());
  renewal_ = std::make_unique<agent::Renewal>(
      loop_, bootstrap_options(), config_.state_dir, identity_,
      [this](const agent::Identity& identity) { on_renewed(identity); });
  renewal_->start();
  // A connection made from an address that is gone is dead, though nobody says so: test it now.
  EM_TRY(addresses_, p2p::NetlinkWatch::start(loop_, [this] {
           hub_->kick();
           renewal_->kick();
         }));
  send_node_info();
  return {};
}

agent::BootstrapOptions App::bootstrap_options() const {
  agent::BootstrapOptions out{.server = config_.cloud.bootstrap, .node = config_.node_name};
  if (out.server.empty()) out.server = {config_.cloud.hub.host, 10002};
  out.mark = kOwnMark;
  return out;
}

Result<> App::make_channel() {
  agent::HubClientOptions options;
  options.hub = config_.cloud.hub;
  options.more_hubs = config_.cloud.more_hubs;
  options.node = config_.node_name;
  options.mark = kOwnMark;
  hub_ = std::make_unique<agent::HubClient>(loop_, options, identity_, metrics_);
  agent::MeshSink& sink = *this;
  mesh_module_ = std::make_unique<agent::MeshModule>(
      loop_, agent::MeshModule::Options{.node = config_.node_name}, *metastore_, sink, metrics_);
  bus_ = std::make_unique<bus::Bus>(loop_);
  if (config_.module_enabled(agent::kMeshModule)) EM_TRY_VOID(bus_->add(*mesh_module_));
  meta_module_ = std::make_unique<agent::MetaModule>(loop_, *metastore_, metrics_);
  if (config_.module_enabled(agent::kMetaModule)) EM_TRY_VOID(bus_->add(*meta_module_));
  Pods::Parts parts{loop_, config_, *metastore_, *meta_module_, *hub_, *bus_, metrics_, {}};
  parts.api_service = [this] { return api_service(); };
  EM_TRY(pods_, Pods::create(parts));
  if (config_.module_enabled(agent::kHubModule)) EM_TRY_VOID(bus_->add(*hub_));
  return {};
}

// The Service by which programs in pods find the API, as kubelet tells them.
std::optional<SockAddr> App::api_service() {
  const auto snapshot = registry_.snapshot();
  const discovery::ServiceEntry* service = snapshot->by_name("default", "kubernetes");
  if (service == nullptr || service->vips.empty() || service->ports.empty()) return std::nullopt;
  return SockAddr{service->vips.front(), service->ports.front().port};
}

// Reading many objects leaves the heap full of holes (some 15 MiB after 10,000 services): once they are
// through, what is free goes back to the system.
void App::note_change() {
  constexpr size_t kMany = 1000;
  if (++changes_to_trim_ < kMany || trim_timer_.active()) return;
  trim_timer_.start(std::chrono::seconds(3));
}

// Names of the cluster get answers only when they can be right: from the first full picture on.
void App::note_synced() {
  auto status = mesh_module_->status();
  if (serves_ || !(status.synced || !status.epoch.empty())) return;
  serves_ = true;
  if (dns_) dns_->update(registry_.snapshot());
}

Result<> App::open_proxy() {
  proxy::ProxyOptions options;
  options.workers = config_.proxy.workers > 0 ? config_.proxy.workers
                                             : static_cast<int>(std::thread::hardware_concurrency());
  options.drain_timeout = config_.proxy.drain_timeout;
  options.l4.node = config_.node_name;
  options.l4.zone = config_.zone;
  options.l4.connect_timeout = config_.proxy.connect_timeout;
  options.l4.idle_timeout = config_.proxy.idle_timeout;
  options.l4.max_connections = config_.proxy.max_connections;
  options.l4.access_log = config_.proxy.access_log;
  options.l4.capture_cidrs = service_cidrs();
  if (config_.capture.enable)
    options.listeners = proxy::capture_listeners();
  EM_TRY_VOID(open_telemetry(options.workers));
  options.telemetry = telemetry_.get();
  EM_TRY(proxy_, proxy::Proxy::create(loop_, options, metrics_));
  EM_TRY_VOID(open_http());
  if (config_.p2p.enable) {
    p2p::MeshOptions mesh;
    mesh.node = config_.node_name;
    mesh.trust_domain = identity_.trust_domain;
    mesh.cert_pem = identity_.cert_pem;
    mesh.key_pem = identity_.key_pem;
    mesh.ca_pem = identity_.ca_pem;
    mesh.direct_listen = usable(config_.p2p.direct_listen);
    mesh.direct_enabled = config_.p2p.direct;
    mesh.ice_enabled = config_.p2p.ice;
    mesh.mark = kOwnMark;
    mesh.open_timeout = config_.proxy.connect_timeout;
    p2p::Hooks hooks;
    hooks.send_signal = [this](const std::string& node, std::string text) {
      mesh_module_->send_signal(node, std::move(text));
    };
    hooks.on_change = [this] { send_node_info(); };
    hooks.persist = [this](const std::vector<p2p::KnownPeer>& peers) {
      std::vector<agent::StoredPeer> stored;
      stored.reserve(peers.size());
      for (const auto& peer : peers) stored.push_back({peer.node, peer.direct});
      mesh_module_->persist_peers(std::move(stored));
    };
    EM_TRY(mesh_, p2p::Mesh::create(loop_, proxy_->tunnel_loop(), mesh, hooks, proxy_->acceptor()));
    proxy_->set_dialer(&mesh_->dialer());
    if (l7_) l7_->set_dialer(&mesh_->dialer());
  }
  proxy_->start();
  return {};
}

Result<> App::open_telemetry(int workers) {
  proxy::TelemetryOptions options;
  if (!config_.proxy.config.empty()) {
    EM_TRY(http_config_, proxy::model::load_config(config_.proxy.config));
    options.spec = http_config_->telemetry;
  }
  options.workers = static_cast<size_t>(workers);
  options.node = config_.node_name;
  options.flags_text = proxy::flags_text;
  options.client.mark = kOwnMark;
  EM_TRY(telemetry_, proxy::Telemetry::make(loop_, std::move(options)));
  metrics_.on_text([t = telemetry_.get()](std::string& out) { t->append_text(out); });
  return {};
}

Result<> App::open_http() {
  if (!config_.proxy.http && config_.proxy.config.empty()) return {};
  io::Resolver::Options resolver;
  resolver.servers = config_.dns.upstreams;
  resolver.mark = kOwnMark;
  EM_TRY(resolver_, io::Resolver::create(loop_, resolver));
  proxy::L7ProxyOptions options;
  options.place.node = config_.node_name;
  options.place.locality.zone = config_.zone;
  options.connector.node = config_.node_name;
  options.connector.mark = kOwnMark;
  options.connector.marked = {*Cidr::parse("0.0.0.0/0"), *Cidr::parse("::/0")};
  options.lookup = proxy::lookup_by(*resolver_);
  options.drain_timeout = config_.proxy.drain_timeout;
  options.capture_services = config_.proxy.http;
  options.metrics = &metrics_;
  options.telemetry = telemetry_.get();
  EM_TRY(l7_, proxy::L7Proxy::create(loop_, proxy_->worker_loops(), options));
  metrics_.on_text([l7 = l7_.get()](std::string& out) { l7->append_metrics(out); });
  proxy_->set_take_http([l7 = l7_.get()](int worker, io::Fd& fd, const SockAddr& peer,
                                         const SockAddr& destination) {
    return l7->take_captured(worker, fd, peer, destination);
  });
  if (http_config_ == nullptr) return {};
  EM_TRY_VOID(l7_->apply(std::exchange(http_config_, nullptr)));
  proxy_file_ = std::make_unique<proxy::ConfigFile>(loop_, *l7_, config_.proxy.config, metrics_);
  return {};
}

void App::reload(proxy::ConfigFile::Done done) {
  if (telemetry_) telemetry_->reopen_logs();
  if (proxy_file_) return proxy_file_->reload(std::move(done));
  done({});
}

std::vector<Cidr> App::service_cidrs() const {
  if (!config_.capture.service_cidrs.empty()) return config_.capture.service_cidrs;
  if (const auto& told = mesh_module_->config().service_cidrs; !told.empty()) return told;
  return {*Cidr::parse(kDefaultServiceCidr)};
}

Result<> App::open_capture() {
  if (!config_.capture.enable) return {};
  proxy::CaptureConfig capture;
  capture.service_cidrs = service_cidrs();
  capture.mode = capture_mode(config_.capture.mode);
  capture.own_mark = kOwnMark;
  if (config_.dns.enable) capture.dns_addresses = config_.dns.addresses();
  EM_TRY(capture_, proxy::Capture::install(loop_, io::system_executor(), capture));
  EM_LOG(kInfo, "agent", "capturing by {}", proxy::to_string(capture_->mode()));
  return {};
}

std::string App::cluster_domain() const {
  return config_.dns.cluster_domain.empty() ? mesh_module_->config().cluster_domain
                                            : config_.dns.cluster_domain;
}

Result<> App::open_dns() {
  if (!config_.dns.enable) return {};
  discovery::DnsOptions dns;
  for (const IpAddr& address : config_.dns.addresses()) dns.listen.push_back({address, 53});
  dns.cluster_domain = dns_domain_ = cluster_domain();
  dns.service_cidrs = service_cidrs();
  dns.upstreams = config_.dns.upstreams;
  if (dns.upstreams.empty()) dns.upstreams = system_name_servers(config_.dns.addresses());
  dns.mark = kOwnMark;
  EM_TRY(dns_, discovery::DnsServer::create(loop_, dns, metrics_));
  return {};
}

void App::on_config(const agent::MeshConfig& config) {
  if (mesh_) {
    // An empty host takes the relay away.
    mesh_->set_relay({config.turn.host, config.turn.port, config.turn.username, config.turn.password,
                      config.turn.expires});
    std::vector<p2p::RevokedNode> revoked;
    revoked.reserve(config.revoked.size());
    for (const auto& entry : config.revoked) revoked.push_back({entry.node, entry.before});
    mesh_->set_revoked(revoked);
  }
  if (capture_)
    if (auto updated = capture_->update(service_cidrs()); !updated)
      EM_LOG(kError, "agent", "new service CIDRs: {}", updated.error().message);
  proxy_->set_capture_cidrs(service_cidrs());
  if (dns_ && cluster_domain() != dns_domain_) {
    dns_.reset();
    if (auto again = open_dns(); !again)
      EM_LOG(kError, "agent", "DNS for {}: {}", cluster_domain(), again.error().message);
    else if (serves_)
      dns_->update(registry_.snapshot());
  }
  if (dns_) dns_->set_service_cidrs(service_cidrs());
}

void App::on_signal(const std::string& from_node, std::string_view text) {
  if (mesh_) mesh_->on_signal(from_node, text);
}

void App::on_signal_error(const std::string& node, std::string_view reason) {
  if (mesh_) mesh_->on_signal_error(node, reason);
}

void App::send_node_info() {
  node_info_timer_.start(kNodeInfoEvery);
  note_synced();
  agent::NodeInfo info;
  info.zone = config_.zone;
  if (mesh_) {
    for (const auto& addr : mesh_->direct_addresses()) info.addresses.push_back(addr.to_string());
    info.direct_port = mesh_->direct_port();
    info.nat_kind = mesh_->nat_kind();
  } else {  // a node without tunnels is a node of the cluster all the same
    for (const auto& ip : p2p::local_addresses()) info.addresses.push_back(ip.to_string());
  }
  info.version = kVersion;
  mesh_module_->set_node_info(std::move(info));
}

void App::on_renewed(const agent::Identity& identity) {
  identity_ = identity;
  if (auto ok = hub_->set_identity(identity_, true); !ok)
    EM_LOG(kError, "agent", "the new certificate: {}", ok.error().message);
  if (!mesh_) return;
  if (auto ok = mesh_->set_identity(identity_.cert_pem, identity_.key_pem); !ok)
    EM_LOG(kError, "agent", "the new certificate: {}", ok.error().message);
}

Result<> App::open_local_api() {
  if (!config_.module_enabled(agent::kMetaServerModule)) return {};
  cloud_calls_ = std::make_unique<agent::CloudCalls>(
      *bus_, agent::CloudCalls::Options{.node = config_.node_name},
      [this] { return hub_->connected(); });
  LocalApi::Options options;
  options.listen = config_.meta_server.listen;
  EM_TRY(local_api_, LocalApi::create(loop_, *metastore_, *cloud_calls_, options));
  EM_LOG(kInfo, "metaserver", "the Kubernetes API of this node is at http://{}: {} objects",
         local_api_->local_addr().to_string(), local_api_->objects());
  return {};
}

Result<> App::open_admin() {
  AdminSources sources;
  sources.not_ready = [this] { return not_ready(); };
  sources.status = [this] { return status_json(); };
  sources.peers = [this] { return peers_json(); };
  sources.services = [this] { return services_json(); };
  sources.config = [this] { return config_json(); };
  sources.l7 = l7_.get();
  sources.telemetry = telemetry_.get();
  sources.netcheck = [this](JsonDone done) { netcheck(std::move(done)); };
  sources.path = [this](const std::string& node, bool open_it, JsonDone done) {
    path(node, open_it, std::move(done));
  };
  EM_TRY(admin_, make_admin(loop_, config_.admin.listen, metrics_, std::move(sources)));
  return {};
}

void App::shut_down() {
  if (std::exchange(shutting_down_, true)) {
    loop_.stop();  // asked twice: now
    return;
  }
  EM_LOG(kInfo, "agent", "stopping: connections have {} s to end",
         std::chrono::duration_cast<std::chrono::seconds>(config_.proxy.drain_timeout).count());
  // The rules stay until then: without them the packets of captured connections find no way.
  auto drain_bytes = [this] { proxy_->drain([this] { loop_.stop(); }); };
  if (l7_)
    l7_->drain(drain_bytes);
  else
    drain_bytes();
}

}  // namespace edgemesh::cmd
