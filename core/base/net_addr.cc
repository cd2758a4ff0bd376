#include "core/base/net_addr.h"

#include <algorithm>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <charconv>
#include <cstring>

namespace edgemesh {

Result<IpAddr> IpAddr::parse(std::string_view text) {
  std::string copy(text);
  uint8_t buf[16];
  if (inet_pton(AF_INET, copy.c_str(), buf) == 1) return v4(static_cast<const void*>(buf));
  if (inet_pton(AF_INET6, copy.c_str(), buf) == 1) return v6(buf);
  return fail(ErrorCode::kInvalidArgument, "'{}' is not an IP address", text);
}

IpAddr IpAddr::v4(uint32_t host_order) {
  uint32_t net = htonl(host_order);
  return v4(static_cast<const void*>(&net));
}

IpAddr IpAddr::v4(const void* four_bytes) {
  IpAddr a;
  std::memcpy(a.bytes_.data(), four_bytes, 4);
  return a;
}

IpAddr IpAddr::v6(const void* sixteen_bytes) {
  static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (std::memcmp(sixteen_bytes, kMapped, 12) == 0)
    return v4(static_cast<const void*>(static_cast<const uint8_t*>(sixteen_bytes) + 12));
  IpAddr a;
  a.v6_ = true;
  std::memcpy(a.bytes_.data(), sixteen_bytes, 16);
  return a;
}

IpAddr IpAddr::loopback(bool v6) {
  if (!v6) return v4(INADDR_LOOPBACK);
  return IpAddr::v6(&in6addr_loopback);
}

bool IpAddr::is_unspecified() const { return bytes_ == std::array<uint8_t, 16>{}; }

bool IpAddr::is_loopback() const { return v6_ ? *this == loopback(true) : bytes_[0] == 127; }

bool IpAddr::is_link_local() const {
  return v6_ ? bytes_[0] == 0xfe && (bytes_[1] & 0xc0) == 0x80 : bytes_[0] == 169 && bytes_[1] == 254;
}

uint32_t IpAddr::v4_host_order() const {
  uint32_t net;
  std::memcpy(&net, bytes_.data(), 4);
  return ntohl(net);
}

std::string IpAddr::to_string() const {
  char buf[INET6_ADDRSTRLEN];
  inet_ntop(v6_ ? AF_INET6 : AF_INET, bytes_.data(), buf, sizeof buf);
  return buf;
}

Result<SockAddr> SockAddr::parse(std::string_view text) {
  auto colon = text.rfind(':');
  if (colon == std::string_view::npos)
    return fail(ErrorCode::kInvalidArgument, "'{}' is not an address (want IP:PORT)", text);
  std::string_view host = text.substr(0, colon);
  std::string_view port_text = text.substr(colon + 1);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return fail(ErrorCode::kInvalidArgument, "'{}': an IPv6 address needs brackets ([::1]:80)", text);
  }
  EM_TRY(IpAddr ip, IpAddr::parse(host));
  uint16_t port = 0;
  auto [end, ec] = std::from_chars(port_text.data(), port_text.data() + port_text.size(), port);
  if (ec != std::errc() || end != port_text.data() + port_text.size())
    return fail(ErrorCode::kInvalidArgument, "'{}': the port must be 0 to 65535", text);
  return SockAddr{ip, port};
}

Result<SockAddr> SockAddr::from_sockaddr(const sockaddr* sa, socklen_t len) {
  if (sa->sa_family == AF_INET && len >= sizeof(sockaddr_in)) {
    sockaddr_in in;
    std::memcpy(&in, sa, sizeof in);
    return SockAddr{IpAddr::v4(static_cast<const void*>(&in.sin_addr)), ntohs(in.sin_port)};
  }
  if (sa->sa_family == AF_INET6 && len >= sizeof(sockaddr_in6)) {
    sockaddr_in6 in6;
    std::memcpy(&in6, sa, sizeof in6);
    return SockAddr{IpAddr::v6(&in6.sin6_addr), ntohs(in6.sin6_port)};
  }
  return fail(ErrorCode::kInvalidArgument, "address family {} is not IP", sa->sa_family);
}

socklen_t SockAddr::to_sockaddr(sockaddr_storage* out) const {
  std::memset(out, 0, sizeof *out);
  if (ip.is_v6()) {
    sockaddr_in6 in6{};
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(port);
    std::memcpy(&in6.sin6_addr, ip.bytes(), 16);
    std::memcpy(out, &in6, sizeof in6);
    return sizeof in6;
  }
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_port = htons(port);
  std::memcpy(&in.sin_addr, ip.bytes(), 4);
  std::memcpy(out, &in, sizeof in);
  return sizeof in;
}

std::string SockAddr::to_string() const {
  return ip.is_v6() ? fmt::format("[{}]:{}", ip.to_string(), port)
                    : fmt::format("{}:{}", ip.to_string(), port);
}

Result<Cidr> Cidr::parse(std::string_view text) {
  auto slash = text.find('/');
  if (slash == std::string_view::npos)
    return fail(ErrorCode::kInvalidArgument, "'{}' is not a CIDR block (want 10.96.0.0/12)", text);
  EM_TRY(IpAddr ip, IpAddr::parse(text.substr(0, slash)));
  auto bits_text = text.substr(slash + 1);
  int bits = -1;
  auto [end, ec] = std::from_chars(bits_text.data(), bits_text.data() + bits_text.size(), bits);
  if (ec != std::errc() || end != bits_text.data() + bits_text.size() || bits < 0 ||
      bits > static_cast<int>(ip.size()) * 8)
    return fail(ErrorCode::kInvalidArgument, "'{}': the prefix length must be 0 to {}", text,
                ip.size() * 8);
  for (int i = bits; i < static_cast<int>(ip.size()) * 8; ++i)
    if (ip.bytes()[i / 8] & (0x80 >> (i % 8)))
      return fail(ErrorCode::kInvalidArgument, "'{}' has bits set after its prefix", text);
  return Cidr{ip, bits};
}

bool Cidr::contains(const IpAddr& ip) const {
  if (ip.is_v6() != base.is_v6()) return false;
  int whole = bits / 8;
  if (std::memcmp(ip.bytes(), base.bytes(), static_cast<size_t>(whole)) != 0) return false;
  int rest = bits % 8;
  if (rest == 0) return true;
  auto mask = static_cast<uint8_t>(0xff << (8 - rest));
  return ((ip.bytes()[whole] ^ base.bytes()[whole]) & mask) == 0;
}

std::string Cidr::to_string() const { return fmt::format("{}/{}", base.to_string(), bits); }

bool is_domain_name(std::string_view text) {
  if (text.empty() || text.size() > 200) return false;
  while (true) {
    const size_t end = std::min(text.find('.'), text.size());
    const std::string_view label = text.substr(0, end);
    if (label.empty() || label.size() > 63 || label.front() == '-' || label.back() == '-') return false;
    for (char c : label) {
      const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
      if (!letter && !(c >= '0' && c <= '9') && c != '-') return false;
    }
    if (end == text.size()) return true;
    text.remove_prefix(end + 1);
  }
}

}  // namespace edgemesh
