#include "proxy/model/config.h"

#include <functional>

#include "proxy/model/config_read.h"

namespace edgemesh::proxy::model {

namespace {

// Room for some 50,000 clusters with a route each.
constexpr config::Limits kLimits{32 << 20, 4'000'000};

using Name = std::function<void(const std::string& name, const std::string& what)>;

void each_cluster(const RoutePolicies& policies, const Name& name) {
  if (policies.ext_authz.get() != nullptr) name(policies.ext_authz->cluster, "extAuthz");
}

void each_cluster(const VirtualHost& host, const Name& name) {
  each_cluster(host.policies, name);
  for (const Route& route : host.routes) {
    const std::string where = fmt::format("host {}, route {}: ", host.name, route.name);
    if (const auto* forward = std::get_if<Forward>(&route.action))
      for (const auto& cluster : forward->clusters) name(cluster.name, where + "cluster");
    for (const auto& mirror : route.mirrors) name(mirror.cluster, where + "mirror");
    each_cluster(route.policies, name);
  }
}

void each_cluster(const FilterChain& chain, const Name& name) {
  if (const auto* tcp = std::get_if<TcpChain>(&chain.network)) {
    for (const auto& cluster : tcp->clusters) name(cluster.name, "cluster");
    return;
  }
  const auto& http = std::get<HttpChain>(chain.network);
  if (http.ext_authz.get() != nullptr) name(http.ext_authz->cluster, "extAuthz");
  if (http.jwt.get() == nullptr) return;
  for (const auto& provider : http.jwt->providers)
    if (!provider.jwks_url.empty()) name(provider.jwks_cluster, "jwksCluster");
}

// Names that lead nowhere, reported at the mapping they stand in.
void check_cluster(const Config& config, const std::string& name, const std::string& what,
                   Reader& reader) {
  if (config.clusters.find(name) == config.clusters.end())
    reader.reject("name", fmt::format("{} '{}' is not among the clusters", what, name));
}

void check_routes(const Config& config, const FilterChain& chain, Reader& reader) {
  const auto* http = std::get_if<HttpChain>(&chain.network);
  if (http != nullptr && config.routes.find(http->routes) == config.routes.end())
    reader.reject("name", fmt::format("routes '{}' are not there", http->routes));
}

template <class T>
void put(ByName<T>& all, std::shared_ptr<const T> one, Reader& reader) {
  if (!all.emplace(one->name, one).second)
    reader.reject("name", fmt::format("'{}' is there twice", one->name));
}

Result<std::shared_ptr<const Config>> read_all(config::Document document) {
  auto out = std::make_shared<Config>();
  Reader root = document.root();
  read_telemetry(root.section("telemetry"), out->telemetry);
  Reader overload = root.section("overload");
  overload.read("maxConnections", &out->overload.max_connections);
  overload.read("maxRequests", &out->overload.max_requests);
  uint32_t mebibytes = 0;
  overload.read("maxMemoryMiB", &mebibytes);
  out->overload.max_memory = uint64_t{mebibytes} << 20;
  for (Reader item : root.sections("clusters")) {
    auto cluster = std::make_shared<Cluster>();
    read_cluster(item, cluster.get());
    put<Cluster>(out->clusters, cluster, item);
  }
  for (Reader item : root.sections("routes")) {
    const auto routes = read_route_config(item);
    put<RouteConfig>(out->routes, routes, item);
    for (const auto& host : routes->hosts)
      each_cluster(*host, [&](const std::string& name, const std::string& what) {
        check_cluster(*out, name, what, item);
      });
  }
  for (Reader item : root.sections("listeners")) {
    const auto listener = read_listener(item);
    put<Listener>(out->listeners, listener, item);
    if (listener->kind == Listener::Kind::kUdp)
      check_cluster(*out, listener->udp_cluster, "udpCluster", item);
    auto chains = listener->chains;
    if (listener->default_chain) chains.push_back(listener->default_chain);
    for (const auto& chain : chains) {
      check_routes(*out, *chain, item);
      each_cluster(*chain, [&](const std::string& name, const std::string& what) {
        check_cluster(*out, name, what, item);
      });
    }
  }
  EM_TRY_VOID(document.finish());
  return std::shared_ptr<const Config>(std::move(out));
}

}  // namespace

Result<std::shared_ptr<const Config>> load_config(const std::string& file) {
  EM_TRY(auto document, config::Document::from_file(file, kLimits));
  return read_all(std::move(document));
}

Result<std::shared_ptr<const Config>> parse_config(std::string_view text, std::string name) {
  EM_TRY(auto document, config::Document::from_text(text, std::move(name), kLimits));
  return read_all(std::move(document));
}

}  // namespace edgemesh::proxy::model
