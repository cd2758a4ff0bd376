// Connection: what outbound and inbound connections of a worker share: a place in the worker's
// list, timeouts, counters, the access log line. WorkerContext: what they get from their worker.
// Threads: the worker's loop.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "discovery/picker.h"
#include "discovery/snapshot.h"
#include "p2p/mesh.h"
#include "proxy/l4_pump.h"
#include "proxy/options.h"
#include "proxy/telemetry/tcp_tally.h"
#include "proxy/worker_metrics.h"

namespace edgemesh::proxy {

class Connection;

// A connection on its way to the worker that owns the tunnels.
struct Handover {
  io::Fd fd;
  SockAddr source;
  SockAddr destination;
  std::string early;                          // what the client had sent
  std::vector<discovery::EndpointKey> tried;  // endpoints that failed
  Error last;                                 // of the last of them
  TimePoint opened{};
};

struct WorkerContext : PumpContext {
  WorkerContext(io::Loop& loop_, L4Options options_, discovery::Picker picker_,
                obs::Registry& registry, int index)
      : PumpContext(loop_),
        options(std::move(options_)),
        picker(std::move(picker_)),
        metrics(registry, index) {
    bytes_to_upstream = &metrics.to_upstream;
    bytes_to_client = &metrics.to_client;
  }

  L4Options options;
  std::shared_ptr<const discovery::Snapshot> snapshot;
  discovery::Picker picker;
  WorkerMetrics metrics;
  // The way to other nodes: a dialer on this loop, or another worker that has one, or neither.
  p2p::Dialer* dialer = nullptr;
  std::function<void(Handover)> hand_over;
  // Offered each captured connection first; true: it was taken. Null: all are forwarded as bytes.
  std::function<bool(io::Fd& fd, const SockAddr& peer, const SockAddr& destination)> take_http;
  std::function<void()> on_empty;        // while draining: the last connection ended
  WorkerTelemetry* telemetry = nullptr;  // null: nothing is told

  size_t connections = 0;
  Connection* first = nullptr;

  // Ends all connections.
  void abort_all();

 private:
  friend class Connection;
  void tell_progress();
  std::unique_ptr<io::Timer> progress_timer_;  // with telemetry, while there are connections
};

class Connection : public Pump {
 public:
  void abort(EndReason reason) { on_pump_end(reason, nullptr); }

 protected:
  // `counted`: another worker counted it as opened.
  Connection(WorkerContext& worker, const SockAddr& source, const SockAddr& destination,
             bool counted = false);
  ~Connection() override;

  WorkerContext& worker() { return worker_; }
  const SockAddr& source() const { return source_; }
  const SockAddr& destination() const { return destination_; }
  TimePoint opened() const { return opened_; }
  void set_opened(TimePoint when) { opened_ = when; }

  // One timer for all: the deadline of the connect first; then it looks now and then whether the
  // connection was idle for too long, so that traffic never touches it.
  void start_connect_timer() { start_connect_timer(worker_.options.connect_timeout); }
  void start_connect_timer(Duration limit) { timer_.start(limit); }
  void note_connected();
  virtual void on_connect_timeout() = 0;

  struct LogFields {
    std::string source, service, endpoint, node;
    std::string_view path = "none";
  };
  bool logs() const;  // whether report() will write a line, so that fields need filling
  // Whose bytes these are: a service, and the node that its endpoint is on. `peer` is the node that
  // the connection came from; empty: this one.
  void tell_service(std::string_view ns, std::string_view name, uint16_t port,
                    std::string_view node, std::string_view peer = {});
  // Counts and logs the end.
  void report(EndReason reason, const Error* error, const LogFields& fields);

 private:
  friend struct WorkerContext;
  void on_timer();
  // To the metrics: what was moved since the last time; the end.
  void tell_progress();
  void tell_end(EndReason reason);
  TrafficScope* own_scope() const;

  WorkerContext& worker_;
  Connection* previous_ = nullptr;
  Connection* next_ = nullptr;
  SockAddr source_;
  SockAddr destination_;
  TimePoint opened_;
  int32_t connect_us_ = -1;
  TcpTally tally_;
  TrafficScopePtr scope_;  // null: nothing is told
  io::Timer timer_;
};

}  // namespace edgemesh::proxy
