#include "core/io/socket_name.h"

#include <sys/socket.h>

#include <cerrno>

namespace edgemesh::io {

namespace {
Result<SockAddr> name_by(int (*call)(int, sockaddr*, socklen_t*), int fd, const char* what) {
  sockaddr_storage storage{};
  socklen_t len = sizeof storage;
  auto* sa = reinterpret_cast<sockaddr*>(&storage);  // NOLINT
  if (call(fd, sa, &len) != 0) return fail_errno(what, errno);
  return SockAddr::from_sockaddr(sa, len);
}
}  // namespace

Result<SockAddr> local_name(int fd) { return name_by(&getsockname, fd, "getsockname"); }
Result<SockAddr> peer_name(int fd) { return name_by(&getpeername, fd, "getpeername"); }

}  // namespace edgemesh::io
