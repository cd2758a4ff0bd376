#include "proxy/listener/tcp_connection.h"

#include <algorithm>
#include <cstring>

#include "core/base/log.h"
#include "proxy/exchange/cluster_telemetry.h"
#include "proxy/telemetry/response_flags.h"
#include "proxy/upstream/hash.h"

namespace edgemesh::proxy {

void TcpConnection::start(WorkerListener& listener, Start start) {
  auto* connection = new TcpConnection(listener, std::move(start));
  connection->begin();
}

TcpConnection::TcpConnection(WorkerListener& listener, Start start)
    : Pump(listener.worker().pumps),
      listener_(listener),
      start_(std::move(start)),
      opened_(listener.worker().l7.loop().now()),
      timer_(listener.worker().l7.loop(), [this] { on_timer(); }) {
  listener.tcp_connections().push_back(*this);
  listener.note_tcp();
}

TcpConnection::~TcpConnection() {
  if (has_connection_) cluster_->give_connection(model::RequestPriority::kDefault);
  listener_.note_gone();
}

void TcpConnection::begin() {
  set_client(std::move(start_.stream));
  facts_.peer = start_.client.peer;
  facts_.local = start_.client.local;
  facts_.client = start_.client.peer.ip;
  facts_.server_name = start_.client.server_name;
  facts_.identity = start_.client.identity.get();
  facts_.tls = start_.client.tls;
  facts_.random = listener_.worker().l7.random().next();
  if (WorkerTelemetry* telemetry = listener_.worker().l7.telemetry()) {
    const auto direction = start_.runtime->spec->direction;
    tally_.reporter = reporter_of(direction);
    tally_.security = security_of(direction, facts_.identity);
    tally_.source =
        telemetry->source_of(facts_.identity, tally_.reporter == StatsReporter::kSource);
  }
  if (start_.chain->rbac != nullptr && !start_.chain->rbac->check(facts_).allowed) {
    listener_.worker().l7.stats().rbac_denied.add();
    return on_pump_end(EndReason::kRefused, nullptr);
  }
  if (!choose_cluster()) return on_pump_end(EndReason::kNoService, nullptr);
  try_next();
}

bool TcpConnection::choose_cluster() {
  const auto& clusters = spec().clusters;
  uint64_t sum = 0;
  for (const auto& cluster : clusters) sum += cluster.weight;
  if (sum == 0) return false;
  uint64_t at = mix64(facts_.random) % sum;
  for (const auto& cluster : clusters) {
    choice_ = &cluster;
    if (at < cluster.weight) break;
    at -= cluster.weight;
  }
  cluster_ = ClusterRef(listener_.worker().l7.clusters().find(choice_->name));
  return static_cast<bool>(cluster_);
}

void TcpConnection::try_next() {
  L7Worker& worker = listener_.worker().l7;
  if (cluster_->retired()) return on_pump_end(EndReason::kNoService, nullptr);
  if (!has_connection_ && !cluster_->take_connection(model::RequestPriority::kDefault)) {
    cluster_->stats().connection_overflow.add();
    return on_pump_end(EndReason::kTooMany, nullptr);
  }
  has_connection_ = true;
  std::vector<LabelView> labels;
  for (const auto& label : choice_->subset) labels.push_back({label.key, label.value});
  PickContext context;
  context.has_hash = true;
  context.hash = spec().hash.empty() ? facts_.random : std::hash<IpAddr>()(facts_.client);
  context.client = &facts_.client;
  context.destination = &facts_.local;
  context.labels = labels;
  context.tried = tried_;
  Host* host = cluster_->pick(context);
  if (host == nullptr) {
    cluster_->stats().no_host.add();
    return on_pump_end(EndReason::kNoEndpoint, nullptr);
  }
  host_ = HostRef(host);
  tried_.push_back(host);
  if (auto* telemetry = worker.telemetry();
      telemetry != nullptr && telemetry->requests() != nullptr)
    tally_.destination = destination_of(*telemetry, *host);
  ticket_ = RequestTicket();
  ticket_ = RequestTicket::take(*host, model::RequestPriority::kDefault);
  if (!ticket_) return on_pump_end(EndReason::kTooMany, nullptr);
  const ProxiedAddrs addrs{facts_.peer, facts_.local};
  auto connecting = worker.connector().connect(host->endpoint(), cluster_->set(), &addrs);
  timer_.start(cluster_->config().connect_timeout);
  if (!connecting) return fail_attempt(connecting.error());
  path_ = connecting->path;
  set_upstream(std::move(connecting->stream));
}

void TcpConnection::fail_attempt(const Error& error) {
  report_outcome(*host_, Outcome::kLocalFailure);
  host_->stats().connect_failures.add();
  const Error copy = error;  // the upstream owns it
  drop_upstream();
  if (tried_.size() < std::max<uint32_t>(spec().connect_attempts, 1)) return try_next();
  on_pump_end(EndReason::kConnectFailed, &copy);
}

void TcpConnection::on_upstream_failed_early(const Error& error) {
  fail_attempt(error);
}

void TcpConnection::on_upstream_connected() {
  report_outcome(*host_, Outcome::kConnected);
  path_ = p2p::path_of(*upstream(), path_);
  const Duration idle = spec().idle_timeout, whole = spec().max_duration;
  timer_.stop();
  if (idle > Duration::zero() || whole > Duration::zero())
    timer_.start(idle > Duration::zero() && (whole <= Duration::zero() || idle < whole) ? idle
                                                                                        : whole);
  std::unique_ptr<Buffer> early;
  if (!start_.early.empty()) {
    early = context_.buffers.take(start_.early.size());
    std::memcpy(early->data.get(), start_.early.data(), start_.early.size());
    early->end = static_cast<uint32_t>(start_.early.size());
    std::string().swap(start_.early);
  }
  start_pump(std::move(early), true);
}

void TcpConnection::on_timer() {
  L7Worker& worker = listener_.worker().l7;
  if (!pumping()) return fail_attempt(Error{ErrorCode::kTimeout, "no connection in time", 0});
  const TimePoint now = worker.loop().now();
  const Duration idle = spec().idle_timeout, whole = spec().max_duration;
  if (idle > Duration::zero() && now - last_active() >= idle)
    return on_pump_end(EndReason::kIdle, nullptr);
  if (whole > Duration::zero() && now - opened_ >= whole)
    return on_pump_end(EndReason::kIdle, nullptr);
  TimePoint next = TimePoint::max();
  if (idle > Duration::zero()) next = std::min(next, last_active() + idle);
  if (whole > Duration::zero()) next = std::min(next, opened_ + whole);
  timer_.start_at(next);
}

void TcpConnection::tell_progress() {
  WorkerTelemetry* telemetry = listener_.worker().l7.telemetry();
  if (telemetry == nullptr || telemetry->requests() == nullptr) return;
  tally_.progress(*telemetry, bytes_to_upstream(), bytes_to_client(),
                  {cluster_scope(*telemetry), start_.chain->told.listener.get()});
}

TrafficScope* TcpConnection::cluster_scope(WorkerTelemetry& telemetry) const {
  return cluster_ ? telemetry_of(telemetry, *cluster_).scope.get() : nullptr;
}

void TcpConnection::tell_end(EndReason reason, const Error* error) {
  WorkerTelemetry& telemetry = *listener_.worker().l7.telemetry();
  const uint32_t flags = flags_of_end(reason);
  tell_progress();
  if (telemetry.requests() != nullptr)
    tally_.end(telemetry, flags, {cluster_scope(telemetry), start_.chain->told.listener.get()});
  if (start_.chain->told.log == nullptr) return;
  const auto took = listener_.worker().l7.loop().now() - opened_;
  LogFacts log;
  log.facts = &facts_;
  log.duration_us = std::chrono::duration_cast<std::chrono::microseconds>(took).count();
  log.start = listener_.worker().l7.loop().clock().wall_now() -
              std::chrono::duration_cast<std::chrono::system_clock::duration>(took);
  log.bytes_received = bytes_to_upstream();
  log.bytes_sent = bytes_to_client();
  log.attempts = static_cast<uint32_t>(tried_.size());
  if (host_) {
    log.upstream = &host_->addr();
    log.upstream_path = p2p::to_string(path_);
  }
  if (cluster_) log.upstream_cluster = cluster_->name();
  log.response_flags = flags_text(flags);
  log.connection_details = in_words(reason);
  if (error != nullptr) log.failure = error->message;
  start_.chain->told.log->log(telemetry.lane(), log);
}

void TcpConnection::on_pump_end(EndReason reason, const Error* error) {
  if (is_failure(reason)) listener_.stats().tcp_failures.add();
  if (host_ && pumping() && !is_failure(reason)) report_outcome(*host_, Outcome::kSuccess);
  EM_LOG(kDebug, "proxy", "{} {} -> {}: {}{}{}", start_.runtime->spec->name,
         facts_.peer.to_string(), host_ ? host_->addr().to_string() : "-", in_words(reason),
         error != nullptr ? ": " : "", error != nullptr ? error->message : "");
  if (listener_.worker().l7.telemetry() != nullptr) tell_end(reason, error);
  delete this;
}

}  // namespace edgemesh::proxy
