// The machine's addresses: a list of those that peers could reach, and word of changes (rtnetlink).
// Threads: the loop given; local_addresses() any.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "core/base/net_addr.h"
#include "core/io/fd.h"
#include "core/io/loop.h"

namespace edgemesh::p2p {

// Addresses of interfaces that are up, without loopback, link-local ones and those of container
// bridges (they are the same on every node and lead nowhere). At most 16, IPv4 first.
std::vector<IpAddr> local_addresses();

class NetlinkWatch final : private io::FdWatch::Handler {
 public:
  // `on_change` once for changes that come together (50 ms).
  static Result<std::unique_ptr<NetlinkWatch>> start(io::Loop& loop, std::function<void()> on_change);
  ~NetlinkWatch() override;

 private:
  NetlinkWatch(io::Loop& loop, std::function<void()> on_change);
  void on_fd(bool readable, bool writable) override;

  struct Socket;
  std::function<void()> on_change_;
  std::unique_ptr<Socket> socket_;
  io::FdWatch watch_;
  io::Timer settle_;
};

}  // namespace edgemesh::p2p
