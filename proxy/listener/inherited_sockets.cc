#include "proxy/listener/inherited_sockets.h"

namespace edgemesh::proxy {

std::string InheritedSockets::key(bool udp, const SockAddr& configured,
                                  const std::string& listener) {
  std::string out = fmt::format("{} {}", udp ? "udp" : "tcp", configured.to_string());
  if (configured.port == 0) out += " " + listener;
  return out;
}

std::vector<io::Fd> InheritedSockets::take(const std::string& key) {
  const auto it = sockets_.find(key);
  if (it == sockets_.end()) return {};
  std::vector<io::Fd> out = std::move(it->second);
  sockets_.erase(it);
  return out;
}

}  // namespace edgemesh::proxy
