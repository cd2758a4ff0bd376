// CONNECT-UDP (RFC 9298): the path of a request says where its datagrams go. The host is an address:
// agents proxy to endpoints, not to names. What the stream carries is proxy/udp's (capsules).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/base/net_addr.h"

namespace edgemesh::p2p {

inline constexpr std::string_view kConnectUdp = "connect-udp";  // :protocol

// "/.well-known/masque/udp/192.0.2.6/443/", the default template; the colons of IPv6 are escaped.
std::string connect_udp_path(const SockAddr& target);
// Null: another path, a name, a bad address or port.
std::optional<SockAddr> connect_udp_target(std::string_view path);

}  // namespace edgemesh::p2p
