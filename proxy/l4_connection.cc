#include "proxy/l4_connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "core/base/log.h"

namespace edgemesh::proxy {

namespace {

// Answers with a reset, so that the client learns at once.
void refuse(WorkerContext& worker, io::Fd fd, const SockAddr& source, const SockAddr& destination,
            EndReason reason, bool resumed) {
  linger hard{1, 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  fd.reset();
  if (!resumed) worker.metrics.opened.add();
  worker.metrics.count_end(reason);
  if (!worker.options.access_log) return;
  EM_LOG(kInfo, "access",
         "src={} dst={} service=- endpoint=- node=- path=none sent=0 received=0 ms=0 connect_ms=-1 "
         "result={} reason=\"{}\"",
         source.to_string(), destination.to_string(), to_string(reason), in_words(reason));
}

}  // namespace

L4Connection::L4Connection(WorkerContext& worker, const SockAddr& source,
                           const SockAddr& destination, bool resumed)
    : Connection(worker, source, destination, resumed) {}

L4Connection::~L4Connection() {
  release_endpoint();
  context_.buffers.give(std::move(early_));
}

void L4Connection::release_endpoint() {
  if (endpoint_ != nullptr) worker().picker.on_end(*endpoint_);
  endpoint_ = nullptr;
}

L4Connection* L4Connection::make(WorkerContext& worker, io::Fd fd, const SockAddr& source,
                                 const SockAddr& destination, const discovery::ServiceEntry* fixed,
                                 bool resumed) {
  if (worker.connections >= worker.options.max_connections) {
    refuse(worker, std::move(fd), source, destination, EndReason::kTooMany, resumed);
    return nullptr;
  }
  std::optional<discovery::Snapshot::Target> target;
  if (fixed != nullptr)
    target = {fixed, &fixed->ports.front()};
  else if (worker.snapshot)
    target = worker.snapshot->find(destination.ip, destination.port);
  if (!target) {
    refuse(worker, std::move(fd), source, destination, EndReason::kNoService, resumed);
    return nullptr;
  }
  auto client = io::TcpStream::adopt(worker.loop, std::move(fd), true);
  if (!client) {
    EM_LOG(kWarn, "proxy", "connection of {}: {}", source.to_string(), client.error().message);
    return nullptr;
  }
  auto* self = new L4Connection(worker, source, destination, resumed);
  self->service_ = target->service->shared_from_this();
  self->port_ = target->port;
  self->set_client(std::move(*client));
  self->start_connect_timer();
  return self;
}

void L4Connection::accept(WorkerContext& worker, io::Fd fd, const SockAddr& source,
                          const SockAddr& destination,
                          const std::shared_ptr<const discovery::ServiceEntry>& fixed) {
  auto* self = make(worker, std::move(fd), source, destination, fixed.get(), false);
  if (self == nullptr || !self->attempt()) return;
  // The client often has sent its first bytes by now, and over loopback the endpoint is connected:
  // then they are passed on at once, without a round of the loop.
  self->read_early();
}

void L4Connection::resume(WorkerContext& worker, Handover handover) {
  auto* self =
      make(worker, std::move(handover.fd), handover.source, handover.destination, nullptr, true);
  if (self == nullptr) return;
  self->set_opened(handover.opened);
  if (!handover.early.empty()) {
    self->early_ =
        worker.buffers.take(std::max(handover.early.size(), worker.options.replay_bytes));
    std::memcpy(self->early_->data.get(), handover.early.data(), handover.early.size());
    self->early_->end = static_cast<uint32_t>(handover.early.size());
  }
  if (!handover.tried.empty()) {
    self->failures_ = std::make_unique<Failures>();
    for (const auto& endpoint : self->port_->endpoints)
      if (std::any_of(handover.tried.begin(), handover.tried.end(),
                      [&](const auto& key) { return discovery::has_key(endpoint, key); }))
        self->failures_->endpoints.push_back(&endpoint);
    self->failures_->last = std::move(handover.last);
    self->attempts_ = static_cast<uint8_t>(handover.tried.size());
  }
  if (self->attempt() && self->feed_upstream()) self->read_early();
}

bool L4Connection::attempt() {
  static const std::vector<const discovery::Endpoint*> kNone;
  for (;;) {
    const auto& tried = failures_ ? failures_->endpoints : kNone;
    endpoint_ = attempts_ < worker().options.max_attempts
                    ? worker().picker.pick({service_.get(), port_}, source().ip, tried)
                    : nullptr;
    if (endpoint_ == nullptr) {
      if (!failures_ || failures_->last.message.empty()) {
        on_pump_end(EndReason::kNoEndpoint, nullptr);
      } else {
        Error last = std::move(failures_->last);
        on_pump_end(last.code == ErrorCode::kTimeout ? EndReason::kConnectTimeout
                                                     : EndReason::kConnectFailed,
                    &last);
      }
      return false;
    }
    worker().picker.on_start(*endpoint_);
    const std::string& node = endpoint_->node;
    remote_ = !node.empty() && node != worker().options.node && !worker().options.node.empty();
    if (remote_ && worker().dialer == nullptr) {
      if (worker().hand_over)
        hand_over();
      else
        on_pump_end(EndReason::kNoTunnel, nullptr);
      return false;
    }
    if (attempts_++ > 0) worker().metrics.retries.add();
    early_sent_ = 0;
    auto upstream = open_upstream();
    if (upstream) {
      set_upstream(std::move(*upstream));
      return true;
    }
    if (!failures_) failures_ = std::make_unique<Failures>();
    failures_->endpoints.push_back(endpoint_);
    failures_->last = upstream.error();
    worker().picker.on_failure(*endpoint_);
    release_endpoint();
  }
}

Result<std::unique_ptr<io::Stream>> L4Connection::open_upstream() {
  if (remote_) {
    path_ = worker().dialer->path_kind(endpoint_->node);
    return worker().dialer->open(endpoint_->node, endpoint_->addr);
  }
  path_ = p2p::PathKind::kLocal;
  const L4Options& options = worker().options;
  io::ConnectOptions connect;
  connect.timeout = Duration::zero();  // our own timer runs
  connect.congestion = options.local_congestion;
  for (const Cidr& cidr : options.capture_cidrs)
    if (cidr.contains(endpoint_->addr.ip)) connect.mark = options.mark;
  EM_TRY(auto stream, io::TcpStream::connect(worker().loop, endpoint_->addr, connect));
  return std::unique_ptr<io::Stream>(std::move(stream));
}

void L4Connection::hand_over() {
  Handover handover;
  auto* stream = static_cast<io::TcpStream*>(client());  // what make() set
  handover.fd = stream->release();
  handover.source = source();
  handover.destination = destination();
  handover.opened = opened();
  if (early_)
    handover.early.assign(reinterpret_cast<char*>(early_->data.get()), early_->end);  // NOLINT
  if (failures_) {
    for (const auto* endpoint : failures_->endpoints)
      handover.tried.push_back(discovery::key_of(*endpoint));
    handover.last = std::move(failures_->last);
  }
  auto& context = worker();
  context.hand_over(std::move(handover));
  delete this;
}

void L4Connection::read_early() {
  while (!pumping() && read_early_once()) {
  }
}

bool L4Connection::read_early_once() {
  uint8_t* scratch = worker().loop.scratch();
  size_t held = early_ ? early_->end : 0;
  if (held >= worker().options.replay_bytes) return false;
  auto got = client()->read({scratch, worker().options.replay_bytes - held});
  if (got.status != io::IoResult::kOk)
    return false;  // nothing yet, or an end that the pump sees again

  size_t taken = 0;
  if (early_sent_ == held) {
    auto written = upstream()->write({scratch, got.n});
    if (written.status == io::IoResult::kOk) taken = written.n;
  }
  if (taken > 0 && !remote_ && held == 0) {
    // A socket takes bytes only when it is connected: no copy for a retry is needed.
    count_to_upstream(taken);
    if (taken < got.n) {
      early_ = context_.buffers.take(got.n - taken);
      std::memcpy(early_->data.get(), scratch + taken, got.n - taken);
      early_->end = static_cast<uint32_t>(got.n - taken);
    }
    established();
    return false;
  }
  if (!early_) early_ = context_.buffers.take(worker().options.replay_bytes);
  std::memcpy(early_->data.get() + held, scratch, got.n);
  early_->end = static_cast<uint32_t>(held + got.n);
  early_sent_ += static_cast<uint32_t>(taken);
  return true;
}

bool L4Connection::feed_upstream() {
  while (early_ && early_sent_ < early_->end) {
    auto written = upstream()->write({early_->data.get() + early_sent_, early_->end - early_sent_});
    if (written.status != io::IoResult::kOk) break;
    early_sent_ += static_cast<uint32_t>(written.n);
  }
  if (remote_ || early_sent_ == 0) return true;
  established();  // a socket takes bytes only when it is connected
  return false;
}

void L4Connection::established() {
  if (pumping()) return;
  note_connected();
  path_ = p2p::path_of(*upstream(), path_);  // there may have been none when it was opened
  tell_service(service_->ns, service_->name, port_->port, endpoint_->node.str());
  worker().picker.on_success(*endpoint_);
  failures_.reset();
  if (early_) {
    count_to_upstream(early_sent_);
    early_->begin = early_sent_;
  }
  early_sent_ = 0;
  start_pump(std::move(early_), !remote_);
}

void L4Connection::endpoint_failed(const Error& error) {
  if (early_sent_ > 0 && !upstream()->nothing_delivered()) {
    lost(error);
    return;
  }
  if (!failures_) failures_ = std::make_unique<Failures>();
  failures_->endpoints.push_back(endpoint_);
  failures_->last = error;
  worker().picker.on_failure(*endpoint_);
  release_endpoint();
  drop_upstream();
  start_connect_timer();
  if (attempt()) feed_upstream();
}

// Client bytes left towards an endpoint, and nobody knows whether they arrived. A second endpoint
// might do for the second time what they ask for: the client has to decide.
void L4Connection::lost(const Error& error) {
  worker().picker.on_failure(*endpoint_);
  count_to_upstream(early_sent_);
  Error told = error;
  told.message += "; not tried elsewhere, for the endpoint may have received the client's bytes";
  on_pump_end(
      told.code == ErrorCode::kTimeout ? EndReason::kConnectTimeout : EndReason::kUpstreamReset,
      &told);
}

void L4Connection::on_pump_end(EndReason reason, const Error* error) {
  tell_service(service_->ns, service_->name, port_->port,
               endpoint_ != nullptr ? std::string_view(endpoint_->node.str()) : std::string_view());
  LogFields fields;
  if (logs()) {
    fields.source = source().to_string();
    fields.service = fmt::format("{}/{}{}{}", service_->ns, service_->name,
                                 port_->name.empty() ? "" : ":", port_->name);
    if (endpoint_ != nullptr) {
      fields.endpoint = endpoint_->addr.to_string();
      fields.node = endpoint_->node;
    }
    fields.path = p2p::to_string(path_);
  }
  report(reason, error, fields);
  delete this;
}

void L4Connection::on_client_readable_early() {
  if (upstream() != nullptr) read_early();
}

void L4Connection::on_upstream_connected() {
  established();
}

void L4Connection::on_upstream_failed_early(const Error& error) {
  Error copy = error;  // the stream that owns it goes away
  endpoint_failed(copy);
}

void L4Connection::on_connect_timeout() {
  auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(worker().options.connect_timeout);
  endpoint_failed(
      Error{ErrorCode::kTimeout,
            fmt::format("connect {}: no answer in {} ms",
                        endpoint_ != nullptr ? endpoint_->addr.to_string() : "?", ms.count()),
            0});
}

}  // namespace edgemesh::proxy
