// Options of the L4 proxy, plain values with their defaults.
#pragma once

#include <string>
#include <vector>

#include "core/base/clock.h"
#include "core/base/net_addr.h"

namespace edgemesh::proxy {

class Telemetry;

struct L4Options {
  std::string node;  // name of this node: which endpoints are local
  std::string zone;  // of this node
  Duration connect_timeout = std::chrono::seconds(5);     // of one attempt
  int max_attempts = 3;                                   // endpoints tried for one connection
  Duration idle_timeout = std::chrono::hours(1);          // no byte in either direction; 0: none
  Duration half_close_timeout = std::chrono::minutes(5);  // one direction ended, the other silent
  size_t max_connections = 16'384;  // of one worker; less where the open files limit is lower
  size_t replay_bytes = 16 * 1024;  // client bytes kept until an endpoint answered
  uint32_t mark = 0x4d45;           // SO_MARK of connections to endpoints inside capture_cidrs
  std::vector<Cidr> capture_cidrs;
  // TCP_CONGESTION for connections inside this node, in place of BBR where that is the system's:
  // its pacing costs throughput on loopback and veth. Empty: never set.
  std::string local_congestion = "cubic";
  bool access_log = true;
};

struct ListenerOptions {
  enum class Kind {
    kTransparent,  // TPROXY: the socket's own address is the original destination
    kRedirect,     // REDIRECT: SO_ORIGINAL_DST
    kStatic,       // goes to `endpoints`, whatever the destination
    kTransparentUdp,  // TPROXY of datagrams
    kStaticUdp,       // datagrams to `endpoints`, whatever the destination
  };
  Kind kind = Kind::kStatic;
  SockAddr listen;
  std::string name;                 // in the access log, for kStatic and kStaticUdp
  std::vector<SockAddr> endpoints;  // for the same
  bool optional = false;            // failing to listen is logged, and no error
};

struct ProxyOptions {
  int workers = 1;
  L4Options l4;
  std::vector<ListenerOptions> listeners;
  Duration drain_timeout = std::chrono::seconds(10);
  Duration udp_idle_timeout = std::chrono::minutes(1);  // of a flow of datagrams
  size_t udp_max_flows = 10'000;  // of one worker; less where the open files limit is lower
  Telemetry* telemetry = nullptr;  // has as many workers; outlives the proxy. Null: nothing is told
};

// The listeners for capture: TPROXY on loopback (it needs no reachable address), for connections and
// for datagrams; REDIRECT on all addresses. IPv6 ones are optional.
std::vector<ListenerOptions> capture_listeners(uint16_t tproxy_port = 15001,
                                               uint16_t redirect_port = 15002);

}  // namespace edgemesh::proxy
