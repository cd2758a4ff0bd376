// UdpInbound: the far end of the tunnels for datagrams (CONNECT-UDP, RFC 9298). A request of a peer
// is taken for endpoints of UDP ports of services, on this node, and for nothing else; then
// datagrams go between the stream and a socket of its own. A flow ends with its stream, when the
// endpoint's port is unreachable, or when nothing came for the idle timeout.
//   403: the target is no such endpoint, or it is on another node
//   503: not ready, too many flows, no socket
// Threads: the loop of the worker that owns the tunnels.
#pragma once

#include <memory>

#include "p2p/mesh.h"
#include "proxy/udp/udp_context.h"

namespace edgemesh::proxy {

class UdpInbound {
 public:
  using SnapshotPtr = std::shared_ptr<const discovery::Snapshot>;
  // `snapshot`: of the worker, borrowed; it may change and be null.
  UdpInbound(UdpContext& context, const SnapshotPtr& snapshot);
  ~UdpInbound();
  void on_connect(std::unique_ptr<p2p::IncomingConnect> incoming);
  void abort_all();
  size_t flows() const { return count_; }

 private:
  class Flow;
  void expire();

  UdpContext& context_;
  const SnapshotPtr& snapshot_;
  std::unique_ptr<List<Flow>> flows_;  // the least recently used first
  size_t count_ = 0;
  io::Timer expiry_;
};

}  // namespace edgemesh::proxy
