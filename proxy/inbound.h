// Inbound: the far end of the tunnels. A CONNECT of a peer is passed to an endpoint of this node
// and to nothing else; then bytes are pumped between the stream and the endpoint's socket.
//   403: the target is no endpoint of a service this node knows, or it is on another node
//   503: not ready, too many connections, or the endpoint cannot be reached
// Threads: the loop of the worker that owns the tunnels.
#pragma once

#include <memory>

#include "p2p/mesh.h"
#include "proxy/connection.h"
#include "proxy/udp/udp_inbound.h"

namespace edgemesh::proxy {

class Inbound final : public p2p::Acceptor {
 public:
  // `datagrams` takes CONNECT-UDP; null: that is refused.
  explicit Inbound(WorkerContext& worker, UdpInbound* datagrams = nullptr)
      : worker_(worker), datagrams_(datagrams) {}
  void on_connect(std::unique_ptr<p2p::IncomingConnect> incoming) override;

 private:
  WorkerContext& worker_;
  UdpInbound* datagrams_;
};

}  // namespace edgemesh::proxy
