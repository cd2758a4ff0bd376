#include "p2p/shared_socket.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

namespace edgemesh::p2p {

namespace {

constexpr int kBufferBytes = 4 << 20;

// The group's members are numbered in the order of joining: 0 is libnice's socket, 1 is ours.
Result<> attach_filter(int fd) {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 3, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_RET | BPF_K, 1),
  };
  sock_fprog program{sizeof code / sizeof code[0], code};
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) != 0)
    return fail_errno("attach the filter that separates STUN from data", errno);
  return {};
}

void set_buffer(int fd, int option, int forced) {
  int size = kBufferBytes;
  // Past the system's limit with CAP_NET_ADMIN, else up to it.
  if (setsockopt(fd, SOL_SOCKET, forced, &size, sizeof size) != 0)
    setsockopt(fd, SOL_SOCKET, option, &size, sizeof size);
}

}  // namespace

Result<io::Fd> split_socket(int fd) {
  sockaddr_storage addr{};
  socklen_t len = sizeof addr;
  auto* sa = reinterpret_cast<sockaddr*>(&addr);  // NOLINT
  if (getsockname(fd, sa, &len) != 0) return fail_errno("getsockname", errno);
  int one = 1;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0)
    return fail_errno("SO_REUSEPORT", errno);
  io::Fd data(socket(addr.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!data.valid()) return fail_errno("socket", errno);
  if (addr.ss_family == AF_INET6)
    setsockopt(data.get(), IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
  if (setsockopt(data.get(), SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0)
    return fail_errno("SO_REUSEPORT", errno);
  set_buffer(data.get(), SO_RCVBUF, SO_RCVBUFFORCE);
  set_buffer(data.get(), SO_SNDBUF, SO_SNDBUFFORCE);
  // QUIC finds the path's limit by itself (RFC 8899): its probes must not be cut to pieces on the way, and
  // what the kernel has heard about the path must not make it do so.
  int probe = addr.ss_family == AF_INET6 ? IPV6_PMTUDISC_PROBE : IP_PMTUDISC_PROBE;  // NOLINT(bugprone-branch-clone)
  if (addr.ss_family == AF_INET6)
    setsockopt(data.get(), IPPROTO_IPV6, IPV6_MTU_DISCOVER, &probe, sizeof probe);
  else
    setsockopt(data.get(), IPPROTO_IP, IP_MTU_DISCOVER, &probe, sizeof probe);
  if (bind(data.get(), sa, len) != 0) return fail_errno("bind the tunnel's second socket", errno);
  EM_TRY_VOID(attach_filter(data.get()));
  return data;
}

}  // namespace edgemesh::p2p
