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
  const bool inbound = !peer.empty();
  tally_.destination = service->destination;
  tally_.source = inbound ? telemetry->source_node(peer) : telemetry->source_of(nullptr, true);
  tally_.reporter = inbound ? StatsReporter::kDestination : StatsReporter::kSource;
  tally_.security = inbound ? StatsSecurity::kMutualTls : StatsSecurity::kUnknown;
  auto& timer = worker_.progress_timer_;
  if (timer == nullptr)
    timer = std::make_unique<io::Timer>(worker_.loop, [w = &worker_] { w->tell_progress(); });
  if (!timer->active()) timer->start(kProgressEvery);
}

// The other node's side of it counts as traffic of the service; on the inbound side it would count
// twice.
TrafficScope* Connection::own_scope() const {
  return tally_.reporter == StatsReporter::kSource ? scope_.get() : nullptr;
}

void Connection::tell_progress() {
  if (scope_ == nullptr) return;
  tally_.progress(*worker_.telemetry, bytes_to_upstream(), bytes_to_client(), {own_scope()});
}

void Connection::tell_end(EndReason reason) {
  if (scope_ == nullptr) return;
  tell_progress();
  tally_.end(*worker_.telemetry, flags_of_end(reason), {own_scope()});
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
