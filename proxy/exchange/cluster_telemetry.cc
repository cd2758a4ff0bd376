#include "proxy/exchange/cluster_telemetry.h"

#include <fmt/core.h>

namespace edgemesh::proxy {

namespace {

std::string_view label(const model::Labels& labels, std::string_view key) {
  for (const auto& one : labels)
    if (one.key == key) return one.value;
  return {};
}

// The last part of "outbound|80|v1|web.shop.svc.cluster.local"; all of it, where there are no parts.
std::string_view host_in(std::string_view name) {
  const size_t bar = name.rfind('|');
  return bar == std::string_view::npos ? name : name.substr(bar + 1);
}

StatsPeer peer_of_endpoint(const model::Endpoint& endpoint) {
  StatsPeer peer;
  const model::Labels& labels = endpoint.labels;
  peer.node = endpoint.node;
  peer.app = label(labels, "app");
  peer.version = label(labels, "version");
  peer.workload = label(labels, "workload");
  peer.ns = label(labels, "namespace");
  peer.canonical_service = label(labels, "service.istio.io/canonical-name");
  if (peer.canonical_service.empty())
    peer.canonical_service = label(labels, "app.kubernetes.io/name");
  if (peer.canonical_service.empty()) peer.canonical_service = peer.app;
  peer.canonical_revision = label(labels, "service.istio.io/canonical-revision");
  if (peer.canonical_revision.empty()) peer.canonical_revision = peer.version;
  return peer;
}

}  // namespace

StatsService service_of_cluster(const model::Cluster& cluster) {
  StatsService out;
  if (!cluster.service.name.empty()) {
    out.name = cluster.service.name;
    out.ns = cluster.service.ns;
    out.host = fmt::format("{}.{}.svc.cluster.local", out.name, out.ns);
    return out;
  }
  out.host = host_in(cluster.name);
  if (out.host.empty()) out.host = cluster.name;
  const size_t svc = out.host.find(".svc.");
  const size_t dot = out.host.find('.');
  out.name = svc != std::string::npos ? out.host.substr(0, dot) : out.host;
  if (svc != std::string::npos && dot < svc) out.ns = out.host.substr(dot + 1, svc - dot - 1);
  return out;
}

ClusterTelemetry& telemetry_of(WorkerTelemetry& telemetry, ClusterState& cluster) {
  if (cluster.note() == nullptr) {
    auto made = std::make_shared<ClusterTelemetry>();
    made->scope = telemetry.all().traffic().scope(TrafficScope::Kind::kCluster, cluster.name());
    made->any_host =
        telemetry.all().requests()->intern_destination({}, service_of_cluster(cluster.config()));
    cluster.set_note(std::move(made));
  }
  return *static_cast<ClusterTelemetry*>(cluster.note().get());
}

LabelSetId destination_of(WorkerTelemetry& telemetry, Host& host) {
  if (host.label() == kUnknownPeer)
    host.set_label(telemetry.all().requests()->intern_destination(
        peer_of_endpoint(host.endpoint()), service_of_cluster(host.cluster().config())));
  return host.label();
}

TrafficScope& route_scope(WorkerTelemetry& telemetry, const RouteEntry& entry,
                          const model::RouteConfig& config) {
  if (void* note = entry.note.get()) return *static_cast<TrafficScope*>(note);
  std::string name = config.name;
  const std::string& host = entry.host->spec().name;
  if (host != config.name && !host.empty()) name += (name.empty() ? "" : "/") + host;
  const auto number = static_cast<size_t>(&entry - entry.host->routes().data());
  name += "/" + (entry.route->name.empty() ? fmt::format("#{}", number) : entry.route->name);
  entry.note.set(telemetry.all().traffic().scope(TrafficScope::Kind::kRoute, name));
  return *static_cast<TrafficScope*>(entry.note.get());
}

}  // namespace edgemesh::proxy
