#include "p2p/connect_udp.h"

#include <charconv>

namespace edgemesh::p2p {

namespace {
constexpr std::string_view kPrefix = "/.well-known/masque/udp/";
constexpr size_t kMaxHost = 3 * 46;  // of an IPv6 address, all of it escaped
}  // namespace

std::string connect_udp_path(const SockAddr& target) {
  std::string out(kPrefix);
  for (char c : target.ip.to_string()) {
    if (c == ':')
      out += "%3A";
    else
      out += c;
  }
  return out + "/" + std::to_string(target.port) + "/";
}

std::optional<SockAddr> connect_udp_target(std::string_view path) {
  if (!path.starts_with(kPrefix)) return std::nullopt;
  path.remove_prefix(kPrefix.size());
  const size_t slash = path.find('/');
  if (slash == std::string_view::npos || slash > kMaxHost) return std::nullopt;
  std::string host;
  for (size_t i = 0; i < slash; ++i) {
    char c = path[i];
    if (c == '%') {
      unsigned value = 0;
      auto [end, error] = std::from_chars(path.data() + i + 1, path.data() + std::min(i + 3, slash),
                                          value, 16);
      if (error != std::errc() || end != path.data() + i + 3) return std::nullopt;
      c = static_cast<char>(value);
      i += 2;
    }
    host += c;
  }
  path.remove_prefix(slash + 1);
  SockAddr target;
  auto [end, error] = std::from_chars(path.data(), path.data() + path.size(), target.port);
  if (error != std::errc() || end != path.data() + path.size() - 1 || *end != '/' ||
      target.port == 0)
    return std::nullopt;
  auto ip = IpAddr::parse(host);
  if (!ip) return std::nullopt;
  target.ip = *ip;
  return target;
}

}  // namespace edgemesh::p2p
