#include "proxy/telemetry/telemetry.h"

#include <fmt/core.h>

namespace edgemesh::proxy {

namespace {

void family(std::string& out, std::string_view name, std::string_view help, uint64_t value) {
  out += fmt::format("# HELP {0} {1}\n# TYPE {0} counter\n{0} {2}\n", name, help, value);
}

}  // namespace

void append_service_key(std::string_view ns, std::string_view name, uint16_t port,
                        std::string* out) {
  if (ns.empty()) return static_cast<void>(out->append(name));
  out->append("outbound|");
  append_number(port, out);
  out->append("||").append(name).append(".").append(ns);
}

WorkerTelemetry::WorkerTelemetry(Telemetry& all, size_t index)
    : all_(all),
      index_(index),
      lane_(all.logs().add_lane()),
      spans_(all.exporter() != nullptr ? &all.exporter()->add_lane() : nullptr),
      requests_(all.requests() != nullptr ? &all.requests()->worker(index) : nullptr) {
  if (requests_ == nullptr) return;
  StatsPeer own;
  own.node = all.options().node;
  own_source_ = own.node.empty() ? kUnknownPeer : all.requests()->intern_source(own);
}

LabelSetId WorkerTelemetry::source_of(const tls::PeerIdentity* identity, bool ours) {
  if (requests_ == nullptr) return kUnknownPeer;
  if (identity == nullptr) return ours ? own_source_ : kUnknownPeer;
  if (const auto found = sources_.find(identity->sha256); found != sources_.end())
    return found->second;
  if (sources_.size() >= kMaxCached) sources_.clear();
  const LabelSetId id = all_.requests()->intern_source(peer_of(identity));
  sources_.emplace(identity->sha256, id);
  return id;
}

LabelSetId WorkerTelemetry::source_node(std::string_view node) {
  if (requests_ == nullptr || node.empty()) return kUnknownPeer;
  if (const auto found = nodes_.find(node); found != nodes_.end()) return found->second;
  if (nodes_.size() >= kMaxCached) nodes_.clear();
  StatsPeer peer;
  peer.node = node;
  const LabelSetId id = all_.requests()->intern_source(peer);
  nodes_.emplace(node, id);
  return id;
}

const WorkerTelemetry::Service* WorkerTelemetry::service(std::string_view ns,
                                                         std::string_view name, uint16_t port,
                                                         std::string_view node) {
  if (requests_ == nullptr) return nullptr;
  key_.clear();
  append_service_key(ns, name, port, &key_);
  const size_t size = key_.size();
  key_.append("/").append(node);
  if (const auto found = services_.find(key_); found != services_.end()) return &found->second;
  if (services_.size() >= kMaxCached) services_.clear();
  Service made;
  made.scope = all_.traffic().scope(TrafficScope::Kind::kCluster, std::string_view(key_).substr(0, size));
  StatsPeer to;
  to.node = node;
  StatsService service;
  service.name = name;
  service.ns = ns;
  service.host = ns.empty() ? std::string(name) : fmt::format("{}.{}.svc.cluster.local", name, ns);
  made.destination = all_.requests()->intern_destination(to, service);
  return &services_.emplace(key_, std::move(made)).first->second;
}

Result<std::unique_ptr<Telemetry>> Telemetry::make(io::Loop& main, TelemetryOptions options) {
  std::unique_ptr<Telemetry> out(new Telemetry(std::move(options)));
  const TelemetryOptions& what = out->options_;
  EM_TRY(out->logs_, AccessLogWriter::start());
  out->traffic_ = std::make_unique<TrafficStats>(what.workers, what.max_scopes);
  if (what.spec.metrics)
    out->requests_ = std::make_unique<RequestStats>(
        RequestStats::Options{what.workers, what.max_sets, what.flags_text});
  if (!what.spec.tracing.url.empty()) {
    SpanExporter::Options spans;
    spans.url = what.spec.tracing.url;
    spans.service_name = what.spec.tracing.service_name;
    spans.node = what.node;
    spans.client = what.client;
    EM_TRY(out->exporter_, SpanExporter::make(main, std::move(spans)));
  }
  for (size_t i = 0; i < what.workers; ++i)
    out->workers_.push_back(std::make_unique<WorkerTelemetry>(*out, i));
  return out;
}

void Telemetry::append_text(std::string& out) const {
  if (requests_ != nullptr) {
    requests_->append_text(out);
    traffic_->append_text(out);
  }
  const auto logs = logs_->stats();
  family(out, "edgemesh_access_log_lines_total", "Lines written to access logs.", logs.lines);
  family(out, "edgemesh_access_log_dropped_total", "Lines dropped, as the writer was behind.",
         logs.dropped);
  family(out, "edgemesh_access_log_failed_total", "Lines that could not be written.", logs.failed);
  if (exporter_ == nullptr) return;
  const auto spans = exporter_->stats();
  family(out, "edgemesh_spans_exported_total", "Spans that the collector took.", spans.exported);
  family(out, "edgemesh_spans_dropped_total", "Spans dropped, as too many came.", spans.dropped);
  family(out, "edgemesh_spans_failed_total", "Spans that the collector did not take.",
         spans.failed);
}

}  // namespace edgemesh::proxy
