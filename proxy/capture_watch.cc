#include "proxy/capture_watch.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <initializer_list>

namespace edgemesh::proxy {

class CaptureWatch::Socket final : private io::FdWatch::Handler {
 public:
  static std::unique_ptr<Socket> open(io::Loop& loop, int protocol,
                                      std::initializer_list<int> groups,
                                      std::function<void()> on_change) {
    io::Fd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    if (!fd.valid() || bind(fd.get(), reinterpret_cast<sockaddr*>(&address),  // NOLINT
                            sizeof address) != 0)
      return nullptr;
    for (int group : groups)
      if (setsockopt(fd.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0)
        return nullptr;
    std::unique_ptr<Socket> self(new Socket(std::move(fd), protocol, std::move(on_change)));
    if (!self->watch_.start(loop, self->fd_.get(), self.get())) return nullptr;
    return self;
  }

 private:
  Socket(io::Fd fd, int protocol, std::function<void()> on_change)
      : fd_(std::move(fd)), protocol_(protocol), on_change_(std::move(on_change)) {}

  void on_fd(bool readable, bool) override {
    if (!readable) return;
    bool changed = false;
    alignas(nlmsghdr) char buffer[16384];
    for (;;) {
      ssize_t n = recv(fd_.get(), buffer, sizeof buffer, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == ENOBUFS) {  // events were lost
        changed = true;
        continue;
      }
      if (n <= 0) break;
      changed |= protocol_ == NETLINK_NETFILTER || concerns_us(buffer, static_cast<size_t>(n));
    }
    if (changed) on_change_();
  }

  // Routing changes are frequent on a roaming node; only losses matter, and routes only of tables
  // beyond the classic 255.
  static bool concerns_us(const char* data, size_t size) {
    int left = static_cast<int>(size);
    const auto* message = reinterpret_cast<const nlmsghdr*>(data);  // NOLINT
    for (; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
      switch (message->nlmsg_type) {
        case RTM_DELRULE:
        case RTM_DELADDR:
        case RTM_DELLINK: return true;
        case RTM_DELROUTE: {
          if (message->nlmsg_len < NLMSG_LENGTH(sizeof(rtmsg))) break;
          const auto* route = static_cast<const rtmsg*>(NLMSG_DATA(message));
          if (route->rtm_table == RT_TABLE_COMPAT) return true;
          break;
        }
        default: break;
      }
    }
    return false;
  }

  io::Fd fd_;
  int protocol_;
  std::function<void()> on_change_;
  io::FdWatch watch_;
};

std::unique_ptr<CaptureWatch> CaptureWatch::start(io::Loop& loop, std::function<void()> on_change) {
  std::unique_ptr<CaptureWatch> watch(new CaptureWatch);
  watch->rules_ = Socket::open(loop, NETLINK_NETFILTER, {NFNLGRP_NFTABLES}, on_change);
  watch->routes_ = Socket::open(loop, NETLINK_ROUTE,
                                {RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, RTNLGRP_IPV4_ROUTE,
                                 RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_IFADDR, RTNLGRP_LINK},
                                on_change);
  return watch;
}

CaptureWatch::~CaptureWatch() = default;

bool CaptureWatch::sees_rules() const {
  return rules_ != nullptr && routes_ != nullptr;
}

}  // namespace edgemesh::proxy
