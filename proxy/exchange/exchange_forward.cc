// Where a request goes: answers of the route itself, and tries at endpoints with their retries and
// hedges.
#include <algorithm>
#include <charconv>

#include "proxy/exchange/exchange.h"
#include "proxy/exchange/http_connection.h"
#include "proxy/exchange/l7_worker.h"
#include "proxy/http/h1_client.h"

namespace edgemesh::proxy {

namespace {

constexpr size_t kMaxSubsetLabels = 16;
constexpr int kMaxRepeats = 2;   // of a request that was refused
constexpr int kMaxRemoved = 10;  // or waited for endpoints that were removed
constexpr std::string_view kIdempotent[] = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"};

bool is_idempotent(std::string_view method) {
  return std::find(std::begin(kIdempotent), std::end(kIdempotent), method) != std::end(kIdempotent);
}

bool has_hash_policy(model::LbPolicy policy) {
  return policy == model::LbPolicy::kRingHash || policy == model::LbPolicy::kMaglev;
}

}  // namespace

void Exchange::act() {
  const auto& action = entry_->route->action;
  if (std::holds_alternative<model::Redirect>(action)) return redirect();
  if (std::holds_alternative<model::DirectResponse>(action)) return direct_response();
  forward();
}

void Exchange::redirect() {
  std::string location;
  if (!entry_->redirector->location(*request_, facts_, &location))
    return reply(400, "", flag::kDownstreamProtocol, "no Location can be made of this request");
  HeadPtr answer = take_head();
  answer->status = std::get<model::Redirect>(entry_->route->action).status;
  answer->add("location", location);
  detail_ = "redirect";
  send_reply(std::move(answer), "");
}

void Exchange::direct_response() {
  const auto& direct = std::get<model::DirectResponse>(entry_->route->action);
  HeadPtr answer = take_head();
  answer->status = direct.status;
  if (!direct.body.empty())
    answer->add_kept("content-type", direct.content_type.empty()
                                         ? "text/plain"
                                         : std::string_view(direct.content_type));
  detail_ = "direct response";
  send_reply(std::move(answer), direct.body);
}

// The cluster of the route, by weight or by a field. False: it was answered.
bool Exchange::choose_cluster() {
  const model::Forward& to = *entry_->forward();
  std::string_view name;
  if (to.clusters.empty()) {
    name = request_->get(to.cluster_header);
  } else {
    cluster_index_ = entry_->pick_cluster(facts_.random);
    name = to.clusters[cluster_index_].name;
  }
  ClusterState* cluster = name.empty() ? nullptr : worker_.clusters().find(name);
  if (cluster == nullptr) {
    reply(to.missing_status, "no such cluster", flag::kNoCluster, "no such cluster");
    return false;
  }
  cluster_ = ClusterRef(cluster);
  return true;
}

void Exchange::forward() {
  if (!choose_cluster()) return;
  const model::Route& route = *entry_->route;
  const auto& timeouts = route.timeouts;
  idle_timeout_ = timeouts.idle.value_or(idle_timeout_);
  whole_timeout_ = route_timeout(timeouts, *request_);
  if (timeouts.max_stream) {
    whole_timeout_ = Duration{};
    if (*timeouts.max_stream > Duration::zero())
      set_deadline(&stream_deadline_, begun_ + *timeouts.max_stream);
  }
  if (!route.hash.empty()) {
    auto hash = request_hash(route.hash, *request_, facts_, &set_cookie_);
    has_hash_ = hash.has_value();
    hash_ = hash.value_or(0);
  }
  may_retry_ = entry_->retry != nullptr && entry_->retry->allows(*request_);
  keep_body_ = keep_body_ || may_retry_ || route.hedge != nullptr || !route.mirrors.empty();
  const LogFacts facts = log_facts_for_fields();
  (*version_)->routes->apply_request(*entry_, request_.get(), facts);
  if (!entry_->clusters.empty() && entry_->clusters[cluster_index_].request != nullptr)
    entry_->clusters[cluster_index_].request->apply(request_.get(), facts);
  if (entry_->rewriter != nullptr) {
    const std::string_view before = request_->path;
    if (!entry_->rewriter->apply(request_.get()))
      return reply(400, "", flag::kDownstreamProtocol, "the rewritten path is no path");
    if (request_->path != before) request_->set("x-envoy-original-path", before);
  }
  if (request_->expect_continue && !chain().forward_100_continue) {
    take_expectation();
    owes_continue_ = true;
  }
  state_ = State::kForwarding;
  if (request_ended_) note_request_end();
  begin_mirrors();
  start_first_tries();
  if (state_ != State::kFree) arm();  // its times are not the chain's
}

void Exchange::start_first_tries() {
  uint32_t more = 0;
  if (entry_->route->hedge != nullptr) {
    const auto& hedge = *entry_->route->hedge;
    more = std::min<uint32_t>(std::max<uint32_t>(hedge.initial_requests, 1), kMaxTries) - 1;
    constexpr uint64_t kHedgeDraw = 7;
    if (mix64(facts_.random + kHedgeDraw) % model::kAlways < hedge.additional_chance) ++more;
  }
  start_try();
  for (uint32_t i = 0; i < more && state_ == State::kForwarding && winner_ == nullptr; ++i) {
    worker_.stats().hedged.add();
    start_try();
  }
}

UpstreamTry* Exchange::free_try() {
  for (auto& t : tries_)
    if (!t->open()) return t.get();
  if (tries_.size() >= kMaxTries) return nullptr;
  tries_.push_back(std::make_unique<UpstreamTry>(*this));
  return tries_.back().get();
}

Host* Exchange::pick_host() {
  PickContext context;
  context.has_hash = has_hash_;
  context.hash = hash_;
  if (!has_hash_ && has_hash_policy(cluster_->config().lb.policy)) {
    context.has_hash = true;  // nothing to hash: any endpoint will do
    context.hash = facts_.random;
  }
  context.client = &facts_.client;
  context.destination = &facts_.local;
  LabelView labels[kMaxSubsetLabels];
  const model::Forward& to = *entry_->forward();
  if (!to.clusters.empty()) {
    const model::Labels& subset = to.clusters[cluster_index_].subset;
    const size_t n = std::min(subset.size(), kMaxSubsetLabels);
    for (size_t i = 0; i < n; ++i) labels[i] = {subset[i].key, subset[i].value};
    context.labels = {labels, n};
  }
  const bool other = entry_->retry == nullptr || entry_->retry->spec().other_host;
  if (other) context.tried = tried_;
  return cluster_->pick(context);
}

void Exchange::start_try() {
  UpstreamTry* t = free_try();
  if (t == nullptr) return;
  const bool is_retry = attempts_ > 0 && retry_taken_;
  retry_taken_ = false;
  auto refuse = [&](int status, std::string_view text, uint32_t why, std::string_view detail) {
    if (is_retry) cluster_->give_retry(entry_->route->priority);
    if (any_try_open()) return;
    reply(status, text, why | (attempts_ > 0 ? flag::kRetryExhausted : 0), detail);
  };
  if (cluster_->retired())
    return refuse(503, "no such cluster", flag::kNoCluster, "cluster removed");
  Host* host = pick_host();
  if (host == nullptr)
    return refuse(503, "no healthy upstream", flag::kNoHealthyUpstream, "no healthy upstream");
  ++attempts_;
  tried_.push_back(host);
  note_upstream(*host);
  prepare_try(*host);
  if (t->start(*host, is_retry)) {
    const Duration limit =
        try_timeout(entry_->retry ? &entry_->retry->spec() : nullptr, Duration{});
    if (limit > Duration::zero() && t->open() && !tunnel_wanted()) {
      t->set_deadline(worker_.loop().now() + limit);
      arm();
    }
    return update_reading();
  }
  if (t->no_ticket()) {
    if (any_try_open()) return;
    return reply(503, "upstream request limit", flag::kUpstreamOverflow,
                 "max requests of the cluster");
  }
  on_try_unconnected(*t);
}

void Exchange::take_expectation() {
  request_->expect_continue = false;
  request_->remove("expect");
}

void Exchange::send_continue() {
  owes_continue_ = false;
  HeadPtr go_on = take_head();
  go_on->status = 100;
  down_->send_head(*go_on, false);
}

// What differs from try to try.
void Exchange::prepare_try(const Host& host) {
  const model::Route& route = *entry_->route;
  if (route.rewrite.host_from_endpoint && !host.endpoint().hostname.empty())
    request_->authority = request_->keep(host.endpoint().hostname);
  if (!entry_->host->spec().attempt_count_header) return;
  char text[12];
  auto [end, ec] = std::to_chars(text, text + sizeof text, attempts_);
  request_->set("x-envoy-attempt-count", {text, static_cast<size_t>(end - text)});
}

void Exchange::on_try_ready(UpstreamTry& ready) {
  upstream_path_ = p2p::to_string(ready.info().path);
  if (owes_continue_) send_continue();
  ready.send_kept();
  if (!keep_body_) keep_or_drop_body(ready);
  update_reading();
}

// No policy needs it. A short one is kept all the same where the request may have to be repeated.
void Exchange::keep_or_drop_body(UpstreamTry& ready) {
  const ConnectionInfo& info = ready.info();
  const bool repeatable =
      info.version == HttpVersion::kHttp2 || (info.requests > 0 && is_idempotent(request_->method));
  if (repeatable && body_.size() <= kRepeatBytes && body_.size() == received_) {
    keep_body_ = keep_short_ = true;
    return;
  }
  body_.clear();
  ready.sent_ = 0;
}

// A try ended without a connection.
void Exchange::on_try_unconnected(UpstreamTry& failed) {
  const PoolFailure why = failed.failure();
  // It waited for an endpoint that is not one any more: nothing was sent.
  if (why == PoolFailure::kHostRemoved && !cluster_->retired() && !body_lost_ &&
      repeats_ < kMaxRemoved)
    return repeat(failed);
  const bool overflow =
      why == PoolFailure::kPendingOverflow || why == PoolFailure::kConnectionOverflow;
  const uint32_t flags = overflow ? flag::kUpstreamOverflow : flag::kUpstreamConnect;
  const std::string detail = fmt::format("{}: {}", to_string(why), failed.error());
  if (overflow) {
    end_try(failed);
    if (!any_try_open()) reply(503, "upstream connection limit", flags, detail);
    return;
  }
  on_try_failed(failed, TryResult::kConnectFailure, flags, detail);
}

void Exchange::on_try_reset(UpstreamTry& failed, ResetReason reason, std::string_view detail) {
  const uint32_t flags = reason == ResetReason::kConnectionLost ? flag::kUpstreamTermination
                         : reason == ResetReason::kProtocol || reason == ResetReason::kTooLarge
                             ? flag::kUpstreamProtocol
                             : flag::kUpstreamReset;
  if (&failed == winner_) return on_try_lost(failed, flags, detail);
  if (may_repeat(failed, reason, detail)) {
    if (repeats_ == 0) std::erase(tried_, failed.host());  // after that another one is preferred
    return repeat(failed);
  }
  failed.report(Outcome::kLocalFailure);
  const TryResult result =
      reason == ResetReason::kRefused ? TryResult::kRefused : TryResult::kReset;
  on_try_failed(failed, result, flags, std::string(detail));
}

// Whether it is sent again at once, be there a retry policy or not; that is nobody's fault.
// - The endpoint says that it has not looked at the request (RFC 9113, 8.7): it is going away, or
//   takes no more streams. Safe whatever the method.
// - A kept connection was closed by its server just when we used it. It may have looked, so that
//   only what may be repeated is, and once (RFC 9110, 9.2.2).
bool Exchange::may_repeat(const UpstreamTry& failed, ResetReason reason,
                          std::string_view detail) const {
  if (winner_ != nullptr || body_lost_ || body_.size() != received_) return false;
  if (reason == ResetReason::kRefused) return repeats_ < kMaxRepeats;
  const ConnectionInfo& info = failed.info();
  return reason == ResetReason::kConnectionLost && repeats_ == 0 && info.requests > 0 &&
         (info.version == HttpVersion::kHttp2 || detail.starts_with(kClosedBeforeAnswer)) &&
         is_idempotent(request_->method) && request_->protocol.empty();
}

void Exchange::repeat(UpstreamTry& failed) {
  worker_.stats().repeated.add();
  ++repeats_;
  end_try(failed);
  --attempts_;  // it was none
  start_try();
}

void Exchange::on_try_timeout(UpstreamTry& late) {
  worker_.stats().timeouts.add();
  late.set_deadline(TimePoint{});
  const auto* hedge = entry_->route->hedge.get();
  if (hedge != nullptr && hedge->on_per_try_timeout && winner_ == nullptr &&
      may_retry(TryResult::kTimeout, nullptr, late.sent_anything())) {
    worker_.stats().hedged.add();
    return start_try();  // the late one goes on
  }
  late.report(Outcome::kLocalFailure);
  on_try_failed(late, TryResult::kTimeout, flag::kUpstreamTimeout, "timeout of one try");
}

void Exchange::on_try_failed(UpstreamTry& failed, TryResult result, uint32_t flags,
                             std::string_view detail) {
  const bool sent = failed.sent_anything();
  const std::string text(detail);  // `failed` goes away
  end_try(failed);
  if (state_ != State::kForwarding || any_try_open()) return update_reading();
  if (may_retry(result, nullptr, sent)) return retry_later();
  const uint32_t exhausted = attempts_ > 1 ? flag::kRetryExhausted : 0;
  if (result == TryResult::kTimeout)
    return reply(504, "upstream request timeout", flags | exhausted, text);
  // What cannot be understood is a bad gateway (RFC 9110, 15.6.3); what was lost may come back.
  reply((flags & flag::kUpstreamProtocol) != 0 ? 502 : 503,
        fmt::format("upstream connect error or disconnect/reset before headers: {}", text),
        flags | exhausted, text);
}

// On success a place among the cluster's retries was taken (retry_taken_).
bool Exchange::may_retry(TryResult result, const Head* answer, bool sent) {
  if (!may_retry_ || body_lost_ || winner_ != nullptr) return false;
  if (attempts_ > entry_->retry->spec().attempts) return false;
  if (!entry_->retry->should_retry(result, answer, sent)) return false;
  if (!cluster_->take_retry(entry_->route->priority)) return false;
  retry_taken_ = true;
  return true;
}

void Exchange::retry_later() {
  worker_.stats().retries.add();
  update_reading();
  const Duration pause = entry_->retry->backoff(attempts_, worker_.random().next());
  if (pause <= Duration::zero()) return start_try();
  set_deadline(&wake_at_, worker_.loop().now() + pause);
}

void Exchange::on_route_timeout() {
  if (state_ == State::kAnswering) return cut(flag::kUpstreamTimeout, "upstream request timeout");
  for (auto& t : tries_)
    if (t->open() && t->sent_anything()) t->report(Outcome::kLocalFailure);
  reply(504, "upstream request timeout", flag::kUpstreamTimeout, "upstream request timeout");
}

bool Exchange::any_try_open() const {
  return std::any_of(tries_.begin(), tries_.end(), [](const auto& t) { return t->open(); });
}

bool Exchange::tunnel_wanted() const {
  return !request_->protocol.empty() || request_->method == "CONNECT";
}

void Exchange::end_try(UpstreamTry& which) {
  if (&which == winner_) winner_ = nullptr;
  which.close();
}

// Connections go back to the pool; who answered is still known, for the log.
void Exchange::close_tries() {
  if (retry_taken_) cluster_->give_retry(entry_->route->priority);
  retry_taken_ = false;
  for (auto& t : tries_) t->close();
}

void Exchange::drop_tries() {
  close_tries();
  for (auto& t : tries_) t->host_.reset();
}

}  // namespace edgemesh::proxy
