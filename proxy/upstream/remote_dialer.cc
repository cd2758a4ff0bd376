#include "proxy/upstream/remote_dialer.h"

namespace edgemesh::proxy {

Result<std::unique_ptr<io::Stream>> RemoteDialer::open(const std::string& node,
                                                       const SockAddr& target) {
  return io::CrossStreams::open(
      place_->streams, near_,
      [place = place_, node, target]() -> Result<std::unique_ptr<io::Stream>> {
        if (place->dialer == nullptr)
          return fail(ErrorCode::kUnavailable, "node {}: there is no tunnel here", node);
        return place->dialer->open(node, target);
      });
}

}  // namespace edgemesh::proxy
