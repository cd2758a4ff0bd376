// ClusterState: the limits.
#include <algorithm>

#include "proxy/upstream/load_balancer.h"

namespace edgemesh::proxy {

namespace {

// Adds n unless that would pass the limit.
bool take(std::atomic<uint32_t>& count, uint32_t n, uint32_t limit) {
  const uint32_t before = count.fetch_add(n, std::memory_order_relaxed);
  if (uint64_t{before} + n <= limit) return true;
  count.fetch_sub(n, std::memory_order_relaxed);
  return false;
}

}  // namespace

bool ClusterState::take_connection(model::RequestPriority priority) {
  return take(shared_->breakers[static_cast<int>(priority)].connections, 1,
              config().limits(priority).max_connections);
}
void ClusterState::force_connection(model::RequestPriority priority) {
  shared_->breakers[static_cast<int>(priority)].connections.fetch_add(1, std::memory_order_relaxed);
}
void ClusterState::give_connection(model::RequestPriority priority) {
  shared_->breakers[static_cast<int>(priority)].connections.fetch_sub(1, std::memory_order_relaxed);
}

bool ClusterState::take_pending(model::RequestPriority priority) {
  return take(shared_->breakers[static_cast<int>(priority)].pending, 1,
              config().limits(priority).max_pending);
}
void ClusterState::give_pending(model::RequestPriority priority) {
  shared_->breakers[static_cast<int>(priority)].pending.fetch_sub(1, std::memory_order_relaxed);
}

bool ClusterState::take_retry(model::RequestPriority priority) {
  const auto& limits = config().limits(priority);
  uint32_t limit = limits.max_retries;
  if (limits.retry_budget_percent > 0) {
    uint64_t open = 0;
    shared_->stats.for_each(
        [&](const ClusterStats& stats) { open += stats.active_requests.value(); });
    limit = static_cast<uint32_t>(
        std::max<uint64_t>(limits.min_retry_concurrency, open * limits.retry_budget_percent / 100));
  }
  if (take(shared_->breakers[static_cast<int>(priority)].retries, 1, limit)) {
    stats_.retries.add();
    return true;
  }
  stats_.retries_refused.add();
  return false;
}
void ClusterState::give_retry(model::RequestPriority priority) {
  shared_->breakers[static_cast<int>(priority)].retries.fetch_sub(1, std::memory_order_relaxed);
}

uint32_t ClusterState::request_batch(model::RequestPriority priority) const {
  return std::clamp<uint32_t>(config().limits(priority).max_requests / 256, 1, 16);
}

bool ClusterState::take_request(model::RequestPriority priority) {
  Credit& credit = credit_[static_cast<int>(priority)];
  if (credit.have > 0) {
    --credit.have;
    return true;
  }
  auto& count = shared_->breakers[static_cast<int>(priority)].requests;
  const uint32_t limit = config().limits(priority).max_requests;
  const uint32_t batch = request_batch(priority);
  if (batch > 1 && take(count, batch, limit)) {
    credit.have = batch - 1;
    return true;
  }
  return take(count, 1, limit);
}

void ClusterState::give_request(model::RequestPriority priority) {
  Credit& credit = credit_[static_cast<int>(priority)];
  const uint32_t batch = request_batch(priority);
  ++credit.have;
  // With small limits nothing is held back.
  const uint32_t keep = batch == 1 ? 0 : batch;
  if (credit.have <= 2 * keep) return;
  shared_->breakers[static_cast<int>(priority)].requests.fetch_sub(credit.have - keep,
                                                                   std::memory_order_relaxed);
  credit.have = keep;
}

RequestTicket RequestTicket::take(Host& host, model::RequestPriority priority) {
  RequestTicket ticket;
  ClusterState& cluster = host.cluster();
  if (!cluster.take_request(priority)) {
    cluster.stats().request_overflow.add();
    return ticket;
  }
  ticket.host_ = HostRef(&host);
  ticket.priority_ = priority;
  cluster.stats().requests.add();
  cluster.stats().active_requests.up();
  host.stats().requests.add();
  host.stats().active_requests.up();
  return ticket;
}

RequestTicket::~RequestTicket() {
  if (!host_) return;
  ClusterState& cluster = host_->cluster();
  cluster.give_request(priority_);
  cluster.stats().active_requests.down();
  host_->stats().active_requests.down();
}

}  // namespace edgemesh::proxy
