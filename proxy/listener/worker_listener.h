// WorkerListener: a listener on one worker: its sockets, what its connections look through to the
// newest configuration, and how connections come to their chain. Threads: the worker's loop.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/io/tcp.h"
#include "proxy/exchange/l7_worker.h"
#include "proxy/l4_pump.h"
#include "proxy/listener/listener_runtime.h"

namespace edgemesh::proxy {

class Arrival;
class TcpConnection;

// What a worker's listeners share.
struct ListenerWorker {
  // `stats` is borrowed.
  ListenerWorker(io::Loop& loop, L7WorkerOptions options, L7Stats& stats)
      : index(options.index), l7(loop, std::move(options), stats), pumps(loop) {}
  int index;
  L7Worker l7;
  PumpContext pumps;
};

class WorkerListener {
 public:
  WorkerListener(ListenerWorker& worker, std::shared_ptr<ListenerShared> shared,
                 ListenerRuntimePtr runtime);
  ~WorkerListener();
  WorkerListener(const WorkerListener&) = delete;
  WorkerListener& operator=(const WorkerListener&) = delete;

  // Takes over a socket that is bound and listens.
  Result<> adopt(io::Fd socket);
  void update(ListenerRuntimePtr runtime);
  // A connection that came in elsewhere; `local` is where it was sent to.
  void take(io::Fd fd, const SockAddr& peer, const SockAddr& local, bool has_no_delay = false);
  // No new connections; those that are open finish their requests. Bytes go on until they end.
  // kPatient: also those that have only just come, and idle ones have one more.
  void drain(Drain how = Drain::kNow);
  // Closes the sockets; who has come is taken.
  void stop_accepting();
  // Ends what is open.
  void close_all();
  size_t connections() const { return connections_; }

  ListenerWorker& worker() { return worker_; }
  const ListenerRuntimePtr& runtime_ptr() const { return runtime_; }
  ListenerStats& stats() { return *shared_->stats[static_cast<size_t>(worker_.index)]; }
  // Where connections of this chain find the newest version.
  ChainSlotPtr slot(const ChainRuntime& chain);
  List<Arrival>& arrivals() { return arrivals_; }
  List<TcpConnection>& tcp_connections() { return tcp_; }
  void note_tcp();   // one more of bytes
  void note_gone();  // a connection that take() counted is over

 private:
  void tell_progress();
  static std::string key_of(const ListenerRuntime& runtime, const ChainRuntime& chain);

  ListenerWorker& worker_;
  std::shared_ptr<ListenerShared> shared_;
  ListenerRuntimePtr runtime_;
  std::vector<std::unique_ptr<io::TcpListener>> sockets_;
  std::map<std::string, ChainSlotPtr> slots_;
  List<Arrival> arrivals_;
  List<TcpConnection> tcp_;
  size_t connections_ = 0;
  bool draining_ = false;
  std::unique_ptr<io::Timer>
      progress_;  // counts bytes of long connections; only where there are any
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::proxy
