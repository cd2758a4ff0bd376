// What is told of a request: a span begins with it, and its end goes to the access log, the metrics
// and the exporter of spans. Nothing of this allocates in the steady state.
#include <charconv>

#include "proxy/exchange/cluster_telemetry.h"
#include "proxy/exchange/exchange.h"
#include "proxy/exchange/http_connection.h"
#include "proxy/exchange/l7_worker.h"
#include "proxy/route/matchers.h"

namespace edgemesh::proxy {

namespace {

constexpr uint32_t kTimeouts = flag::kUpstreamTimeout;
constexpr uint32_t kResets = flag::kUpstreamTermination | flag::kUpstreamReset |
                             flag::kUpstreamConnect | flag::kUpstreamProtocol;

// -1: there is none. What is no number of gRPC's is UNKNOWN.
int grpc_status_in(const Head* head) {
  if (head == nullptr) return -1;
  const std::string_view text = head->get("grpc-status");
  if (text.empty()) return -1;
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= 0 ? value : 2;
}

}  // namespace

void Exchange::begin_trace() {
  WorkerTelemetry* telemetry = worker_.telemetry();
  // Without an exporter a span of ours would be a gap in the trace: what came is passed on.
  if (telemetry == nullptr || telemetry->spans() == nullptr) return;
  Random& random = worker_.random();
  const TraceRandom draw{random.next(), random.next(), random.next()};
  traced_ = begin_span(*request_, (*version_)->trace_share, draw, &trace_);
  if (traced_) inject(trace_, request_.get());
}

int Exchange::grpc_status() const {
  const int status = grpc_status_in(answer_trailers_.get());
  return status >= 0 ? status : grpc_status_in(answer_.get());
}

// Where the request goes now; asked again for each try.
void Exchange::note_upstream(Host& host) {
  upstream_ = host.addr();
  upstream_path_ = {};
  WorkerTelemetry* telemetry = worker_.telemetry();
  if (telemetry != nullptr && telemetry->requests() != nullptr)
    stats_destination_ = destination_of(*telemetry, host);
}

void Exchange::tell_end() {
  WorkerTelemetry& telemetry = *worker_.telemetry();
  const HttpRuntime& runtime = **version_;
  const bool wants_span = traced_ && trace_.sampled() && telemetry.spans() != nullptr;
  if (runtime.told.log == nullptr && telemetry.requests() == nullptr && !wants_span) return;
  LogFacts facts = log_facts();
  const bool grpc = is_grpc(*request_);
  if (grpc) facts.grpc_status = grpc_status();
  char trace_id[32];
  if (traced_) {
    put_hex(trace_.trace_id.data(), trace_.trace_id.size(), trace_id);
    facts.trace_id = {trace_id, sizeof trace_id};
  }
  if (runtime.told.log != nullptr) runtime.told.log->log(telemetry.lane(), facts);
  if (telemetry.requests() != nullptr) count_end(telemetry, facts, grpc);
  if (wants_span) put_span(*telemetry.spans(), facts);
}

void Exchange::count_end(WorkerTelemetry& telemetry, const LogFacts& facts, bool grpc) {
  const HttpRuntime& runtime = **version_;
  RequestRecord record;
  record.source = connection_->stats_source();
  record.destination = stats_destination_;
  if (record.destination == kUnknownPeer && cluster_)
    record.destination = telemetry_of(telemetry, *cluster_).any_host;
  record.reporter = reporter_of(runtime);
  record.security = security_of(runtime, facts_.identity);
  record.protocol = grpc ? StatsProtocol::kGrpc : StatsProtocol::kHttp;
  record.flags = flags_;
  record.status = status_;
  record.grpc_status = facts.grpc_status;
  record.duration_us = facts.duration_us;
  record.request_bytes = received_;
  record.response_bytes = sent_;
  telemetry.requests()->record(record);

  TrafficScope::Finished what;
  what.status = status_;
  what.duration_us = facts.duration_us;
  what.bytes_received = received_;
  what.bytes_sent = sent_;
  what.retries = attempts_ > 1 ? attempts_ - 1 : 0;
  what.timeout = (flags_ & kTimeouts) != 0;
  what.reset = (flags_ & kResets) != 0;
  if (runtime.told.listener != nullptr) runtime.told.listener->record(telemetry.index(), what);
  if (entry_ != nullptr)
    route_scope(telemetry, *entry_, runtime.routes->config()).record(telemetry.index(), what);
  if (cluster_) telemetry_of(telemetry, *cluster_).scope->record(telemetry.index(), what);
}

void Exchange::put_span(SpanLane& lane, const LogFacts& facts) const {
  using std::chrono::nanoseconds;
  Span span;
  span.set_context(trace_);
  span.start_ns =
      std::chrono::duration_cast<nanoseconds>(facts.start.time_since_epoch()).count();
  span.end_ns = span.start_ns + facts.duration_us * 1000;
  // The caller's sidecar speaks for the client, all others for the server.
  const bool outbound = (*version_)->direction == model::Listener::Direction::kOutbound;
  span.kind = outbound ? Span::Kind::kClient : Span::Kind::kServer;
  span.status = static_cast<uint16_t>(status_);
  span.request_bytes = received_;
  span.response_bytes = sent_;
  span.peer = facts_.peer;
  if (facts.upstream != nullptr) span.upstream = *facts.upstream;
  span.method.assign(request_->method);
  span.path.assign(request_->path);
  span.authority.assign(request_->authority);
  span.cluster.assign(facts.upstream_cluster);
  span.route.assign(entry_ != nullptr && !entry_->route->operation.empty()
                        ? std::string_view(entry_->route->operation)
                        : facts.route_name);
  span.request_id.assign(request_->get("x-request-id"));
  span.user_agent.assign(request_->get("user-agent"));
  if (flags_ != 0) span.flags.assign(facts.response_flags);
  lane.put(span);
}

}  // namespace edgemesh::proxy
