// RemoteDialer: the way to other nodes for a worker that has no tunnels of its own: they belong to
// another worker's loop, which carries the streams (core/io/cross_stream.h).
#pragma once

#include <memory>
#include <string>

#include "core/io/cross_stream.h"
#include "core/io/loop.h"
#include "p2p/mesh.h"

namespace edgemesh::proxy {

// The dialer of the loop that has the tunnels, and what it carries for others; touched on that
// loop.
struct DialerPlace {
  explicit DialerPlace(io::Loop& loop) : streams(std::make_shared<io::CrossStreams>(loop)) {}
  p2p::Dialer* dialer = nullptr;
  const std::shared_ptr<io::CrossStreams> streams;
};

class RemoteDialer final : public p2p::Dialer {
 public:
  // Used on `near`.
  RemoteDialer(io::Loop& near, std::shared_ptr<const DialerPlace> place)
      : near_(near), place_(std::move(place)) {}

  Result<std::unique_ptr<io::Stream>> open(const std::string& node,
                                           const SockAddr& target) override;
  // Known on the other loop only.
  p2p::PathKind path_kind(const std::string&) const override { return p2p::PathKind::kNone; }

 private:
  io::Loop& near_;
  std::shared_ptr<const DialerPlace> place_;
};

}  // namespace edgemesh::proxy
