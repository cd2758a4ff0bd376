#include "proxy/udp/udp_inbound.h"

#include "core/base/log.h"

namespace edgemesh::proxy {

class UdpInbound::Flow final : public ListNode<Flow>,
                               private EndpointSocket::Owner,
                               private DatagramTunnel::Owner {
 public:
  static void start(UdpInbound& all, std::unique_ptr<p2p::IncomingConnect> incoming) {
    std::unique_ptr<Flow> flow(new Flow(all, *incoming));
    auto socket = EndpointSocket::connect(all.context_, incoming->target(), *flow);
    if (!socket) {
      incoming->reject(503, socket.error().message);
      return;
    }
    auto stream = incoming->accept();
    if (stream == nullptr) return;  // the peer has gone
    flow->socket_ = std::move(*socket);
    DatagramTunnel::Owner& owner = *flow;
    flow->tunnel_ = std::make_unique<DatagramTunnel>(all.context_.loop, std::move(stream), owner);
    flow->used_ = all.context_.loop.now();
    all.flows_->push_back(*flow);
    ++all.count_;
    all.context_.metrics.inbound_opened.add();
    if (!all.expiry_.active()) all.expiry_.start(all.context_.options.inbound_idle_timeout);
    flow.release();  // it is in the list, and deletes itself
  }

  void end(FlowEnd reason) {
    const UdpOptions& options = all_.context_.options;
    if (options.access_log && log::enabled(log::Level::kInfo, "access")) {
      auto took =
          std::chrono::duration_cast<std::chrono::milliseconds>(all_.context_.loop.now() - opened_);
      EM_LOG(kInfo, "access",
             "proto=udp src=node/{} dst={} service=inbound endpoint={} node={} path={} sent={} "
             "received={} datagrams_sent={} datagrams_received={} ms={} result={}",
             peer_, target_.to_string(), target_.to_string(), options.node,
             all_.context_.dialer == nullptr
                 ? "none"
                 : p2p::to_string(all_.context_.dialer->path_kind(peer_)),
             bytes_sent_, bytes_received_, sent_, received_, took.count(), to_string(reason));
    }
    all_.context_.metrics.count_end(reason);
    --all_.count_;
    delete this;
  }
  TimePoint used() const { return used_; }
  // Idle here: the far side is told in order, and opens another stream when it needs one.
  void expire() {
    all_.context_.closing.add(std::move(tunnel_));
    end(FlowEnd::kIdle);
  }

 private:
  Flow(UdpInbound& all, const p2p::IncomingConnect& incoming)
      : all_(all),
        peer_(incoming.peer_node()),
        target_(incoming.target()),
        opened_(all.context_.loop.now()) {}

  void touch() {
    used_ = all_.context_.loop.now();
    all_.flows_->push_back(*this);
  }

  void on_tunnel_datagrams(std::span<const Datagram> items) override {
    touch();
    while (!items.empty()) {
      SendOutcome out = socket_->send(items);
      sent_ += out.datagrams;
      bytes_sent_ += out.bytes;
      all_.context_.metrics.to_upstream.add(out.datagrams);
      all_.context_.metrics.bytes_to_upstream.add(out.bytes);
      if (out.dropped > 0) all_.context_.metrics.count_drop(UdpDrop::kSend, out.dropped);
      items = items.subspan(out.taken);
      // The refusal of an earlier one. The socket tells of it once, and of the next one as an
      // event.
      if (out.refused && std::exchange(refused_, true)) return;
    }
  }
  void on_tunnel_lost(size_t n) override {
    all_.context_.metrics.count_drop(UdpDrop::kTunnel, n);
  }
  void on_tunnel_end(const Error* error) override {
    if (error == nullptr) tunnel_->finish();
    end(error == nullptr ? FlowEnd::kIdle : FlowEnd::kFailed);
  }
  void on_answers(std::span<const Datagram> items) override {
    touch();
    refused_ = false;
    SendOutcome out = tunnel_->send(items);
    received_ += out.datagrams;
    bytes_received_ += out.bytes;
    all_.context_.metrics.to_client.add(out.datagrams);
    all_.context_.metrics.bytes_to_client.add(out.bytes);
    if (out.dropped > 0) all_.context_.metrics.count_drop(UdpDrop::kTunnel, out.dropped);
  }
  // The stream is cut off: the far side chooses another endpoint.
  void on_refused() override {
    all_.context_.metrics.refused.add();
    end(FlowEnd::kFailed);
  }

  UdpInbound& all_;
  std::string peer_;
  SockAddr target_;
  std::unique_ptr<EndpointSocket> socket_;
  std::unique_ptr<DatagramTunnel> tunnel_;
  bool refused_ = false;
  TimePoint opened_;
  TimePoint used_{};
  uint64_t sent_ = 0, received_ = 0;  // datagrams
  uint64_t bytes_sent_ = 0, bytes_received_ = 0;
};

UdpInbound::UdpInbound(UdpContext& context, const SnapshotPtr& snapshot)
    : context_(context),
      snapshot_(snapshot),
      flows_(std::make_unique<List<Flow>>()),
      expiry_(context.loop, [this] { expire(); }) {}

UdpInbound::~UdpInbound() {
  abort_all();
}

void UdpInbound::abort_all() {
  while (Flow* flow = flows_->front()) flow->end(FlowEnd::kShutdown);
}

void UdpInbound::on_connect(std::unique_ptr<p2p::IncomingConnect> incoming) {
  if (!snapshot_) {
    incoming->reject(503, "this node has not learned of any service yet");
    return;
  }
  const SockAddr& target = incoming->target();
  if (snapshot_->endpoint_on(target, context_.options.node, "UDP") == nullptr) {
    context_.metrics.inbound_refused.add();
    incoming->reject(403, "the target is no endpoint of a UDP service on this node");
    return;
  }
  if (count_ >= context_.options.max_inbound_flows) {
    context_.metrics.inbound_refused.add();
    incoming->reject(503, "too many flows");
    return;
  }
  Flow::start(*this, std::move(incoming));
}

void UdpInbound::expire() {
  const Duration limit = context_.options.inbound_idle_timeout;
  const TimePoint now = context_.loop.now();
  Flow* flow = flows_->front();
  for (; flow != nullptr && flow->used() + limit <= now; flow = flows_->front()) flow->expire();
  // Flows that become idle one after the other are ended in groups.
  if (flow != nullptr) expiry_.start_at(std::max(flow->used() + limit, now + limit / 64));
}

}  // namespace edgemesh::proxy
