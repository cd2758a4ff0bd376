// The addresses of this machine, for the server certificate and the listeners.
#pragma once

#include <string>
#include <vector>

#include "core/base/net_addr.h"

namespace edgemesh::cmd {

// Of all interfaces that are up, without loopback and link-local ones.
std::vector<std::string> interface_addresses();
std::string host_name();
// "any" in each address family that this machine has.
std::vector<SockAddr> listen_everywhere(uint16_t port);

}  // namespace edgemesh::cmd
