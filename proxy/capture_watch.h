// CaptureWatch: tells when something that capture depends on may have changed: packet filter rules
// (nftables, which today's iptables writes), routing rules and tables, addresses and interfaces.
// Threads: the loop's thread.
#pragma once

#include <functional>
#include <memory>

#include "core/io/fd.h"
#include "core/io/loop.h"

namespace edgemesh::proxy {

class CaptureWatch {
 public:
  // `on_change` is called for every batch of events.
  static std::unique_ptr<CaptureWatch> start(io::Loop& loop, std::function<void()> on_change);
  ~CaptureWatch();

  // False: no events of the packet filter can be had (no nftables in the kernel, missing rights);
  // the caller has to look by itself.
  bool sees_rules() const;

 private:
  class Socket;
  CaptureWatch() = default;
  std::unique_ptr<Socket> rules_;
  std::unique_ptr<Socket> routes_;
};

}  // namespace edgemesh::proxy
