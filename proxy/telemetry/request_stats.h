// RequestStats: Istio's standard metrics (istio.io, "Istio Standard Metrics"): istio_requests_total,
// istio_request_duration_milliseconds, istio_request_bytes, istio_response_bytes and istio_tcp_*.
//
// Labels of both ends are interned once a connection or a cluster; a request then is one look-up in
// the worker's own table by small numbers, and increments. The scrape sums the tables.
// Limits: at most Options::max_sets label sets a process for requests, and as many for connections.
// What comes later is counted in one set whose labels all are "other", and in
// edgemesh_stats_overflow_total. Sets are never given back: a counter that vanishes and comes again
// would read as traffic.
// Threads: intern_*() and append_text() from any thread; a WorkerRequestStats is its worker's.
// record() takes no lock and allocates nothing, but for the first request of a set on a worker.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/obs/metrics.h"
#include "core/tls/context.h"

namespace edgemesh::proxy {

using LabelSetId = uint32_t;
inline constexpr LabelSetId kUnknownPeer = 0;  // "unknown" in all labels
inline constexpr LabelSetId kOtherPeer = 1;    // too many were interned

// Empty members are "unknown"; values longer than 253 bytes are cut.
struct StatsPeer {
  std::string workload, ns, principal, app, version, cluster;
  std::string canonical_service, canonical_revision;
  std::string node;  // no label of Istio's; left out when empty
};
struct StatsService {
  std::string host, name, ns;
};
// What a certificate says: the principal, and the namespace of a SPIFFE ID ("spiffe://td/ns/N/sa/A").
StatsPeer peer_of(const tls::PeerIdentity* identity);

enum class StatsReporter : uint8_t { kSource, kDestination };
enum class StatsProtocol : uint8_t { kHttp, kGrpc, kTcp };
enum class StatsSecurity : uint8_t { kUnknown, kNone, kMutualTls };

struct StatsKey {
  LabelSetId source = kUnknownPeer, destination = kUnknownPeer;
  uint32_t flags = 0;  // response flags, see Options::flags_text
  uint16_t code = 0;   // 0: no answer was sent
  int8_t grpc = -1;    // grpc-status; -1: none
  uint8_t kind = 0;    // packed: reporter, protocol, security
  friend bool operator==(const StatsKey&, const StatsKey&) = default;
};
struct StatsKeyHash {
  size_t operator()(const StatsKey& key) const;
};

struct RequestRecord {
  LabelSetId source = kUnknownPeer, destination = kUnknownPeer;
  StatsReporter reporter = StatsReporter::kSource;
  StatsProtocol protocol = StatsProtocol::kHttp;
  StatsSecurity security = StatsSecurity::kUnknown;
  uint32_t flags = 0;
  int status = 0;
  int grpc_status = -1;  // above 16: counted as 2, UNKNOWN
  int64_t duration_us = 0;
  uint64_t request_bytes = 0, response_bytes = 0;
};
// What became more since the last time; for long connections call it now and then.
struct TcpRecord {
  LabelSetId source = kUnknownPeer, destination = kUnknownPeer;
  StatsReporter reporter = StatsReporter::kSource;
  StatsSecurity security = StatsSecurity::kUnknown;
  uint32_t flags = 0;
  uint32_t opened = 0, closed = 0;
  uint64_t sent = 0, received = 0;  // to and from the client
};

// One worker's rows, by key; read by others meanwhile. Rows stay where they are.
template <class Row>
class StatsTable {
 public:
  struct Entry {
    StatsKey key;
    Row row;
  };
  explicit StatsTable(size_t max) : chunks_(max / kChunk + 1), index_(64) {}
  ~StatsTable() {
    for (auto& chunk : chunks_) delete[] chunk.load(std::memory_order_relaxed);
  }
  StatsTable(const StatsTable&) = delete;
  StatsTable& operator=(const StatsTable&) = delete;
  Row* find(const StatsKey& key);
  Row& insert(const StatsKey& key);  // not there yet; there is room
  bool full() const { return count_.load(std::memory_order_relaxed) == chunks_.size() * kChunk; }
  template <class Visit>
  void each(const Visit& visit) const {
    const uint32_t count = count_.load(std::memory_order_acquire);
    for (uint32_t i = 0; i < count; ++i) {
      const Entry& entry = chunks_[i / kChunk].load(std::memory_order_acquire)[i % kChunk];
      visit(entry.key, entry.row);
    }
  }

 private:
  static constexpr size_t kChunk = 32;
  Entry& at(uint32_t i) {
    return chunks_[i / kChunk].load(std::memory_order_relaxed)[i % kChunk];
  }
  void put_index(const StatsKey& key, uint32_t value);
  std::vector<std::atomic<Entry*>> chunks_;
  std::atomic<uint32_t> count_{0};
  std::vector<uint32_t> index_;  // number of the entry + 1; 0: free. A power of two, half full.
};

inline constexpr size_t kStatsBounds = 19;  // and +Inf
struct StatsHistogram {
  std::array<obs::Counter, kStatsBounds + 1> buckets;
  obs::Counter sum;
};
struct HttpStatsRow {
  StatsHistogram duration;  // microseconds; its count is that of the requests
  StatsHistogram request_bytes, response_bytes;
};
struct TcpStatsRow {
  obs::Counter opened, closed, sent, received;
};

class RequestStats;

class WorkerRequestStats {
 public:
  WorkerRequestStats(RequestStats& all, size_t max) : all_(all), http_(max + 1), tcp_(max + 1) {}
  void record(const RequestRecord& what);
  void record(const TcpRecord& what);

 private:
  friend class RequestStats;
  template <class Row>
  Row& row(StatsTable<Row>& table, const StatsKey& key);
  RequestStats& all_;
  StatsTable<HttpStatsRow> http_;
  StatsTable<TcpStatsRow> tcp_;
  obs::Counter overflow_;
};

class RequestStats {
 public:
  struct Options {
    size_t workers = 1;
    size_t max_sets = 10'000;
    std::string_view (*flags_text)(uint32_t flags) = nullptr;  // null: a number
  };
  explicit RequestStats(Options options);
  ~RequestStats();
  RequestStats(const RequestStats&) = delete;
  RequestStats& operator=(const RequestStats&) = delete;

  LabelSetId intern_source(const StatsPeer& peer);
  LabelSetId intern_destination(const StatsPeer& peer, const StatsService& service);
  WorkerRequestStats& worker(size_t i) { return *workers_[i]; }
  // Whole families in Prometheus' text format: for obs::Registry::on_text().
  void append_text(std::string& out) const;

 private:
  friend class WorkerRequestStats;
  struct Sets {
    std::unordered_set<StatsKey, StatsKeyHash> keys;  // guarded by mutex_
    std::atomic<bool> full{false};
  };
  struct View;  // what one scrape sees
  LabelSetId intern(std::string labels);
  bool admit(Sets& sets, const StatsKey& key);
  void append_labels(const View& view, const StatsKey& key, bool tcp, std::string* out) const;
  void append_http(const View& view, std::string& out) const;
  void append_tcp(const View& view, std::string& out) const;

  const Options options_;
  mutable std::mutex mutex_;  // guards what follows
  std::deque<std::string> labels_;
  std::unordered_map<std::string_view, LabelSetId> ids_;  // keys live in labels_
  Sets http_sets_, tcp_sets_;
  std::vector<std::unique_ptr<WorkerRequestStats>> workers_;  // not changed after the constructor
};

}  // namespace edgemesh::proxy
