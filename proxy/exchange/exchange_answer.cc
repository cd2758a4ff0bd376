// The answer's way to the client: the endpoint's, or one of our own.
#include <algorithm>
#include <charconv>

#include "core/http/websocket.h"
#include "proxy/compress/negotiate.h"
#include "proxy/exchange/exchange.h"
#include "proxy/exchange/http_connection.h"
#include "proxy/exchange/l7_worker.h"
#include "proxy/exchange/overload.h"
#include "proxy/route/matchers.h"

namespace edgemesh::proxy {

namespace {

constexpr Duration kLingerTime = std::chrono::seconds(5);
constexpr Duration kLingerIdle = std::chrono::milliseconds(200);

void set_number(Head* head, std::string_view name, int64_t value) {
  char text[24];
  auto [end, ec] = std::to_chars(text, text + sizeof text, value);
  head->set(name, {text, static_cast<size_t>(end - text)});
}

Outcome outcome_of(const Head& answer) {
  // A gRPC answer without a message carries its status in its only head.
  if (answer.status == 200) {
    const std::string_view grpc = answer.get("grpc-status");
    if (!grpc.empty() && grpc != "0") {
      // UNAVAILABLE and what a broken server says count, the application's own errors do not.
      if (grpc == "14") return Outcome::kGatewayError;
      if (grpc == "13" || grpc == "2" || grpc == "15") return Outcome::kServerError;
    }
  }
  return outcome_of_status(answer.status);
}

}  // namespace

void Exchange::on_try_head(UpstreamTry& from, HeadPtr head, bool end) {
  note_activity();
  if (head->status < 200 && head->status != 101) return forward_informational(*head);
  if (winner_ != nullptr) return;  // a codec gives one final head only
  from.head_came_ = true;
  from.report(outcome_of(*head));
  if (may_retry(TryResult::kAnswer, head.get(), true)) {
    end_try(from);
    if (!any_try_open()) return retry_later();
    // Another one is still running beside it: that one may bring the answer.
    cluster_->give_retry(entry_->route->priority);
    retry_taken_ = false;
    return update_reading();
  }
  // One that would have been tried once more, were there tries left.
  if (attempts_ > 1 && may_retry_ &&
      entry_->retry->should_retry(TryResult::kAnswer, head.get(), true))
    flags_ |= flag::kRetryExhausted;
  commit(from, std::move(head), end);
}

// 1xx of the endpoint. "100" is ours to send, unless it was asked for to be passed on.
void Exchange::forward_informational(const Head& head) {
  if (head.status == 100 && !chain().forward_100_continue) return;
  if (request_->version == HttpVersion::kHttp10) return;
  down_->send_head(head, false);
}

// A proxy that carries an HTTP/1 client's key over HTTP/2 (Envoy does) wants the answer to it, which an
// HTTP/2 endpoint does not give.
void Exchange::answer_websocket_key() {
  if (status_ != 101 || request_->version != HttpVersion::kHttp2) return;
  const std::string_view key = request_->get("sec-websocket-key");
  if (!key.empty() && !answer_->has("sec-websocket-accept"))
    answer_->add("sec-websocket-accept", http::websocket_accept(key));
}

void Exchange::commit(UpstreamTry& from, HeadPtr head, bool end) {
  winner_ = &from;
  from.set_deadline(TimePoint{});
  for (auto& t : tries_)
    if (t->open() && t.get() != winner_) t->close();
  wake_at_ = TimePoint{};
  if (mirrors_ == 0) {  // nobody needs the body any more
    keep_body_ = false;
    body_.clear();
    from.sent_ = 0;
  }
  answer_ = std::move(head);
  answer_begun_ = worker_.loop().now();
  status_ = answer_->status;
  tunnel_ = status_ == 101 || (request_->method == "CONNECT" && status_ / 100 == 2);
  if (tunnel_) {
    route_deadline_ = TimePoint{};
    whole_timeout_ = Duration{};
  }
  state_ = State::kAnswering;
  answer_websocket_key();
  add_answer_fields(answer_.get());
  if (!end && !tunnel_) begin_encoding(answer_.get());
  down_->send_head(*answer_, end);
  update_reading();
  if (end) answer_ended();
}

void Exchange::add_answer_fields(Head* head) {
  if (entry_ != nullptr) {
    const LogFacts facts = log_facts_for_fields();
    if (!entry_->clusters.empty() && entry_->clusters[cluster_index_].response != nullptr)
      entry_->clusters[cluster_index_].response->apply(head, facts);
    (*version_)->routes->apply_response(*entry_, head, facts);
    if (const CorsRules* cors = policy(&Policies::cors); cors != nullptr && cors_)
      cors->add_fields(request_->get("origin"), head);
    if (const RateLimiter* limit = policy(&Policies::rate_limit))
      limit->add_fields(worker_.loop().now(), (flags_ & flag::kRateLimited) != 0, head);
  }
  if (!set_cookie_.empty()) head->add("set-cookie", set_cookie_);
  if (!head->has("date")) head->add("date", worker_.date());
  if (!chain().server_name.empty()) {
    head->remove("server");
    head->add_kept("server", chain().server_name);  // the runtime outlives the head
  }
  if ((flags_ & flag::kOverload) != 0)
    head->add_kept("x-edgemesh-overloaded", detail_ == kNoMemory ? "memory" : "requests");
  if (winner_ != nullptr) {
    const auto took = worker_.loop().now() - begun_;
    set_number(head, "x-envoy-upstream-service-time",
               std::chrono::duration_cast<std::chrono::milliseconds>(took).count());
  }
}

void Exchange::on_try_data(UpstreamTry& from, std::span<const uint8_t> data, bool end) {
  if (&from != winner_) return;
  note_activity();
  if (encoder_ != nullptr) {
    send_encoded(data, end);
    return;
  }
  sent_ += data.size();
  if (!down_->send_data(data, end) && !end) from.set_reading(false);
  if (end) answer_ended();
}

const model::Compression* Exchange::compression() const {
  const Policies* own = entry_->policies.get();
  const Policies* outer = (*version_)->policies.get();
  if (own != nullptr && own->no_compression) return nullptr;
  if (own != nullptr && own->compression.get() != nullptr) return own->compression.get();
  return outer != nullptr ? outer->compression.get() : nullptr;
}

void Exchange::begin_encoding(Head* head) {
  const model::Compression* spec = compression();
  if (spec == nullptr || !may_encode(*spec, *request_, *head)) return;
  add_vary(head);
  const Coding coding = choose_coding(*spec, *request_);
  const int level = coding == Coding::kZstd ? spec->zstd_level : spec->gzip_level;
  encoder_ = worker_.encoders().take(coding, level);
  if (encoder_ != nullptr) note_encoded(*spec, coding, head);
}

void Exchange::send_encoded(std::span<const uint8_t> data, bool end) {
  auto& coded = worker_.coded();
  coded.clear();
  if (!encoder_->encode(data, end, &coded)) return cut(flag::kLocalReset, "the encoder failed");
  sent_ += coded.size();
  if ((!coded.empty() || end) && !down_->send_data(coded, end) && !end) winner_->set_reading(false);
  if (end) answer_ended();
}

void Exchange::on_try_trailers(UpstreamTry& from, HeadPtr trailers) {
  if (&from != winner_) return;
  note_activity();
  if (encoder_ != nullptr) {
    auto& coded = worker_.coded();
    coded.clear();
    if (!encoder_->encode({}, true, &coded)) return cut(flag::kLocalReset, "the encoder failed");
    sent_ += coded.size();
    down_->send_data(coded, false);
  }
  answer_trailers_ = std::move(trailers);
  down_->send_trailers(*answer_trailers_);
  answer_ended();
}

void Exchange::on_try_lost(UpstreamTry& from, uint32_t flags, std::string_view detail) {
  (void)from;
  cut(flags, detail);
}

void Exchange::answer_ended() {
  answer_ended_ = true;
  if (tunnel_ && !request_ended_) return;
  if (detail_.empty()) detail_ = "via_upstream";
  finish_or_linger();
}

// An answer may be complete before its request is. HTTP/2 has a code for that, RST_STREAM(NO_ERROR).
// Of an HTTP/1 request a moderate rest is read and dropped, so that the connection can be kept.
void Exchange::finish_or_linger() {
  // An upgrade that was refused has no body.
  if (request_ended_ || request_->version == HttpVersion::kHttp2 || (tunnel_wanted() && !tunnel_))
    return finish();
  close_tries();
  state_ = State::kLingering;
  lingered_ = 0;
  route_deadline_ = wake_at_ = TimePoint{};
  reading_off_ = false;
  down_->set_reading(true);
  idle_timeout_ = kLingerIdle;
  note_activity();
  set_deadline(&stream_deadline_, worker_.loop().now() + kLingerTime);
}

void Exchange::reply(int status, std::string_view body, uint32_t flags, std::string_view detail) {
  flags_ |= flags;
  detail_.assign(detail);
  HeadPtr answer = take_head();
  if (is_grpc(*request_)) {
    answer->status = 200;
    answer->add_kept("content-type", "application/grpc");
    // A deadline has a status of its own (gRPC's DEADLINE_EXCEEDED).
    const bool late = (flags & (flag::kUpstreamTimeout | flag::kMaxDuration)) != 0;
    set_number(answer.get(), "grpc-status", late ? 4 : grpc_status_of_http(status));
    if (!body.empty()) answer->add("grpc-message", percent_encode(body));
    return send_reply(std::move(answer), "");
  }
  answer->status = status;
  if (!body.empty()) answer->add_kept("content-type", "text/plain");
  send_reply(std::move(answer), body);
}

// gRPC's message field: printable ASCII but '%', the rest as %XX.
std::string Exchange::percent_encode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c >= ' ' && c <= '~' && c != '%')
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

void Exchange::send_reply(HeadPtr head, std::string_view body) {
  drop_tries();
  winner_ = nullptr;
  answer_ = std::move(head);
  answer_begun_ = worker_.loop().now();
  status_ = answer_->status;
  state_ = State::kAnswering;
  const bool no_body = status_ == 204 || status_ == 304;
  if (!no_body) answer_->set_length(body.size());
  add_answer_fields(answer_.get());
  const bool sends_body = !no_body && !body.empty() && request_->method != "HEAD";
  down_->send_head(*answer_, !sends_body);
  if (sends_body) {
    down_->send_data(io::as_bytes(body), true);
    sent_ += body.size();
  }
  answer_ended_ = true;
  finish_or_linger();
}

void Exchange::cut(uint32_t flags, std::string_view detail) {
  flags_ |= flags;
  detail_.assign(detail);
  finish();
}

}  // namespace edgemesh::proxy
