// IP addresses, socket addresses and CIDR blocks as small values. IPv4 is kept as IPv4 (not mapped);
// a v4-mapped IPv6 address that comes from the kernel is folded to IPv4.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace edgemesh {

class IpAddr {
 public:
  IpAddr() = default;  // 0.0.0.0
  static Result<IpAddr> parse(std::string_view text);
  static IpAddr v4(uint32_t host_order);
  static IpAddr v4(const void* four_bytes);
  static IpAddr v6(const void* sixteen_bytes);
  static IpAddr any(bool v6) { return v6 ? IpAddr::v6(std::array<uint8_t, 16>{}.data()) : IpAddr(); }
  static IpAddr loopback(bool v6 = false);

  bool is_v6() const { return v6_; }
  bool is_unspecified() const;
  bool is_loopback() const;
  bool is_link_local() const;
  const uint8_t* bytes() const { return bytes_.data(); }  // 4 or 16, network order
  size_t size() const { return v6_ ? 16 : 4; }
  uint32_t v4_host_order() const;
  std::string to_string() const;

  friend bool operator==(const IpAddr&, const IpAddr&) = default;
  friend auto operator<=>(const IpAddr&, const IpAddr&) = default;

 private:
  bool v6_ = false;
  std::array<uint8_t, 16> bytes_{};
};

struct SockAddr {
  IpAddr ip;
  uint16_t port = 0;

  // "1.2.3.4:80", "[::1]:80".
  static Result<SockAddr> parse(std::string_view text);
  static Result<SockAddr> from_sockaddr(const sockaddr* sa, socklen_t len);
  socklen_t to_sockaddr(sockaddr_storage* out) const;
  int family() const { return ip.is_v6() ? AF_INET6 : AF_INET; }
  std::string to_string() const;

  friend bool operator==(const SockAddr&, const SockAddr&) = default;
  friend auto operator<=>(const SockAddr&, const SockAddr&) = default;
};

struct Cidr {
  IpAddr base;
  int bits = 0;
  static Result<Cidr> parse(std::string_view text);  // "10.96.0.0/12"; host bits must be zero
  bool contains(const IpAddr& ip) const;
  std::string to_string() const;
  friend bool operator==(const Cidr&, const Cidr&) = default;
};

// A block of service addresses must not be wider: all of it is captured on every node.
inline constexpr int kMinServiceCidrBits = 8;

// Labels of letters, digits and inner hyphens (RFC 1123 2.1), at most 200 bytes, so that names in the
// domain still fit into a DNS message. No dot at the end.
bool is_domain_name(std::string_view text);

}  // namespace edgemesh

template <>
struct std::hash<edgemesh::IpAddr> {
  size_t operator()(const edgemesh::IpAddr& a) const noexcept {
    return std::hash<std::string_view>()(
        {reinterpret_cast<const char*>(a.bytes()), a.size()});  // NOLINT
  }
};
template <>
struct std::hash<edgemesh::SockAddr> {
  size_t operator()(const edgemesh::SockAddr& a) const noexcept {
    return std::hash<edgemesh::IpAddr>()(a.ip) * 1099511628211ULL + a.port;
  }
};
