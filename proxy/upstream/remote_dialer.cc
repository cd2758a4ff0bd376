#include "proxy/upstream/remote_dialer.h"

namespace edgemesh::proxy {

std::unique_ptr<io::Stream> RemoteDialer::carry(const std::string& node, const SockAddr& target,
                                                Open how) {
  return io::CrossStreams::open(
      place_->streams, near_,
      [place = place_, node, target, how]() -> Result<std::unique_ptr<io::Stream>> {
        if (place->dialer == nullptr)
          return fail(ErrorCode::kUnavailable, "node {}: there is no tunnel here", node);
        return (place->dialer->*how)(node, target);
      });
}

Result<std::unique_ptr<io::Stream>> RemoteDialer::open(const std::string& node,
                                                       const SockAddr& target) {
  return carry(node, target, &p2p::Dialer::open);
}

Result<std::unique_ptr<io::Stream>> RemoteDialer::open_udp(const std::string& node,
                                                           const SockAddr& target) {
  return carry(node, target, &p2p::Dialer::open_udp);
}

}  // namespace edgemesh::proxy
