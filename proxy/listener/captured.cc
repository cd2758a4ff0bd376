// Captured connections that are taken as HTTP: by listeners that a configuration names, and by
// those that are made for services when their first connection comes. So a node with 10,000
// services pays for those that it uses.
#include <algorithm>

#include "core/base/log.h"
#include "proxy/listener/l7_side.h"

namespace edgemesh::proxy {

namespace {

constexpr size_t kMaxServices = 20'000;

enum class Speaks : uint8_t { kBytes, kHttp1, kHttp2 };

// What a service port says of itself: appProtocol, else the part of its name before the first '-'
// (Istio's convention).
Speaks speaks(const discovery::Port& port) {
  const std::string& app = port.app_protocol;
  if (!app.empty()) {
    if (app == "http" || app == "kubernetes.io/ws") return Speaks::kHttp1;
    if (app == "http2" || app == "grpc" || app == "kubernetes.io/h2c") return Speaks::kHttp2;
    return Speaks::kBytes;
  }
  const std::string_view name = std::string_view(port.name).substr(0, port.name.find('-'));
  if (name == "http") return Speaks::kHttp1;
  if (name == "http2" || name == "grpc" || name == "h2c") return Speaks::kHttp2;
  return Speaks::kBytes;
}

std::string key_of(const discovery::ServiceEntry& service, uint16_t port) {
  std::string out;
  append_service_key(service.ns, service.name, port, &out);
  return out;
}

std::shared_ptr<const model::Cluster> make_cluster(const std::string& key,
                                                   const discovery::ServiceEntry& service,
                                                   const discovery::Port& port) {
  auto cluster = std::make_shared<model::Cluster>();
  cluster->name = key;
  cluster->type = model::ClusterType::kService;
  cluster->service = {service.ns, service.name, std::to_string(port.port)};
  if (speaks(port) == Speaks::kHttp2) cluster->protocol = model::UpstreamProtocol::kHttp2;
  using From = discovery::LbPolicy;
  using To = model::LbPolicy;
  cluster->lb.policy = service.policy == From::kRandom         ? To::kRandom
                       : service.policy == From::kLeastRequest ? To::kLeastRequest
                                                               : To::kRoundRobin;
  cluster->lb.locality = model::LocalityMode::kNearest;
  for (auto& limits : cluster->breaker) {  // the endpoints' own limits hold, not ours
    limits.max_connections = limits.max_pending = limits.max_requests = UINT32_MAX;
    limits.retry_budget_percent = 20;
  }
  return cluster;
}

// What an application sees is what the endpoint says: no limits of time, nothing rewritten.
model::ListenerPtr make_listener(const std::string& key) {
  auto retry = std::make_shared<model::RetryPolicy>();
  retry->on = model::retry_on::kConnectFailure | model::retry_on::kRefusedStream |
              model::retry_on::kResetBeforeRequest;
  retry->attempts = 2;
  model::Route route;
  route.name = "default";
  route.action = model::Forward{{model::WeightedCluster{key, 1, {}, nullptr, nullptr}}, "", 503};
  route.timeouts.route = Duration{};
  route.timeouts.idle = Duration{};
  route.retry = model::Part<model::RetryPolicy>(std::move(retry));
  route.upgrades = {"*"};
  auto host = std::make_shared<model::VirtualHost>();
  host->name = key;
  host->domains = {"*"};
  host->routes.push_back(std::move(route));
  auto routes = std::make_shared<model::RouteConfig>();
  routes->name = key;
  routes->hosts.push_back(std::move(host));
  model::HttpChain http;
  http.inline_routes = std::move(routes);
  http.server_name.clear();
  http.stream_idle_timeout = std::chrono::hours(1);
  http.normalize_path = false;
  http.append_forwarded_for = false;
  http.forward_100_continue = true;
  auto chain = std::make_shared<model::FilterChain>();
  chain->name = "http";
  chain->match.transport = model::ChainMatch::Transport::kRaw;  // ALPN has the same names
  chain->match.application_protocols = {"http/1.0", "http/1.1", "h2c"};
  chain->network = std::move(http);
  // A port may be named after HTTP and speak TLS, or something else: that works as if HTTP were
  // off.
  model::TcpChain bytes;
  bytes.clusters = {model::WeightedCluster{key, 1, {}, nullptr, nullptr}};
  bytes.connect_attempts = 2;
  bytes.idle_timeout = Duration{};
  auto other = std::make_shared<model::FilterChain>();
  other->name = "bytes";
  other->network = std::move(bytes);
  auto listener = std::make_shared<model::Listener>();
  listener->name = key;
  listener->kind = model::Listener::Kind::kCaptured;
  listener->direction = model::Listener::Direction::kOutbound;
  listener->chains.push_back(std::move(chain));
  // Not one of the chains: of these the first one's transport would rule it out for all cleartext.
  listener->default_chain = std::move(other);
  return listener;
}

}  // namespace

WorkerListener* L7Proxy::Side::find_captured(const SockAddr& local) {
  if (captured == 0) return nullptr;
  WorkerListener* best = nullptr;
  int best_fit = -1;
  for (const auto& [name, listener] : listeners) {
    const model::Listener& spec = *listener->runtime_ptr()->spec;
    if (spec.kind != model::Listener::Kind::kCaptured || name.starts_with("outbound|")) continue;
    auto fits = [&](const SockAddr& addr) {
      const bool any_ip = addr.ip.is_unspecified();
      if (!any_ip && addr.ip != local.ip) return -1;
      if (addr.port != 0 && addr.port != local.port) return -1;
      return (any_ip ? 0 : 2) + (addr.port == 0 ? 0 : 1);
    };
    int fit = fits(spec.address);
    for (const SockAddr& addr : spec.more_addresses) fit = std::max(fit, fits(addr));
    if (fit <= best_fit) continue;
    best_fit = fit;
    best = listener.get();
  }
  return best;
}

bool L7Proxy::take_captured(int index, io::Fd& fd, const SockAddr& peer, const SockAddr& local) {
  Side& side = *sides_[static_cast<size_t>(index)];
  if (side.worker == nullptr) return false;
  if (WorkerListener* listener = side.find_captured(local)) {
    listener->take(std::move(fd), peer, local);
    return true;
  }
  if (side.snapshot == nullptr) return false;
  const auto target = side.snapshot->find(local.ip, local.port);
  if (!target || speaks(*target->port) == Speaks::kBytes) return false;
  const std::string key = key_of(*target->service, target->port->port);
  if (const auto found = side.listeners.find(key); found != side.listeners.end()) {
    found->second->take(std::move(fd), peer, local);
    return true;
  }
  if (side.waiting_count >= Side::kMaxWaiting) return false;
  auto& waiting = side.waiting[key];
  waiting.push_back({std::move(fd), peer, local});
  ++side.waiting_count;
  if (waiting.size() > 1) return true;  // it is being made
  main_.post([this, alive = alive_, key, ns = target->service->ns, name = target->service->name,
              port = target->port->port] {
    if (*alive) make_service(key, ns, name, port);
  });
  return true;
}

void L7Proxy::Side::resume_waiting(const std::string& key) {
  auto found = waiting.find(key);
  if (found == waiting.end()) return;
  auto list = std::move(found->second);
  waiting.erase(found);
  waiting_count -= list.size();
  const auto listener = listeners.find(key);
  if (listener == listeners.end()) return;  // they are closed
  for (Waiting& one : list) listener->second->take(std::move(one.fd), one.peer, one.local);
}

void L7Proxy::make_service(const std::string& key, const std::string& ns, const std::string& name,
                           uint16_t port) {
  auto resume = [this, key] { each_side([key](Side& side) { side.resume_waiting(key); }); };
  if (services_.contains(key)) return resume();
  const auto* service = snapshot_ != nullptr ? snapshot_->by_name(ns, name) : nullptr;
  const discovery::Port* found = nullptr;
  for (size_t i = 0; service != nullptr && i < service->ports.size(); ++i)
    if (service->ports[i].port == port && service->ports[i].protocol == "TCP")
      found = &service->ports[i];
  if (found == nullptr || services_.size() >= kMaxServices) return resume();
  Service made{ns, name, port, make_cluster(key, *service, *found), {}};
  model::Config config;
  const auto spec = make_listener(key);
  config.listeners[key] = spec;
  auto tables = RouteTables::build(config, {});
  const TelemetryPlace place{options_.telemetry,
                             config_ != nullptr ? &config_->telemetry : nullptr};
  auto runtime = tables ? build_listener(spec, *tables, nullptr, place)
                        : Result<ListenerRuntimePtr>(fail(tables.error()));
  auto updated = runtime ? manager_->update({made.cluster}) : Result<>(fail(runtime.error()));
  if (!updated) {
    EM_LOG(kError, "proxy", "{}: {}", key, updated.error().message);
    return resume();
  }
  made.listening.runtime = *runtime;
  made.listening.shared =
      std::make_shared<ListenerShared>(key, static_cast<int>(loops_.size()), overload_);
  each_side([key, shared = made.listening.shared, runtime = *runtime](Side& side) {
    std::vector<Socket> none;
    side.set_listener(key, shared, runtime, false, none);
    side.resume_waiting(key);
  });
  services_.emplace(key, std::move(made));
}

// Those whose service, or its port, is gone.
void L7Proxy::drop_services() {
  std::vector<std::string> gone;
  for (const auto& [key, made] : services_) {
    const auto* service = snapshot_ != nullptr ? snapshot_->by_name(made.ns, made.name) : nullptr;
    bool there = false;
    for (size_t i = 0; service != nullptr && i < service->ports.size(); ++i)
      there |= service->ports[i].port == made.port && speaks(service->ports[i]) != Speaks::kBytes;
    if (!there) gone.push_back(key);
  }
  if (gone.empty()) return;
  for (const std::string& key : gone) {
    services_.erase(key);
    remove_listener(key);
  }
  if (auto removed = manager_->update({}, gone); !removed)
    EM_LOG(kError, "proxy", "{}", removed.error().message);
}

}  // namespace edgemesh::proxy
