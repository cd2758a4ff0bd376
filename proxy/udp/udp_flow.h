// UdpFlow: one client address and destination, and the endpoint that answers it. Private to
// proxy/udp. Threads: the worker's loop.
#pragma once

#include <optional>

#include "proxy/udp/udp_listener.h"

namespace edgemesh::proxy {

struct ReadyTag {};

class UdpFlow final : public FlowNode,
                      public ListNode<UdpFlow, ReadyTag>,
                      private io::FdWatch::Handler {
 public:
  UdpFlow(UdpListener& listener, const FlowKey& key, std::unique_ptr<UdpRoute> route);
  ~UdpFlow() override;

  // To the endpoint; another one is chosen where that is needed. A value: the flow cannot go on.
  std::optional<FlowEnd> send(std::span<const Datagram> items);
  // Passes on what the endpoint sent, its share of a turn. True: more may wait.
  bool receive_some();
  void log_end(FlowEnd reason) const;

  // Counted by the listener: what went back to the client.
  void count_reply(const SendOutcome& out) {
    received_ += out.datagrams;
    bytes_received_ += out.bytes;
  }
  bool question_answered() const { return received_ >= sent_; }

 private:
  void on_fd(bool readable, bool writable) override;
  std::optional<FlowEnd> connect();
  Result<> connect_local();
  void disconnect();
  void refused();
  void hand_over(std::span<const Datagram> items);
  UdpContext& context() const { return listener_.context_; }

  UdpListener& listener_;
  std::unique_ptr<UdpRoute> route_;
  io::Fd fd_;  // to the endpoint
  io::FdWatch watch_;
  bool elsewhere_ = false;  // another worker serves it
  bool heard_ = false;      // the present endpoint has answered
  bool chosen_ = false;     // the route has an endpoint
  TimePoint opened_;
  uint64_t sent_ = 0, received_ = 0;  // datagrams
  uint64_t bytes_sent_ = 0, bytes_received_ = 0;
};

}  // namespace edgemesh::proxy
