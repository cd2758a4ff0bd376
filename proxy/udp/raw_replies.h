// RawReplies: answers to clients leave from the address and port that the client wrote to, which
// are no address of this machine. They are sent through one raw socket a family, with a UDP header
// of our own (RFC 768, RFC 8200 8.1). A bound socket for each service would be the usual way, but
// it takes the port: a program of this machine that is bound to all addresses keeps us from binding
// a service address with its port, and could not start itself while we have one. Needs CAP_NET_RAW,
// and CAP_NET_ADMIN for the addresses. Threads: the worker's loop.
#pragma once

#include <array>

#include "proxy/udp/datagram_batch.h"

namespace edgemesh::proxy {

class RawReplies {
 public:
  // Both addresses of one family. Errors: the socket cannot be had. Trains are sent one by one.
  Result<SendOutcome> send(const SockAddr& from, const SockAddr& to,
                           std::span<const Datagram> items);

 private:
  Result<int> socket_for(bool v6);
  io::Fd fds_[2];
};

// A raw socket that only sends, also from addresses that are not this machine's.
Result<io::Fd> open_raw_socket(bool v6, int protocol);

// RFC 1071, as it is put into a header.
uint16_t internet_checksum(std::span<const uint8_t> bytes);

// The header of a UDP datagram, checksum included, as it is on the wire. `data` of at most 65,507
// bytes, 65,527 over IPv6.
std::array<uint8_t, 8> udp_header(const SockAddr& from, const SockAddr& to,
                                  std::span<const uint8_t> data);

}  // namespace edgemesh::proxy
