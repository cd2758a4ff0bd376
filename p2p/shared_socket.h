// Takes the datagrams of a tunnel out of libnice without taking its socket away: a second socket on the
// same address and port (so that NAT mappings hold for both), and a filter in the kernel that looks at
// the first byte: 0 to 3 is STUN and stays with libnice, the rest comes to the second socket
// (RFC 9443). Costs nothing a packet and allows UDP_SEGMENT and UDP_GRO.
#pragma once

#include "core/base/result.h"
#include "core/io/fd.h"

namespace edgemesh::p2p {

// `fd` is libnice's bound socket; it stays open and in use. Call it once a socket: where the second
// socket still exists the filter would be ambiguous.
Result<io::Fd> split_socket(int fd);

}  // namespace edgemesh::p2p
