#include "proxy/upstream/cluster_manager.h"

#include <algorithm>
#include <charconv>
#include <unordered_set>

#include "proxy/upstream/connector.h"
#include "proxy/upstream/outlier.h"

namespace edgemesh::proxy {

namespace {

const discovery::Port* find_port(const discovery::ServiceEntry& service,
                                 const std::string& wanted) {
  if (wanted.empty()) return service.ports.size() == 1 ? &service.ports.front() : nullptr;
  uint16_t number = 0;
  const char* end = wanted.data() + wanted.size();
  const auto parsed = std::from_chars(wanted.data(), end, number);
  const bool is_number = parsed.ec == std::errc() && parsed.ptr == end;
  for (const auto& port : service.ports)
    if (is_number ? port.port == number && port.protocol == "TCP" : port.name == wanted)
      return &port;
  return nullptr;
}

std::vector<model::Endpoint> endpoints_of(const discovery::Port& port) {
  std::vector<model::Endpoint> out;
  out.reserve(port.endpoints.size());
  for (const auto& from : port.endpoints) {
    model::Endpoint endpoint;
    endpoint.addr = from.addr;
    endpoint.node = from.node;
    endpoint.hostname = from.hostname;
    endpoint.locality.zone = from.zone;
    // One that terminates serves while nothing better is left.
    if (!from.ready) endpoint.health = model::Health::kDegraded;
    out.push_back(std::move(endpoint));
  }
  return out;
}

void put(std::string& key, std::string_view part) {
  key += std::to_string(part.size());
  key += ':';
  key += part;
}

}  // namespace

struct ClusterManager::Cluster {
  std::shared_ptr<const model::Cluster> config;
  std::shared_ptr<const model::Cluster> effective;  // with what the service says
  ContextPtr tls;
  std::shared_ptr<const HostSet> set;
  std::shared_ptr<const discovery::ServiceEntry> service;  // the endpoints are of this one
  std::unique_ptr<DnsCluster> dns;
  std::vector<IpAddr> addresses;     // of the DNS name
  std::unique_ptr<io::Timer> sweep;  // of outliers; null: they are not looked for
};

ClusterManager::ClusterManager(ClusterManagerOptions options) : options_(std::move(options)) {}
ClusterManager::~ClusterManager() = default;

Result<ClusterManager::ContextPtr> ClusterManager::context_for(const model::Cluster& config) {
  if (config.tls == nullptr) return ContextPtr();
  const auto& tls = *config.tls;
  std::string key;
  for (const auto* part : {&tls.ca_pem, &tls.cert_pem, &tls.key_pem}) put(key, *part);
  for (const auto& protocol : tls.alpn) put(key, protocol);
  put(key, fmt::format("{} {} {} {}", tls.insecure_skip_verify, tls.min_version,
                       static_cast<int>(config.protocol), config.connect_timeout.count()));
  auto& slot = contexts_[key];
  auto context = slot.lock();
  if (context == nullptr) {
    EM_TRY(context, client_context(config));
    slot = context;
  }
  return context;
}

Result<> ClusterManager::change(const std::vector<std::shared_ptr<const model::Cluster>>& clusters,
                                const std::function<void()>& remove) {
  // All that may fail comes first.
  std::vector<ContextPtr> contexts;
  contexts.reserve(clusters.size());
  for (const auto& config : clusters) {
    const auto known = clusters_.find(config->name);
    ContextPtr context;
    if (known != clusters_.end() && known->second->config == config) {
      context = known->second->tls;
    } else {
      EM_TRY(context, context_for(*config));
    }
    contexts.push_back(std::move(context));
  }
  remove();
  for (size_t i = 0; i < clusters.size(); ++i) {
    const auto& config = clusters[i];
    auto& slot = clusters_[config->name];
    if (slot == nullptr) slot = std::make_unique<Cluster>();
    if (slot->config == config || (slot->config && *slot->config == *config)) continue;
    slot->config = config;
    slot->effective = config;
    slot->tls = std::move(contexts[i]);
    configure(*slot);
  }
  std::erase_if(contexts_, [](const auto& item) { return item.second.expired(); });
  flush();
  return {};
}

Result<> ClusterManager::apply(const std::vector<std::shared_ptr<const model::Cluster>>& clusters) {
  std::unordered_set<std::string_view> names;
  names.reserve(clusters.size());
  for (const auto& config : clusters)
    if (!names.insert(config->name).second)
      return fail(ErrorCode::kInvalidArgument, "cluster {} is there twice", config->name);
  return change(clusters, [&] {
    std::erase_if(clusters_, [&](const auto& item) {
      if (names.contains(item.first)) return false;
      changes_.push_back({item.first, nullptr});
      return true;
    });
  });
}

Result<> ClusterManager::update(const std::vector<std::shared_ptr<const model::Cluster>>& clusters,
                                const std::vector<std::string>& removed) {
  return change(clusters, [&] {
    for (const auto& name : removed)
      if (clusters_.erase(name) > 0) changes_.push_back({name, nullptr});
  });
}

void ClusterManager::start_sweep(Cluster& cluster, Duration interval) {
  if (cluster.sweep == nullptr)
    cluster.sweep = std::make_unique<io::Timer>(options_.loop, [this, &cluster] {
      if (cluster.set) sweep_outliers(*cluster.set, options_.loop.now());
    });
  cluster.sweep->start_repeating(interval);
}

void ClusterManager::configure(Cluster& cluster) {
  const auto& config = *cluster.config;
  cluster.service.reset();
  if (config.outlier != nullptr)
    start_sweep(cluster, config.outlier->interval);
  else
    cluster.sweep.reset();
  if (config.type != model::ClusterType::kDns) cluster.dns.reset();
  switch (config.type) {
    case model::ClusterType::kStatic: return build_static(cluster);
    case model::ClusterType::kOriginalDst: return build(cluster, {});
    case model::ClusterType::kService:
      if (!refresh_service(cluster)) build(cluster, {});
      return;
    case model::ClusterType::kDns: break;
  }
  const auto rebuild = [this, &cluster] {
    std::vector<model::Endpoint> endpoints;
    for (const auto& ip : cluster.addresses) {
      model::Endpoint endpoint;
      endpoint.addr = {ip, cluster.config->dns.port};
      endpoint.hostname = cluster.config->dns.host;
      endpoints.push_back(std::move(endpoint));
    }
    build(cluster, std::move(endpoints));
  };
  if (cluster.dns == nullptr || cluster.dns->options() != config.dns) {
    if (cluster.dns != nullptr && cluster.dns->options().host != config.dns.host)
      cluster.addresses.clear();
    cluster.dns.reset();
    if (options_.lookup)
      cluster.dns = std::make_unique<DnsCluster>(
          options_.loop, config.dns, options_.lookup, options_.seed,
          [this, &cluster, rebuild](const std::vector<IpAddr>& addresses) {
            cluster.addresses = addresses;
            rebuild();
            flush();
          });
  }
  rebuild();
}

bool ClusterManager::refresh_service(Cluster& cluster) {
  const auto& config = *cluster.config;
  const auto* found =
      snapshot_ != nullptr ? snapshot_->by_name(config.service.ns, config.service.name) : nullptr;
  if (found == cluster.service.get()) return false;
  cluster.service = found != nullptr ? found->shared_from_this() : nullptr;
  const auto* port = found != nullptr ? find_port(*found, config.service.port) : nullptr;
  cluster.effective = cluster.config;
  if (found != nullptr && found->client_ip_affinity &&
      config.lb.client_ip_affinity == Duration::zero()) {
    auto changed = std::make_shared<model::Cluster>(config);
    changed->lb.client_ip_affinity = std::chrono::seconds(found->affinity_timeout_s);
    cluster.effective = std::move(changed);
  }
  build(cluster, port != nullptr ? endpoints_of(*port) : std::vector<model::Endpoint>());
  return true;
}

void ClusterManager::build(Cluster& cluster, std::vector<model::Endpoint> endpoints) {
  const HostSet::Options options{options_.place, options_.workers, options_.loop.now(),
                                 cluster.tls};
  cluster.set = HostSet::build(cluster.effective, std::move(endpoints), options, cluster.set.get());
  changes_.push_back({cluster.config->name, cluster.set});
}

void ClusterManager::build_static(Cluster& cluster) {
  const HostSet::Options options{options_.place, options_.workers, options_.loop.now(),
                                 cluster.tls};
  cluster.set = HostSet::build(cluster.effective, options, cluster.set.get());
  changes_.push_back({cluster.config->name, cluster.set});
}

void ClusterManager::set_snapshot(std::shared_ptr<const discovery::Snapshot> snapshot) {
  snapshot_ = std::move(snapshot);
  for (auto& [name, cluster] : clusters_)
    if (cluster->config->type == model::ClusterType::kService) refresh_service(*cluster);
  flush();
}

void ClusterManager::flush() {
  if (changes_.empty()) return;
  auto updates = std::make_shared<const std::vector<ClusterUpdate>>(std::move(changes_));
  changes_.clear();
  if (options_.publish) options_.publish(std::move(updates));
}

std::shared_ptr<const HostSet> ClusterManager::find(const std::string& name) const {
  auto it = clusters_.find(name);
  return it != clusters_.end() ? it->second->set : nullptr;
}

std::vector<std::shared_ptr<const HostSet>> ClusterManager::sets() const {
  std::vector<std::shared_ptr<const HostSet>> out;
  out.reserve(clusters_.size());
  for (const auto& [name, cluster] : clusters_)
    if (cluster->set) out.push_back(cluster->set);
  std::sort(out.begin(), out.end(),
            [](const auto& a, const auto& b) { return a->cluster().name < b->cluster().name; });
  return out;
}

}  // namespace edgemesh::proxy
