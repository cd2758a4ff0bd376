#include "core/http/websocket_core.h"

#include <algorithm>
#include <cstring>

#include "core/io/lingering_close.h"
#include "core/tls/x509.h"

namespace edgemesh::http {

using io::IoResult;

namespace {
// Framed bytes that wait for the stream; wslay keeps the rest as whole messages.
constexpr size_t kOutLimit = 256 * 1024;
constexpr size_t kMaxQueuedMessages = 100'000;  // pongs count no bytes, but each takes some
}  // namespace

WebSocketCore::WebSocketCore(io::Loop& loop, std::unique_ptr<io::Stream> stream, bool server,
                             const WebSocketOptions& options)
    : loop_(loop), stream_(std::move(stream)), options_(options), close_timer_(loop, [this] {
        stream_->reset();
        finish(1006, "the peer did not answer the close frame");
      }) {
  server_ = server;
}

wslay_event_context_ptr WebSocketCore::wslay() {
  if (ctx_ != nullptr) return ctx_;
  wslay_event_callbacks callbacks{};
  callbacks.recv_callback = recv_callback;
  callbacks.send_callback = send_callback;
  callbacks.genmask_callback = mask_callback;
  callbacks.on_msg_recv_callback = message_callback;
  int rc = server_ ? wslay_event_context_server_init(&ctx_, &callbacks, this)
                   : wslay_event_context_client_init(&ctx_, &callbacks, this);
  EM_CHECK(rc == 0);
  wslay_event_config_set_max_recv_msg_length(ctx_, options_.max_message_bytes);
  return ctx_;
}

void WebSocketCore::rest() {
  if (ctx_ == nullptr || in_wslay_ || closing_ || finished_) return;
  if (!boundary_.between_messages() || in_at_ < in_.size() || out_at_ < out_.size()) return;
  if (wslay_event_want_write(ctx_) != 0 || wslay_event_want_read(ctx_) == 0) return;
  wslay_event_context_free(std::exchange(ctx_, nullptr));
  std::string().swap(in_);
  std::string().swap(out_);
}

void WebSocketCore::Boundary::take(std::string_view data) {
  while (!data.empty()) {
    if (left_ > 0) {
      const uint64_t n = std::min<uint64_t>(left_, data.size());
      left_ -= n;
      data.remove_prefix(n);
      continue;
    }
    head_[have_++] = static_cast<uint8_t>(data.front());
    data.remove_prefix(1);
    if (have_ < 2) continue;
    const size_t length = head_[1] & 127U;
    const size_t length_bytes = length == 127 ? 8 : length == 126 ? 2 : 0;
    const size_t mask_bytes = (head_[1] & 128U) != 0 ? 4 : 0;
    if (have_ < 2 + length_bytes + mask_bytes) continue;
    left_ = length_bytes == 0 ? length : 0;
    for (size_t i = 0; i < length_bytes; ++i) left_ = left_ << 8 | head_[2 + i];
    const bool control = (head_[0] & 8U) != 0;
    if (!control) fragments_ = (head_[0] & 128U) == 0;
    have_ = 0;
  }
}

WebSocketCore::~WebSocketCore() {
  if (ctx_ != nullptr) wslay_event_context_free(ctx_);
}

void WebSocketCore::start() {
  stream_->set_handler(this);
  // The stream may hold data that it told its former owner about.
  loop_.defer([self = weak_from_this()] {
    if (auto core = self.lock()) core->on_readable();
  });
}

void WebSocketCore::detach() {
  handler = nullptr;
  close_timer_.stop();
  if (finished_) return;
  finished_ = true;
  if (stream_) stream_->set_handler(nullptr);
  // Possibly within a callback of that stream, deeper on the stack.
  loop_.defer([self = shared_from_this()] { self->stream_.reset(); });
}

ssize_t WebSocketCore::recv_callback(wslay_event_context_ptr ctx, uint8_t* into, size_t size, int,
                                     void* user) {
  auto& self = *static_cast<WebSocketCore*>(user);
  size_t n = std::min(size, self.in_.size() - self.in_at_);
  if (n == 0 || self.paused_ || self.finished_) {
    wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
    return -1;
  }
  std::memcpy(into, self.in_.data() + self.in_at_, n);
  self.in_at_ += n;
  return static_cast<ssize_t>(n);
}

ssize_t WebSocketCore::send_callback(wslay_event_context_ptr ctx, const uint8_t* data, size_t size,
                                     int, void* user) {
  auto& self = *static_cast<WebSocketCore*>(user);
  size_t waiting = self.out_.size() - self.out_at_;
  if (waiting >= kOutLimit) {
    wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
    return -1;
  }
  size_t n = std::min(size, kOutLimit - waiting);
  self.out_.append(io::as_text({data, n}));
  return static_cast<ssize_t>(n);
}

int WebSocketCore::mask_callback(wslay_event_context_ptr, uint8_t* into, size_t size, void*) {
  std::string random = tls::random_bytes(size);
  std::copy(random.begin(), random.end(), into);
  return 0;
}

void WebSocketCore::message_callback(wslay_event_context_ptr,
                                     const struct wslay_event_on_msg_recv_arg* message,
                                     void* user) {
  static_cast<WebSocketCore*>(user)->on_message(*message);
}

void WebSocketCore::on_message(const struct wslay_event_on_msg_recv_arg& message) {
  if (finished_) return;
  std::string_view data = io::as_text({message.msg, message.msg_length});
  switch (message.opcode) {
    case WSLAY_CONNECTION_CLOSE:
      peer_code_ = message.status_code != 0 ? message.status_code : 1005;
      if (data.size() > 2) peer_reason_ = data.substr(2);
      closing_ = true;  // wslay queues the answer
      return;
    case WSLAY_PONG:
      if (handler != nullptr) handler->on_pong(data);
      return;
    case WSLAY_PING: return;  // wslay queues the answer
    default:
      if (handler != nullptr) handler->on_message(data, message.opcode == WSLAY_TEXT_FRAME);
  }
}

void WebSocketCore::on_readable() {
  auto self = shared_from_this();
  while (!finished_ && !paused_) {
    // A peer that pings and never reads its pongs must not fill our memory.
    if (queued_bytes() > options_.max_queued_bytes) return;
    if (ctx_ != nullptr && wslay_event_get_queued_msg_count(ctx_) > kMaxQueuedMessages) return;
    IoResult r = stream_->read({loop_.scratch(), io::Loop::kScratchBytes});
    if (r.status == IoResult::kWouldBlock || r.status == IoResult::kError) return rest();
    if (r.status == IoResult::kEof) {
      if (peer_code_ != 0) return finish(peer_code_, peer_reason_);
      stream_->reset();
      return finish(1006, "the connection ended without a close frame");
    }
    in_.append(io::as_text({loop_.scratch(), r.n}));
    boundary_.take(io::as_text({loop_.scratch(), r.n}));
    if (handler != nullptr) handler->on_heard();
    consume();
  }
}

void WebSocketCore::consume() {
  auto self = shared_from_this();
  if (in_wslay_ || finished_) return;
  in_wslay_ = true;
  int rc = wslay_event_recv(wslay());
  in_wslay_ = false;
  in_.erase(0, in_at_);
  in_at_ = 0;
  if (in_.empty() && in_.capacity() > 64 * 1024) std::string().swap(in_);
  if (finished_) return;
  if (rc != 0) {  // frames that wslay cannot even parse
    closing_ = true;
    wslay_event_shutdown_read(ctx_);
    wslay_event_queue_close(ctx_, WSLAY_CODE_PROTOCOL_ERROR, nullptr, 0);
  }
  if (wslay_event_want_write(ctx_) != 0 || wslay_event_want_read(ctx_) == 0) schedule_flush();
}

void WebSocketCore::resume() {
  if (!paused_) return;
  paused_ = false;
  loop_.defer([weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self || self->paused_ || self->finished_) return;
    self->consume();
    self->on_readable();
  });
}

Result<> WebSocketCore::send(uint8_t opcode, std::string_view data) {
  if (finished_ || closing_) return fail(ErrorCode::kConnectionReset, "the WebSocket is closed");
  if (queued_bytes() + data.size() > options_.max_queued_bytes)
    return fail(ErrorCode::kResourceExhausted, "the WebSocket's peer does not read: {} bytes wait",
                queued_bytes());
  wslay_event_msg message{opcode, io::as_bytes(data).data(), data.size()};
  if (int rc = wslay_event_queue_msg(wslay(), &message); rc != 0)
    return fail(ErrorCode::kInvalidArgument, "WebSocket send: error {}", rc);
  schedule_flush();
  return {};
}

void WebSocketCore::close(uint16_t code, std::string_view reason) {
  if (finished_ || closing_) return;
  closing_ = true;
  paused_ = false;  // the peer's close frame must be seen
  close_code_ = code;
  close_reason_ = reason.substr(0, 123);
  close_timer_.start(options_.close_timeout);
  schedule_flush();
  loop_.defer([weak = weak_from_this()] {
    if (auto self = weak.lock()) self->on_readable();
  });
}

size_t WebSocketCore::queued_bytes() const {
  return (ctx_ != nullptr ? wslay_event_get_queued_msg_length(ctx_) : 0) + out_.size() - out_at_;
}

void WebSocketCore::schedule_flush() {
  had_queue_ = true;
  if (flush_queued_) return;
  flush_queued_ = true;
  loop_.defer([weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    self->flush_queued_ = false;
    self->flush();
  });
}

bool WebSocketCore::write_out() {
  while (out_at_ < out_.size()) {
    IoResult r = stream_->write(io::as_bytes(std::string_view(out_).substr(out_at_)));
    if (r.status != IoResult::kOk) return false;
    out_at_ += r.n;
  }
  out_at_ = 0;
  out_.clear();
  if (out_.capacity() > 64 * 1024) std::string().swap(out_);
  return true;
}

void WebSocketCore::flush() {
  auto self = shared_from_this();
  if (finished_) return;
  wslay();
  do {
    out_.erase(0, out_at_);
    out_at_ = 0;
    // wslay sends control frames before messages, so the close frame is given to it last.
    if (close_code_ != 0 && wslay_event_get_queued_msg_count(ctx_) == 0) {
      wslay_event_queue_close(ctx_, std::exchange(close_code_, 0),
                              io::as_bytes(close_reason_).data(), close_reason_.size());
    }
    if (wslay_event_want_write(ctx_) != 0) wslay_event_send(ctx_);
    if (!write_out()) return;
  } while (wslay_event_want_write(ctx_) != 0 || close_code_ != 0);
  check_end();
  if (finished_) return;
  bool was_over = had_queue_;
  had_queue_ = false;
  if (was_over && handler != nullptr) handler->on_drain();
  if (!finished_ && !paused_) on_readable();  // reading may have waited for the queue
  rest();
}

// Everything queued is out: is the conversation over?
void WebSocketCore::check_end() {
  if (wslay_event_get_close_received(ctx_) != 0 && wslay_event_get_close_sent(ctx_) != 0)
    return finish(peer_code_, peer_reason_);
  if (wslay_event_want_read(ctx_) == 0 && wslay_event_get_close_sent(ctx_) != 0) {
    // For a few wrong frames wslay sends a close frame without a code.
    uint16_t code = wslay_event_get_status_code_sent(ctx_);
    if (code == WSLAY_CODE_NO_STATUS_RCVD) code = WSLAY_CODE_PROTOCOL_ERROR;
    finish(code, fmt::format("closed for what the peer sent (code {})", code));
  }
}

void WebSocketCore::on_error(const Error& error) {
  finish(1006, error.message);
}

void WebSocketCore::finish(uint16_t code, std::string reason) {
  if (finished_) return;
  auto self = shared_from_this();
  finished_ = true;
  close_timer_.stop();
  stream_->set_handler(nullptr);
  loop_.defer([self, graceful = code != 1006] {
    if (graceful)
      io::lingering_close(self->loop_, std::move(self->stream_));
    else
      self->stream_.reset();
  });
  auto* h = std::exchange(handler, nullptr);
  if (h != nullptr) h->on_close(code, reason);
}

}  // namespace edgemesh::http
