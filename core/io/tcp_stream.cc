#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>

#include "core/io/socket_name.h"
#include "core/io/tcp.h"

namespace edgemesh::io {

void limit_silence(int fd, Duration limit) {
  auto seconds = static_cast<int>(std::chrono::duration_cast<std::chrono::seconds>(limit).count());
  int ms = seconds * 1000, idle = 2 * seconds, interval = std::max(1, seconds / 3), one = 1, count = 3;
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
}

namespace {

void set_int(int fd, int level, int name, int value) {
  // A hint that fails (an odd kernel, a socket already gone) must not break the connection.
  [[maybe_unused]] int rc = setsockopt(fd, level, name, &value, sizeof value);
}

Result<> bind_source(int fd, const ConnectOptions& options) {
  if (!options.source) return {};
  if (options.transparent) {
    bool v6 = options.source->ip.is_v6();
    int one = 1;
    if (setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, &one,
                   sizeof one) != 0)
      return fail_errno("IP_TRANSPARENT (needs CAP_NET_ADMIN)", errno);
  }
  set_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
  sockaddr_storage sa;
  socklen_t len = options.source->to_sockaddr(&sa);
  if (bind(fd, reinterpret_cast<sockaddr*>(&sa), len) != 0)  // NOLINT
    return fail_errno(fmt::format("bind {}", options.source->to_string()), errno);
  return {};
}

}  // namespace

TcpStream::TcpStream(Loop& loop, Fd fd, bool connected)
    : loop_(loop), fd_(std::move(fd)), connected_(connected) {}

Result<std::unique_ptr<TcpStream>> TcpStream::adopt(Loop& loop, Fd fd, bool has_no_delay) {
  if (!has_no_delay) set_int(fd.get(), IPPROTO_TCP, TCP_NODELAY, 1);
  int raw = fd.get();
  std::unique_ptr<TcpStream> stream(new TcpStream(loop, std::move(fd), true));
  EM_TRY_VOID(stream->watch_.start(loop, raw, stream.get()));
  return stream;
}

Result<std::unique_ptr<TcpStream>> TcpStream::connect(Loop& loop, const SockAddr& to,
                                                      const ConnectOptions& options) {
  Fd fd(socket(to.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail_errno("socket", errno);
  set_int(fd.get(), IPPROTO_TCP, TCP_NODELAY, 1);
  if (options.mark != 0) {
    int mark = static_cast<int>(options.mark);
    if (setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0 && errno != EPERM)
      return fail_errno("SO_MARK", errno);
  }
  if (!options.congestion.empty())
    setsockopt(fd.get(), IPPROTO_TCP, TCP_CONGESTION, options.congestion.data(),
               static_cast<socklen_t>(options.congestion.size()));
  if (options.silence_limit > Duration::zero()) limit_silence(fd.get(), options.silence_limit);
  EM_TRY_VOID(bind_source(fd.get(), options));
  sockaddr_storage sa;
  socklen_t len = to.to_sockaddr(&sa);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&sa), len) != 0 &&  // NOLINT
      errno != EINPROGRESS)
    return fail_errno(fmt::format("connect {}", to.to_string()), errno);
  int raw = fd.get();
  std::unique_ptr<TcpStream> stream(new TcpStream(loop, std::move(fd), false));
  EM_TRY_VOID(stream->watch_.start(loop, raw, stream.get()));
  stream->drained_ = true;
  if (options.timeout == Duration::zero()) return stream;
  TcpStream* self = stream.get();
  stream->connect_timer_ = std::make_unique<Timer>(loop, [self, to, limit = options.timeout] {
    auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(limit).count();
    self->fail_later(Error{ErrorCode::kTimeout,
                           fmt::format("connect {}: no answer in {} ms", to.to_string(), ms), 0});
  });
  stream->connect_timer_->start(options.timeout);
  return stream;
}

TcpStream::~TcpStream() {
  if (destroyed_ != nullptr) *destroyed_ = true;
  if (alive_) *alive_ = false;
  close_fd();
}

void TcpStream::close_fd() {
  if (!fd_.valid()) return;
  // A connection cut in the middle must not look like one that ended: reset it.
  if (reset_ || (connected_ && !(read_eof_ && write_shut_))) {
    linger hard{1, 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  }
  watch_.stop(true);
  fd_.reset();
}

IoResult TcpStream::read(std::span<uint8_t> into) {
  if (failed_) return {IoResult::kError, ECONNRESET, 0};
  if (read_eof_) return kEof;
  if (drained_) {
    want_readable_ = true;
    return kWouldBlock;
  }
  if (eof_next_) return ended();
  ssize_t n = ::recv(fd_.get(), into.data(), into.size(), 0);
  if (n > 0) {
    if (static_cast<size_t>(n) < into.size()) {
      drained_ = !watch_.peer_ended();
      eof_next_ = watch_.peer_finished();
    }
    return {IoResult::kOk, 0, static_cast<size_t>(n)};
  }
  if (n == 0) return ended();
  int err = errno;
  if (err == EAGAIN || err == EINTR || (err == ENOTCONN && !connected_)) {
    want_readable_ = true;
    return kWouldBlock;
  }
  fail_later(Error::from_errno("read", err));
  return {IoResult::kError, err, 0};
}

IoResult TcpStream::ended() {
  read_eof_ = true;
  if (write_shut_) close_fd();
  return kEof;
}

IoResult TcpStream::write(std::span<const uint8_t> data) { return send_some(data, MSG_NOSIGNAL); }

IoResult TcpStream::write_before_end(std::span<const uint8_t> data) {
  return send_some(data, MSG_NOSIGNAL | MSG_MORE);
}

IoResult TcpStream::send_some(std::span<const uint8_t> data, int flags) {
  if (failed_ || write_shut_) return {IoResult::kError, EPIPE, 0};
  ssize_t n = ::send(fd_.get(), data.data(), data.size(), flags);
  if (n > 0) {
    took_bytes_ = true;
    if (static_cast<size_t>(n) < data.size()) want_writable_ = true;
    return {IoResult::kOk, 0, static_cast<size_t>(n)};
  }
  int err = n == 0 ? EAGAIN : errno;
  if (err == EAGAIN || err == EINTR || (err == ENOTCONN && !connected_)) {
    want_writable_ = true;
    return kWouldBlock;
  }
  fail_later(Error::from_errno(connected_ ? "write" : "connect", err));
  return {IoResult::kError, err, 0};
}

bool TcpStream::close_both() {
  if (!connected_ || failed_ || reset_ || !fd_.valid()) return false;
  read_eof_ = write_shut_ = true;
  close_fd();
  return true;
}

void TcpStream::shutdown_write() {
  if (write_shut_ || failed_) return;
  write_shut_ = true;
  if (!connected_) return;  // done when connected
  // Both directions ended: close(2) says it in one call.
  if (read_eof_)
    close_fd();
  else
    ::shutdown(fd_.get(), SHUT_WR);
}

void TcpStream::fail_later(Error error) {
  if (failed_) return;
  failed_ = true;
  reset_ = true;
  if (!alive_) alive_ = std::make_shared<bool>(true);
  loop_.defer([this, alive = alive_, error = std::move(error)] {
    if (!*alive) return;
    close_fd();
    if (handler_ != nullptr) handler_->on_error(error);
  });
}

void TcpStream::finish_connect() {
  connected_ = true;
  connect_timer_.reset();
  if (write_shut_) ::shutdown(fd_.get(), SHUT_WR);
}

void TcpStream::on_fd(bool readable, bool writable) {
  if (failed_) return;
  if (readable) drained_ = false;
  bool destroyed = false;
  destroyed_ = &destroyed;
  if (!connected_) {
    int err = 0;
    if (!took_bytes_) {
      socklen_t len = sizeof err;
      getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &err, &len);
      if (err == 0 && !writable) {
        destroyed_ = nullptr;
        return;
      }
      if (err == 0 && readable && !peer_addr()) err = ECONNREFUSED;  // the reason was taken already
    }
    if (err != 0) {
      destroyed_ = nullptr;
      connect_timer_.reset();
      fail_later(Error::from_errno("connect", err));
      return;
    }
    finish_connect();
    if (handler_ != nullptr) handler_->on_connected();
    if (destroyed) return;
  }
  if (readable && want_readable_ && !failed_ && handler_ != nullptr) {
    want_readable_ = false;
    handler_->on_readable();
    if (destroyed) return;
  }
  if (writable && want_writable_ && !failed_ && handler_ != nullptr) {
    want_writable_ = false;
    handler_->on_writable();
    if (destroyed) return;
  }
  destroyed_ = nullptr;
}

Result<SockAddr> TcpStream::local_addr() const {
  return local_name(fd_.get());
}
Result<SockAddr> TcpStream::peer_addr() const {
  return peer_name(fd_.get());
}

Fd TcpStream::release() {
  watch_.stop();
  failed_ = true;
  return std::move(fd_);
}

}  // namespace edgemesh::io
