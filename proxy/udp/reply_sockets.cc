#include "proxy/udp/reply_sockets.h"

#include <linux/filter.h>

namespace edgemesh::proxy {

namespace {

// Other workers and other programs may be bound to the address as well; nothing that comes for it
// may wait in a socket that nobody reads.
void receive_nothing(int fd) {
  sock_filter drop_all{BPF_RET | BPF_K, 0, 0, 0};
  sock_fprog program{1, &drop_all};
  setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

}  // namespace

Result<int> ReplySockets::get(const SockAddr& from) {
  if (auto it = sockets_.find(from); it != sockets_.end()) {
    by_use_.push_back(it->second);
    return it->second.fd.get();
  }
  if (sockets_.size() >= limit_ && !by_use_.empty()) sockets_.erase(by_use_.front()->addr);
  DatagramSocketOptions options;
  options.transparent = transparent_;
  options.reuse_addr = true;
  options.mark = mark_;
  EM_TRY(io::Fd fd, open_datagram_socket(from.ip.is_v6(), options));
  receive_nothing(fd.get());
  EM_TRY_VOID(bind_datagram_socket(fd.get(), from));
  Entry& entry = sockets_[from];
  entry.addr = from;
  entry.fd = std::move(fd);
  by_use_.push_back(entry);
  return entry.fd.get();
}

}  // namespace edgemesh::proxy
