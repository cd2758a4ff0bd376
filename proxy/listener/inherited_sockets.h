// InheritedSockets: sockets that listen, handed over by the process before this one (hot restart).
// What waits in their queues is not lost. Threads: one.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/base/net_addr.h"
#include "core/io/fd.h"

namespace edgemesh::proxy {

class InheritedSockets {
 public:
  // What a socket is known by in both processes: the address as it is configured; with port 0 also
  // the listener that it is for.
  static std::string key(bool udp, const SockAddr& configured, const std::string& listener);

  void add(const std::string& key, io::Fd socket) { sockets_[key].push_back(std::move(socket)); }
  // All of this key, in the order of add().
  std::vector<io::Fd> take(const std::string& key);
  // Closes what nobody took.
  void clear() { sockets_.clear(); }
  bool empty() const { return sockets_.empty(); }

 private:
  std::map<std::string, std::vector<io::Fd>> sockets_;
};

}  // namespace edgemesh::proxy
