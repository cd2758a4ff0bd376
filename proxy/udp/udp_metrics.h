// Counters of the datagram side of one worker; one writer, the worker's thread.
#pragma once

#include <array>
#include <string_view>

#include "core/obs/metrics.h"

namespace edgemesh::proxy {

// Why a flow ended.
enum class FlowEnd : uint8_t {
  kIdle,        // no datagram for the idle timeout
  kEvicted,     // the least recently used one made room for a new one
  kNoService,   // the service was removed
  kNoEndpoint,  // no endpoint is left
  kNoTunnel,    // the endpoint is on another node, and there is no way there
  kFailed,      // no socket or tunnel to an endpoint could be had
  kShutdown,    // the listener ended
};
inline constexpr size_t kFlowEnds = static_cast<size_t>(FlowEnd::kShutdown) + 1;
std::string_view to_string(FlowEnd end);

// Why a datagram was not passed on.
enum class UdpDrop : uint8_t {
  kNoService,   // the destination is no service
  kNoEndpoint,  // the service has no endpoint
  kTooMany,     // the limit of flows, and none was idle
  kSend,        // no room in a socket's buffer, too large for the route, no route
  kTunnel,      // no tunnel, or it is congested
  kFailed,      // no socket
};
inline constexpr size_t kUdpDrops = static_cast<size_t>(UdpDrop::kFailed) + 1;
std::string_view to_string(UdpDrop drop);

struct UdpMetrics {
  UdpMetrics(obs::Registry& registry, int worker);

  obs::Counter& opened;
  obs::Gauge& active;
  obs::Counter& to_upstream;  // datagrams
  obs::Counter& to_client;
  obs::Counter& bytes_to_upstream;
  obs::Counter& bytes_to_client;
  obs::Counter& refused;         // answers "port unreachable" of endpoints
  obs::Counter& unreachable;     // clients that were told so
  obs::Counter& inbound_opened;  // flows that came from other nodes
  obs::Counter& inbound_refused;
  std::array<obs::Counter*, kFlowEnds> ended;
  std::array<obs::Counter*, kUdpDrops> dropped;

  void count_end(FlowEnd end) { ended[static_cast<size_t>(end)]->add(); }
  void count_drop(UdpDrop drop, size_t n = 1) { dropped[static_cast<size_t>(drop)]->add(n); }
};

}  // namespace edgemesh::proxy
