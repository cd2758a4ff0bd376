// IcmpReplies: "port unreachable" (RFC 792, RFC 4443 3.1) to clients whose captured datagrams nobody
// took, from the address that they wrote to: their sockets report ECONNREFUSED at once instead of
// waiting in vain. At most kPerSecond of them leave, as a router's kernel limits its own. Needs
// CAP_NET_RAW and CAP_NET_ADMIN. Threads: the worker's loop.
#pragma once

#include <string>

#include "core/base/clock.h"
#include "proxy/udp/raw_replies.h"

namespace edgemesh::proxy {

class IcmpReplies {
 public:
  static constexpr double kPerSecond = 1000, kBurst = 50;

  // Both addresses of one family. False: too many lately, or it could not be sent.
  bool port_unreachable(const SockAddr& client, const SockAddr& destination, TimePoint now);
  // Takes one of those that may leave.
  bool allow(TimePoint now);

 private:
  io::Fd fds_[2];
  double left_ = kBurst;
  TimePoint refilled_{};
};

// The message: type, code, and the beginning of the datagram that `client` sent to `destination`. The
// checksum of IPv6 is left to the kernel.
std::string icmp_port_unreachable(const SockAddr& client, const SockAddr& destination);

}  // namespace edgemesh::proxy
