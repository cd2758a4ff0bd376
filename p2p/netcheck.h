// Netcheck: what kind of network this machine is in, seen from the relay: its public address, how its
// NAT maps, whether UDP gets through at all, whether the relay can be reached by UDP and by TCP.
// Threads: the loop given.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/net_addr.h"
#include "core/io/loop.h"
#include "p2p/mesh.h"

namespace edgemesh::p2p {

struct NetcheckOptions {
  TurnConfig turn;                // host may be a name
  std::vector<std::string> stun;  // "host:port", more servers to compare the mapping with
  Duration timeout = std::chrono::seconds(2);
  uint32_t mark = 0;
};

struct NetcheckReport {
  std::vector<IpAddr> local;         // addresses that peers are told
  std::vector<SockAddr> reflexive;   // one a server that answered
  bool udp = false;                  // any server answered by UDP
  bool relay_udp = false, relay_tcp = false;
  int64_t rtt_us = 0;                // to the relay, by UDP; 0: no answer
  // "none", "endpoint independent", "symmetric", "unknown" (one server only), "udp blocked",
  // "no answer" (neither UDP nor TCP)
  std::string nat_kind;
  std::string advice;                // what it means for tunnels, in words
};

class Netcheck {
 public:
  using Done = std::function<void(NetcheckReport)>;
  // `done` once, not from within start(). Destroying the object cancels.
  static std::unique_ptr<Netcheck> start(io::Loop& loop, NetcheckOptions options, Done done);
  virtual ~Netcheck() = default;
};

}  // namespace edgemesh::p2p
