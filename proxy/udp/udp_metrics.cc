#include "proxy/udp/udp_metrics.h"

#include <string>

namespace edgemesh::proxy {

namespace {
obs::Labels with(int worker, obs::Labels more = {}) {
  more.emplace_back("worker", std::to_string(worker));
  return more;
}
}  // namespace

std::string_view to_string(FlowEnd end) {
  switch (end) {
    case FlowEnd::kIdle: return "idle";
    case FlowEnd::kEvicted: return "evicted";
    case FlowEnd::kNoService: return "no_service";
    case FlowEnd::kNoEndpoint: return "no_endpoint";
    case FlowEnd::kNoTunnel: return "no_tunnel";
    case FlowEnd::kFailed: return "failed";
    case FlowEnd::kShutdown: return "shutdown";
  }
  return "?";
}

std::string_view to_string(UdpDrop drop) {
  switch (drop) {
    case UdpDrop::kNoService: return "no_service";
    case UdpDrop::kNoEndpoint: return "no_endpoint";
    case UdpDrop::kTooMany: return "too_many_flows";
    case UdpDrop::kSend: return "send";
    case UdpDrop::kTunnel: return "tunnel";
    case UdpDrop::kFailed: return "failed";
  }
  return "?";
}

UdpMetrics::UdpMetrics(obs::Registry& registry, int worker)
    : opened(registry.counter("edgemesh_udp_flows_opened_total", "Flows of datagrams that began.",
                              with(worker))),
      active(registry.gauge("edgemesh_udp_flows_active", "Flows open now.", with(worker))),
      to_upstream(registry.counter("edgemesh_udp_datagrams_total", "Datagrams passed on.",
                                   with(worker, {{"direction", "to_upstream"}}))),
      to_client(registry.counter("edgemesh_udp_datagrams_total", "Datagrams passed on.",
                                 with(worker, {{"direction", "to_client"}}))),
      bytes_to_upstream(registry.counter("edgemesh_udp_bytes_total",
                                         "Bytes of datagrams passed on.",
                                         with(worker, {{"direction", "to_upstream"}}))),
      bytes_to_client(registry.counter("edgemesh_udp_bytes_total", "Bytes of datagrams passed on.",
                                       with(worker, {{"direction", "to_client"}}))),
      refused(registry.counter("edgemesh_udp_refused_total",
                               "Times that an endpoint's port was unreachable.", with(worker))),
      unreachable(registry.counter("edgemesh_udp_unreachable_sent_total",
                                   "ICMP messages to clients that nobody took their datagram.",
                                   with(worker))),
      inbound_opened(registry.counter("edgemesh_udp_inbound_opened_total",
                                      "Flows that came from other nodes.", with(worker))),
      inbound_refused(registry.counter("edgemesh_udp_inbound_refused_total",
                                       "Flows of other nodes to what is no endpoint here.",
                                       with(worker))) {
  for (size_t i = 0; i < kFlowEnds; ++i)
    ended[i] = &registry.counter(
        "edgemesh_udp_flows_ended_total", "Flows that ended, by reason.",
        with(worker, {{"reason", std::string(to_string(static_cast<FlowEnd>(i)))}}));
  for (size_t i = 0; i < kUdpDrops; ++i)
    dropped[i] = &registry.counter(
        "edgemesh_udp_dropped_total", "Datagrams that were not passed on, by reason.",
        with(worker, {{"reason", std::string(to_string(static_cast<UdpDrop>(i)))}}));
}

}  // namespace edgemesh::proxy
