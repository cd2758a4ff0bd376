// The configuration in use as JSON. Certificates and keys stay out: whoever may open a local
// connection reads this.
#include <nlohmann/json.hpp>

#include "cmd/proxy_pages/proxy_pages.h"

namespace edgemesh::cmd {

namespace {

using nlohmann::json;
namespace model = proxy::model;

int64_t ms(Duration d) { return std::chrono::duration_cast<std::chrono::milliseconds>(d).count(); }

json cluster_choice(const std::vector<model::WeightedCluster>& clusters) {
  json out = json::array();
  for (const auto& cluster : clusters) {
    json one{{"name", cluster.name}, {"weight", cluster.weight}};
    for (const auto& label : cluster.subset) one["subset"][label.key] = label.value;
    out.push_back(std::move(one));
  }
  return out;
}

json route_json(const model::Route& route) {
  const char* kind = "prefix";
  switch (route.match.path.kind) {
    case model::PathMatch::Kind::kExact: kind = "path"; break;
    case model::PathMatch::Kind::kSegmentPrefix: kind = "segmentPrefix"; break;
    case model::PathMatch::Kind::kRegex: kind = "regex"; break;
    default: break;
  }
  json out{{"name", route.name},
           {"match", {{kind, route.match.path.path}}},
           {"timeoutMs", ms(route.timeouts.route)},
           {"upgrades", route.upgrades}};
  if (const auto* forward = std::get_if<model::Forward>(&route.action)) {
    out["clusters"] = cluster_choice(forward->clusters);
    if (!forward->cluster_header.empty()) out["clusterHeader"] = forward->cluster_header;
  } else if (const auto* redirect = std::get_if<model::Redirect>(&route.action)) {
    out["redirect"] = {{"status", redirect->status}, {"host", redirect->host},
                       {"path", redirect->path}};
  } else if (const auto* direct = std::get_if<model::DirectResponse>(&route.action)) {
    out["respond"] = {{"status", direct->status}};
  }
  if (route.retry.get() != nullptr)
    out["retry"] = {{"attempts", route.retry->attempts}, {"on", route.retry->on}};
  for (const auto& mirror : route.mirrors) out["mirrors"].push_back(mirror.cluster);
  return out;
}

json logs_json(const std::vector<model::AccessLog>& logs) {
  json out = json::array();
  for (const auto& log : logs) {
    json one{{"path", log.path}, {"format", log.format}, {"minStatus", log.min_status}};
    for (const auto& [name, format] : log.json) one["json"][name] = format;
    out.push_back(std::move(one));
  }
  return out;
}

json chain_json(const model::FilterChain& chain) {
  json out{{"name", chain.name}, {"tls", chain.tls.get() != nullptr}};
  if (!chain.match.server_names.empty()) out["match"]["serverNames"] = chain.match.server_names;
  if (chain.match.destination_port != 0) out["match"]["port"] = chain.match.destination_port;
  if (const auto* tcp = std::get_if<model::TcpChain>(&chain.network)) {
    out["tcp"] = {{"clusters", cluster_choice(tcp->clusters)},
                  {"idleTimeoutMs", ms(tcp->idle_timeout)},
                  {"accessLog", logs_json(tcp->access_log)}};
    return out;
  }
  const auto& http = std::get<model::HttpChain>(chain.network);
  out["http"] = {{"routes", http.inline_routes ? http.inline_routes->name : http.routes},
                 {"maxStreams", http.max_streams},
                 {"maxHeadBytes", http.max_head_bytes},
                 {"idleTimeoutMs", ms(http.idle_timeout)},
                 {"traceSharePerMillion", http.trace_share},
                 {"accessLog", logs_json(http.access_log)}};
  return out;
}

json listener_json(const model::Listener& listener) {
  json out{{"name", listener.name},
           {"address", listener.address.to_string()},
           {"maxConnections", listener.max_connections},
           {"chains", json::array()}};
  if (listener.kind == model::Listener::Kind::kUdp) out["udpCluster"] = listener.udp_cluster;
  if (listener.kind == model::Listener::Kind::kCaptured) out["captured"] = true;
  for (const auto& chain : listener.chains) out["chains"].push_back(chain_json(*chain));
  if (listener.default_chain) out["defaultChain"] = chain_json(*listener.default_chain);
  return out;
}

json cluster_json(const model::Cluster& cluster) {
  json out{{"name", cluster.name},
           {"type", model::to_string(cluster.type)},
           {"policy", model::to_string(cluster.lb.policy)},
           {"tls", cluster.tls.get() != nullptr},
           {"http2", cluster.protocol == model::UpstreamProtocol::kHttp2},
           {"connectTimeoutMs", ms(cluster.connect_timeout)},
           {"healthChecks", cluster.health_checks.size()},
           {"outlierDetection", cluster.outlier.get() != nullptr},
           {"endpoints", json::array()}};
  if (!cluster.service.name.empty())
    out["service"] = cluster.service.ns + "/" + cluster.service.name;
  if (!cluster.dns.host.empty()) out["dns"] = cluster.dns.host;
  for (const auto& endpoint : cluster.endpoints)
    out["endpoints"].push_back({{"address", endpoint.addr.to_string()},
                                {"weight", endpoint.weight},
                                {"priority", endpoint.priority},
                                {"node", endpoint.node}});
  return out;
}

}  // namespace

json config_dump(const proxy::L7Proxy& l7) {
  json out{{"listeners", json::array()}, {"routes", json::array()}, {"clusters", json::array()}};
  const auto& config = l7.config();
  if (config == nullptr) return out;
  for (const auto& [name, listener] : config->listeners)
    out["listeners"].push_back(listener_json(*listener));
  for (const auto& [name, routes] : config->routes) {
    json hosts = json::array();
    for (const auto& host : routes->hosts) {
      json list = json::array();
      for (const auto& route : host->routes) list.push_back(route_json(route));
      hosts.push_back({{"name", host->name}, {"domains", host->domains}, {"routes", list}});
    }
    out["routes"].push_back({{"name", name}, {"hosts", hosts}});
  }
  for (const auto& [name, cluster] : config->clusters)
    out["clusters"].push_back(cluster_json(*cluster));
  const auto& told = config->telemetry;
  out["telemetry"] = {{"metrics", told.metrics},
                      {"accessLog", logs_json(told.access_log)},
                      {"tracing",
                       {{"url", told.tracing.url},
                        {"serviceName", told.tracing.service_name},
                        {"samplePerMillion", told.tracing.share}}}};
  return out;
}

}  // namespace edgemesh::cmd
