#include <algorithm>

#include "proxy/upstream/pool_impl.h"

namespace edgemesh::proxy {

namespace {

using ReadyNode = ListNode<PoolConnection, ReadyTag>;
constexpr int kProxiedScan = 64;  // idle connections looked at for one of the same client

}  // namespace

HostPool::HostPool(UpstreamPool& pool, Host& host) : pool_(&pool), host_(host) {}

HostPool::~HostPool() {
  shutdown();
}

void HostPool::shutdown() {
  if (pool_ == nullptr) return;
  while (PoolWaiter* waiter = waiters_.front()) take_out(*waiter);
  unlink();
  HostRef keep(connections_ > 0 ? &host_ : nullptr);  // the connections' refs may be the last
  while (PoolConnection* connection = all_.front()) {
    forget(*connection);
    delete connection;
  }
  pool_ = nullptr;
}

PoolAnswer HostPool::request(const PoolRequest& request, PoolWaiter& waiter) {
  PoolAnswer answer;
  if (pool_ == nullptr || host_.removed()) {
    answer.failure = PoolFailure::kHostRemoved;
    return answer;
  }
  const bool proxied = host_.cluster().config().proxy_protocol != model::ProxyProtocolOut::kNone;
  const ProxiedAddrs* addrs = proxied ? request.addrs : nullptr;
  while (PoolConnection* connection = choose(addrs)) {
    const bool busy = connection->streams() > 0;
    answer.stream = connection->open(request.handler, &answer.info);
    if (answer.stream) {
      if (busy) add_h2_beside(request.priority);
      return answer;
    }
    drop_ready(*connection);
  }
  auto& cluster = host_.cluster();
  if (!cluster.take_pending(request.priority)) {
    cluster.stats().pending_overflow.add();
    answer.failure = PoolFailure::kPendingOverflow;
    return answer;
  }
  cluster.stats().pending_total.add();
  cluster.stats().active_pending.up();
  ++waiting_;
  waiters_.push_back(waiter);
  waiter.pool_ = this;
  waiter.handler_ = request.handler;
  waiter.priority_ = request.priority;
  if (addrs != nullptr) waiter.addrs_ = *addrs;
  auto connecting = connect_for_waiters();
  if (connecting || connections_ > 0) return answer;
  take_out(waiter);
  cluster.stats().pending_failed.add();
  answer.failure = connecting.error().code == ErrorCode::kResourceExhausted
                       ? PoolFailure::kConnectionOverflow
                       : PoolFailure::kConnectFailed;
  answer.error = std::move(connecting).error();
  return answer;
}

void HostPool::drop_ready(PoolConnection& connection) {
  static_cast<ReadyNode&>(connection).unlink();
}

PoolConnection* HostPool::choose(const ProxiedAddrs* addrs) {
  if (ready_.empty()) return nullptr;
  if (addrs != nullptr) return choose_proxied(*addrs);
  if (ready_.front()->is_h2()) return choose_h2();
  // The one that was used last: the others may come to their idle timeout.
  return ready_.front();
}

PoolConnection* HostPool::choose_proxied(const ProxiedAddrs& addrs) {
  PoolConnection* connection = ready_.front();
  for (int i = 0; connection != nullptr && i < kProxiedScan; ++i) {
    if (connection->addrs() != nullptr && *connection->addrs() == addrs) return connection;
    connection = ready_.after(*connection);
  }
  return nullptr;
}

// All connections are busy: one more is made beside, while there are fewer than wished.
void HostPool::add_h2_beside(model::RequestPriority priority) {
  if (connections_ >= host_.cluster().config().http2_connections || connecting_ > 0) return;
  [[maybe_unused]] const auto ignored = connect(priority, nullptr);  // counted; others serve
}

// The least busy.
PoolConnection* HostPool::choose_h2() {
  PoolConnection* best = nullptr;
  for (PoolConnection* c = ready_.front(); c != nullptr; c = ready_.after(*c))
    if (c->can_open() && (best == nullptr || c->streams() < best->streams())) best = c;
  return best;
}

void HostPool::cancel(PoolWaiter& waiter) {
  take_out(waiter);
  host_.cluster().stats().pending_cancelled.add();
}

void HostPool::take_out(PoolWaiter& waiter) {
  waiter.unlink();
  waiter.pool_ = nullptr;
  --waiting_;
  host_.cluster().give_pending(waiter.priority_);
  host_.cluster().stats().active_pending.down();
}

void HostPool::fail_waiter(PoolWaiter& waiter, PoolFailure failure, const Error& error) {
  take_out(waiter);
  host_.cluster().stats().pending_failed.add();
  waiter.on_pool_failure(failure, error);
}

void HostPool::fail_all(PoolFailure failure, const Error& error) {
  HostRef keep(&host_);
  // Those that come meanwhile (a retry on this host) are not of this failure.
  for (size_t left = waiting_; left > 0 && !waiters_.empty(); --left)
    fail_waiter(*waiters_.front(), failure, error);
}

PoolWaiter* HostPool::next_waiter(const PoolConnection& connection) const {
  if (connection.addrs() == nullptr) return waiters_.front();
  for (PoolWaiter* waiter = waiters_.front(); waiter != nullptr; waiter = waiters_.after(*waiter))
    if (waiter->addrs_ == *connection.addrs()) return waiter;
  return nullptr;
}

void HostPool::serve(PoolConnection& connection) {
  while (connection.can_open()) {
    PoolWaiter* waiter = next_waiter(connection);
    if (waiter == nullptr) return;
    ConnectionInfo info;
    StreamPtr stream = connection.open(waiter->handler_, &info);
    if (stream == nullptr) return;
    take_out(*waiter);
    waiter->on_pool_stream(std::move(stream), info);
  }
}

void HostPool::on_connect_done(PoolConnection& connection) {
  --connecting_;
  was_h2_ = connection.is_h2();
  on_open(connection);
}

void HostPool::on_open(PoolConnection& connection) {
  HostRef keep(&host_);
  // Before: requests that come from within the callbacks find it.
  if (connection.is_h2() && !static_cast<ReadyNode&>(connection).linked())
    ready_.push_back(connection);
  serve(connection);
  if (connection.state() == PoolConnection::State::kOpen) {
    if (!connection.is_h2() && connection.can_open()) ready_.push_front(connection);
    if (connection.streams() == 0) pool_->note_idle(connection);
  }
  if (waiting_ > 0) on_gone();
}

void HostPool::on_connect_failed(PoolConnection& connection, PoolFailure failure,
                                 const Error& error) {
  HostRef keep(&host_);
  if (connections_ == 0) return fail_all(failure, error);
  // Others are there, or on their way: this one would have served one.
  if (PoolWaiter* waiter = next_waiter(connection)) fail_waiter(*waiter, failure, error);
  on_gone();
}

void HostPool::on_gone() {
  if (waiting_ == 0 || pool_ == nullptr) return;
  HostRef keep(&host_);
  auto connecting = connect_for_waiters();
  if (!connecting && connections_ == 0) fail_all(PoolFailure::kConnectFailed, connecting.error());
}

void HostPool::forget(PoolConnection& connection) {
  pool_->note_used(connection);
  static_cast<ReadyNode&>(connection).unlink();
  static_cast<ListNode<PoolConnection, AllTag>&>(connection).unlink();
  if (connection.state() == PoolConnection::State::kConnecting) --connecting_;
  --connections_;
  --pool_->connections_;
  auto& cluster = host_.cluster();
  cluster.give_connection(connection.priority());
  cluster.stats().connections_closed.add();
  cluster.stats().active_connections.down();
  host_.stats().active_connections.down();
}

PoolConnection* HostPool::oldest_idle() const {
  PoolConnection* last = ready_.back();
  return last != nullptr && last->streams() == 0 ? last : nullptr;
}

size_t HostPool::capacity_of_new() const {
  const auto& config = host_.cluster().config();
  const bool h2 = config.protocol == model::UpstreamProtocol::kHttp2 ||
                  (config.protocol == model::UpstreamProtocol::kAuto && was_h2_);
  return h2 ? config.max_streams : 1;
}

Result<> HostPool::connect_for_waiters() {
  const bool proxied = host_.cluster().config().proxy_protocol != model::ProxyProtocolOut::kNone;
  // With PROXY headers each waiter needs its own, which its place in the list tells.
  size_t served = connecting_ * capacity_of_new();
  PoolWaiter* waiter = waiters_.front();
  for (size_t i = 0; i < served && waiter != nullptr; ++i) waiter = waiters_.after(*waiter);
  while (waiter != nullptr) {
    EM_TRY_VOID(connect(waiter->priority_, proxied ? &waiter->addrs_ : nullptr));
    if (connecting_ * capacity_of_new() <= served) break;  // at the limit
    served = connecting_ * capacity_of_new();
    for (size_t i = capacity_of_new(); i > 0 && waiter != nullptr; --i)
      waiter = waiters_.after(*waiter);
  }
  return {};
}

bool HostPool::admit(model::RequestPriority priority) {
  auto& cluster = host_.cluster();
  if (cluster.config().limits(priority).max_connections == 0) return false;
  if (cluster.take_connection(priority)) return true;
  if (pool_->make_place(cluster) && cluster.take_connection(priority)) return true;
  cluster.stats().connection_overflow.add();
  if (connections_ > 0) return false;
  cluster.force_connection(priority);
  return true;
}

Result<> HostPool::connect(model::RequestPriority priority, const ProxiedAddrs* addrs) {
  if (!admit(priority)) {
    if (connections_ > 0) return {};
    return fail(ErrorCode::kResourceExhausted,
                "cluster {} may have no connection: maxConnections is 0", host_.cluster().name());
  }
  auto& cluster = host_.cluster();
  auto connecting = pool_->options_.connector.connect(host_.endpoint(), cluster.set(), addrs);
  if (!connecting) {
    cluster.give_connection(priority);
    cluster.stats().connect_failures.add();
    host_.stats().connect_failures.add();
    report_outcome(host_, Outcome::kLocalFailure);
    return fail(std::move(connecting).error());
  }
  auto* connection = new PoolConnection(*pool_, *this, host_, priority, addrs);
  all_.push_back(*connection);
  ++connections_;
  ++connecting_;
  ++pool_->connections_;
  cluster.stats().connections.add();
  cluster.stats().active_connections.up();
  host_.stats().connections.add();
  host_.stats().active_connections.up();
  connection->start(std::move(*connecting));
  return {};
}

void HostPool::drain() {
  PoolConnection* connection = all_.front();
  while (connection != nullptr) {
    PoolConnection* next = all_.after(*connection);
    // One that waiters hope for goes on.
    if (connection->state() != PoolConnection::State::kConnecting) connection->drain();
    connection = next;
  }
}

void HostPool::on_host_removed() {
  if (pool_ == nullptr) return;
  HostRef keep(&host_);
  PoolConnection* connection = all_.front();
  while (connection != nullptr) {
    PoolConnection* next = all_.after(*connection);
    host_.cluster().stats().closed_host_removed.add();
    connection->drain();
    connection = next;
  }
  fail_all(PoolFailure::kHostRemoved,
           Error{ErrorCode::kUnavailable, "the endpoint was removed", 0});
}

void HostPool::on_host_unhealthy() {
  if (pool_ != nullptr && host_.cluster().config().close_on_unhealthy) drain();
}

}  // namespace edgemesh::proxy
