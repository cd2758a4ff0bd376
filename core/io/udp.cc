#include "core/io/udp.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/io/socket_name.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

namespace edgemesh::io {

namespace {
constexpr int kReadsATurn = 64;
constexpr size_t kMaxTrainBytes = 65507;
constexpr size_t kMaxSegments = 64;
constexpr Duration kNoBufferPause = std::chrono::milliseconds(1);

bool is_no_room(int error) { return error == EAGAIN || error == ENOBUFS || error == ENOMEM; }

size_t gro_segment(const msghdr& message) {
  for (auto* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(const_cast<msghdr*>(&message), c)) {
    if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
      int segment = 0;
      std::memcpy(&segment, CMSG_DATA(c), sizeof segment);
      return static_cast<size_t>(segment);
    }
  }
  return 0;
}
}  // namespace

UdpSocket::UdpSocket(Loop& loop, Fd fd, OnDatagram on_datagram, bool gro, SockAddr local)
    : loop_(loop), fd_(std::move(fd)), on_datagram_(std::move(on_datagram)), gro_(gro), local_(local),
      room_(loop, [this] { tell_writable(); }),
      again_(loop, [this] { on_fd(true, false); }) {}

UdpSocket::~UdpSocket() {
  if (destroyed_ != nullptr) *destroyed_ = true;
  watch_.stop(true);
}

Result<std::unique_ptr<UdpSocket>> UdpSocket::bind(Loop& loop, const SockAddr& addr,
                                                   OnDatagram on_datagram, const Options& options) {
  Fd fd(socket(addr.family(), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail_errno("socket", errno);
  int one = 1;
  if (options.reuse_addr) setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (options.reuse_port) setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  if (addr.ip.is_v6()) setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
  if (options.mark != 0) {
    int mark = static_cast<int>(options.mark);
    if (setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0 && errno != EPERM)
      return fail_errno("SO_MARK", errno);
  }
  if (options.buffer_bytes > 0) {
    setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &options.buffer_bytes, sizeof options.buffer_bytes);
    setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &options.buffer_bytes, sizeof options.buffer_bytes);
  }
  sockaddr_storage sa;
  socklen_t len = addr.to_sockaddr(&sa);
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&sa), len) != 0)  // NOLINT
    return fail_errno(fmt::format("bind udp {}", addr.to_string()), errno);
  return adopt(loop, std::move(fd), std::move(on_datagram), options.gro);
}

Result<std::unique_ptr<UdpSocket>> UdpSocket::adopt(Loop& loop, Fd fd, OnDatagram on_datagram,
                                                    bool gro) {
  if (gro) {
    int one = 1;
    gro = setsockopt(fd.get(), SOL_UDP, UDP_GRO, &one, sizeof one) == 0;
  }
  EM_TRY(SockAddr local, local_name(fd.get()));
  int raw = fd.get();
  std::unique_ptr<UdpSocket> socket(
      new UdpSocket(loop, std::move(fd), std::move(on_datagram), gro, local));
  EM_TRY_VOID(socket->watch_.start(loop, raw, socket.get(), false));
  return socket;
}

void UdpSocket::on_fd(bool readable, bool writable) {
  bool destroyed = false;
  destroyed_ = &destroyed;
  for (int i = 0; readable && i < kReadsATurn; ++i) {
    sockaddr_storage from;
    iovec iov{loop_.scratch(), Loop::kScratchBytes};
    alignas(cmsghdr) char control[64];
    msghdr message{};
    message.msg_name = &from;
    message.msg_namelen = sizeof from;
    message.msg_iov = &iov;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t n = recvmsg(fd_.get(), &message, 0);
    if (n < 0) {
      // ICMP errors of earlier sends surface here, one a call: they say nothing about what waits.
      if (errno != EAGAIN && errno != EWOULDBLOCK) continue;
      readable = false;
      break;
    }
    auto addr = SockAddr::from_sockaddr(reinterpret_cast<sockaddr*>(&from),  // NOLINT
                                        message.msg_namelen);
    if (!addr) continue;
    on_datagram_({loop_.scratch(), static_cast<size_t>(n)}, gro_segment(message), *addr);
    if (destroyed) return;
  }
  // The edge is used up although more may wait: look again in the next turn.
  if (readable) again_.start(Duration::zero());
  if (writable && !room_.active()) {
    tell_writable();
    if (destroyed) return;
  }
  destroyed_ = nullptr;
}

// The kernel wakes whoever watches for room at each datagram that leaves: it is watched only when needed.
void UdpSocket::no_room(int error) {
  if (blocked_ || !on_writable_) return;
  blocked_ = true;
  if (error == EAGAIN)
    watch_.watch_writable(true);
  else
    room_.start(kNoBufferPause);  // the socket itself has room: its edge would come at once, again and again
}

void UdpSocket::tell_writable() {
  if (!blocked_) return;
  blocked_ = false;
  watch_.watch_writable(false);
  on_writable_();
}

Result<bool> UdpSocket::send_to(std::span<const uint8_t> data, const SockAddr& to) {
  sockaddr_storage sa;
  socklen_t len = to.to_sockaddr(&sa);
  ssize_t n = sendto(fd_.get(), data.data(), data.size(), MSG_NOSIGNAL,
                     reinterpret_cast<sockaddr*>(&sa), len);  // NOLINT
  if (n >= 0) return true;
  if (is_no_room(errno)) {
    no_room(errno);
    return false;
  }
  // A refusal that an earlier datagram met is reported here, and this one was not sent: once more.
  n = sendto(fd_.get(), data.data(), data.size(), MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&sa),  // NOLINT
             len);
  if (n >= 0) return true;
  if (is_no_room(errno)) {
    no_room(errno);
    return false;
  }
  return fail_errno(fmt::format("send to {}", to.to_string()), errno);
}

Result<size_t> UdpSocket::send_train(std::span<const uint8_t> data, size_t segment,
                                     const SockAddr& to) {
  size_t sent = 0;
  while (gso_works_ && sent < data.size()) {
    size_t take = std::min({data.size() - sent, segment * kMaxSegments,
                            kMaxTrainBytes / segment * segment});
    sockaddr_storage sa;
    iovec iov{const_cast<uint8_t*>(data.data()) + sent, take};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(uint16_t))] = {};
    msghdr message{};
    message.msg_name = &sa;
    message.msg_namelen = to.to_sockaddr(&sa);
    message.msg_iov = &iov;
    message.msg_iovlen = 1;
    if (take > segment) {
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      auto* c = CMSG_FIRSTHDR(&message);
      c->cmsg_level = SOL_UDP;
      c->cmsg_type = UDP_SEGMENT;
      c->cmsg_len = CMSG_LEN(sizeof(uint16_t));
      auto size = static_cast<uint16_t>(segment);
      std::memcpy(CMSG_DATA(c), &size, sizeof size);
    }
    ssize_t n = sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
    if (n >= 0) {
      sent += static_cast<size_t>(n);
      continue;
    }
    if (is_no_room(errno)) {
      no_room(errno);
      return sent;
    }
    if (take > segment && (errno == EINVAL || errno == EMSGSIZE)) {
      // Segments beyond the device's MTU, or no offload: one of them alone tells.
      EM_TRY(bool ok, send_to(data.subspan(sent, segment), to));  // too large: what is left is lost
      if (!ok) return sent;
      sent += segment;
      gso_works_ = false;
    } else if (take > segment && (errno == EIO || errno == EOPNOTSUPP))
      gso_works_ = false;  // this route or driver has no segmentation offload
    else if (errno == ECONNREFUSED)
      continue;  // reported for an earlier datagram
    else
      return fail_errno(fmt::format("send to {}", to.to_string()), errno);
  }
  while (sent < data.size()) {
    EM_TRY(bool ok, send_to(data.subspan(sent, std::min(segment, data.size() - sent)), to));
    if (!ok) return sent;
    sent += std::min(segment, data.size() - sent);
  }
  return sent;
}

}  // namespace edgemesh::io
