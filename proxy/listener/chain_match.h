// Which filter chain of a listener takes a connection: model::ChainMatch says how. Threads: any.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "proxy/model/listener.h"

namespace edgemesh::proxy {

// What is known of a connection when its chain is chosen.
struct ChainFacts {
  SockAddr source;       // of the client: by the PROXY protocol, where that is spoken
  SockAddr direct;       // the connection's other end
  SockAddr destination;  // where it was sent to
  std::string_view server_name;
  bool tls = false;
  std::span<const std::string_view> protocols;  // ALPN, or what the first bytes look like
};

// Index of the chain; -1: none matches (then the default chain counts).
int match_chain(std::span<const model::FilterChainPtr> chains, const ChainFacts& facts);

// Whether a chain cannot be chosen before the first bytes were looked at.
bool needs_tls_inspection(const model::Listener& listener);
bool needs_http_inspection(const model::Listener& listener);

}  // namespace edgemesh::proxy
