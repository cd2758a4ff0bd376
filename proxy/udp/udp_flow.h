// UdpFlow: one client address and destination, and the endpoint that answers it. Private to
// proxy/udp. Threads: the worker's loop.
#pragma once

#include <optional>

#include "proxy/udp/udp_listener.h"

namespace edgemesh::proxy {

class UdpFlow final : public FlowNode,
                      private EndpointSocket::Owner,
                      private DatagramTunnel::Owner {
 public:
  UdpFlow(UdpListener& listener, const FlowKey& key, std::unique_ptr<UdpRoute> route);
  ~UdpFlow() override;

  // To the endpoint; another one is chosen where that is needed. A value: the flow cannot go on.
  std::optional<FlowEnd> send(std::span<const Datagram> items);
  void log_end(FlowEnd reason) const;
  // Between processes: the endpoint's socket, not valid where there is none of this process; and
  // the way back.
  io::Fd release_socket(SockAddr* endpoint);
  bool resume(io::Fd socket, const SockAddr& endpoint);

  // Counted by the listener: what went back to the client.
  void count_reply(const SendOutcome& out) {
    received_ += out.datagrams;
    bytes_received_ += out.bytes;
  }
  bool question_answered() const { return received_ >= sent_; }

 private:
  void on_answers(std::span<const Datagram> items) override;
  void on_refused() override;
  void on_tunnel_datagrams(std::span<const Datagram> items) override { on_answers(items); }
  void on_tunnel_lost(size_t n) override { context().metrics.count_drop(UdpDrop::kTunnel, n); }
  void on_tunnel_end(const Error* error) override;

  bool connected() const { return socket_ != nullptr || tunnel_ != nullptr || elsewhere_; }
  std::optional<FlowEnd> connect();
  Result<> connect_to_endpoint();
  void disconnect();
  void leave_endpoint();
  // True: all were taken or dropped; else the rest is for another endpoint.
  bool pass_on(std::span<const Datagram>* items);
  void hand_over(std::span<const Datagram> items);
  UdpContext& context() const { return listener_.context_; }

  UdpListener& listener_;
  std::unique_ptr<UdpRoute> route_;
  // One of these, or none.
  std::unique_ptr<EndpointSocket> socket_;
  std::unique_ptr<DatagramTunnel> tunnel_;
  bool elsewhere_ = false;  // another worker serves it
  bool heard_ = false;      // the present endpoint has answered
  bool chosen_ = false;     // the route has an endpoint
  p2p::PathKind path_ = p2p::PathKind::kNone;
  TimePoint opened_;
  uint64_t sent_ = 0, received_ = 0;  // datagrams
  uint64_t bytes_sent_ = 0, bytes_received_ = 0;
};

}  // namespace edgemesh::proxy
