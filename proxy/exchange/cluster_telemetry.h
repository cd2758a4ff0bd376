// How Istio's labels follow from clusters, endpoints and listeners. Threads: the worker's loop, but
// for service_of_cluster().
#pragma once

#include "proxy/exchange/runtime.h"
#include "proxy/telemetry/telemetry.h"
#include "proxy/upstream/host.h"
#include "proxy/upstream/load_balancer.h"

namespace edgemesh::proxy {

inline bool is_inbound(const HttpRuntime& runtime) {
  return runtime.direction == model::Listener::Direction::kInbound;
}
inline StatsReporter reporter_of(model::Listener::Direction direction) {
  return direction == model::Listener::Direction::kInbound ? StatsReporter::kDestination
                                                           : StatsReporter::kSource;
}
inline StatsReporter reporter_of(const HttpRuntime& runtime) {
  return reporter_of(runtime.direction);
}
// Only the side that the request comes to knows how it came.
inline StatsSecurity security_of(model::Listener::Direction direction,
                                 const tls::PeerIdentity* identity) {
  if (direction != model::Listener::Direction::kInbound) return StatsSecurity::kUnknown;
  return identity != nullptr ? StatsSecurity::kMutualTls : StatsSecurity::kNone;
}
inline StatsSecurity security_of(const HttpRuntime& runtime, const tls::PeerIdentity* identity) {
  return security_of(runtime.direction, identity);
}

// The service that a cluster stands for: what it names; else what its name says, as Istio builds them
// ("outbound|80|v1|web.shop.svc.cluster.local", "inbound|8080||"); else its name.
StatsService service_of_cluster(const model::Cluster& cluster);

// One worker's part of a cluster.
struct ClusterTelemetry {
  TrafficScopePtr scope;
  LabelSetId any_host = kUnknownPeer;  // labels without an endpoint
};
// Made when first asked for (takes locks). Metrics must be on.
ClusterTelemetry& telemetry_of(WorkerTelemetry& telemetry, ClusterState& cluster);
// The labels of an endpoint.
LabelSetId destination_of(WorkerTelemetry& telemetry, Host& host);
// Made when first asked for. Metrics must be on.
TrafficScope& route_scope(WorkerTelemetry& telemetry, const RouteEntry& entry,
                          const model::RouteConfig& config);

}  // namespace edgemesh::proxy
