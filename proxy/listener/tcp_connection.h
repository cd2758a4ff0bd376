// TcpConnection: a connection of a chain that forwards bytes: an endpoint of a cluster is picked,
// connected to, others are tried while none answered, then bytes are pumped. It owns itself.
// Threads: the worker's loop.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "proxy/exchange/http_connection.h"
#include "proxy/l4_pump.h"
#include "proxy/listener/worker_listener.h"
#include "proxy/route/facts.h"
#include "proxy/telemetry/tcp_tally.h"
#include "proxy/upstream/outlier.h"

namespace edgemesh::proxy {

class TcpConnection final : public Pump, public ListNode<TcpConnection> {
 public:
  struct Start {
    ListenerRuntimePtr runtime;
    const ChainRuntime* chain = nullptr;  // of runtime
    std::unique_ptr<io::Stream> stream;
    ClientInfo client;
    std::string early;  // what was read from the stream already
  };
  static void start(WorkerListener& listener, Start start);
  void abort(EndReason reason) { on_pump_end(reason, nullptr); }
  // Counts what was moved since the last time.
  void tell_progress();

 private:
  TcpConnection(WorkerListener& listener, Start start);
  ~TcpConnection() override;
  void begin();
  bool choose_cluster();
  void try_next();
  void on_pump_end(EndReason reason, const Error* error) override;
  void on_client_readable_early() override {}  // it waits in the socket
  void on_upstream_connected() override;
  void on_upstream_failed_early(const Error& error) override;
  void fail_attempt(const Error& error);
  void on_timer();
  void tell_end(EndReason reason, const Error* error);
  TrafficScope* cluster_scope(WorkerTelemetry& telemetry) const;
  const model::TcpChain& spec() const {
    return std::get<model::TcpChain>(start_.chain->chain->network);
  }

  WorkerListener& listener_;
  Start start_;
  Facts facts_;
  p2p::PathKind path_ = p2p::PathKind::kLocal;  // to the endpoint
  ClusterRef cluster_;
  HostRef host_;
  RequestTicket ticket_;
  const model::WeightedCluster* choice_ = nullptr;
  std::vector<const Host*> tried_;
  bool has_connection_ = false;  // of the cluster's limit
  TcpTally tally_;
  TimePoint opened_;
  io::Timer timer_;
};

}  // namespace edgemesh::proxy
