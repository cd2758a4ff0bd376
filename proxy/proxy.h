// Proxy: all workers of a node. Made and used on the main loop; everything that crosses to a worker
// goes by post.
//
// Start-up: create() -> start() -> the mesh is made (it needs tunnel_loop(), running, and
// acceptor())
// -> set_dialer() -> set_snapshot() on every change.
// Shut-down: drain() -> set_dialer(nullptr) -> the mesh is destroyed -> stop().
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/io/fd.h"
#include "core/io/loop.h"
#include "core/obs/metrics.h"
#include "discovery/snapshot.h"
#include "p2p/mesh.h"
#include "proxy/options.h"

namespace edgemesh::proxy {

class Worker;

class Proxy {
 public:
  static Result<std::unique_ptr<Proxy>> create(io::Loop& main, ProxyOptions options,
                                               obs::Registry& registry);
  ~Proxy();

  // The loop on which tunnels live (the first worker's).
  io::Loop& tunnel_loop();
  // Those of all workers, the first one's first.
  std::vector<io::Loop*> worker_loops();
  // Before start(): who may take captured connections; see WorkerContext::take_http.
  using TakeHttp = std::function<bool(int worker, io::Fd& fd, const SockAddr& peer,
                                      const SockAddr& destination)>;
  void set_take_http(TakeHttp take);
  // Receives the CONNECTs of peers; called on tunnel_loop().
  p2p::Acceptor& acceptor();
  // The way to other nodes, used on tunnel_loop(); null takes it away. Borrowed. Until there is
  // one, connections to other nodes end with "no tunnel".
  void set_dialer(p2p::Dialer* dialer);

  void start();
  void set_snapshot(std::shared_ptr<const discovery::Snapshot> snapshot);
  void set_capture_cidrs(const std::vector<Cidr>& cidrs);  // L4Options::capture_cidrs anew
  // Stops accepting; `done` runs on the main loop when the last connection ended or the drain
  // timeout passed (then the rest is reset).
  void drain(io::Task done);
  // Ends the threads; connections that are open are reset. Blocking, idempotent.
  void stop();

  // Addresses that the workers listen on, in the order of ProxyOptions::listeners.
  std::vector<SockAddr> listen_addrs() const;
  struct Totals {
    uint64_t opened = 0, active = 0, failed = 0, bytes_sent = 0, bytes_received = 0;
  };
  Totals totals() const;

 private:
  struct Impl;
  explicit Proxy(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace edgemesh::proxy
