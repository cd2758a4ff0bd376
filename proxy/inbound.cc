#include "proxy/inbound.h"

namespace edgemesh::proxy {

namespace {

void end_at_once(WorkerContext& worker, EndReason reason) {
  worker.metrics.opened.add();  // or more would end than begin
  worker.metrics.count_end(reason);
}

class InboundConnection final : public Connection {
 public:
  static void start(WorkerContext& worker, std::unique_ptr<p2p::IncomingConnect> incoming) {
    io::ConnectOptions options;
    options.timeout = Duration::zero();  // our own timer runs
    options.congestion = worker.options.local_congestion;
    for (const Cidr& cidr : worker.options.capture_cidrs)
      if (cidr.contains(incoming->target().ip)) options.mark = worker.options.mark;
    auto upstream = io::TcpStream::connect(worker.loop, incoming->target(), options);
    if (!upstream) {
      end_at_once(worker, EndReason::kConnectFailed);
      incoming->reject(503, upstream.error().message);
      return;
    }
    auto* self = new InboundConnection(worker, std::move(incoming));
    self->set_upstream(std::move(*upstream));
    // The node that asks waits as long as we would, and began before. Our answer must reach it in
    // time: only with it may it give the client's bytes to another endpoint.
    self->start_connect_timer(worker.options.connect_timeout * 4 / 5);
  }

 private:
  InboundConnection(WorkerContext& worker, std::unique_ptr<p2p::IncomingConnect> incoming)
      : Connection(worker, SockAddr{}, incoming->target()),
        peer_(incoming->peer_node()),
        incoming_(std::move(incoming)) {
    worker.metrics.inbound_opened.add();
  }

  void on_upstream_connected() override {
    note_connected();
    auto client = incoming_->accept();
    incoming_.reset();
    if (client == nullptr) {
      on_pump_end(EndReason::kClientReset, nullptr);
      return;
    }
    tell_service({}, {}, 0, worker().options.node, peer_);
    set_client(std::move(client));
    start_pump(nullptr, true);
  }

  void on_upstream_failed_early(const Error& error) override {
    Error copy = error;
    on_pump_end(
        copy.code == ErrorCode::kTimeout ? EndReason::kConnectTimeout : EndReason::kConnectFailed,
        &copy);
  }

  void on_connect_timeout() override {
    Error error{ErrorCode::kTimeout,
                fmt::format("connect {}: no answer", destination().to_string()), 0};
    on_pump_end(EndReason::kConnectTimeout, &error);
  }

  void on_client_readable_early() override {}  // there is no client stream before the 200

  void on_pump_end(EndReason reason, const Error* error) override {
    if (incoming_)
      incoming_->reject(503,
                        error != nullptr ? std::string_view(error->message) : in_words(reason));
    LogFields fields;
    if (logs()) {
      fields.source = "node/" + peer_;
      fields.service = "inbound";
      fields.endpoint = destination().to_string();
      fields.node = worker().options.node;
      if (worker().dialer != nullptr)
        fields.path = p2p::to_string(worker().dialer->path_kind(peer_));
    }
    report(reason, error, fields);
    delete this;
  }

  std::string peer_;
  std::unique_ptr<p2p::IncomingConnect> incoming_;  // until it is answered
};

}  // namespace

void Inbound::on_connect(std::unique_ptr<p2p::IncomingConnect> incoming) {
  if (incoming->udp()) {
    if (datagrams_ != nullptr)
      datagrams_->on_connect(std::move(incoming));
    else
      incoming->reject(501, "datagrams are not carried");
    return;
  }
  if (!worker_.snapshot) {
    incoming->reject(503, "this node has not learned of any service yet");
    return;
  }
  // Other nodes may have endpoints at the same address: one that is ours is enough. One without a
  // node name (the Kubernetes API, a server outside the cluster) each node reaches by itself.
  const SockAddr& target = incoming->target();
  if (worker_.snapshot->endpoint_on(target, worker_.options.node, "TCP") == nullptr) {
    worker_.metrics.inbound_refused.add();
    end_at_once(worker_, EndReason::kRefused);
    incoming->reject(403, worker_.snapshot->is_endpoint(target)
                              ? "the target is an endpoint of another node"
                              : "the target is no endpoint of a known service");
    return;
  }
  if (worker_.connections >= worker_.options.max_connections) {
    end_at_once(worker_, EndReason::kTooMany);
    incoming->reject(503, "too many connections");
    return;
  }
  InboundConnection::start(worker_, std::move(incoming));
}

}  // namespace edgemesh::proxy
