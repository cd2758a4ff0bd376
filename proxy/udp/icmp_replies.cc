#include "proxy/udp/icmp_replies.h"

#include <netinet/in.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "core/base/log.h"
#include "core/io/stream.h"

namespace edgemesh::proxy {

namespace {
constexpr size_t kUdpHeader = 8;
constexpr char kHops = 64;

void put16(std::string* out, size_t value) {
  *out += static_cast<char>(value >> 8);
  *out += static_cast<char>(value);
}

void put_address(std::string* out, const IpAddr& ip) {
  out->append(reinterpret_cast<const char*>(ip.bytes()), ip.size());  // NOLINT
}

void set_checksum(std::string* message, size_t begin, size_t at) {
  const uint16_t sum = internet_checksum(io::as_bytes(*message).subspan(begin));
  std::memcpy(message->data() + at, &sum, sizeof sum);
}
}  // namespace

std::string icmp_port_unreachable(const SockAddr& client, const SockAddr& destination) {
  const bool v6 = client.ip.is_v6();
  std::string out = v6 ? std::string("\x01\x04", 2) : std::string("\x03\x03", 2);
  out.append(6, '\0');  // the checksum, and unused
  const size_t inner = out.size();
  if (v6) {
    out += '\x60';
    out.append(3, '\0');
    put16(&out, kUdpHeader);
    out += static_cast<char>(IPPROTO_UDP);
    out += kHops;
  } else {
    out += '\x45';
    out += '\0';
    put16(&out, 20 + kUdpHeader);
    out.append(4, '\0');
    out += kHops;
    out += static_cast<char>(IPPROTO_UDP);
    put16(&out, 0);
  }
  put_address(&out, client.ip);
  put_address(&out, destination.ip);
  if (!v6) set_checksum(&out, inner, inner + 10);
  put16(&out, client.port);
  put16(&out, destination.port);
  put16(&out, kUdpHeader);
  put16(&out, 0);
  if (!v6) set_checksum(&out, 0, 2);
  return out;
}

bool IcmpReplies::allow(TimePoint now) {
  if (refilled_ == TimePoint{}) refilled_ = now;
  const double seconds = std::chrono::duration<double>(now - refilled_).count();
  left_ = std::min(kBurst, left_ + seconds * kPerSecond);
  refilled_ = now;
  if (left_ < 1) return false;
  left_ -= 1;
  return true;
}

bool IcmpReplies::port_unreachable(const SockAddr& client, const SockAddr& destination,
                                   TimePoint now) {
  if (!allow(now)) return false;
  const bool v6 = client.ip.is_v6();
  io::Fd& fd = fds_[v6 ? 1 : 0];
  if (!fd.valid()) {
    auto made = open_raw_socket(v6, v6 ? static_cast<int>(IPPROTO_ICMPV6) : IPPROTO_ICMP);
    if (!made) {
      EM_LOG(kDebug, "udp", "ICMP: {}", made.error().message);
      return false;
    }
    fd = std::move(*made);
  }
  const std::string message = icmp_port_unreachable(client, destination);
  const Datagram item{io::as_bytes(message)};
  const SockAddr to{client.ip, 0};
  return send_datagrams(fd.get(), {&item, 1}, &to, &destination.ip).datagrams == 1;
}

}  // namespace edgemesh::proxy
