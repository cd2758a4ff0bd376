// UpstreamPool: the worker's connections to endpoints, kept and used again.
//
// - HTTP/1: one request a connection at a time; the one that was used last is used first; idle ones
// are
//   closed after the cluster's idle timeout.
// - HTTP/2: few connections with many streams each.
// - A request that finds no connection waits, within the cluster's limit, while one is being made.
// Its
//   own timeouts are the caller's: cancel by destroying the waiter (or PoolWaiter::cancel()).
// - When connections are at their limit, an idle one of another endpoint of the cluster makes
// place;
//   an endpoint without any connection gets one all the same, else its requests would wait for
//   ever.
// - Connections of an endpoint that was removed end with their last request.
//
// The caller (the exchange) takes a RequestTicket for the request before, and reports its outcome
// after (outlier.h). Failed connects are reported here.
// Threads: the worker's loop. Every stream must have been released before the pool is destroyed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/io/loop.h"
#include "proxy/http/stream.h"
#include "proxy/upstream/connector.h"
#include "proxy/upstream/list.h"
#include "proxy/upstream/load_balancer.h"

namespace edgemesh::proxy {

enum class PoolFailure : uint8_t {
  kNone,
  kConnectFailed,  // refused, no route, TLS or ALPN failed, the tunnel is down
  kConnectTimeout,
  kPendingOverflow,     // max_pending
  kConnectionOverflow,  // max_connections is 0
  kHostRemoved,
};
std::string_view to_string(PoolFailure failure);

// What is known of the connection that carries a stream.
struct ConnectionInfo {
  uint64_t id = 0;        // of the worker
  uint32_t requests = 0;  // that it carried before this one: 0 means a new connection
  HttpVersion version = HttpVersion::kHttp11;
  p2p::PathKind path = p2p::PathKind::kLocal;
};

class HostPool;
class PoolConnection;

// One that waits for a stream. At most one of the callbacks runs, once, never from within
// request().
class PoolWaiter : public ListNode<PoolWaiter> {
 public:
  virtual void on_pool_stream(StreamPtr stream, const ConnectionInfo& info) = 0;
  virtual void on_pool_failure(PoolFailure failure, const Error& error) = 0;
  void cancel();  // does nothing when it does not wait
  bool waiting() const { return pool_ != nullptr; }

 protected:
  PoolWaiter() = default;
  virtual ~PoolWaiter() { cancel(); }

 private:
  friend class HostPool;
  HostPool* pool_ = nullptr;
  HttpStream::Handler* handler_ = nullptr;
  model::RequestPriority priority_ = model::RequestPriority::kDefault;
  ProxiedAddrs addrs_;
};

struct PoolRequest {
  HttpStream::Handler* handler = nullptr;  // of the stream
  model::RequestPriority priority = model::RequestPriority::kDefault;
  // Needed for clusters with PROXY protocol: such a connection serves one client connection only.
  const ProxiedAddrs* addrs = nullptr;
};

// Exactly one holds: a stream; a failure; neither, and the waiter waits.
struct PoolAnswer {
  StreamPtr stream;
  ConnectionInfo info;
  PoolFailure failure = PoolFailure::kNone;
  Error error;
};

// Makes the codec over a stream that is connected; the codec sets itself as the stream's handler
// before it returns. on_connected() of its handler is not waited for.
struct ClientTarget {
  SockAddr addr;
  std::shared_ptr<const tls::PeerIdentity> identity;  // null: none was verified
  const model::Cluster& cluster;
};
using MakeClient = std::function<std::unique_ptr<HttpClientConnection>(
    std::unique_ptr<io::Stream> stream, const ClientTarget& target,
    HttpClientConnection::Handler& handler)>;

struct PoolOptions {
  io::Loop& loop;
  Connector& connector;
  MakeClient make_h1;
  MakeClient make_h2;
};

class UpstreamPool {
 public:
  explicit UpstreamPool(PoolOptions options);
  ~UpstreamPool();
  UpstreamPool(const UpstreamPool&) = delete;
  UpstreamPool& operator=(const UpstreamPool&) = delete;

  PoolAnswer request(Host& host, const PoolRequest& request, PoolWaiter& waiter);
  // Ends idle connections, and the others after their last stream.
  void drain();
  size_t connections() const { return connections_; }
  size_t idle_connections() const { return idle_connections_; }

 private:
  friend class HostPool;
  friend class PoolConnection;

  // Connections without a stream, by their idle timeout.
  struct IdleClass;

  IdleClass& idle_class(Duration timeout);
  void note_idle(PoolConnection& connection);
  void note_used(PoolConnection& connection);
  void on_idle_timer();
  void arm_idle_timer();
  // Closes the idle connection of this cluster that waited longest; false: there is none.
  bool make_place(const ClusterState& cluster);

  PoolOptions options_;
  std::vector<std::unique_ptr<IdleClass>> idle_;
  List<HostPool> hosts_;
  io::Timer idle_timer_;
  size_t connections_ = 0;
  size_t idle_connections_ = 0;
  uint64_t next_id_ = 1;
};

}  // namespace edgemesh::proxy
