// L7Worker: what the HTTP side of one worker shares: its clusters and pool of upstream connections,
// write batch, free list of exchanges. It listens to nothing (proxy/listener does).
// Threads: the worker's loop; made before the loop runs or on it, destroyed on it or after it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/io/loop.h"
#include "proxy/compress/encoder.h"
#include "proxy/exchange/remote_keys.h"
#include "proxy/exchange/runtime.h"
#include "proxy/http/write_batch.h"
#include "proxy/telemetry/telemetry.h"
#include "proxy/upstream/hash.h"
#include "proxy/upstream/list.h"
#include "proxy/upstream/pool.h"
#include "proxy/upstream/worker_clusters.h"

namespace edgemesh::proxy {

class Exchange;
class HttpConnection;
class Overload;

struct L7WorkerOptions {
  int index = 0;
  ConnectorOptions connector;
  // Requests that are open at a time in this worker; more are answered 503.
  size_t max_requests = 100'000;
  // Bytes of a request's body that are kept for a retry, a hedge, a mirror.
  size_t replay_bytes = 64 * 1024;
  uint64_t seed = 0;  // 0: from the clock
  WorkerTelemetry* telemetry = nullptr;  // null: nothing is told; it outlives the worker
  const Overload* overload = nullptr;    // null: no limits but max_requests; it outlives the worker
};

// One worker's counts.
struct L7Stats {
  obs::Counter requests, retries, repeated, timeouts, overloaded, mirrored, mirrors_dropped, hedged;
  obs::Counter rbac_denied, rbac_shadow_denied, rate_limited, jwt_denied, authz_denied, authz_failed;
  Level active_requests, active_connections;
};

class L7Worker {
 public:
  // `connector` empty: a MeshConnector. Tests give their own. `stats` is borrowed.
  L7Worker(io::Loop& loop, L7WorkerOptions options, L7Stats& stats,
           std::unique_ptr<Connector> connector = nullptr);
  ~L7Worker();
  L7Worker(const L7Worker&) = delete;
  L7Worker& operator=(const L7Worker&) = delete;

  io::Loop& loop() { return loop_; }
  WriteBatch& batch() { return batch_; }
  WorkerClusters& clusters() { return clusters_; }
  UpstreamPool& pool() { return *pool_; }
  Connector& connector() { return *connector_; }
  Random& random() { return random_; }
  L7Stats& stats() { return stats_; }
  const L7WorkerOptions& options() const { return options_; }
  WorkerTelemetry* telemetry() const { return options_.telemetry; }
  // Null when tests gave a connector.
  void set_dialer(p2p::Dialer* dialer);

  // Codecs of connections to endpoints.
  MakeClient make_h1();
  MakeClient make_h2();
  EncoderPool& encoders() { return encoders_; }
  std::vector<uint8_t>& coded() { return coded_; }  // for what an encoder gives, at once used up
  RemoteKeys& keys() { return keys_; }
  // A request whose answer nobody waits for. False: too many are open; it was not sent.
  bool send_in_background(const SubRequestOptions& options, HeadPtr head,
                          std::vector<uint8_t> body);

  Exchange* take_exchange();
  void give_exchange(Exchange* exchange);
  // For the field Date (RFC 9110 5.6.7); made once a second.
  std::string_view date();

  // Connections finish their requests and end. `done` comes when none is left, at once if so.
  void drain(io::Task done);
  List<HttpConnection>& connections() { return connections_; }
  void note_connection_gone();

 private:
  io::Loop& loop_;
  L7WorkerOptions options_;
  WriteBatch batch_;
  WorkerClusters clusters_;
  std::unique_ptr<Connector> connector_;
  MeshConnector* mesh_connector_ = nullptr;
  std::unique_ptr<UpstreamPool> pool_;
  Random random_;
  L7Stats& stats_;
  List<HttpConnection> connections_;
  std::vector<std::unique_ptr<Exchange>> free_;
  RemoteKeys keys_{*this};
  EncoderPool encoders_;
  std::vector<uint8_t> coded_;
  std::unordered_map<uint64_t, std::unique_ptr<SubRequest>> background_;
  uint64_t next_background_ = 0;
  io::Task on_drained_;
  TimePoint date_until_{};
  char date_[32] = {};
  size_t date_size_ = 0;
};

}  // namespace edgemesh::proxy
