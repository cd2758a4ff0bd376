#include "proxy/udp/raw_replies.h"

#include <linux/filter.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace edgemesh::proxy {

namespace {

constexpr size_t kHeaderBytes = 8;
constexpr size_t kMaxLength = 65'535;
constexpr int kSendBytes = 4 << 20;

// A one's complement sum (RFC 1071) in the machine's byte order; of the whole words, and of a last
// odd byte as if a zero followed. 64 bits are enough for all that a datagram can hold.
uint64_t sum_words(std::span<const uint8_t> bytes) {
  uint64_t sum = 0;
  size_t at = 0;
  for (; at + 4 <= bytes.size(); at += 4) {
    uint32_t word;
    std::memcpy(&word, bytes.data() + at, 4);
    sum += word;
  }
  uint8_t rest[4] = {};
  if (at < bytes.size()) std::memcpy(rest, bytes.data() + at, bytes.size() - at);
  uint32_t word;
  std::memcpy(&word, rest, 4);
  return sum + word;
}

uint16_t fold(uint64_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

// What comes for the service addresses is not for this socket: it only sends.
void receive_nothing(int fd, bool v6) {
  sock_filter drop_all{BPF_RET | BPF_K, 0, 0, 0};
  sock_fprog program{1, &drop_all};
  setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
  // Bound to an address that no packet is sent to, it is not even offered those of others.
  const uint8_t reserved6[16] = {0x01, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};  // RFC 6666
  const SockAddr nowhere{v6 ? IpAddr::v6(reserved6) : IpAddr::v4(0xf0000001), 0};
  sockaddr_storage storage;
  const socklen_t size = nowhere.to_sockaddr(&storage);
  // Without it the filter alone does it.
  (void)bind(fd, reinterpret_cast<sockaddr*>(&storage), size);  // NOLINT
}

// One datagram on its way.
struct Packet {
  std::array<uint8_t, kHeaderBytes> header;
  iovec parts[2];
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(in6_pktinfo))];
};

class RawSender {
 public:
  RawSender(int fd, const SockAddr& from, const SockAddr& to) : fd_(fd), from_(from), to_(to) {
    const SockAddr portless{to.ip, 0};  // the header has the port
    name_size_ = portless.to_sockaddr(&name_);
  }

  SendOutcome run(std::span<const Datagram> items) {
    for (const Datagram& item : items) {
      const size_t step = item.segment > 0 ? item.segment : std::max<size_t>(1, item.data.size());
      size_t at = 0;
      do {
        add(item.data.subspan(at, std::min(step, item.data.size() - at)));
        at += step;
      } while (at < item.data.size());
      ++out_.taken;
    }
    flush();
    return out_;
  }

 private:
  void add(std::span<const uint8_t> data) {
    if (data.size() + kHeaderBytes > kMaxLength) {
      ++out_.dropped;
      return;
    }
    Packet& packet = packets_[used_];
    packet.header = udp_header(from_, to_, data);
    packet.parts[0] = {packet.header.data(), kHeaderBytes};
    packet.parts[1] = {const_cast<uint8_t*>(data.data()), data.size()};
    msghdr& message = messages_[used_].msg_hdr;
    message = {};
    message.msg_name = &name_;
    message.msg_namelen = name_size_;
    message.msg_iov = packet.parts;
    message.msg_iovlen = 2;
    set_source(&message, packet.control);
    if (++used_ == DatagramBatch::kMax) flush();
  }

  void set_source(msghdr* message, char* control) const {
    const bool v6 = from_.ip.is_v6();
    message->msg_control = control;
    message->msg_controllen = v6 ? CMSG_SPACE(sizeof(in6_pktinfo)) : CMSG_SPACE(sizeof(in_pktinfo));
    cmsghdr* c = CMSG_FIRSTHDR(message);
    if (v6) {
      in6_pktinfo info{};
      std::memcpy(&info.ipi6_addr, from_.ip.bytes(), 16);
      c->cmsg_level = IPPROTO_IPV6;
      c->cmsg_type = IPV6_PKTINFO;
      c->cmsg_len = CMSG_LEN(sizeof info);
      std::memcpy(CMSG_DATA(c), &info, sizeof info);
    } else {
      in_pktinfo info{};
      std::memcpy(&info.ipi_spec_dst, from_.ip.bytes(), 4);
      c->cmsg_level = IPPROTO_IP;
      c->cmsg_type = IP_PKTINFO;
      c->cmsg_len = CMSG_LEN(sizeof info);
      std::memcpy(CMSG_DATA(c), &info, sizeof info);
    }
  }

  void flush() {
    for (size_t at = 0; at < used_;) {
      int n = sendmmsg(fd_, messages_ + at, static_cast<unsigned>(used_ - at), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        const bool full = errno == EAGAIN || errno == ENOBUFS;
        const size_t lost = full ? used_ - at : 1;
        out_.dropped += lost;
        at += lost;
        continue;
      }
      for (int i = 0; i < n; ++i, ++at) {
        ++out_.datagrams;
        out_.bytes += packets_[at].parts[1].iov_len;
      }
    }
    used_ = 0;
  }

  int fd_;
  const SockAddr& from_;
  const SockAddr& to_;
  sockaddr_storage name_;
  socklen_t name_size_;
  SendOutcome out_;
  size_t used_ = 0;
  Packet packets_[DatagramBatch::kMax];
  mmsghdr messages_[DatagramBatch::kMax];
};

}  // namespace

std::array<uint8_t, 8> udp_header(const SockAddr& from, const SockAddr& to,
                                  std::span<const uint8_t> data) {
  const auto length = static_cast<uint16_t>(data.size() + kHeaderBytes);
  const uint16_t fields[4] = {htons(from.port), htons(to.port), htons(length), 0};
  // The pseudo header: addresses, protocol, length; its layout differs by family, its sum does not.
  uint64_t sum = uint64_t{htons(IPPROTO_UDP)} + fields[2];
  sum += sum_words({from.ip.bytes(), from.ip.size()}) + sum_words({to.ip.bytes(), to.ip.size()});
  sum += uint64_t{fields[0]} + fields[1] + fields[2] + sum_words(data);
  uint16_t check = static_cast<uint16_t>(~fold(sum));
  if (check == 0) check = 0xffff;  // zero says that there is none
  std::array<uint8_t, 8> out;
  std::memcpy(out.data(), fields, 6);
  std::memcpy(out.data() + 6, &check, 2);
  return out;
}

uint16_t internet_checksum(std::span<const uint8_t> bytes) {
  return static_cast<uint16_t>(~fold(sum_words(bytes)));
}

Result<io::Fd> open_raw_socket(bool v6, int protocol) {
  io::Fd made(socket(v6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
  if (!made.valid()) return fail_errno("raw socket (needs root or CAP_NET_RAW)", errno);
  const int one = 1;
  if (setsockopt(made.get(), v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT,
                 &one, sizeof one) != 0)
    return fail_errno("IP_TRANSPARENT (needs root or CAP_NET_ADMIN)", errno);
  if (setsockopt(made.get(), SOL_SOCKET, SO_SNDBUFFORCE, &kSendBytes, sizeof kSendBytes) != 0)
    setsockopt(made.get(), SOL_SOCKET, SO_SNDBUF, &kSendBytes, sizeof kSendBytes);
  receive_nothing(made.get(), v6);
  return made;
}

Result<int> RawReplies::socket_for(bool v6) {
  io::Fd& fd = fds_[v6 ? 1 : 0];
  if (!fd.valid()) {
    EM_TRY(fd, open_raw_socket(v6, IPPROTO_UDP));
  }
  return fd.get();
}

Result<SendOutcome> RawReplies::send(const SockAddr& from, const SockAddr& to,
                                     std::span<const Datagram> items) {
  EM_TRY(int fd, socket_for(to.ip.is_v6()));
  return RawSender(fd, from, to).run(items);
}

}  // namespace edgemesh::proxy
