#include "proxy/udp/udp_flow.h"

#include <cerrno>

#include "core/base/log.h"

namespace edgemesh::proxy {

namespace {
constexpr int kBatchesATurn = 4;
constexpr int kMaxAttempts = 3;  // endpoints for one datagram
}  // namespace

UdpFlow::UdpFlow(UdpListener& listener, const FlowKey& key, std::unique_ptr<UdpRoute> route)
    : FlowNode(key),
      listener_(listener),
      route_(std::move(route)),
      opened_(listener.context_.loop.now()) {}

UdpFlow::~UdpFlow() {
  disconnect();
}

void UdpFlow::disconnect() {
  watch_.stop(true);
  fd_.reset();
  heard_ = false;
}

std::optional<FlowEnd> UdpFlow::send(std::span<const Datagram> items) {
  if (!route_->current()) {
    disconnect();
    elsewhere_ = false;
  }
  for (int attempt = 0; !items.empty() && attempt < kMaxAttempts; ++attempt) {
    if (!fd_.valid() && !elsewhere_)
      if (auto end = connect()) return end;
    if (elsewhere_) {
      hand_over(items);
      return std::nullopt;
    }
    SendOutcome out = send_datagrams(fd_.get(), items, nullptr);
    sent_ += out.datagrams;
    bytes_sent_ += out.bytes;
    context().metrics.to_upstream.add(out.datagrams);
    context().metrics.bytes_to_upstream.add(out.bytes);
    if (out.dropped > 0) context().metrics.count_drop(UdpDrop::kSend, out.dropped);
    items = items.subspan(out.taken);
    // An earlier datagram was refused, and these were not sent: they are for the next endpoint.
    if (out.refused) refused();
  }
  for (const Datagram& item : items) context().metrics.count_drop(UdpDrop::kSend, item.count());
  return std::nullopt;
}

std::optional<FlowEnd> UdpFlow::connect() {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    chosen_ = route_->choose();
    if (!chosen_) return FlowEnd::kNoEndpoint;
    if (route_->remote()) {
      if (context().dialer == nullptr && context().hand_over) {
        elsewhere_ = true;
        return std::nullopt;
      }
      return FlowEnd::kFailed;
    }
    auto connected = connect_local();
    if (connected) return std::nullopt;
    if (connected.error().code == ErrorCode::kResourceExhausted) break;
    route_->failed();
  }
  return FlowEnd::kFailed;
}

Result<> UdpFlow::connect_local() {
  const SockAddr& to = route_->endpoint();
  DatagramSocketOptions options;
  options.gro = true;
  for (const Cidr& cidr : context().options.capture_cidrs)
    if (cidr.contains(to.ip)) options.mark = context().options.mark;
  EM_TRY(io::Fd fd, open_datagram_socket(to.ip.is_v6(), options));
  sockaddr_storage storage;
  const socklen_t size = to.to_sockaddr(&storage);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&storage), size) != 0)  // NOLINT
    return fail_errno("connect", errno);
  EM_TRY_VOID(watch_.start(context().loop, fd.get(), this));
  fd_ = std::move(fd);
  return {};
}

void UdpFlow::refused() {
  context().metrics.refused.add();
  route_->failed();
  disconnect();
}

void UdpFlow::on_fd(bool readable, bool) {
  if (readable && receive_some()) listener_.go_on_later(*this);
}

bool UdpFlow::receive_some() {
  DatagramBatch& batch = context().batch;
  for (int i = 0; fd_.valid() && i < kBatchesATurn; ++i) {
    auto got = batch.receive(fd_.get(), false);
    if (got.n == 0) {
      if (got.error == ECONNREFUSED) refused();
      return false;
    }
    if (!heard_) route_->answered();
    heard_ = true;
    listener_.reply(*this, batch.all(got.n));
    if (got.n < DatagramBatch::kMax) return false;
  }
  return fd_.valid();
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
  sent_ += count;
  bytes_sent_ += parcel.bytes.size();
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
         chosen_ ? "local" : "none", bytes_sent_, bytes_received_, sent_, received_, took.count(),
         to_string(reason));
}

}  // namespace edgemesh::proxy
