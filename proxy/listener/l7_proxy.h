// L7Proxy: listeners, routes and clusters of a configuration, running on a set of worker loops.
// Made and used on the main loop; what crosses to a worker goes by post.
//
// Start-up: create() before the worker loops run -> apply() for every configuration ->
// set_dialer(). Shut-down: drain() -> set_dialer(nullptr) -> stop() while the loops still run ->
// the loops end.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "discovery/snapshot.h"
#include "proxy/exchange/overload.h"
#include "proxy/listener/inherited_sockets.h"
#include "proxy/listener/listener_runtime.h"
#include "proxy/listener/route_tables.h"
#include "proxy/model/config.h"
#include "proxy/udp/udp_listener.h"
#include "proxy/upstream/cluster_manager.h"
#include "proxy/upstream/health_checker.h"
#include "proxy/upstream/remote_dialer.h"

namespace edgemesh::proxy {

struct L7ProxyOptions {
  Place place;                    // where this node is
  ConnectorOptions connector;     // how endpoints are connected to
  DnsLookup lookup;               // empty: DNS clusters stay without endpoints
  size_t max_requests = 100'000;  // open at a time in one worker
  Duration drain_timeout = std::chrono::seconds(10);
  uint64_t seed = 0;  // 0: from the clock
  // Where listeners of datagrams count, each worker by its index. Null: nowhere.
  obs::Registry* metrics = nullptr;
  // Sockets that the process before handed over; looked at in apply(). Borrowed; null: none.
  InheritedSockets* inherited = nullptr;
  // Connections to service ports whose name or appProtocol says HTTP are balanced by request.
  bool capture_services = false;
  Telemetry* telemetry = nullptr;  // has as many workers; outlives the proxy. Null: nothing is told
};

// A certificate that this process shows to others.
struct CertificateInUse {
  std::string listener, cluster;  // one of them: by whom
  std::string name;               // of a listener: the first server name it is for; may be empty
  int64_t not_after = 0;          // seconds since the epoch
};

// What is read of a configuration by operators.
struct L7Totals {
  uint64_t requests = 0, active_requests = 0, connections = 0, active_connections = 0;
};

class L7Proxy {
 public:
  static Result<std::unique_ptr<L7Proxy>> create(io::Loop& main, std::vector<io::Loop*> workers,
                                                 L7ProxyOptions options);
  ~L7Proxy();
  L7Proxy(const L7Proxy&) = delete;
  L7Proxy& operator=(const L7Proxy&) = delete;

  // This configuration instead of the one before. All or nothing: on an error nothing has changed.
  // Connections stay; each of their next requests follows the new one. `tables` are those of this
  // configuration, built on another thread from tables(); null: they are built here.
  Result<> apply(std::shared_ptr<const model::Config> config, RouteTablesPtr tables = nullptr);
  void set_snapshot(std::shared_ptr<const discovery::Snapshot> snapshot);
  // The way to other nodes, which belongs to the first worker's loop; that carries the streams of
  // the others.
  void set_dialer(p2p::Dialer* dialer);

  // A connection that capture brought to worker `index`, on that worker's loop; `local` is where it
  // was sent to. True: it is taken, `fd` is moved from. A listener of kind kCaptured whose address
  // fits takes it; else, with `capture_services`, a service port that says that it speaks HTTP.
  bool take_captured(int index, io::Fd& fd, const SockAddr& peer, const SockAddr& local);

  // Listeners close, requests are finished; `done` runs on the main loop when the last connection
  // ended or the drain timeout passed. kPatient: for a process that another one takes over from.
  void drain(io::Task done, Drain how = Drain::kNow);
  // The sockets that listen, for another process; valid until the next apply() or drain().
  std::vector<std::pair<std::string, int>> listening_sockets() const;
  // Of the options: what was not taken by now is not wanted.
  void forget_inherited() { options_.inherited = nullptr; }
  // Flows of datagrams from one process to the next, so that their endpoints see no change. Nothing
  // is read from the listeners' sockets meanwhile: from give_flows() on in the one, whose `done`
  // runs on the main loop, and until take_flows() in the other, where there are sockets inherited.
  void give_flows(std::function<void(std::vector<HandedFlow>)> done);
  // Also the way back, with those that were given, or none.
  void take_flows(std::vector<HandedFlow> flows);
  // Ends everything on the workers. Blocking, idempotent; the loops must run, or never have.
  void stop();

  const std::shared_ptr<const model::Config>& config() const { return config_; }
  const RouteTablesPtr& tables() const { return tables_; }
  // Listener and address: of one with port 0 the port that the system chose.
  std::vector<std::pair<std::string, SockAddr>> listen_addrs() const;
  std::vector<std::shared_ptr<const HostSet>> clusters() const { return manager_->sets(); }
  L7Totals totals() const;
  std::vector<CertificateInUse> certificates() const;
  Telemetry* telemetry() const { return options_.telemetry; }
  // Prometheus text (0.0.4).
  void append_metrics(std::string& out) const;

 private:
  struct Side;      // one worker's
  struct Listening  // a listener's sockets
  {
    std::shared_ptr<ListenerShared> shared;
    ListenerRuntimePtr runtime;
    std::vector<SockAddr> addrs;
    std::vector<std::pair<std::string, io::Fd>> handles;  // of all its sockets, by key
  };
  struct Socket {
    io::Fd fd;
    // Of one that takes datagrams: its address in all workers, its place among those of the
    // address, the flows of the address.
    size_t index = 0, queue = 0;
    std::shared_ptr<std::atomic<size_t>> flows;
  };
  struct Opened {
    std::vector<std::vector<Socket>> sockets;  // by worker
    std::vector<SockAddr> addrs;
    std::vector<std::pair<std::string, io::Fd>> handles;
  };

  L7Proxy(io::Loop& main, std::vector<io::Loop*> workers, L7ProxyOptions options);
  Result<> open_sockets(const model::Listener& spec, Opened* out);
  Result<> open_address(const model::Listener& spec, const SockAddr& wanted, Opened* out);
  void publish(const ClusterUpdates& updates);
  // l7_datagrams.cc
  void make_datagrams(int worker);
  // The configuration that was in force goes where it delays nobody, after the workers left it.
  std::shared_ptr<void> retire();
  // captured.cc
  void make_service(const std::string& key, const std::string& ns, const std::string& name,
                    uint16_t port);
  void drop_services();
  void remove_listener(const std::string& name);
  void for_each_listening(
      const std::function<void(const std::string&, const ListenerShared&)>& visit) const;
  // l7_overload.cc
  void look_at_load();
  void look_at_memory();
  void give_memory_back();
  // Runs `task` on the loop of each side.
  void each_side(const std::function<void(Side&)>& task);

  io::Loop& main_;
  std::vector<io::Loop*> loops_;
  L7ProxyOptions options_;
  std::vector<std::shared_ptr<Side>> sides_;
  std::shared_ptr<DialerPlace> dialer_place_;
  std::shared_ptr<Overload> overload_;
  std::unique_ptr<ClusterManager> manager_;
  std::shared_ptr<const model::Config> config_;
  RouteTablesPtr tables_ = std::make_shared<RouteTables>();
  std::shared_ptr<const discovery::Snapshot> snapshot_;
  struct Service {  // made for a captured connection
    std::string ns, name;
    uint16_t port = 0;
    std::shared_ptr<const model::Cluster> cluster;
    Listening listening;
  };
  std::map<std::string, Service> services_;  // by the name of cluster and listener
  std::map<std::string, Listening> listeners_;
  io::Timer drain_timer_;
  io::Timer load_timer_;     // while there are limits
  int short_of_memory_ = 0;  // for how many looks in a row
  io::Task on_drained_;
  size_t busy_ = 0;
  size_t next_udp_index_ = 0;
  bool stopped_ = false;
  std::shared_ptr<std::atomic<bool>> alive_ = std::make_shared<std::atomic<bool>>(true);
};

// What apply() would say of this configuration, without opening a socket: for --check-config.
Result<> check_config(const model::Config& config);

}  // namespace edgemesh::proxy
