// Worker: a thread with its loop, its listeners and the connections that they took. Workers share
// nothing: each has its own sockets on the same ports (SO_REUSEPORT), its own picker and counters.
// Threads: made and used on the main thread; set_snapshot, set_dialer and drain post to the
// worker's thread.
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "proxy/connection.h"
#include "proxy/inbound.h"
#include "proxy/l4_connection.h"
#include "proxy/udp/udp_listener.h"

namespace edgemesh::proxy {

class Worker {
 public:
  // Listens at once; connections are taken when the thread runs. `listeners` with port 0 get the
  // ports that the first worker chose (see listen_addrs()).
  static Result<std::unique_ptr<Worker>> create(int index, const ProxyOptions& options,
                                                obs::Registry& registry);
  ~Worker();

  io::Loop& loop() { return *loop_; }
  WorkerContext& context() { return *context_; }
  p2p::Acceptor& acceptor() { return inbound_; }
  void set_dialer(p2p::Dialer* dialer);
  // Before start(): who gets connections to other nodes.
  void set_tunnel_worker(Worker& other);

  void start();
  void set_snapshot(std::shared_ptr<const discovery::Snapshot> snapshot);
  void set_capture_cidrs(std::vector<Cidr> cidrs);
  // Stops accepting; flows of datagrams go on until stop(). `done` runs on the worker's thread when
  // no connection is left.
  void drain(io::Task done);
  // Resets what is open and ends the thread. Blocking.
  void stop();

  std::vector<SockAddr> listen_addrs() const;

 private:
  Worker(std::unique_ptr<io::Loop> loop, const ProxyOptions& options, obs::Registry& registry,
         int index);
  Result<> listen(const ListenerOptions& options, bool reuse_port);
  Result<> listen_udp(const ListenerOptions& options, const ProxyOptions& proxy);
  void take_parcel(const UdpParcel& parcel);

  std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<WorkerContext> context_;
  UdpContext udp_;
  UdpInbound udp_inbound_;
  Inbound inbound_;
  std::vector<std::unique_ptr<io::TcpListener>> listeners_;
  std::vector<std::unique_ptr<UdpListener>> udp_listeners_;  // null: not listening
  std::vector<SockAddr> addrs_;
  io::Task on_drained_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for tasks that never ran
  std::thread thread_;
};

}  // namespace edgemesh::proxy
