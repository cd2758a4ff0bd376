// What pool.cc, host_pool.cc and pool_connection.cc share. Private to them.
#pragma once

#include <memory>

#include "proxy/upstream/list.h"
#include "proxy/upstream/outlier.h"
#include "proxy/upstream/pool.h"

namespace edgemesh::proxy {

struct AllTag;    // all connections of a host
struct ReadyTag;  // those that may take a request
struct IdleTag;   // those without a stream, of all hosts with the same idle timeout

struct UpstreamPool::IdleClass {
  Duration timeout{};
  List<PoolConnection, IdleTag> connections;  // the first has waited longest
};

class PoolConnection final : public ListNode<PoolConnection, AllTag>,
                             public ListNode<PoolConnection, ReadyTag>,
                             public ListNode<PoolConnection, IdleTag>,
                             private HttpClientConnection::Handler,
                             private io::Stream::Handler {
 public:
  enum class State : uint8_t {
    kConnecting,
    kOpen,
    kDraining,  // ends with its last stream
    kDead,      // in no list; waits to be destroyed
  };

  PoolConnection(UpstreamPool& pool, HostPool& owner, Host& host, model::RequestPriority priority,
                 const ProxiedAddrs* addrs);
  ~PoolConnection() override;

  void start(Connecting connecting);
  // Null: it cannot take one now (and is draining, where that is for good).
  StreamPtr open(HttpStream::Handler* handler, ConnectionInfo* info);
  bool can_open();
  // Takes no more requests; ends now when it has none.
  void drain();
  // Out of all lists, counted as closed; destroyed at the end of the turn.
  void close();

  State state() const { return state_; }
  bool is_h2() const { return info_.version == HttpVersion::kHttp2; }
  size_t streams() const { return codec_ ? codec_->active_streams() : 0; }
  const ProxiedAddrs* addrs() const { return addrs_.get(); }
  model::RequestPriority priority() const { return priority_; }
  TimePoint idle_since() const { return idle_since_; }
  void set_idle_since(TimePoint when) { idle_since_ = when; }
  ClusterState& cluster() const { return host_->cluster(); }
  HostPool& owner() { return owner_; }

 private:
  // While it is being made.
  void on_connected() override;  // of both handlers: of the stream first
  void on_readable() override {}
  void on_writable() override {}
  void on_error(const Error& error) override;
  void fail_connect(PoolFailure failure, const Error& error);
  Result<HttpVersion> agreed_version() const;
  // Of the codec.
  void on_available() override;
  void on_closed(const Error& error) override;
  bool worn_out() const;

  UpstreamPool& pool_;
  HostPool& owner_;
  HostRef host_;  // keeps owner_ as well
  State state_ = State::kConnecting;
  model::RequestPriority priority_;
  ConnectionInfo info_;
  TimePoint opened_{};
  TimePoint idle_since_{};
  std::unique_ptr<ProxiedAddrs> addrs_;
  std::unique_ptr<io::Timer> connect_timer_;
  tls::TlsStream* tls_ = nullptr;       // while connecting
  std::unique_ptr<io::Stream> stream_;  // while connecting
  std::unique_ptr<HttpClientConnection> codec_;
};

class HostPool final : public HostAttachment, public ListNode<HostPool> {
 public:
  HostPool(UpstreamPool& pool, Host& host);
  ~HostPool() override;

  PoolAnswer request(const PoolRequest& request, PoolWaiter& waiter);
  void cancel(PoolWaiter& waiter);
  void drain();
  void shutdown();  // the pool goes away: no callbacks

  // Of its connections.
  void on_connect_done(PoolConnection& connection);
  void on_open(PoolConnection& connection);  // it can take requests: now, or again
  void on_connect_failed(PoolConnection& connection, PoolFailure failure, const Error& error);
  void on_gone();  // a connection was closed, or cannot serve all: the waiters may need another
  void forget(PoolConnection& connection);  // out of the lists and counts
  PoolConnection* oldest_idle() const;

  void on_host_removed() override;
  void on_host_unhealthy() override;

 private:
  PoolConnection* choose(const ProxiedAddrs* addrs);
  PoolConnection* choose_h2();
  PoolConnection* choose_proxied(const ProxiedAddrs& addrs);
  void drop_ready(PoolConnection& connection);
  void serve(PoolConnection& connection);
  PoolWaiter* next_waiter(const PoolConnection& connection) const;
  void take_out(PoolWaiter& waiter);
  void fail_waiter(PoolWaiter& waiter, PoolFailure failure, const Error& error);
  void fail_all(PoolFailure failure, const Error& error);
  // Makes as many connections as the waiters need. An error of the connector, when none is on its
  // way.
  Result<> connect_for_waiters();
  bool admit(model::RequestPriority priority);
  Result<> connect(model::RequestPriority priority, const ProxiedAddrs* addrs);
  void add_h2_beside(model::RequestPriority priority);
  size_t capacity_of_new() const;

  UpstreamPool* pool_;  // null after shutdown
  Host& host_;
  List<PoolConnection, AllTag> all_;
  List<PoolConnection, ReadyTag> ready_;
  List<PoolWaiter> waiters_;
  size_t connections_ = 0;
  size_t connecting_ = 0;
  size_t waiting_ = 0;
  bool was_h2_ = false;
  friend class UpstreamPool;
};

}  // namespace edgemesh::proxy
