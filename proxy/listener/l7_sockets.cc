// The sockets of listeners: made here, or taken over from the process before.
#include <fcntl.h>

#include "core/base/log.h"
#include "proxy/listener/l7_side.h"

namespace edgemesh::proxy {

namespace {

Result<io::Fd> duplicate(int fd) {
  io::Fd out(fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!out.valid()) return fail_errno("a listening socket", errno);
  return out;
}

}  // namespace

UdpListenOptions udp_options(const model::Listener& spec) {
  UdpListenOptions options;
  options.transparent = spec.transparent;
  options.idle_timeout = spec.udp_idle_timeout;
  options.max_flows = spec.udp_max_flows;
  options.reuse_port = true;  // a changed listener opens before the one it replaces is closed
  return options;
}

Result<> L7Proxy::open_address(const model::Listener& spec, const SockAddr& wanted,
                               Opened* out) {
  const bool udp = spec.kind == model::Listener::Kind::kUdp;
  const size_t workers = loops_.size();
  const std::string key = InheritedSockets::key(udp, wanted, spec.name);
  std::vector<io::Fd> sockets;
  if (options_.inherited != nullptr) sockets = options_.inherited->take(key);
  io::ListenOptions options;
  options.backlog = static_cast<int>(spec.backlog);
  options.reuse_port = workers > 1;
  options.transparent = spec.transparent;
  options.no_delay = true;
  for (const io::Fd& socket : sockets)
    if (!udp) EM_TRY_VOID(io::reuse_tcp_listener(socket.get(), options));
  // Each queue has somebody who accepts from it, and each worker a queue. One of datagrams cannot
  // be shared: the flows would be torn apart.
  const size_t had = sockets.size();
  while (had > 0 && !udp && sockets.size() < workers) {
    EM_TRY(io::Fd copy, duplicate(sockets[sockets.size() % had].get()));
    sockets.push_back(std::move(copy));
  }
  SockAddr addr = wanted;
  while (sockets.size() < workers && (had == 0 || !udp)) {
    if (udp) {
      UdpListenOptions datagrams = udp_options(spec);
      datagrams.listen = addr;
      EM_TRY(io::Fd fd, UdpListener::open_socket(datagrams, &addr));
      sockets.push_back(std::move(fd));
    } else {
      EM_TRY(io::Fd fd, io::open_tcp_listener(addr, options));
      EM_TRY(addr, io::original_dst(fd.get(), false));
      sockets.push_back(std::move(fd));
    }
  }
  EM_TRY(addr, io::original_dst(sockets.front().get(), false));
  out->addrs.push_back(addr);
  const size_t index = next_udp_index_++;
  auto flows = std::make_shared<std::atomic<size_t>>(0);
  for (size_t i = 0; i < sockets.size(); ++i) {
    // A copy of an inherited one is no queue of its own.
    if (had == 0 || i < had) {
      EM_TRY(io::Fd handle, duplicate(sockets[i].get()));
      out->handles.emplace_back(key, std::move(handle));
    }
    out->sockets[i % workers].push_back({std::move(sockets[i]), index, i, flows});
  }
  return {};
}

Result<> L7Proxy::open_sockets(const model::Listener& spec, Opened* out) {
  using Kind = model::Listener::Kind;
  out->sockets.resize(loops_.size());
  if (spec.kind != Kind::kTcp && spec.kind != Kind::kUdp) return {};
  std::vector<SockAddr> wanted{spec.address};
  wanted.insert(wanted.end(), spec.more_addresses.begin(), spec.more_addresses.end());
  for (const SockAddr& addr : wanted) {
    if (auto opened = open_address(spec, addr, out); !opened)
      return fail(opened.error().with_context(fmt::format("listener {}", spec.name)));
  }
  return {};
}

std::vector<std::pair<std::string, int>> L7Proxy::listening_sockets() const {
  std::vector<std::pair<std::string, int>> out;
  for (const auto& [name, listening] : listeners_)
    for (const auto& [key, handle] : listening.handles) out.emplace_back(key, handle.get());
  return out;
}

}  // namespace edgemesh::proxy
