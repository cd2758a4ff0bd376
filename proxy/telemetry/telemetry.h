// Telemetry: what a process tells of its traffic, and each worker's part of it. Made once, before the
// workers run, and destroyed after them: they borrow what they use.
// Threads: Telemetry belongs to the main loop, but for what says otherwise; a WorkerTelemetry to its
// worker.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "proxy/model/telemetry.h"
#include "proxy/telemetry/access_log.h"
#include "proxy/telemetry/request_stats.h"
#include "proxy/telemetry/span_exporter.h"
#include "proxy/telemetry/traffic_stats.h"

namespace edgemesh::proxy {

struct TelemetryOptions {
  size_t workers = 1;
  model::Telemetry spec;
  std::string node;  // of this process; empty: not known
  std::string_view (*flags_text)(uint32_t flags) = nullptr;
  size_t max_sets = 1000;    // of labels
  size_t max_scopes = 1000;  // listeners; clusters; routes
  http::ClientOptions client;  // of the exporter
};

class Telemetry;

class WorkerTelemetry {
 public:
  WorkerTelemetry(Telemetry& all, size_t index);
  size_t index() const { return index_; }
  Telemetry& all() { return all_; }
  AccessLogWriter::Lane& lane() { return lane_; }
  SpanLane* spans() { return spans_; }                // null: no exporter
  WorkerRequestStats* requests() { return requests_; }  // null: metrics are off
  // Labels of who is behind a connection: its certificate, else this node's own workloads (`ours`),
  // else unknown. Takes a lock when an identity is new to this worker.
  LabelSetId source_of(const tls::PeerIdentity* identity, bool ours);
  // Of a node whose certificate a tunnel showed.
  LabelSetId source_node(std::string_view node);

  // Of a service's port, for connections of bytes.
  struct Service {
    TrafficScopePtr scope;
    LabelSetId destination = kUnknownPeer;
  };
  // Null: metrics are off. Valid until the next call.
  const Service* service(std::string_view ns, std::string_view name, uint16_t port,
                         std::string_view node);

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  template <class Value>
  using Cache = std::unordered_map<std::string, Value, Hash, std::equal_to<>>;
  static constexpr size_t kMaxCached = 4096;

  Telemetry& all_;
  const size_t index_;
  AccessLogWriter::Lane& lane_;
  SpanLane* spans_;
  WorkerRequestStats* requests_;
  LabelSetId own_source_ = kUnknownPeer;
  Cache<LabelSetId> sources_, nodes_;  // by the certificate's hash; by name
  Cache<Service> services_;
  std::string key_;
};

class Telemetry {
 public:
  // Errors: the exporter's URL, the writer's thread.
  static Result<std::unique_ptr<Telemetry>> make(io::Loop& main, TelemetryOptions options);

  WorkerTelemetry& worker(size_t i) { return *workers_[i]; }
  const TelemetryOptions& options() const { return options_; }
  const model::Telemetry& spec() const { return options_.spec; }
  // Thread-safe, all of these.
  AccessLogWriter& logs() { return *logs_; }
  TrafficStats& traffic() { return *traffic_; }
  RequestStats* requests() { return requests_.get(); }  // null: metrics are off
  SpanExporter* exporter() { return exporter_.get(); }  // null: no tracing

  // Files of access logs are closed and opened again.
  void reopen_logs() { logs_->reopen(); }
  // Prometheus text: for obs::Registry::on_text().
  void append_text(std::string& out) const;

 private:
  explicit Telemetry(TelemetryOptions options) : options_(std::move(options)) {}
  TelemetryOptions options_;
  std::unique_ptr<AccessLogWriter> logs_;
  std::unique_ptr<RequestStats> requests_;
  std::unique_ptr<TrafficStats> traffic_;
  std::unique_ptr<SpanExporter> exporter_;
  std::vector<std::unique_ptr<WorkerTelemetry>> workers_;
};

// The cluster's name that traffic of a service's port is counted under. Without a namespace: `name`.
void append_service_key(std::string_view ns, std::string_view name, uint16_t port,
                        std::string* out);

}  // namespace edgemesh::proxy
