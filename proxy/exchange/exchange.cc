// The client's side of an exchange, and its times.
#include "proxy/exchange/exchange.h"

#include <algorithm>

#include "proxy/exchange/http_connection.h"
#include "proxy/exchange/l7_worker.h"
#include "proxy/exchange/overload.h"

namespace edgemesh::proxy {

namespace {
constexpr uint64_t kMaxLinger = 4 << 20;  // bytes of a request that are read after its answer
constexpr size_t kKeepBodyCapacity = 16 * 1024;  // of an exchange in the free list
}  // namespace

Exchange::Exchange(L7Worker& worker)
    : worker_(worker), timer_(worker.loop(), [this] { on_timer(); }) {}

Exchange::~Exchange() = default;

void Exchange::begin(HttpConnection& connection, StreamPtr stream, HeadPtr head, bool end) {
  connection_ = &connection;
  version_ = connection.slot().version;
  down_ = std::move(stream);
  down_->set_handler(this);
  request_ = std::move(head);
  request_ended_ = end;
  const ClientInfo& client = connection.client();
  facts_.peer = client.peer;
  facts_.local = client.local;
  facts_.client = client.peer.ip;
  facts_.server_name = client.server_name;
  facts_.identity = client.identity.get();
  facts_.tls = client.tls;
  facts_.random = worker_.random().next();
  begun_ = last_active_ = worker_.loop().now();
  state_ = State::kPolicies;
  idle_timeout_ = chain().stream_idle_timeout;
  if (const char* why = overloaded(); why != nullptr) {
    worker_.stats().overloaded.add();
    return reply(503, "overloaded", flag::kOverload, why);
  }
  if (!check_request() || !find_route()) return;
  arm();
  run_policies();
}

// Null: it is not. While memory or connections are short the connection ends with this request.
const char* Exchange::overloaded() {
  const uint64_t active = worker_.stats().active_requests.value();
  if (active > worker_.options().max_requests) return "overload";
  const Overload* overload = worker_.options().overload;
  if (overload == nullptr) return nullptr;
  if (overload->too_many_requests(active)) return "overload";
  if (overload->level() == Overload::kFine && !overload->many_connections()) return nullptr;
  connection_->drain(Drain::kPatient);
  return overload->level() == Overload::kShed ? kNoMemory : nullptr;
}

void Exchange::abort() {
  flags_ |= flag::kDownstreamTermination;
  if (detail_.empty()) detail_ = "the proxy closed the connection";
  finish();
}

void Exchange::on_data(std::span<const uint8_t> data, bool end) {
  note_activity();
  received_ += data.size();
  if (end) request_ended_ = true;
  if (state_ == State::kLingering) {
    lingered_ += data.size();
    if (end || lingered_ > kMaxLinger) finish();
    return;
  }
  take_body(data, end);
  if (wants_body_) return on_body_for_authz();
  if (end) note_request_end();
  // Both directions of a tunnel end one by one.
  if (end && tunnel_ && answer_ended_) return finish();
  update_reading();
}

void Exchange::take_body(std::span<const uint8_t> data, bool end) {
  bool any_ready = false;
  for (auto& t : tries_) any_ready |= t->open() && t->ready();
  const size_t limit = keep_short_ ? kRepeatBytes : worker_.options().replay_bytes;
  const bool too_long = body_.size() + data.size() > limit;
  if (keep_body_ && !body_lost_ && too_long && any_ready) {
    body_lost_ = true;  // every try that is ready has sent it
    body_.clear();
    for (auto& t : tries_) {
      t->sent_ = 0;
      if (t->open() && !t->ready()) end_try(*t);
    }
  }
  if (any_ready && (!keep_body_ || body_lost_)) {
    for (auto& t : tries_)
      if (t->open() && t->ready()) t->send(data, end && request_trailers_ == nullptr);
    return;
  }
  body_.insert(body_.end(), data.begin(), data.end());
  for (auto& t : tries_)
    if (t->open() && t->ready()) t->send_kept();
}

void Exchange::on_trailers(HeadPtr trailers) {
  note_activity();
  request_ended_ = true;
  if (state_ == State::kLingering) return finish();
  request_trailers_ = std::move(trailers);
  for (auto& t : tries_)
    if (t->open() && t->ready()) t->send_trailers(*request_trailers_);
  if (wants_body_) return on_body_for_authz();
  note_request_end();
}

void Exchange::note_request_end() {
  if (mirrors_ != 0) send_mirrors();
  if ((state_ != State::kForwarding && state_ != State::kAnswering) || tunnel_) return;
  if (whole_timeout_ > Duration::zero() && route_deadline_ == TimePoint{})
    set_deadline(&route_deadline_, worker_.loop().now() + whole_timeout_);
}

void Exchange::on_reset(ResetReason reason, std::string_view detail) {
  if (state_ == State::kLingering) return finish();  // it has its answer
  const bool bad = reason == ResetReason::kProtocol || reason == ResetReason::kTooLarge;
  flags_ |= bad ? flag::kDownstreamProtocol : flag::kDownstreamTermination;
  if (detail_.empty()) detail_.assign(detail);
  finish();
}

bool Exchange::codec_answers(int status) {
  if (request_->version == HttpVersion::kHttp2 || state_ == State::kFree || status_ != 0)
    return false;
  status_ = status;
  return true;
}

void Exchange::on_writable() {
  note_activity();
  if (winner_ != nullptr) winner_->set_reading(true);
}

// The client is read while somebody takes what it sends.
void Exchange::update_reading() {
  if (request_ended_ || state_ == State::kFree || state_ == State::kLingering) return;
  bool ready = false, blocked = false;
  for (auto& t : tries_) {
    if (!t->open()) continue;
    ready |= t->ready();
    blocked |= t->blocked();
  }
  const bool off = wants_body_ ? false : !ready || blocked;
  if (off == reading_off_) return;
  reading_off_ = off;
  down_->set_reading(!off);
}

void Exchange::finish() {
  if (state_ == State::kFree) return;
  const int status_class = status_ / 100 % 6;
  connection_->slot().stats->by_class[status_class].add();
  if (worker_.telemetry() != nullptr) tell_end();
  drop_tries();
  down_.reset();
  state_ = State::kFree;
  unlink();
  if (fault_ != nullptr) fault_->end();
  fault_ = nullptr;
  authz_ = nullptr;
  sub_.reset();
  worker_.encoders().give(std::move(encoder_));
  claims_.reset();
  key_wait_.cancel();
  request_.reset();
  request_trailers_.reset();
  answer_.reset();
  answer_trailers_.reset();
  facts_ = Facts{};
  entry_ = nullptr;
  cluster_.reset();
  version_.reset();
  connection_ = nullptr;
  winner_ = nullptr;
  if (body_.capacity() > kKeepBodyCapacity) std::vector<uint8_t>().swap(body_);
  body_.clear();
  tried_.clear();
  set_cookie_.clear();
  detail_.clear();
  upstream_ = SockAddr{};
  upstream_path_ = {};
  stats_destination_ = kUnknownPeer;
  traced_ = false;
  answer_begun_ = route_deadline_ = stream_deadline_ = wake_at_ = TimePoint{};
  idle_timeout_ = whole_timeout_ = Duration{};
  received_ = sent_ = 0;
  flags_ = attempts_ = policy_step_ = mirrors_ = 0;
  cluster_index_ = 0;
  status_ = fault_abort_ = 0;
  fault_grpc_ = -1;
  has_hash_ = request_ended_ = answer_ended_ = tunnel_ = keep_body_ = body_lost_ = false;
  reading_off_ = may_retry_ = wants_body_ = cors_ = owes_continue_ = keep_short_ = false;
  repeats_ = 0;
  worker_.give_exchange(this);
}

LogFacts Exchange::log_facts() const {
  LogFacts facts;
  facts.facts = &facts_;
  facts.request = request_.get();
  facts.response = answer_.get();
  facts.trailers = answer_trailers_.get();
  const auto took = worker_.loop().now() - begun_;
  facts.duration_us = std::chrono::duration_cast<std::chrono::microseconds>(took).count();
  facts.start = worker_.loop().clock().wall_now() -
                std::chrono::duration_cast<std::chrono::system_clock::duration>(took);
  facts.status = status_;
  facts.bytes_received = received_;
  facts.bytes_sent = sent_;
  facts.attempts = attempts_;
  if (answer_begun_ != TimePoint{})
    facts.answer_us =
        std::chrono::duration_cast<std::chrono::microseconds>(answer_begun_ - begun_).count();
  if (winner_ != nullptr && winner_->host() != nullptr)
    facts.upstream = &winner_->host()->addr();
  else if (upstream_.port != 0)
    facts.upstream = &upstream_;
  facts.upstream_path = upstream_path_;
  if (cluster_) facts.upstream_cluster = cluster_->name();
  if (entry_ != nullptr) facts.route_name = entry_->route->name;
  facts.response_flags = flags_text(flags_);
  facts.details = detail_;
  if ((flags_ & flag::kUpstreamConnect) != 0) facts.failure = detail_;
  return facts;
}

void Exchange::set_deadline(TimePoint* which, TimePoint when) {
  *which = when;
  arm();
}

void Exchange::note_activity() {
  last_active_ = worker_.loop().now();
}

// The earliest deadline. A timer that is earlier already is left: when it fires, it looks again. So
// most requests never touch the heap of timers.
void Exchange::arm() {
  TimePoint next = TimePoint::max();
  auto consider = [&next](TimePoint when) {
    if (when != TimePoint{}) next = std::min(next, when);
  };
  consider(route_deadline_);
  consider(stream_deadline_);
  consider(wake_at_);
  if (idle_timeout_ > Duration::zero()) consider(last_active_ + idle_timeout_);
  for (auto& t : tries_)
    if (t->open()) consider(t->deadline());
  if (next == TimePoint::max()) return;
  if (!timer_.active() || timer_.deadline() > next) timer_.start_at(next);
}

void Exchange::on_timer() {
  if (state_ == State::kFree) return;
  const TimePoint now = worker_.loop().now();
  auto passed = [now](TimePoint when) { return when != TimePoint{} && when <= now; };
  if (state_ == State::kLingering) {
    if (passed(stream_deadline_) || passed(last_active_ + idle_timeout_)) return finish();
    return arm();
  }
  const int late = request_ended_ ? 504 : 408;  // whom it waited for
  if (passed(stream_deadline_)) return cut_or_reply(late, flag::kMaxDuration, "max duration");
  if (passed(route_deadline_)) {
    worker_.stats().timeouts.add();
    return on_route_timeout();
  }
  if (idle_timeout_ > Duration::zero() && last_active_ + idle_timeout_ <= now)
    return cut_or_reply(late, flag::kStreamIdle, "stream idle timeout");
  if (passed(wake_at_)) {
    wake_at_ = TimePoint{};
    if (state_ == State::kPolicies)
      run_policies();  // a fault's delay is over
    else
      start_try();
    if (state_ == State::kFree) return;
  }
  for (size_t i = 0; i < tries_.size() && state_ == State::kForwarding; ++i)
    if (tries_[i]->open() && passed(tries_[i]->deadline())) on_try_timeout(*tries_[i]);
  if (state_ != State::kFree) arm();
}

void Exchange::cut_or_reply(int status, uint32_t flags, std::string_view detail) {
  if (state_ == State::kAnswering) return cut(flags, detail);
  reply(status, detail, flags, detail);
}

}  // namespace edgemesh::proxy
