// In which order the addresses of a peer are tried (in the spirit of RFC 6724 and RFC 8305): the one that
// worked last, then those of families that this machine has an address of, nearest first, the families in
// turn; the others last, for there may be a translator. Pure functions.
#pragma once

#include <vector>

#include "core/base/net_addr.h"

namespace edgemesh::p2p {

inline constexpr size_t kMaxDialAddresses = 16;  // more are left out

// `own`: this machine's addresses. `last`: port 0 when none has worked.
std::vector<SockAddr> dial_order(const std::vector<SockAddr>& peer, const std::vector<IpAddr>& own,
                                 const SockAddr& last);

}  // namespace edgemesh::p2p
