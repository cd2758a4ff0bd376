#include "cloud/hub_session.h"

#include <charconv>

#include "cloud/hub_metrics.h"
#include "core/base/log.h"

namespace edgemesh::cloud {
namespace {

// Below this the socket is given more. Small, so that a ping does not wait long behind data.
constexpr size_t kSocketWatermark = 64 << 10;

int64_t micros(TimePoint t) {
  return std::chrono::duration_cast<std::chrono::microseconds>(t.time_since_epoch()).count();
}

}  // namespace

HubSession::HubSession(Hub& hub, std::string node, std::string address, int64_t not_before,
                       std::unique_ptr<http::WebSocket> socket)
    : hub_(hub),
      node_(std::move(node)),
      address_(std::move(address)),
      not_before_(not_before),
      socket_(std::move(socket)),
      last_heard_(hub.patient_now()) {
  counters_.node = node_;
  counters_.address = address_;
  counters_.connected_since = std::chrono::duration_cast<std::chrono::seconds>(
                                  hub.loop_.clock().wall_now().time_since_epoch())
                                  .count();
  socket_->set_handler(this);
}

NodeStatus HubSession::status() const {
  NodeStatus status = counters_;
  status.queued_bytes = queued_bytes_ + socket_->queued_bytes();
  return status;
}

bool HubSession::enqueue(Frame frame) {
  if (queued_bytes_ + frame->size() > hub_.options_.max_queued_bytes ||
      queue_.size() >= hub_.options_.max_queued_frames) {
    overflowed_ = true;
    return false;
  }
  queued_bytes_ += frame->size();
  queue_.push_back(std::move(frame));
  return true;
}

bool HubSession::push(const Frame& frame) {
  if (!socket_->send_text(*frame)) return false;
  ++counters_.messages_out;
  counters_.bytes_out += frame->size();
  hub_.metrics_->messages_out.add();
  hub_.metrics_->bytes_out.add(frame->size());
  return true;
}

void HubSession::pump() {
  while (!detached_ && socket_->queued_bytes() < kSocketWatermark) {
    if (!queue_.empty()) {
      const Frame frame = std::move(queue_.front());
      queue_.pop_front();
      queued_bytes_ -= frame->size();
      if (!push(frame)) return;
      continue;
    }
    const Frame frame = hub_.events_->next_frame(node_);
    if (frame == nullptr) return;
    last_bulk_ = hub_.patient_now();
    if (!push(frame)) return;
  }
}

void HubSession::tick(TimePoint now) {
  // While we do not read, its pongs cannot reach us.
  if (paused_) last_heard_ = now;
  const Hub& hub = hub_;
  const bool busy = now - last_bulk_ < hub.options_.dead_after && last_bulk_ != TimePoint{};
  const Duration limit = busy ? hub.options_.dead_after_busy : hub.options_.dead_after;
  if (now - last_heard_ >= limit) {
    hub_.metrics_->dead.add();
    const auto silent = std::chrono::duration_cast<std::chrono::milliseconds>(now - last_heard_);
    hub_.end_session(*this, 0, fmt::format("silent for {} ms", silent.count()));
    return;
  }
  const bool heard = now - last_heard_ < hub.options_.ping_interval;
  if (now - last_ping_ < (heard ? hub.options_.rtt_interval : hub.options_.ping_interval)) return;
  last_ping_ = now;
  // A failure shows itself by on_close.
  static_cast<void>(socket_->send_ping(std::to_string(micros(hub.loop_.clock().now()))));
}

void HubSession::close(uint16_t code, const std::string& reason) {
  detached_ = true;
  if (paused_) socket_->resume_reading();
  socket_->close(code, reason);
}

void HubSession::pause() {
  if (std::exchange(paused_, true)) return;
  socket_->pause_reading();
}

void HubSession::resume() {
  if (!std::exchange(paused_, false)) return;
  last_heard_ = hub_.patient_now();
  socket_->resume_reading();
}

void HubSession::on_message(std::string_view data, bool text) {
  if (detached_) return;
  ++counters_.messages_in;
  counters_.bytes_in += data.size();
  hub_.metrics_->messages_in.add();
  hub_.metrics_->bytes_in.add(data.size());
  if (!text) {
    hub_.metrics_->protocol.add();
    return hub_.end_session(*this, 1003, "binary messages are not taken here");
  }
  auto message = channel::decode(data, hub_.options_.max_message_bytes);
  if (!message) {
    hub_.metrics_->protocol.add();
    return hub_.end_session(*this, 1007, message.error().message);
  }
  if (message->operation == "keepalive") return;
  // Whatever a node sends ends its own session at worst.
  try {
    hub_.events_->on_message(node_, std::move(*message));
  } catch (const std::exception& error) {
    hub_.metrics_->protocol.add();
    hub_.end_session(*this, 1011, fmt::format("the message cannot be worked on: {}", error.what()));
  }
}

void HubSession::on_heard() {
  last_heard_ = hub_.patient_now();
}

void HubSession::on_pong(std::string_view payload) {
  int64_t sent = 0;
  const auto [end, error] = std::from_chars(payload.data(), payload.data() + payload.size(), sent);
  const int64_t now = micros(hub_.loop_.clock().now());
  if (error == std::errc() && end == payload.data() + payload.size() && sent <= now) {
    counters_.rtt_us = now - sent;
  }
}

void HubSession::on_drain() {
  pump();
}

void HubSession::on_close(uint16_t code, const std::string& reason) {
  hub_.end_session(*this, 0,
                   reason.empty() ? fmt::format("closed by the node ({})", code) : reason);
}

}  // namespace edgemesh::cloud
