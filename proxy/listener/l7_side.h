// L7Proxy::Side: one worker's part of an L7Proxy. Private to l7_*.cc. Everything in it belongs to
// the worker's loop, but `stats`, which are atomics and live as long as the side.
#pragma once

#include <unordered_map>

#include "proxy/listener/l7_proxy.h"
#include "proxy/listener/worker_listener.h"
#include "proxy/udp/udp_listener.h"
#include "proxy/upstream/remote_dialer.h"

namespace edgemesh::proxy {

UdpListenOptions udp_options(const model::Listener& spec);

struct L7Proxy::Side {
  Side(io::Loop& loop, L7WorkerOptions options) {
    worker = std::make_unique<ListenerWorker>(loop, std::move(options), stats);
  }
  void set_listener(const std::string& name, std::shared_ptr<ListenerShared> shared,
                    ListenerRuntimePtr runtime, bool opens, std::vector<Socket>& sockets);
  // The same for kind kUdp.
  void set_udp_listener(const model::Listener& spec, bool opens, std::vector<Socket>& sockets);
  void remove_udp_listener(const std::string& name);
  // How many go on. Each was given by this worker's socket.
  size_t take_flows(std::vector<HandedFlow>& flows);
  // Datagrams to other nodes, that another worker received.
  void take_parcel(const UdpParcel& parcel);
  // The listener of kind kCaptured that a connection to `local` belongs to; null: none.
  WorkerListener* find_captured(const SockAddr& local);
  // Connections whose service has no listener yet go on, or are let go.
  void resume_waiting(const std::string& key);
  void count_captured();

  // `done` once there is no connection.
  void wait_empty(io::Task done);
  void end();
  size_t connections() const;

  L7Stats stats;
  std::unique_ptr<ListenerWorker> worker;  // null after end()
  std::map<std::string, std::unique_ptr<WorkerListener>> listeners;
  std::vector<std::unique_ptr<WorkerListener>> draining;  // that a configuration removed
  std::unique_ptr<HealthChecker> health;                  // the first side's
  obs::Registry own_metrics;
  std::unique_ptr<UdpContext> datagrams;
  std::unique_ptr<RemoteDialer> remote;  // null: the first side's, which has the tunnels
  std::map<std::string, std::vector<std::unique_ptr<UdpListener>>> udp_listeners;  // by name
  std::unordered_map<size_t, UdpListener*> udp_by_index;
  bool holds_datagrams = false;  // until the flows of the process before are here
  std::shared_ptr<const discovery::Snapshot> snapshot;  // with capture_services
  struct Waiting {
    io::Fd fd;
    SockAddr peer, local;
  };
  static constexpr size_t kMaxWaiting = 1024;
  std::map<std::string, std::vector<Waiting>> waiting;  // for the listener of their service
  size_t waiting_count = 0;
  size_t captured = 0;  // listeners of kind kCaptured that a configuration names
  std::unique_ptr<io::Timer> look_timer;
  io::Task on_empty;
};

}  // namespace edgemesh::proxy
