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
  const Head* trailers = nullptr;  // of the answer
  std::chrono::system_clock::time_point start{};
  int64_t duration_us = -1;  // -1: not known yet
  int64_t answer_us = -1;    // until the answer began; -1: it did not
  int status = 0;
  int grpc_status = -1;  // -1: none
  uint64_t bytes_received = 0, bytes_sent = 0;
  uint32_t attempts = 0;
  const SockAddr* upstream = nullptr;
  const SockAddr* upstream_local = nullptr;
  std::string_view upstream_path;  // p2p::PathKind in words
  std::string_view upstream_cluster, route_name, response_flags, details, failure, hostname;
  std::string_view connection_details;  // why a connection was ended
  std::string_view trace_id;            // hexadecimal
};

}  // namespace edgemesh::proxy
