#include "proxy/udp/udp_listener.h"

#include <algorithm>

#include "core/base/log.h"
#include "proxy/udp/udp_flow.h"

namespace edgemesh::proxy {

namespace {
constexpr int kBatchesATurn = 8;
constexpr size_t kEndsATurn = 512;
// A flow that was used more lately is not idle, and a new one has to wait.
constexpr Duration kIdleEnough = std::chrono::seconds(1);
}  // namespace

UdpListener::UdpListener(UdpContext& context, UdpListenOptions options,
                         std::unique_ptr<UdpDirectory> directory, io::Fd fd, SockAddr local)
    : context_(context),
      options_(std::move(options)),
      directory_(std::move(directory)),
      fd_(std::move(fd)),
      local_(local),
      table_(options_.idle_timeout, options_.answered_timeout,
             static_cast<uint64_t>(context.loop.clock().wall_now().time_since_epoch().count()) ^
                 reinterpret_cast<uintptr_t>(this)),  // NOLINT
      again_(context.loop, [this] { on_fd(true, false); }),
      expiry_(context.loop, [this] { expire(); }) {}

UdpListener::~UdpListener() {
  while (FlowNode* flow = table_.oldest()) end(static_cast<UdpFlow&>(*flow), FlowEnd::kShutdown);
  watch_.stop();  // another process may hold the socket too
}

Result<io::Fd> UdpListener::open_socket(const UdpListenOptions& options, SockAddr* local) {
  DatagramSocketOptions socket;
  socket.transparent = options.transparent;
  socket.reuse_port = options.reuse_port;
  socket.destinations = true;
  socket.gro = true;
  socket.receive_bytes = options.receive_bytes;
  EM_TRY(io::Fd fd, open_datagram_socket(options.listen.ip.is_v6(), socket));
  EM_TRY(*local, bind_datagram_socket(fd.get(), options.listen));
  return fd;
}

Result<std::unique_ptr<UdpListener>> UdpListener::adopt(UdpContext& context,
                                                        UdpListenOptions options,
                                                        std::unique_ptr<UdpDirectory> directory,
                                                        io::Fd socket, const SockAddr& local) {
  const int raw = socket.get();
  std::unique_ptr<UdpListener> listener(
      new UdpListener(context, std::move(options), std::move(directory), std::move(socket), local));
  EM_TRY_VOID(listener->watch_.start(context.loop, raw, listener.get()));
  return listener;
}

Result<std::unique_ptr<UdpListener>> UdpListener::listen(UdpContext& context,
                                                         UdpListenOptions options,
                                                         std::unique_ptr<UdpDirectory> directory) {
  SockAddr local;
  EM_TRY(io::Fd fd, open_socket(options, &local));
  return adopt(context, std::move(options), std::move(directory), std::move(fd), local);
}

void UdpListener::on_fd(bool readable, bool) {
  if (readable && receive_some()) again_.start(Duration::zero());
}

void UdpListener::pause() {
  watch_.stop();
  again_.stop();
}

void UdpListener::resume() {
  if (watch_.active()) return;
  if (auto started = watch_.start(context_.loop, fd_.get(), this); !started)
    EM_LOG(kError, "udp", "{}: {}", local_.to_string(), started.error().message);
}

void UdpListener::give_flows(std::vector<HandedFlow>* out) {
  pause();
  while (FlowNode* node = table_.oldest()) {
    auto& flow = static_cast<UdpFlow&>(*node);
    HandedFlow handed;
    handed.listener = local_;
    handed.queue = options_.queue;
    handed.key = flow.key();
    handed.socket = flow.release_socket(&handed.endpoint);
    if (handed.socket.valid()) out->push_back(std::move(handed));
    end(flow, FlowEnd::kShutdown);
  }
}

bool UdpListener::take_flow(HandedFlow handed) {
  if (open_flows() >= options_.max_flows || table_.find(handed.key) != nullptr) return false;
  auto route = directory_->find(handed.key.client, handed.key.destination);
  if (route == nullptr) return false;
  auto flow = std::make_unique<UdpFlow>(*this, handed.key, std::move(route));
  if (!flow->resume(std::move(handed.socket), handed.endpoint)) return false;
  insert(std::move(flow));
  return true;
}

void UdpListener::insert(std::unique_ptr<UdpFlow> flow) {
  table_.insert(std::move(flow), context_.loop.now());
  context_.metrics.opened.add();
  context_.metrics.active.add(1);
  if (options_.open_flows != nullptr) options_.open_flows->fetch_add(1, std::memory_order_relaxed);
  if (!expiry_.active()) arm(options_.idle_timeout);
}

bool UdpListener::receive_some() {
  for (int i = 0; i < kBatchesATurn; ++i) {
    auto got = context_.batch.receive(fd_.get(), true);
    if (got.n == 0) return got.error != EAGAIN && got.error != EWOULDBLOCK;
    take_batch(got.n);
    if (got.n < DatagramBatch::kMax) return false;
  }
  return true;
}

void UdpListener::take_batch(size_t n) {
  auto key_of = [this](size_t i) {
    DatagramEnds ends = context_.batch.ends(i);
    return FlowKey{ends.from, ends.to.port != 0 ? ends.to : local_};
  };
  // Neighbours of one flow go on together.
  FlowKey key = key_of(0);
  size_t first = 0;
  for (size_t i = 1; i <= n; ++i) {
    FlowKey next = i < n ? key_of(i) : FlowKey{};
    if (i < n && next == key) continue;
    // Nothing can be answered to port 0.
    if (key.client.port != 0) dispatch(key, context_.batch.all(n).subspan(first, i - first));
    first = i;
    key = next;
  }
}

void UdpListener::dispatch(const FlowKey& key, std::span<const Datagram> items) {
  auto* flow = static_cast<UdpFlow*>(table_.find(key));
  if (flow == nullptr) flow = open(key, items);
  if (flow == nullptr) return;
  table_.touch(*flow, context_.loop.now());
  auto over = flow->send(items);
  if (!over) return;
  const UdpDrop drop = *over == FlowEnd::kNoEndpoint ? UdpDrop::kNoEndpoint
                       : *over == FlowEnd::kNoTunnel ? UdpDrop::kTunnel
                                                     : UdpDrop::kFailed;
  for (const Datagram& item : items) context_.metrics.count_drop(drop, item.count());
  if (*over == FlowEnd::kNoEndpoint) refuse(key);
  end(*flow, *over);
}

UdpFlow* UdpListener::open(const FlowKey& key, std::span<const Datagram> items) {
  auto drop = [&](UdpDrop why) {
    for (const Datagram& item : items) context_.metrics.count_drop(why, item.count());
    return nullptr;
  };
  auto route = directory_->find(key.client, key.destination);
  if (route == nullptr) {
    refuse(key);
    return drop(UdpDrop::kNoService);
  }
  if (!make_room()) return drop(UdpDrop::kTooMany);
  auto made = std::make_unique<UdpFlow>(*this, key, std::move(route));
  UdpFlow* flow = made.get();
  insert(std::move(made));
  return flow;
}

size_t UdpListener::open_flows() const {
  return options_.open_flows != nullptr ? options_.open_flows->load(std::memory_order_relaxed)
                                        : table_.size();
}

bool UdpListener::make_room() {
  if (open_flows() < options_.max_flows) return true;
  FlowNode* oldest = table_.oldest();
  if (oldest == nullptr || context_.loop.now() - oldest->last_used() < kIdleEnough) return false;
  end(static_cast<UdpFlow&>(*oldest), FlowEnd::kEvicted);
  return true;
}

void UdpListener::end(UdpFlow& flow, FlowEnd reason) {
  auto owned = table_.take(flow);
  flow.log_end(reason);
  context_.metrics.count_end(reason);
  context_.metrics.active.add(-1);
  if (options_.open_flows != nullptr) options_.open_flows->fetch_sub(1, std::memory_order_relaxed);
}

void UdpListener::refuse(const FlowKey& key) {
  if (!options_.transparent) return;
  if (context_.icmp.port_unreachable(key.client, key.destination, context_.loop.now()))
    context_.metrics.unreachable.add();
}

void UdpListener::reply(UdpFlow& flow, std::span<const Datagram> items) {
  const FlowKey& key = flow.key();
  SendOutcome out;
  if (options_.transparent) {
    auto sent = context_.replies.send(key.destination, key.client, items);
    if (!sent) {
      EM_LOG(kDebug, "udp", "answers: {}", sent.error().message);
      for (const Datagram& item : items)
        context_.metrics.count_drop(UdpDrop::kFailed, item.count());
      return;
    }
    out = *sent;
  } else {
    const bool any = local_.ip.is_unspecified();
    out = send_datagrams(fd_.get(), items, &key.client, any ? &key.destination.ip : nullptr);
  }
  flow.count_reply(out);
  context_.metrics.to_client.add(out.datagrams);
  context_.metrics.bytes_to_client.add(out.bytes);
  if (out.dropped > 0) context_.metrics.count_drop(UdpDrop::kSend, out.dropped);
  constexpr uint16_t kDns = 53;
  const bool answered = key.destination.port == kDns && flow.question_answered();
  table_.touch(flow, context_.loop.now(), answered);
  if (answered) arm(options_.answered_timeout);
}

void UdpListener::expire() {
  const TimePoint now = context_.loop.now();
  size_t ended = 0;
  for (; ended < kEndsATurn; ++ended) {
    FlowNode* flow = table_.expired(now);
    if (flow == nullptr) break;
    end(static_cast<UdpFlow&>(*flow), FlowEnd::kIdle);
  }
  if (ended == kEndsATurn) {
    expiry_.start(Duration::zero());
    return;
  }
  // Flows that become idle one after the other are ended in groups.
  const Duration pace = std::min(options_.idle_timeout, options_.answered_timeout) / 64;
  if (auto next = table_.next_deadline()) expiry_.start_at(std::max(*next, now + pace));
}

void UdpListener::arm(Duration within) {
  const TimePoint at = context_.loop.now() + within;
  if (!expiry_.active() || expiry_.deadline() > at) expiry_.start_at(at);
}

void UdpListener::deliver(const UdpParcel& parcel) {
  std::vector<Datagram> items;
  size_t at = 0;
  for (auto [size, segment] : parcel.items) {
    items.push_back({std::span(parcel.bytes).subspan(at, size), segment});
    at += size;
  }
  dispatch(parcel.key, items);
}

}  // namespace edgemesh::proxy
