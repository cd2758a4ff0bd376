#include "proxy/connection.h"

#include <limits>

#include "core/base/log.h"

namespace edgemesh::proxy {

namespace {
constexpr Duration kProgressEvery = std::chrono::seconds(1);

int64_t micros(Duration d) {
  return std::chrono::duration_cast<std::chrono::microseconds>(d).count();
}
}  // namespace

void WorkerContext::abort_all() {
  while (first != nullptr) first->abort(EndReason::kShutdown);
}

Connection::Connection(WorkerContext& worker, const SockAddr& source, const SockAddr& destination,
                       bool counted)
    : Pump(worker),
      worker_(worker),
      source_(source),
      destination_(destination),
      opened_(worker.loop.now()),
      timer_(worker.loop, [this] { on_timer(); }) {
  next_ = worker.first;
  if (next_ != nullptr) next_->previous_ = this;
  worker.first = this;
  ++worker.connections;
  if (!counted) worker.metrics.opened.add();
  worker.metrics.active.set(static_cast<int64_t>(worker.connections));
}

Connection::~Connection() {
  (previous_ != nullptr ? previous_->next_ : worker_.first) = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
  --worker_.connections;
  worker_.metrics.active.set(static_cast<int64_t>(worker_.connections));
  if (worker_.connections == 0 && worker_.on_empty) worker_.on_empty();
}

void Connection::note_connected() {
  auto took = micros(worker_.loop.clock().now() - opened_);
  connect_us_ = static_cast<int32_t>(std::min<int64_t>(took, std::numeric_limits<int32_t>::max()));
  worker_.metrics.connect_seconds.observe(static_cast<double>(took) / 1e6);
  // The timer goes on as it was set for the connect, unless that is too late.
  Duration idle = worker_.options.idle_timeout;
  if (idle > Duration::zero() && idle < worker_.options.connect_timeout) timer_.start(idle);
}

void Connection::on_timer() {
  if (!pumping()) {
    on_connect_timeout();
    return;
  }
  Duration limit = worker_.options.idle_timeout;
  if (half_closed() && worker_.options.half_close_timeout > Duration::zero() &&
      (limit == Duration::zero() || worker_.options.half_close_timeout < limit))
    limit = worker_.options.half_close_timeout;
  TimePoint now = worker_.loop.now();
  if (limit > Duration::zero() && now - last_active() >= limit) {
    on_pump_end(EndReason::kIdle, nullptr);
    return;
  }
  // A direction may end later and shorten the limit: look again at the half-close pace.
  Duration pace = limit > Duration::zero() ? limit : worker_.options.half_close_timeout;
  if (worker_.options.half_close_timeout > Duration::zero())
    pace = std::min(pace, worker_.options.half_close_timeout);
  if (pace <= Duration::zero()) return;
  timer_.start_at(limit > Duration::zero() ? std::min(now + pace, last_active() + limit)
                                           : now + pace);
}

void WorkerContext::tell_progress() {
  for (Connection* c = first; c != nullptr; c = c->next_)
    if (c->pumping()) c->tell_progress();
  if (connections > 0) progress_timer_->start(kProgressEvery);
}

void Connection::tell_service(std::string_view ns, std::string_view name, uint16_t port,
                              std::string_view node, std::string_view peer) {
  WorkerTelemetry* telemetry = worker_.telemetry;
  if (telemetry == nullptr || scope_ != nullptr) return;
  const auto* service = telemetry->service(ns, name, port, node);
  if (service == nullptr) return;
  scope_ = service->scope;
  stats_destination_ = service->destination;
  inbound_ = !peer.empty();
  stats_source_ = inbound_ ? telemetry->source_node(peer) : telemetry->source_of(nullptr, true);
  auto& timer = worker_.progress_timer_;
  if (timer == nullptr)
    timer = std::make_unique<io::Timer>(worker_.loop, [w = &worker_] { w->tell_progress(); });
  if (!timer->active()) timer->start(kProgressEvery);
}

void Connection::tell_progress() {
  if (scope_ == nullptr) return;
  TrafficScope::Bytes bytes;
  bytes.received = bytes_to_upstream() - told_received_;
  bytes.sent = bytes_to_client() - told_sent_;
  bytes.opened = told_open_ ? 0 : 1;
  if (told_open_ && bytes.received == 0 && bytes.sent == 0) return;
  told_open_ = true;
  told_received_ += bytes.received;
  told_sent_ += bytes.sent;
  TcpRecord record;
  record.source = stats_source_;
  record.destination = stats_destination_;
  record.reporter = inbound_ ? StatsReporter::kDestination : StatsReporter::kSource;
  record.security = inbound_ ? StatsSecurity::kMutualTls : StatsSecurity::kUnknown;
  record.opened = bytes.opened;
  record.sent = bytes.sent;
  record.received = bytes.received;
  worker_.telemetry->requests()->record(record);
  // The other node's side of it counts as traffic of the service; here it would count twice.
  if (!inbound_) scope_->record(worker_.telemetry->index(), bytes);
}

void Connection::tell_end(EndReason reason) {
  if (scope_ == nullptr) return;
  tell_progress();
  TcpRecord record;
  record.source = stats_source_;
  record.destination = stats_destination_;
  record.reporter = inbound_ ? StatsReporter::kDestination : StatsReporter::kSource;
  record.security = inbound_ ? StatsSecurity::kMutualTls : StatsSecurity::kUnknown;
  record.flags = flags_of_end(reason);
  record.closed = 1;
  worker_.telemetry->requests()->record(record);
  if (!inbound_)
    scope_->record(worker_.telemetry->index(), TrafficScope::Bytes{.closed = 1});
}

bool Connection::logs() const {
  return worker_.options.access_log && log::enabled(log::Level::kInfo, "access");
}

void Connection::report(EndReason reason, const Error* error, const LogFields& fields) {
  worker_.metrics.count_end(reason);
  tell_end(reason);
  if (!logs()) return;
  auto or_dash = [](const std::string& text) { return text.empty() ? "-" : text.c_str(); };
  EM_LOG(kInfo, "access",
         "src={} dst={} service={} endpoint={} node={} path={} sent={} received={} ms={:.3f} "
         "connect_ms={:.3f} result={} reason=\"{}{}{}\"",
         or_dash(fields.source), destination_.to_string(), or_dash(fields.service),
         or_dash(fields.endpoint), or_dash(fields.node), fields.path, bytes_to_upstream(),
         bytes_to_client(), static_cast<double>(micros(worker_.loop.clock().now() - opened_)) / 1e3,
         connect_us_ >= 0 ? connect_us_ / 1e3 : -1.0, to_string(reason), in_words(reason),
         error != nullptr ? ": " : "", error != nullptr ? error->message : "");
}

}  // namespace edgemesh::proxy
