#include "proxy/listener/worker_listener.h"

#include "core/base/log.h"
#include "proxy/exchange/http_connection.h"
#include "proxy/listener/arrival.h"
#include "proxy/listener/tcp_connection.h"

namespace edgemesh::proxy {

namespace {
constexpr Duration kProgressEvery = std::chrono::seconds(1);
}

WorkerListener::WorkerListener(ListenerWorker& worker, std::shared_ptr<ListenerShared> shared,
                               ListenerRuntimePtr runtime)
    : worker_(worker), shared_(std::move(shared)), runtime_(std::move(runtime)) {}

WorkerListener::~WorkerListener() {
  close_all();
  *alive_ = false;
}

Result<> WorkerListener::adopt(io::Fd socket) {
  // Asked of the listening socket, not of each connection.
  const bool no_delay = io::gives_no_delay(socket.get());
  auto accept = [this, no_delay, only = io::only_local_addr(socket.get())](io::Fd fd,
                                                                           const SockAddr& peer) {
    if (only) return take(std::move(fd), peer, *only, no_delay);
    // TPROXY leaves the original destination as the socket's own address.
    auto local = io::original_dst(fd.get(), false);
    take(std::move(fd), peer, local ? *local : runtime_->spec->address, no_delay);
  };
  EM_TRY(auto listener,
         io::TcpListener::adopt(worker_.l7.loop(), std::move(socket), std::move(accept)));
  sockets_.push_back(std::move(listener));
  return {};
}

void WorkerListener::take(io::Fd fd, const SockAddr& peer, const SockAddr& local,
                          bool has_no_delay) {
  const uint32_t limit = runtime_->spec->max_connections;
  if (limit > 0 && shared_->connections.load(std::memory_order_relaxed) >= limit) {
    stats().refused.add();
    return;  // closed
  }
  Overload* overload = shared_->overload.get();
  if (overload != nullptr && !overload->take_connection()) {
    stats().refused.add();
    return;
  }
  auto stream = io::TcpStream::adopt(worker_.l7.loop(), std::move(fd), has_no_delay);
  if (!stream) {
    if (overload != nullptr) overload->give_connection();
    return;
  }
  stats().connections.add();
  shared_->connections.fetch_add(1, std::memory_order_relaxed);
  ++connections_;
  Arrival::start(*this, std::move(*stream), peer, local);
}

void WorkerListener::note_tcp() {
  if (worker_.l7.telemetry() == nullptr || worker_.l7.telemetry()->requests() == nullptr) return;
  if (progress_ == nullptr)
    progress_ = std::make_unique<io::Timer>(worker_.l7.loop(), [this] { tell_progress(); });
  if (!progress_->active()) progress_->start(kProgressEvery);
}

void WorkerListener::tell_progress() {
  for (TcpConnection* c = tcp_.front(); c != nullptr; c = tcp_.after(*c)) c->tell_progress();
  if (!tcp_.empty()) progress_->start(kProgressEvery);
}

void WorkerListener::note_gone() {
  --connections_;
  shared_->connections.fetch_sub(1, std::memory_order_relaxed);
  if (shared_->overload != nullptr) shared_->overload->give_connection();
}

std::string WorkerListener::key_of(const ListenerRuntime& runtime, const ChainRuntime& chain) {
  if (&chain == &runtime.fallback) return "default";
  if (!chain.chain->name.empty()) return "chain " + chain.chain->name;
  return fmt::format("chain #{}", &chain - runtime.chains.data());
}

ChainSlotPtr WorkerListener::slot(const ChainRuntime& chain) {
  ChainSlotPtr& slot = slots_[key_of(*runtime_, chain)];
  if (slot == nullptr) {
    slot = std::make_shared<ChainSlot>();
    slot->stats = &stats();
    slot->keep = shared_;
    slot->owner = this;
    slot->draining = draining_;
    slot->version = ChainVersionRef(new ChainVersion(chain.http));
  }
  return slot;
}

void WorkerListener::update(ListenerRuntimePtr runtime) {
  runtime_ = std::move(runtime);
  std::map<std::string, ChainSlotPtr> before;
  before.swap(slots_);
  auto carry = [&](const ChainRuntime& chain) {
    if (chain.chain == nullptr || chain.http == nullptr) return;
    const auto found = before.find(key_of(*runtime_, chain));
    if (found == before.end()) return;
    if (&**found->second->version != chain.http.get())
      found->second->version = ChainVersionRef(new ChainVersion(chain.http));
    slots_[found->first] = found->second;
    before.erase(found);
  };
  for (const ChainRuntime& chain : runtime_->chains) carry(chain);
  carry(runtime_->fallback);
  if (before.empty()) return;
  // Connections of chains that are gone finish what they do.
  auto& all = worker_.l7.connections();
  HttpConnection* next = nullptr;
  for (HttpConnection* c = all.front(); c != nullptr; c = next) {
    next = all.after(*c);
    for (const auto& [key, slot] : before)
      if (&c->slot() == slot.get()) c->drain();
  }
}

void WorkerListener::stop_accepting() {
  for (const auto& socket : sockets_) socket->accept_waiting();
  sockets_.clear();
}

void WorkerListener::drain(Drain how) {
  if (how == Drain::kPatient) stop_accepting();
  sockets_.clear();
  for (const auto& [key, slot] : slots_) slot->draining = true;
  draining_ = true;
  while (how == Drain::kNow && !arrivals_.empty()) arrivals_.front()->close();
  auto& all = worker_.l7.connections();
  HttpConnection* next = nullptr;
  for (HttpConnection* c = all.front(); c != nullptr; c = next) {
    next = all.after(*c);
    if (c->slot().owner == this) c->drain(how);
  }
}

void WorkerListener::close_all() {
  sockets_.clear();
  while (Arrival* arrival = arrivals_.front()) arrival->close();
  while (TcpConnection* connection = tcp_.front()) connection->abort(EndReason::kShutdown);
  auto& all = worker_.l7.connections();
  HttpConnection* next = nullptr;
  for (HttpConnection* c = all.front(); c != nullptr; c = next) {
    next = all.after(*c);
    if (c->slot().owner == this) c->close();
  }
}

}  // namespace edgemesh::proxy
