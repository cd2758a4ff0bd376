#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>

#include "core/base/log.h"
#include "core/io/socket_name.h"
#include "core/io/tcp.h"

namespace edgemesh::io {

namespace {
constexpr int kAcceptsATurn = 64;  // then other connections get their turn
constexpr int kMaxWaiting = 65'536;
// From linux/netfilter_ipv4.h and ip6_tables.h, which clash with netinet/in.h.
constexpr int kOriginalDst = 80;
constexpr Duration kRetryAfter = std::chrono::milliseconds(100);

// Of one connection, or of the network that it came from (accept(2)): says nothing about the next.
bool is_of_one_connection(int error) {
  return error == ECONNABORTED || error == EINTR || error == EPROTO || error == EPERM ||
         error == ENETDOWN || error == ENOPROTOOPT || error == EHOSTDOWN || error == ENONET ||
         error == EHOSTUNREACH || error == EOPNOTSUPP || error == ENETUNREACH;
}

// Once a second for the whole process: a lack of descriptors hits all listeners together.
bool may_warn(TimePoint now) {
  static std::atomic<int64_t> next{INT64_MIN};
  int64_t at = now.time_since_epoch().count();
  int64_t due = next.load(std::memory_order_relaxed);
  return at >= due && next.compare_exchange_strong(due, at + Duration(std::chrono::seconds(1)).count());
}

}  // namespace

Result<Fd> open_tcp_listener(const SockAddr& addr, const ListenOptions& options) {
  Fd fd(socket(addr.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail_errno("socket", errno);
  int one = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (options.reuse_port &&
      setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0)
    return fail_errno("SO_REUSEPORT", errno);
  bool v6 = addr.ip.is_v6();
  if (v6) {
    int only = options.v6_only ? 1 : 0;
    setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
  }
  if (options.transparent &&
      setsockopt(fd.get(), v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT,
                 &one, sizeof one) != 0)
    return fail_errno("IP_TRANSPARENT (needs root or CAP_NET_ADMIN)", errno);
  // Hints: a kernel that lacks the algorithm must not keep us from listening.
  if (options.no_delay) setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (!options.congestion.empty())
    setsockopt(fd.get(), IPPROTO_TCP, TCP_CONGESTION, options.congestion.data(),
               static_cast<socklen_t>(options.congestion.size()));
  sockaddr_storage sa;
  socklen_t len = addr.to_sockaddr(&sa);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&sa), len) != 0) {  // NOLINT
    int err = errno;
    if (err == EADDRINUSE)
      return fail(ErrorCode::kAlreadyExists,
                  "listen {}: the port is in use; stop the other program (ss -ltnp 'sport = :{}' "
                  "shows it) or choose another port",
                  addr.to_string(), addr.port);
    return fail_errno(fmt::format("bind {}", addr.to_string()), err);
  }
  if (listen(fd.get(), options.backlog) != 0)
    return fail_errno(fmt::format("listen {}", addr.to_string()), errno);
  return fd;
}

Result<> reuse_tcp_listener(int fd, const ListenOptions& options) {
  EM_TRY(const SockAddr local, local_name(fd));
  const bool v6 = local.ip.is_v6();
  const int transparent = options.transparent ? 1 : 0;
  if (setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT,
                 &transparent, sizeof transparent) != 0 &&
      options.transparent)
    return fail_errno("IP_TRANSPARENT (needs root or CAP_NET_ADMIN)", errno);
  if (listen(fd, options.backlog) != 0)
    return fail_errno(fmt::format("listen {}", local.to_string()), errno);
  return {};
}

TcpListener::TcpListener(Loop& loop, Fd fd, OnAccept on_accept, SockAddr local)
    : loop_(loop),
      fd_(std::move(fd)),
      on_accept_(std::move(on_accept)),
      local_(local),
      retry_(loop, [this] {
        exhausted_ = false;
        accept_some();
      }) {}

TcpListener::~TcpListener() {
  *alive_ = false;
  // Not left to close(2): another process may hold the socket too, and then nothing ends the watch.
  watch_.stop();
}

Result<std::unique_ptr<TcpListener>> TcpListener::listen(Loop& loop, const SockAddr& addr,
                                                         OnAccept on_accept,
                                                         const ListenOptions& options) {
  EM_TRY(Fd fd, open_tcp_listener(addr, options));
  return adopt(loop, std::move(fd), std::move(on_accept));
}

Result<std::unique_ptr<TcpListener>> TcpListener::adopt(Loop& loop, Fd fd, OnAccept on_accept) {
  EM_TRY(SockAddr local, local_name(fd.get()));
  int raw = fd.get();
  std::unique_ptr<TcpListener> listener(
      new TcpListener(loop, std::move(fd), std::move(on_accept), local));
  EM_TRY_VOID(listener->watch_.start(loop, raw, listener.get()));
  return listener;
}

void TcpListener::pause() { paused_ = true; }

void TcpListener::resume() {
  if (!paused_) return;
  paused_ = false;
  retry_.start(Duration::zero());
}

void TcpListener::on_fd(bool readable, bool) {
  if (readable && !exhausted_) accept_some();
}

void TcpListener::accept_some() {
  if (accept_up_to(kAcceptsATurn)) retry_.start(Duration::zero());
}

void TcpListener::accept_waiting() {
  // A queue that is refilled all the time must not hold us here.
  accept_up_to(kMaxWaiting);
}

// True: more may wait.
bool TcpListener::accept_up_to(int limit) {
  auto alive = alive_;
  for (int i = 0; i < limit; ++i) {
    if (paused_) return false;
    sockaddr_storage storage;
    socklen_t len = sizeof storage;
    auto* sa = reinterpret_cast<sockaddr*>(&storage);  // NOLINT
    int fd = accept4(fd_.get(), sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EAGAIN) return false;
      if (is_of_one_connection(errno)) continue;
      pause_exhausted(errno);
      return false;
    }
    Fd owned(fd);
    auto peer = SockAddr::from_sockaddr(sa, len);
    on_accept_(std::move(owned), peer ? *peer : SockAddr{});
    if (!*alive) return false;
  }
  return true;
}

void TcpListener::pause_exhausted(int error) {
  if (may_warn(loop_.now()))
    EM_LOG(kWarn, "io", "accept on {}: {}; new connections wait", local_.to_string(),
           Error::from_errno("accept4", error).message);
  exhausted_ = true;
  retry_.start(kRetryAfter);
}

bool gives_no_delay(int listening_fd) {
  int on = 0;
  socklen_t len = sizeof on;
  return getsockopt(listening_fd, IPPROTO_TCP, TCP_NODELAY, &on, &len) == 0 && on != 0;
}

std::optional<SockAddr> only_local_addr(int listening_fd) {
  auto local = local_name(listening_fd);
  if (!local || local->ip.is_unspecified()) return std::nullopt;
  const bool v6 = local->ip.is_v6();
  int transparent = 0;
  socklen_t len = sizeof transparent;
  if (getsockopt(listening_fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP,
                 v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, &transparent, &len) != 0 ||
      transparent != 0)
    return std::nullopt;
  return *local;
}

Result<SockAddr> original_dst(int fd, bool redirected) {
  sockaddr_storage storage{};
  socklen_t len = sizeof storage;
  auto* sa = reinterpret_cast<sockaddr*>(&storage);  // NOLINT
  if (getsockname(fd, sa, &len) != 0) return fail_errno("getsockname", errno);
  if (!redirected) return SockAddr::from_sockaddr(sa, len);
  // NAT of the connection is that of its packets: IPv4 also where the socket is a dual-stack one.
  EM_TRY(SockAddr local, SockAddr::from_sockaddr(sa, len));
  bool v6 = local.ip.is_v6();
  len = sizeof storage;
  int rc = v6 ? getsockopt(fd, IPPROTO_IPV6, kOriginalDst, sa, &len)
              : getsockopt(fd, IPPROTO_IP, kOriginalDst, sa, &len);
  if (rc != 0) return fail_errno("SO_ORIGINAL_DST", errno);
  return SockAddr::from_sockaddr(sa, len);
}

}  // namespace edgemesh::io
