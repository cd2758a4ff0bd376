#include "p2p/netlink_watch.h"

#include <ifaddrs.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <string_view>

namespace edgemesh::p2p {

namespace {

constexpr size_t kMaxAddresses = 16;
constexpr Duration kSettle = std::chrono::milliseconds(50);

bool is_container_interface(std::string_view name) {
  // Docker's own bridges; "br-lan" is the main interface of many a router.
  bool hex = std::all_of(name.begin() + std::min<ptrdiff_t>(3, std::ssize(name)), name.end(),
                         [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (name.starts_with("br-") && name.size() == 15 && hex) return true;
  static constexpr std::array<std::string_view, 8> kPrefixes = {
      "docker", "cni", "virbr", "lxc", "cali", "flannel", "kube-", "edgemesh"};
  return std::any_of(kPrefixes.begin(), kPrefixes.end(),
                     [name](std::string_view prefix) { return name.starts_with(prefix); });
}

}  // namespace

std::vector<IpAddr> local_addresses() {
  std::vector<IpAddr> out;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return out;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || (entry->ifa_flags & IFF_UP) == 0 ||
        (entry->ifa_flags & IFF_LOOPBACK) != 0 || is_container_interface(entry->ifa_name))
      continue;
    int family = entry->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    socklen_t len = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    auto addr = SockAddr::from_sockaddr(entry->ifa_addr, len);
    if (!addr || addr->ip.is_link_local() || addr->ip.is_loopback() || addr->ip.is_unspecified()) continue;
    if (std::find(out.begin(), out.end(), addr->ip) == out.end()) out.push_back(addr->ip);
  }
  freeifaddrs(list);
  std::stable_sort(out.begin(), out.end(),
                   [](const IpAddr& a, const IpAddr& b) { return !a.is_v6() && b.is_v6(); });
  // Many addresses of the one family must not push out all of the other.
  while (out.size() > kMaxAddresses) {
    auto v6 = std::find_if(out.begin(), out.end(), [](const IpAddr& ip) { return ip.is_v6(); });
    bool keep_v6 = out.end() - v6 <= std::ssize(out) / 2;
    out.erase(keep_v6 ? v6 - 1 : out.end() - 1);
  }
  return out;
}

struct NetlinkWatch::Socket {
  mnl_socket* handle = nullptr;
  ~Socket() {
    if (handle != nullptr) mnl_socket_close(handle);
  }
};

NetlinkWatch::NetlinkWatch(io::Loop& loop, std::function<void()> on_change)
    : on_change_(std::move(on_change)), socket_(std::make_unique<Socket>()), settle_(loop, [this] {
        on_change_();
      }) {}

NetlinkWatch::~NetlinkWatch() { watch_.stop(); }

Result<std::unique_ptr<NetlinkWatch>> NetlinkWatch::start(io::Loop& loop,
                                                          std::function<void()> on_change) {
  std::unique_ptr<NetlinkWatch> watch(new NetlinkWatch(loop, std::move(on_change)));
  auto& handle = watch->socket_->handle;
  handle = mnl_socket_open(NETLINK_ROUTE);
  if (handle == nullptr) return fail_errno("netlink socket", errno);
  unsigned groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_LINK;
  if (mnl_socket_bind(handle, groups, MNL_SOCKET_AUTOPID) != 0) return fail_errno("netlink bind", errno);
  int fd = mnl_socket_get_fd(handle);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  EM_TRY_VOID(watch->watch_.start(loop, fd, watch.get()));
  return watch;
}

void NetlinkWatch::on_fd(bool readable, bool) {
  if (!readable) return;
  bool changed = false;
  while (true) {
    alignas(nlmsghdr) char buffer[16 * 1024];
    ssize_t n = mnl_socket_recvfrom(socket_->handle, buffer, sizeof buffer);
    if (n <= 0) {
      if (n < 0 && errno == ENOBUFS) {  // messages were lost: something did change
        changed = true;
        continue;
      }
      break;
    }
    auto left = static_cast<int>(n);
    for (auto* m = reinterpret_cast<nlmsghdr*>(buffer); mnl_nlmsg_ok(m, left);  // NOLINT
         m = mnl_nlmsg_next(m, &left))
      changed = changed || m->nlmsg_type == RTM_NEWADDR || m->nlmsg_type == RTM_DELADDR;
  }
  if (changed && !settle_.active()) settle_.start(kSettle);
}

}  // namespace edgemesh::p2p
