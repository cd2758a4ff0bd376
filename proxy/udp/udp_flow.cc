#include "proxy/udp/udp_flow.h"

#include "core/base/log.h"

namespace edgemesh::proxy {

namespace {
constexpr int kMaxAttempts = 3;  // endpoints for one datagram
}

UdpFlow::UdpFlow(UdpListener& listener, const FlowKey& key, std::unique_ptr<UdpRoute> route)
    : FlowNode(key),
      listener_(listener),
      route_(std::move(route)),
      opened_(listener.context_.loop.now()) {}

UdpFlow::~UdpFlow() {
  disconnect();
}

void UdpFlow::disconnect() {
  socket_.reset();
  if (tunnel_ != nullptr) context().closing.add(std::move(tunnel_));
  elsewhere_ = heard_ = false;
}

std::optional<FlowEnd> UdpFlow::send(std::span<const Datagram> items) {
  if (!route_->current()) disconnect();
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    if (!connected())
      if (auto end = connect()) return end;
    if (pass_on(&items)) return std::nullopt;
  }
  for (const Datagram& item : items) context().metrics.count_drop(UdpDrop::kSend, item.count());
  return std::nullopt;
}

bool UdpFlow::pass_on(std::span<const Datagram>* items) {
  if (elsewhere_) {
    hand_over(*items);
    return true;
  }
  SendOutcome out = tunnel_ != nullptr ? tunnel_->send(*items) : socket_->send(*items);
  sent_ += out.datagrams;
  bytes_sent_ += out.bytes;
  UdpMetrics& metrics = context().metrics;
  metrics.to_upstream.add(out.datagrams);
  metrics.bytes_to_upstream.add(out.bytes);
  if (out.dropped > 0)
    metrics.count_drop(tunnel_ != nullptr ? UdpDrop::kTunnel : UdpDrop::kSend, out.dropped);
  *items = items->subspan(out.taken);
  // An earlier datagram was refused, and these were not sent: they are for the next endpoint.
  if (out.refused) on_refused();
  return items->empty();
}

std::optional<FlowEnd> UdpFlow::connect() {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    chosen_ = route_->choose();
    if (!chosen_) return FlowEnd::kNoEndpoint;
    if (route_->remote() && context().dialer == nullptr) {
      if (!context().hand_over) return FlowEnd::kNoTunnel;
      elsewhere_ = true;
      return std::nullopt;
    }
    auto connected = connect_to_endpoint();
    if (connected) return std::nullopt;
    EM_LOG(kDebug, "udp", "{} to {}: {}", key().client.to_string(), route_->endpoint().to_string(),
           connected.error().message);
    route_->failed();
    if (connected.error().code == ErrorCode::kResourceExhausted) break;
  }
  return FlowEnd::kFailed;
}

Result<> UdpFlow::connect_to_endpoint() {
  if (!route_->remote()) {
    path_ = p2p::PathKind::kLocal;
    EM_TRY(socket_, EndpointSocket::connect(context(), route_->endpoint(), *this));
    return {};
  }
  const std::string node(route_->node());
  EM_TRY(auto stream, context().dialer->open_udp(node, route_->endpoint()));
  path_ = context().dialer->path_kind(node);
  DatagramTunnel::Owner& owner = *this;
  tunnel_ = std::make_unique<DatagramTunnel>(context().loop, std::move(stream), owner);
  return {};
}

io::Fd UdpFlow::release_socket(SockAddr* endpoint) {
  if (socket_ == nullptr) return {};
  *endpoint = route_->endpoint();
  io::Fd out = socket_->release();
  disconnect();
  return out;
}

bool UdpFlow::resume(io::Fd socket, const SockAddr& endpoint) {
  chosen_ = route_->resume(endpoint);
  if (!chosen_ || route_->remote()) return false;
  auto adopted = EndpointSocket::adopt(context(), std::move(socket), *this);
  if (!adopted) return false;
  socket_ = std::move(*adopted);
  path_ = p2p::PathKind::kLocal;
  return true;
}

void UdpFlow::on_answers(std::span<const Datagram> items) {
  if (!heard_) {
    route_->answered();
    if (tunnel_ != nullptr && context().dialer != nullptr)
      path_ = context().dialer->path_kind(std::string(route_->node()));
  }
  heard_ = true;
  listener_.reply(*this, items);
}

void UdpFlow::on_refused() {
  listener_.refuse(key());
  leave_endpoint();
}

void UdpFlow::leave_endpoint() {
  context().metrics.refused.add();
  route_->failed();
  disconnect();
}

// Ended in order, the far side was idle for long: the next datagram opens another one.
void UdpFlow::on_tunnel_end(const Error* error) {
  if (error == nullptr) {
    tunnel_->finish();
    tunnel_.reset();
    heard_ = false;
    return;
  }
  EM_LOG(kDebug, "udp", "{} to {}: {}", key().client.to_string(), route_->endpoint().to_string(),
         error->message);
  tunnel_.reset();
  // The far side cuts a flow off whose endpoint refuses; a tunnel that broke looks the same, and to
  // ask again is right then too.
  if (error->code == ErrorCode::kConnectionReset || error->code == ErrorCode::kConnectionRefused)
    listener_.refuse(key());
  leave_endpoint();
}

void UdpFlow::hand_over(std::span<const Datagram> items) {
  UdpParcel parcel;
  parcel.listener = listener_.options_.index;
  parcel.key = key();
  size_t count = 0;
  for (const Datagram& item : items) {
    parcel.bytes.insert(parcel.bytes.end(), item.data.begin(), item.data.end());
    parcel.items.emplace_back(static_cast<uint32_t>(item.data.size()), item.segment);
    count += item.count();
  }
  if (!context().hand_over(std::move(parcel)))
    context().metrics.count_drop(UdpDrop::kTunnel, count);
}

void UdpFlow::log_end(FlowEnd reason) const {
  if (elsewhere_ || !context().options.access_log || !log::enabled(log::Level::kInfo, "access"))
    return;
  auto took = std::chrono::duration_cast<std::chrono::milliseconds>(context().loop.now() - opened_);
  std::string_view node = chosen_ ? route_->node() : std::string_view();
  EM_LOG(kInfo, "access",
         "proto=udp src={} dst={} service={} endpoint={} node={} path={} sent={} received={} "
         "datagrams_sent={} datagrams_received={} ms={} result={}",
         key().client.to_string(), key().destination.to_string(), route_->name(),
         chosen_ ? route_->endpoint().to_string() : "-", node.empty() ? "-" : node,
         p2p::to_string(path_), bytes_sent_, bytes_received_, sent_, received_, took.count(),
         to_string(reason));
}

}  // namespace edgemesh::proxy
