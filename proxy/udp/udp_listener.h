// UdpListener: datagrams that come to one address (or, with TPROXY, for any service) as flows. A
// flow is a client address and a destination: it has an endpoint of its own choice, to which its
// datagrams go from a socket of its own, and whose answers go back to the client from the
// destination. It ends when nothing came for the idle timeout, either way.
//
// Datagrams are dropped, and counted, where something has no room; nothing waits in memory.
// An endpoint whose port is unreachable (ICMP) is left: the next datagram goes to another one. A
// captured client is told by ICMP of its own, as it is where no service or endpoint is: it may ask
// again at once.
// Threads: the worker's loop; made before it runs or on it.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "proxy/udp/route.h"
#include "proxy/udp/udp_context.h"

namespace edgemesh::proxy {

struct UdpListenOptions {
  SockAddr listen;
  bool transparent = false;  // TPROXY: destinations are not ours, answers leave from them
  bool reuse_port = false;
  size_t index = 0;  // among the worker's: the same for all workers
  size_t queue = 0;  // which of the sockets of this address
  Duration idle_timeout = std::chrono::minutes(1);
  // After a question to port 53 got its answer.
  Duration answered_timeout = std::chrono::seconds(5);
  size_t max_flows = 10'000;
  // The flows of all workers' listeners of this address count for the limit. Null: its own.
  std::shared_ptr<std::atomic<size_t>> open_flows;
  int receive_bytes = 4 << 20;
};

class UdpFlow;

// A flow on its way to another process that has the listener's socket, too.
struct HandedFlow {
  SockAddr listener;  // the local address of its socket
  size_t queue = 0;   // the kernel brings the flow's datagrams to this one of its sockets
  FlowKey key;
  SockAddr endpoint;
  io::Fd socket;  // connected to the endpoint
};

class UdpListener final : private io::FdWatch::Handler {
 public:
  static Result<std::unique_ptr<UdpListener>> listen(UdpContext& context, UdpListenOptions options,
                                                     std::unique_ptr<UdpDirectory> directory);
  // The two halves of listen(), for who opens sockets on another thread.
  static Result<io::Fd> open_socket(const UdpListenOptions& options, SockAddr* local);
  static Result<std::unique_ptr<UdpListener>> adopt(UdpContext& context, UdpListenOptions options,
                                                    std::unique_ptr<UdpDirectory> directory,
                                                    io::Fd socket, const SockAddr& local);
  ~UdpListener() override;

  SockAddr local_addr() const { return local_; }
  size_t index() const { return options_.index; }
  size_t queue() const { return options_.queue; }
  size_t flows() const { return table_.size(); }
  // Datagrams wait in the socket, or are another process's.
  void pause();
  void resume();
  // Pauses; adds the flows that have a socket to an endpoint. None is left here.
  void give_flows(std::vector<HandedFlow>* out);
  // False: its endpoint is gone, or there is no room. Its next datagram begins a new flow.
  bool take_flow(HandedFlow flow);
  // Datagrams that another worker received.
  void deliver(const UdpParcel& parcel);

 private:
  friend class UdpFlow;
  UdpListener(UdpContext& context, UdpListenOptions options,
              std::unique_ptr<UdpDirectory> directory, io::Fd fd, SockAddr local);
  void on_fd(bool readable, bool writable) override;

  bool receive_some();  // true: more may wait
  void take_batch(size_t n);
  void dispatch(const FlowKey& key, std::span<const Datagram> items);
  UdpFlow* open(const FlowKey& key, std::span<const Datagram> items);
  void insert(std::unique_ptr<UdpFlow> flow);
  size_t open_flows() const;
  bool make_room();
  void end(UdpFlow& flow, FlowEnd reason);
  // From a flow: its endpoint's answers.
  void reply(UdpFlow& flow, std::span<const Datagram> items);
  // Tells the client of a captured datagram that nobody took it.
  void refuse(const FlowKey& key);
  void expire();
  void arm(Duration within);

  UdpContext& context_;
  UdpListenOptions options_;
  std::unique_ptr<UdpDirectory> directory_;
  io::Fd fd_;
  SockAddr local_;
  io::FdWatch watch_;
  FlowTable table_;
  io::Timer again_;  // it used up its share of a turn
  io::Timer expiry_;
};

}  // namespace edgemesh::proxy
