#include "cmd/edgemesh-cloud/addresses.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <unistd.h>

#include "core/io/fd.h"

namespace edgemesh::cmd {

std::vector<std::string> interface_addresses() {
  std::vector<std::string> out;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return out;
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || (one->ifa_flags & IFF_UP) == 0) continue;
    const bool v6 = one->ifa_addr->sa_family == AF_INET6;
    if (!v6 && one->ifa_addr->sa_family != AF_INET) continue;
    const auto addr =
        SockAddr::from_sockaddr(one->ifa_addr, v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in));
    if (!addr || addr->ip.is_loopback() || addr->ip.is_link_local()) continue;
    out.push_back(addr->ip.to_string());
  }
  ::freeifaddrs(list);
  return out;
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "";
}

std::vector<SockAddr> listen_everywhere(uint16_t port) {
  std::vector<SockAddr> out{{IpAddr::any(false), port}};
  const SockAddr v6{IpAddr::any(true), 0};
  sockaddr_storage storage{};
  const socklen_t length = v6.to_sockaddr(&storage);
  const io::Fd probe(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (probe.valid() &&
      ::bind(probe.get(), reinterpret_cast<const sockaddr*>(&storage), length) == 0) {  // NOLINT
    out.push_back({IpAddr::any(true), port});
  }
  return out;
}

}  // namespace edgemesh::cmd
