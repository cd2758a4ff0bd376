// Connector: makes the byte stream to an endpoint. The default one knows the ways there are; tests
// put their own in its place. Threads: the loop that it was made for.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/io/loop.h"
#include "core/io/stream.h"
#include "core/io/tcp.h"
#include "core/tls/tls_stream.h"
#include "p2p/mesh.h"
#include "proxy/upstream/host_set.h"

namespace edgemesh::proxy {

// For whom a connection is made: what a PROXY protocol header says.
struct ProxiedAddrs {
  SockAddr source, destination;
  friend bool operator==(const ProxiedAddrs&, const ProxiedAddrs&) = default;
};

// The header of the PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt, 2.1 and 2.2).
// Null: a connection for no client.
std::string proxy_header(model::ProxyProtocolOut version, const ProxiedAddrs* addrs);

struct Connecting {
  std::unique_ptr<io::Stream> stream;          // on_connected follows
  tls::TlsStream* tls = nullptr;               // the same stream, when it is TLS
  p2p::PathKind path = p2p::PathKind::kLocal;  // as expected; once connected the stream knows
};

class Connector {
 public:
  virtual ~Connector() = default;
  // `addrs` is null where the client is not known (health checks): PROXY headers then say LOCAL or
  // UNKNOWN.
  virtual Result<Connecting> connect(const model::Endpoint& to, const HostSet& set,
                                     const ProxiedAddrs* addrs) = 0;
};

struct ConnectorOptions {
  std::string node;   // this node: endpoints on others are reached by the dialer
  uint32_t mark = 0;  // SO_MARK of connections to endpoints inside `marked`
  std::vector<Cidr> marked;
  std::string local_congestion;  // TCP_CONGESTION; empty: the system's
};

// TCP to endpoints on this node and to those on none; a mesh stream to other nodes; then the PROXY
// header; then TLS.
class MeshConnector final : public Connector {
 public:
  MeshConnector(io::Loop& loop, ConnectorOptions options)
      : loop_(loop), options_(std::move(options)) {}
  // Null: there is no way to other nodes.
  void set_dialer(p2p::Dialer* dialer) { dialer_ = dialer; }
  Result<Connecting> connect(const model::Endpoint& to, const HostSet& set,
                             const ProxiedAddrs* addrs) override;

 private:
  Result<Connecting> open(const model::Endpoint& endpoint);
  io::Loop& loop_;
  ConnectorOptions options_;
  p2p::Dialer* dialer_ = nullptr;
};

// The TLS side of a cluster with `tls`. Costly: once a configuration, off the workers.
Result<std::shared_ptr<tls::Context>> client_context(const model::Cluster& cluster);

// After the handshake: whether the peer's certificate has one of the names that were asked for.
Result<> check_peer_names(const model::TlsOrigination& config, const tls::TlsStream& stream);

}  // namespace edgemesh::proxy
