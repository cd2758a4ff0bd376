#include "proxy/upstream/pool.h"

#include <algorithm>

#include "proxy/upstream/pool_impl.h"

namespace edgemesh::proxy {

std::string_view to_string(PoolFailure failure) {
  switch (failure) {
    case PoolFailure::kNone: return "none";
    case PoolFailure::kConnectFailed: return "connect_failed";
    case PoolFailure::kConnectTimeout: return "connect_timeout";
    case PoolFailure::kPendingOverflow: return "pending_overflow";
    case PoolFailure::kConnectionOverflow: return "connection_overflow";
    case PoolFailure::kHostRemoved: return "host_removed";
  }
  return "";
}

void PoolWaiter::cancel() {
  if (pool_ != nullptr) pool_->cancel(*this);
}

UpstreamPool::UpstreamPool(PoolOptions options)
    : options_(std::move(options)), idle_timer_(options_.loop, [this] { on_idle_timer(); }) {}

UpstreamPool::~UpstreamPool() {
  while (HostPool* host = hosts_.front()) host->shutdown();
}

PoolAnswer UpstreamPool::request(Host& host, const PoolRequest& request, PoolWaiter& waiter) {
  if (host.attachment() == nullptr) {
    auto made = std::make_unique<HostPool>(*this, host);
    hosts_.push_back(*made);
    host.attach(std::move(made));
  }
  return static_cast<HostPool*>(host.attachment())->request(request, waiter);
}

void UpstreamPool::drain() {
  for (HostPool* host = hosts_.front(); host != nullptr; host = hosts_.after(*host)) host->drain();
}

UpstreamPool::IdleClass& UpstreamPool::idle_class(Duration timeout) {
  for (auto& entry : idle_)
    if (entry->timeout == timeout) return *entry;
  idle_.push_back(std::make_unique<IdleClass>());
  idle_.back()->timeout = timeout;
  return *idle_.back();
}

void UpstreamPool::note_idle(PoolConnection& connection) {
  if (static_cast<ListNode<PoolConnection, IdleTag>&>(connection).linked()) return;
  connection.set_idle_since(options_.loop.now());
  idle_class(connection.cluster().config().idle_timeout).connections.push_back(connection);
  ++idle_connections_;
  // Running already: it looks again when it fires, so that requests never touch it.
  if (!idle_timer_.active()) arm_idle_timer();
}

void UpstreamPool::note_used(PoolConnection& connection) {
  auto& node = static_cast<ListNode<PoolConnection, IdleTag>&>(connection);
  if (!node.linked()) return;
  node.unlink();
  --idle_connections_;
}

void UpstreamPool::arm_idle_timer() {
  TimePoint first = TimePoint::max();
  for (const auto& entry : idle_)
    if (const auto* connection = entry->connections.front())
      first = std::min(first, connection->idle_since() + entry->timeout);
  if (first == TimePoint::max()) return;
  if (!idle_timer_.active() || first < idle_timer_.deadline()) idle_timer_.start_at(first);
}

void UpstreamPool::on_idle_timer() {
  const TimePoint now = options_.loop.now();
  for (const auto& entry : idle_)
    while (auto* connection = entry->connections.front()) {
      if (connection->idle_since() + entry->timeout > now) break;
      connection->cluster().stats().closed_idle.add();
      connection->close();
    }
  std::erase_if(idle_, [](const auto& entry) { return entry->connections.empty(); });
  arm_idle_timer();
}

bool UpstreamPool::make_place(const ClusterState& cluster) {
  PoolConnection* oldest = nullptr;
  for (const auto& host : cluster.hosts()) {
    if (host->attachment() == nullptr) continue;
    auto* idle = static_cast<HostPool*>(host->attachment())->oldest_idle();
    if (idle != nullptr && (oldest == nullptr || idle->idle_since() < oldest->idle_since()))
      oldest = idle;
  }
  if (oldest == nullptr) return false;
  oldest->close();
  return true;
}

}  // namespace edgemesh::proxy
