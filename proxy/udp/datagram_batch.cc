#include "proxy/udp/datagram_batch.h"

#include <netinet/in.h>
#include <netinet/udp.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

namespace edgemesh::proxy {

namespace {

sockaddr* generic(sockaddr_storage* storage) {
  return reinterpret_cast<sockaddr*>(storage);  // NOLINT
}

bool is_on(const cmsghdr& c, int level, int type, size_t bytes) {
  return c.cmsg_level == level && c.cmsg_type == type && c.cmsg_len >= CMSG_LEN(bytes);
}

template <class Visit>
void each_control(const msghdr& message, const Visit& visit) {
  auto* m = const_cast<msghdr*>(&message);
  for (auto* c = CMSG_FIRSTHDR(m); c != nullptr; c = CMSG_NXTHDR(m, c)) visit(*c);
}

uint16_t segment_of(const msghdr& message, size_t bytes) {
  int segment = 0;
  each_control(message, [&](const cmsghdr& c) {
    if (is_on(c, SOL_UDP, UDP_GRO, sizeof segment))
      std::memcpy(&segment, CMSG_DATA(&c), sizeof segment);
  });
  // A train of one is a datagram.
  return segment > 0 && static_cast<size_t>(segment) < bytes ? static_cast<uint16_t>(segment) : 0;
}

// The control data of one message that is sent.
struct SendControl {
  alignas(cmsghdr) char bytes[CMSG_SPACE(sizeof(in6_pktinfo)) + CMSG_SPACE(sizeof(uint16_t))];
};

void add_control(msghdr* message, SendControl* control, int level, int type, const void* data,
                 size_t size) {
  auto* at = reinterpret_cast<cmsghdr*>(control->bytes + message->msg_controllen);  // NOLINT
  at->cmsg_level = level;
  at->cmsg_type = type;
  at->cmsg_len = CMSG_LEN(size);
  std::memcpy(CMSG_DATA(at), data, size);
  message->msg_control = control->bytes;
  message->msg_controllen += CMSG_SPACE(size);
}

void add_source(msghdr* message, SendControl* control, const IpAddr& source) {
  if (source.is_v6()) {
    in6_pktinfo info{};
    std::memcpy(&info.ipi6_addr, source.bytes(), 16);
    add_control(message, control, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
  } else {
    in_pktinfo info{};
    std::memcpy(&info.ipi_spec_dst, source.bytes(), 4);
    add_control(message, control, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
  }
}

class Sender {
 public:
  Sender(int fd, const SockAddr* to, const IpAddr* source) : fd_(fd), source_(source) {
    if (to != nullptr) name_size_ = to->to_sockaddr(&name_);
  }

  SendOutcome run(std::span<const Datagram> items) {
    while (out_.taken < items.size() && !out_.refused) batch(items.subspan(out_.taken));
    return out_;
  }

 private:
  void fill(msghdr* message, iovec* part, SendControl* control, const Datagram& item) {
    *part = {const_cast<uint8_t*>(item.data.data()), item.data.size()};
    *message = {};
    message->msg_name = name_size_ > 0 ? &name_ : nullptr;
    message->msg_namelen = name_size_;
    message->msg_iov = part;
    message->msg_iovlen = 1;
    if (source_ != nullptr) add_source(message, control, *source_);
    if (item.segment > 0)
      add_control(message, control, SOL_UDP, UDP_SEGMENT, &item.segment, sizeof item.segment);
  }

  // One call for as many of them as it takes; at least one is taken, or `refused` is set.
  void batch(std::span<const Datagram> items) {
    const size_t n = std::min(items.size(), DatagramBatch::kMax);
    mmsghdr messages[DatagramBatch::kMax];
    iovec parts[DatagramBatch::kMax];
    SendControl controls[DatagramBatch::kMax];
    for (size_t i = 0; i < n; ++i) fill(&messages[i].msg_hdr, &parts[i], &controls[i], items[i]);
    int sent = sendmmsg(fd_, messages, static_cast<unsigned>(n), MSG_NOSIGNAL);
    if (sent > 0) {
      for (int i = 0; i < sent; ++i) count(items[static_cast<size_t>(i)]);
      return;
    }
    failed(items, errno);
  }

  void count(const Datagram& item) {
    ++out_.taken;
    out_.datagrams += item.count();
    out_.bytes += item.data.size();
  }

  void failed(std::span<const Datagram> items, int error) {
    if (error == EINTR) return;
    if (error == ECONNREFUSED) {
      out_.refused = true;
      return;
    }
    const bool full = error == EAGAIN || error == ENOBUFS;
    // The route's MTU is below the segments, or the device has no such offload.
    if (items.front().segment > 0 && !full) {
      one_by_one(items.front());
      return;
    }
    for (const Datagram& item : full ? items : items.first(1)) {
      ++out_.taken;
      out_.dropped += item.count();
    }
  }

  void one_by_one(const Datagram& train) {
    for (size_t at = 0; at < train.data.size(); at += train.segment) {
      Datagram item{
          train.data.subspan(at, std::min<size_t>(train.segment, train.data.size() - at))};
      msghdr message;
      iovec part;
      SendControl control;
      fill(&message, &part, &control, item);
      ssize_t n = sendmsg(fd_, &message, MSG_NOSIGNAL);
      if (n < 0 && errno == ECONNREFUSED) n = sendmsg(fd_, &message, MSG_NOSIGNAL);  // an old one
      if (n < 0) {
        ++out_.dropped;
        continue;
      }
      ++out_.datagrams;
      out_.bytes += item.data.size();
    }
    ++out_.taken;
  }

  int fd_;
  const IpAddr* source_;
  sockaddr_storage name_;
  socklen_t name_size_ = 0;
  SendOutcome out_;
};

}  // namespace

DatagramBatch::DatagramBatch() : bytes_(new uint8_t[kMax * kBytes]) {}

DatagramBatch::Received DatagramBatch::receive(int fd, bool ends) {
  for (size_t i = 0; i < kMax; ++i) {
    parts_[i] = {bytes_.get() + i * kBytes, kBytes};
    msghdr& message = messages_[i].msg_hdr;
    message = {};
    message.msg_name = ends ? &names_[i] : nullptr;
    message.msg_namelen = ends ? sizeof names_[i] : 0;
    message.msg_iov = &parts_[i];
    message.msg_iovlen = 1;
    message.msg_control = controls_[i].bytes;
    message.msg_controllen = kControlBytes;
  }
  int n;
  do {
    n = recvmmsg(fd, messages_.data(), kMax, 0, nullptr);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return {0, errno};
  for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
    const size_t bytes = messages_[i].msg_len;
    items_[i] = {{bytes_.get() + i * kBytes, bytes}, segment_of(messages_[i].msg_hdr, bytes)};
  }
  return {static_cast<size_t>(n), 0};
}

DatagramEnds DatagramBatch::ends(size_t i) const {
  DatagramEnds out;
  const msghdr& message = messages_[i].msg_hdr;
  auto from =
      SockAddr::from_sockaddr(static_cast<const sockaddr*>(message.msg_name), message.msg_namelen);
  if (from) out.from = *from;
  each_control(message, [&](const cmsghdr& c) {
    bool v4 = is_on(c, IPPROTO_IP, IP_ORIGDSTADDR, sizeof(sockaddr_in));
    if (!v4 && !is_on(c, IPPROTO_IPV6, IPV6_ORIGDSTADDR, sizeof(sockaddr_in6))) return;
    sockaddr_storage storage{};
    const socklen_t size = v4 ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    std::memcpy(&storage, CMSG_DATA(&c), size);
    if (auto to = SockAddr::from_sockaddr(generic(&storage), size)) out.to = *to;
  });
  return out;
}

SendOutcome send_datagrams(int fd, std::span<const Datagram> items, const SockAddr* to,
                           const IpAddr* source) {
  return Sender(fd, to, source).run(items);
}

Result<io::Fd> open_datagram_socket(bool v6, const DatagramSocketOptions& options) {
  io::Fd fd(socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail_errno("socket", errno);
  const int one = 1;
  auto set = [&](int level, int name) {
    return setsockopt(fd.get(), level, name, &one, sizeof one) == 0;
  };
  if (v6) set(IPPROTO_IPV6, IPV6_V6ONLY);
  if (options.transparent &&
      !(v6 ? set(IPPROTO_IPV6, IPV6_TRANSPARENT) : set(IPPROTO_IP, IP_TRANSPARENT)))
    return fail_errno("IP_TRANSPARENT (needs root or CAP_NET_ADMIN)", errno);
  if (options.destinations &&
      !(v6 ? set(IPPROTO_IPV6, IPV6_RECVORIGDSTADDR) : set(IPPROTO_IP, IP_RECVORIGDSTADDR)))
    return fail_errno("IP_RECVORIGDSTADDR", errno);
  if (options.reuse_addr) set(SOL_SOCKET, SO_REUSEADDR);
  if (options.reuse_port) set(SOL_SOCKET, SO_REUSEPORT);
  if (options.gro) set(SOL_UDP, UDP_GRO);  // an older kernel works without
  if (options.mark != 0) {
    const int mark = static_cast<int>(options.mark);
    if (setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0 && errno != EPERM)
      return fail_errno("SO_MARK", errno);
  }
  if (options.receive_bytes > 0) {
    const int size = options.receive_bytes;
    // Beyond net.core.rmem_max where we may, else up to it.
    if (setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) != 0)
      setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  }
  return fd;
}

Result<SockAddr> bind_datagram_socket(int fd, const SockAddr& addr) {
  sockaddr_storage storage;
  socklen_t size = addr.to_sockaddr(&storage);
  if (bind(fd, generic(&storage), size) != 0) {
    if (errno != EADDRINUSE) return fail_errno(fmt::format("bind udp {}", addr.to_string()), errno);
    return fail(ErrorCode::kAlreadyExists,
                "udp {}: the port is in use; stop the other program (ss -lunp 'sport = :{}' shows "
                "it) or choose another port",
                addr.to_string(), addr.port);
  }
  size = sizeof storage;
  if (getsockname(fd, generic(&storage), &size) != 0) return fail_errno("getsockname", errno);
  return SockAddr::from_sockaddr(generic(&storage), size);
}

}  // namespace edgemesh::proxy
