// UdpListener: datagrams that come to one address (or, with TPROXY, for any service) as flows. A
// flow is a client address and a destination: it has an endpoint of its own choice, to which its
// datagrams go from a socket of its own, and whose answers go back to the client from the
// destination. It ends when nothing came for the idle timeout, either way.
//
// Datagrams are dropped, and counted, where something has no room; nothing waits in memory.
// An endpoint whose port is unreachable (ICMP) is left: the next datagram goes to another one.
// Threads: the worker's loop; made before it runs or on it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/io/loop.h"
#include "proxy/udp/datagram_batch.h"
#include "proxy/udp/flow_table.h"
#include "proxy/udp/raw_replies.h"
#include "proxy/udp/route.h"
#include "proxy/udp/udp_metrics.h"

namespace edgemesh::p2p {
class Dialer;
}

namespace edgemesh::proxy {

// Datagrams of a flow on their way to the worker that owns the tunnels.
struct UdpParcel {
  size_t listener = 0;  // which of the worker's
  FlowKey key;
  std::vector<uint8_t> bytes;
  std::vector<std::pair<uint32_t, uint16_t>> items;  // size and segment of each
};

struct UdpOptions {
  std::string node;   // of this agent
  uint32_t mark = 0;  // SO_MARK of sockets to endpoints inside capture_cidrs
  std::vector<Cidr> capture_cidrs;
  bool access_log = true;
};

// What the datagram side of one worker shares.
struct UdpContext {
  UdpContext(io::Loop& l, UdpOptions o, obs::Registry& registry, int index)
      : loop(l), options(std::move(o)), metrics(registry, index) {}

  io::Loop& loop;
  UdpOptions options;
  UdpMetrics metrics;
  DatagramBatch batch;
  RawReplies replies;
  // The way to other nodes: a dialer on this loop, or another worker that has one, or neither.
  p2p::Dialer* dialer = nullptr;
  // False: too much is on its way already.
  std::function<bool(UdpParcel)> hand_over;
};

struct UdpListenOptions {
  SockAddr listen;
  bool transparent = false;  // TPROXY: destinations are not ours, answers leave from them
  bool reuse_port = false;
  size_t index = 0;  // among the worker's: the same for all workers
  Duration idle_timeout = std::chrono::minutes(1);
  // After a question to port 53 got its answer.
  Duration answered_timeout = std::chrono::seconds(5);
  size_t max_flows = 10'000;
  int receive_bytes = 4 << 20;
};

class UdpFlow;

class UdpListener final : private io::FdWatch::Handler {
 public:
  static Result<std::unique_ptr<UdpListener>> listen(UdpContext& context, UdpListenOptions options,
                                                     std::unique_ptr<UdpDirectory> directory);
  ~UdpListener() override;

  SockAddr local_addr() const { return local_; }
  size_t flows() const { return table_.size(); }
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
  bool make_room();
  void end(UdpFlow& flow, FlowEnd reason);
  // From a flow: its endpoint's answers.
  void reply(UdpFlow& flow, std::span<const Datagram> items);
  void go_on_later(UdpFlow& flow);
  void run_again();
  void expire();
  void arm(Duration within);

  UdpContext& context_;
  UdpListenOptions options_;
  std::unique_ptr<UdpDirectory> directory_;
  io::Fd fd_;
  SockAddr local_;
  io::FdWatch watch_;
  FlowTable table_;
  struct Waiting;  // flows that used up their share of a turn
  std::unique_ptr<Waiting> waiting_;
  bool more_ = false;  // so did this listener
  io::Timer again_;
  io::Timer expiry_;
};

}  // namespace edgemesh::proxy
