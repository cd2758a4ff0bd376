// ReplySockets: answers to clients leave from the address that the client wrote to, which is no
// address of this machine. One transparent socket for each service address and port, made when it
// is needed first and shared by all flows to it; the least recently used one is closed when the
// limit is reached. They only send: what would be received is dropped in the kernel.
// Threads: the worker's loop.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "proxy/udp/datagram_batch.h"
#include "proxy/upstream/list.h"

namespace edgemesh::proxy {

class ReplySockets {
 public:
  // `transparent` off: only own addresses can be used (tests). `mark`: SO_MARK, 0: none.
  explicit ReplySockets(size_t limit = 1024, bool transparent = true, uint32_t mark = 0)
      : limit_(limit), transparent_(transparent), mark_(mark) {}

  // The socket that sends from `from`; valid until the next call.
  Result<int> get(const SockAddr& from);
  size_t size() const { return sockets_.size(); }

 private:
  struct Entry : ListNode<Entry> {
    SockAddr addr;
    io::Fd fd;
  };

  size_t limit_;
  bool transparent_;
  uint32_t mark_;
  std::unordered_map<SockAddr, Entry> sockets_;
  List<Entry> by_use_;  // the least recently used first
};

}  // namespace edgemesh::proxy
