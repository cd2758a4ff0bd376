// Facts: what is known about a request beside its head. Filled by the exchange, borrowed by all who
// look at it; what it points to must live as long as the call.
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

#include "core/base/net_addr.h"
#include "core/tls/context.h"
#include "proxy/http/head.h"
#include "proxy/model/cluster.h"

namespace edgemesh::proxy {

class JwtClaims;

struct Facts {
  // The connection.
  SockAddr peer;                                // its other end
  SockAddr local;                               // where it was sent to
  IpAddr client;                                // the client behind trusted proxies; else peer.ip
  std::string_view server_name;                 // SNI
  const tls::PeerIdentity* identity = nullptr;  // verified; null: none
  const model::Labels* source_labels = nullptr;
  bool tls = false;
  // The request.
  const JwtClaims* claims = nullptr;  // of the tokens that were verified; null: none
  uint64_t random = 0;                // one draw for each request
};

// For format strings; see format.h.
struct LogFacts {
  const Facts* facts = nullptr;
  const Head* request = nullptr;
  const Head* response = nullptr;
  std::chrono::system_clock::time_point start{};
  int64_t duration_us = -1;  // -1: not known yet
  int status = 0;
  uint64_t bytes_received = 0, bytes_sent = 0;
  uint32_t attempts = 0;
  const SockAddr* upstream = nullptr;
  const SockAddr* upstream_local = nullptr;
  std::string_view upstream_cluster, route_name, response_flags, details, failure, hostname;
};

}  // namespace edgemesh::proxy
