#include "core/channel/session.h"

#include <charconv>
#include <utility>

namespace edgemesh::channel {

namespace {

// How often the clock is looked at; a dead link is noticed at most this late.
constexpr Duration kTick = std::chrono::milliseconds(250);

int64_t micros(TimePoint t) {
  return std::chrono::duration_cast<std::chrono::microseconds>(t.time_since_epoch()).count();
}

}  // namespace

Session::Session(io::Loop& loop, std::unique_ptr<http::WebSocket> socket, SessionOptions options,
                 Handlers handlers)
    : loop_(loop),
      socket_(std::move(socket)),
      options_(options),
      handlers_(std::move(handlers)),
      last_heard_(loop.clock().now()),
      last_tick_(last_heard_),
      last_ping_(last_heard_),
      timer_(loop, [this] { tick(); }) {
  socket_->set_handler(this);
  timer_.start_repeating(std::min(kTick, options_.ping_interval));
}

Session::~Session() = default;

Result<> Session::send(const Message& message) {
  return send_encoded(encode(message));
}

Result<> Session::send_encoded(std::string_view frame) {
  if (ended_) return fail(ErrorCode::kUnavailable, "the channel is closed");
  if (frame.size() > options_.max_message_bytes) {
    return fail(ErrorCode::kInvalidArgument, "message of {} bytes, at most {} can be sent",
                frame.size(), options_.max_message_bytes);
  }
  if (socket_->queued_bytes() + frame.size() > options_.max_queued_bytes) {
    return fail(ErrorCode::kResourceExhausted, "{} bytes wait to be sent, more is not taken",
                socket_->queued_bytes());
  }
  EM_TRY_VOID(socket_->send_text(frame));
  ++counters_.tx_messages;
  counters_.tx_bytes += frame.size();
  return {};
}

void Session::close(uint16_t code, std::string_view reason) {
  if (!ended_) socket_->close(code, reason);
}

void Session::detach() {
  ended_ = true;
  timer_.stop();
}

void Session::ping() {
  last_ping_ = loop_.clock().now();
  // A failure shows itself by on_close.
  static_cast<void>(socket_->send_ping(std::to_string(micros(last_ping_))));
}

void Session::probe(Duration limit) {
  if (ended_) return;
  probe_deadline_ = loop_.clock().now() + limit;
  ping();
}

void Session::tick() {
  const TimePoint now = loop_.now();
  const Duration since_tick = now - std::exchange(last_tick_, now);
  // This process stood still (a suspended machine, a debugger): the peer was silent for less.
  if (since_tick > options_.ping_interval) last_heard_ += since_tick;
  const Duration silent = now - last_heard_;
  const bool probe_failed = probe_deadline_ != TimePoint{} && now >= probe_deadline_;
  if (silent >= options_.dead_after || probe_failed) {
    return end(fmt::format("the other side was silent for {} ms",
                           std::chrono::duration_cast<std::chrono::milliseconds>(silent).count()));
  }
  if (now - last_ping_ >= options_.ping_interval) ping();
  if (options_.keepalive_interval > Duration::zero() &&
      (last_keepalive_ == TimePoint{} || now - last_keepalive_ >= options_.keepalive_interval)) {
    last_keepalive_ = now;
    // A full queue is no reason to end: what is in it is a sign of life as well.
    static_cast<void>(send(make_message("websocket", "resource", "keepalive", "node", "\"ping\"")));
  }
}

void Session::on_message(std::string_view data, bool text) {
  if (ended_) return;
  last_heard_ = loop_.clock().now();
  probe_deadline_ = {};
  ++counters_.rx_messages;
  counters_.rx_bytes += data.size();
  if (!text) {
    socket_->close(1003, "binary messages are not taken here");
    return;
  }
  auto message = decode(data, options_.max_message_bytes);
  if (!message) {
    socket_->close(1007, message.error().message);
    return;
  }
  const std::string& operation = message->operation;
  if (message->group.empty() &&
      (operation == "config" || operation == "ping" || operation == "pong")) {
    static_cast<void>(send(reply_to(*message, "\"ack\"")));
    return;
  }
  handlers_.on_message(std::move(*message));
}

void Session::on_heard() { last_heard_ = loop_.clock().now(); }

void Session::on_pong(std::string_view payload) {
  last_heard_ = loop_.clock().now();
  probe_deadline_ = {};
  int64_t sent = 0;
  const auto [end, error] = std::from_chars(payload.data(), payload.data() + payload.size(), sent);
  const int64_t now = micros(last_heard_);
  if (error == std::errc() && end == payload.data() + payload.size() && sent <= now)
    counters_.rtt_us = now - sent;
}

void Session::on_drain() {
  if (!ended_ && handlers_.on_drain) handlers_.on_drain();
}

void Session::on_close(uint16_t code, const std::string& reason) {
  end(reason.empty() ? fmt::format("closed by the other side ({})", code)
                     : fmt::format("{} ({})", reason, code));
}

void Session::end(std::string reason) {
  if (std::exchange(ended_, true)) return;
  timer_.stop();
  // May destroy this object, and the handlers with it.
  auto on_closed = std::move(handlers_.on_closed);
  on_closed(reason);
}

}  // namespace edgemesh::channel
