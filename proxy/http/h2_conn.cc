#include "proxy/http/h2_conn.h"

#include <algorithm>

#include "core/io/lingering_close.h"
#include "proxy/http/h2_callbacks.h"
#include "proxy/http/h2_head.h"

namespace edgemesh::proxy::h2 {

using io::IoResult;

namespace {
constexpr size_t kReadBytes = 64 * 1024;
}

Conn::Conn(io::Loop& loop, WriteBatch& batch, std::unique_ptr<io::Stream> io,
           const H2Limits& limits, bool server)
    : loop_(loop),
      batch_(batch),
      io_(std::move(io)),
      limits_(limits),
      scanner_(server),
      timer_(loop, [this] { on_timer(); }),
      server_(server) {
  session_ = make_session(this, memory_, limits_, server_);
  io_->set_handler(this);
  last_input_ = last_output_ = idle_since_ = loop_.now();
  flush_later();
}

Conn::~Conn() {
  nghttp2_session_del(session_);
}

void Conn::abandon() {
  abandoned_ = true;
  forget_handler();
  timer_.stop();
  while (first_ != nullptr) {
    Stream* s = first_;
    unlink(*s);
    if (s->released) s->recycle();
  }
  if (io_ != nullptr) io_->set_handler(nullptr);
  if (depth_ == 0) delete this;
}

// ---- input

ssize_t Conn::receive(std::span<const uint8_t> data) {
  while (!data.empty()) {
    bool whole = false;
    size_t n = scanner_.next(data, &whole);
    if (ssize_t rc = nghttp2_session_mem_recv(session_, data.data(), n); rc < 0) return rc;
    if (abandoned_) break;
    flush_pending(false);
    if (abandoned_) break;
    if (whole) count_frame(scanner_.head());
    if (abandoned_) break;
    data = data.subspan(n);
  }
  return 0;
}

void Conn::feed(std::span<const uint8_t> data) {
  last_input_ = loop_.now();
  ssize_t n = receive(data);
  if (over()) return;
  if (n >= 0) return note_head();
  flush_pending(false);
  if (over()) return;
  auto code = static_cast<int>(n);
  // Floods that nghttp2 sees itself: answers that wait, settings, continuations.
  bool flood = code == NGHTTP2_ERR_FLOODED || code == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS ||
               code == NGHTTP2_ERR_TOO_MANY_SETTINGS;
  if (code != NGHTTP2_ERR_CALLBACK_FAILURE)
    terminate(flood ? NGHTTP2_ENHANCE_YOUR_CALM : NGHTTP2_PROTOCOL_ERROR);
  send_frames();
  if (over()) return;
  if (code == NGHTTP2_ERR_CALLBACK_FAILURE) {  // of ours, which has told why
    finish({ErrorCode::kProtocol, "HTTP/2: the peer is over a limit", 0}, true);
    return;
  }
  tell_bad(nghttp2_strerror(code));
  if (!over())
    finish(Error{ErrorCode::kProtocol, fmt::format("HTTP/2: {}", nghttp2_strerror(code)), 0}, true);
}

void Conn::on_readable() {
  Busy busy(*this);
  while (!over()) {
    IoResult r = io_->read({loop_.scratch(), kReadBytes});
    if (r.status == IoResult::kWouldBlock || r.status == IoResult::kError) break;
    if (r.status == IoResult::kEof) {
      finish(Error{ErrorCode::kConnectionReset, "the peer closed the HTTP/2 connection", 0}, true);
      break;
    }
    feed({loop_.scratch(), r.n});
  }
  if (!over()) flush_later();
}

void Conn::on_connected() {
  Busy busy(*this);
  connected_ = true;
  tell_connected();
  if (!over()) flush_later();
}

void Conn::on_writable() {
  write_blocked_ = false;
  flush_writes();
}

void Conn::on_error(const Error& error) {
  Busy busy(*this);
  finish(error, false);
}

void Conn::deliver(Stream& s, std::span<const uint8_t> data, bool end) {
  bool wanted = !s.released && s.handler != nullptr && s.in_final;
  if (wanted && (!s.reading || !s.in.empty())) {
    s.in.append(data);
    return;
  }
  if (!data.empty()) nghttp2_session_consume(session_, s.id, data.size());
  if (!wanted) return;
  if (end) s.in_told = true;
  s.handler->on_data(data, end);
}

void Conn::deliver_trailers(Stream& s) {
  if (s.released || s.handler == nullptr) return;
  if (!s.reading || !s.in.empty()) return;
  s.in_told = true;
  s.handler->on_trailers(std::move(s.in_trailers));
}

void Conn::flush_pending(bool end) {
  Stream* s = std::exchange(pending_, nullptr);
  if (s != nullptr) deliver(*s, std::exchange(pending_data_, {}), end);
}

// ---- turns

void Conn::flush_writes() {
  Busy busy(*this);
  if (over()) return;
  if (failed_ != 0) return fail_session(failed_);
  before_flush();
  run_ready();
  if (over()) return;
  if (!write_blocked_) send_frames();
  if (over()) return;
  run_ready();
  if (over()) return;
  if (!write_blocked_ && nghttp2_session_want_write(session_) != 0) flush_later();
  if (std::exchange(available_, false)) tell_available();
  if (!over()) check_end();
}

void Conn::check_end() {
  if (!out_.empty()) return;
  bool done = nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0;
  done = done || (!server_ && goaway_received_ && streams_ == 0);
  if (!done || ((goaway_received_ || goaway_sent_) && goaway_code_ == 0 && streams_ != 0)) return;
  if (goaway_code_ == 0)
    return finish({ErrorCode::kCancelled, "the connection was drained", 0}, true);
  finish(
      Error{ErrorCode::kProtocol,
            fmt::format("HTTP/2: the connection ended: {}", nghttp2_http2_strerror(goaway_code_)),
            0},
      true);
}

// ---- what waits to be told

void Conn::note(Stream& s) {
  if (!s.queued) {
    s.queued = true;
    ready_.push_back(&s);
  }
  flush_later();
}

void Conn::run_ready() {
  for (size_t i = 0; i < ready_.size() && !over(); ++i) {
    Stream* s = std::exchange(ready_[i], nullptr);
    if (s == nullptr) continue;
    s->queued = false;
    run_ready_one(*s);
  }
  if (!over()) ready_.clear();
}

void Conn::run_ready_one(Stream& s) {
  if (!server_ && s.head != nullptr && s.extended && !s.open && settings_received_) {
    if (nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) !=
        1)
      s.fail = "the server takes no extended CONNECT";
    else
      submit(s, *std::exchange(s.head, nullptr), s.head_ends);
  }
  Stream::Handler* handler = s.handler;
  if (s.released) return;
  if (s.fail != nullptr) {
    unlink(s);
    if (handler != nullptr) handler->on_reset(ResetReason::kRefused, s.fail);
    return;
  }
  if (s.lost != nullptr) {
    unlink(s);
    if (handler != nullptr) handler->on_reset(s.lost_reason, s.lost);
    return;
  }
  if (s.in_told && s.cut) {
    unlink(s);
    if (handler != nullptr && !s.out_ended)
      handler->on_reset(ResetReason::kCancelled, "the peer reset the stream after its message");
    return;
  }
  if (handler == nullptr) return;
  if (s.blocked && s.out.size() <= limits_.high_water / 2) {
    s.blocked = false;
    note(s);  // for what is below
    return handler->on_writable();
  }
  if (!s.reading || s.in_told) return;
  if (s.in.empty() && s.in_trailers != nullptr) {
    told_end(s);
    return handler->on_trailers(std::move(s.in_trailers));
  }
  if (s.in.empty() && !s.in_end) return;
  Bytes data(std::move(s.in));
  if (!data.empty()) {
    if (s.open)
      nghttp2_session_consume(session_, s.id, data.size());
    else
      nghttp2_session_consume_connection(session_, data.size());
  }
  bool end = s.in_end && s.in_trailers == nullptr;
  if (end)
    told_end(s);
  else if (s.in_trailers != nullptr)
    note(s);
  handler->on_data(data.view(), end);
}

// Before the user is told, who may release the stream then: it must not be looked at afterwards.
void Conn::told_end(Stream& s) {
  s.in_told = true;
  if (s.open) return;
  if (s.out_ended) return unlink(s);
  s.cut = true;
  note(s);
}

void Conn::resume(Stream& s) {
  if (!s.in.empty() || (s.in_end && !s.in_told)) note(s);
}

// ---- ends

void Conn::link(Stream& s) {
  s.next = first_;
  if (first_ != nullptr) first_->previous = &s;
  first_ = &s;
  idle_released_ = false;
  ++streams_;
}

void Conn::unlink(Stream& s) {
  if (s.conn == nullptr) return;
  (s.previous != nullptr ? s.previous->next : first_) = s.next;
  if (s.next != nullptr) s.next->previous = s.previous;
  s.previous = s.next = nullptr;
  s.conn = nullptr;
  if (pending_ == &s) pending_ = nullptr;
  if (s.queued) std::replace(ready_.begin(), ready_.end(), &s, static_cast<Stream*>(nullptr));
  s.queued = false;
  if (s.open) nghttp2_session_set_stream_user_data(session_, s.id, nullptr);
  --streams_;
  full_at_ = SIZE_MAX;
  available_ = true;
  if (abandoned_ || finished_) return;
  if (streams_ == 0) {
    idle_since_ = loop_.now();
    arm(soonest());
  }
  flush_later();
}

void Conn::on_released(Stream& s) {
  if (!s.in.empty()) {
    nghttp2_session_consume_connection(session_, s.in.size());
    s.in.clear();
  }
  flush_later();
  if (!s.open) {
    unlink(s);
    s.recycle();
    return;
  }
  if (s.in_end && s.out_ended) return;  // the rest is on its way
  if (server_ && s.out_ended) {
    if (s.end_sent && s.reset_after_end)
      nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, s.id, NGHTTP2_NO_ERROR);
    s.reset_after_end = true;
    return;
  }
  send_before_reset(s);
  if (s.conn == nullptr) return s.recycle();
  s.out.clear();
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, s.id, NGHTTP2_CANCEL);
}

void Conn::stream_closed(Stream& s, uint32_t code) {
  if (pending_ == &s) flush_pending(false);
  if (abandoned_ || s.conn == nullptr) return;
  s.open = false;
  s.out.clear();
  if (code == NGHTTP2_NO_ERROR && s.in_end) resets_.give(1);
  if (s.released) {
    unlink(s);
    s.recycle();
    return;
  }
  if (code == NGHTTP2_NO_ERROR && s.in_end && !s.in_told) return;  // the user has yet to read it
  if (!s.in.empty()) nghttp2_session_consume_connection(session_, s.in.size());
  s.in.clear();
  if ((s.in_told && s.out_ended) || s.handler == nullptr) return unlink(s);
  ResetReason reason = ResetReason::kCancelled;
  if (code == NGHTTP2_REFUSED_STREAM) reason = ResetReason::kRefused;
  if (code == NGHTTP2_PROTOCOL_ERROR || code == NGHTTP2_FLOW_CONTROL_ERROR ||
      code == NGHTTP2_STREAM_CLOSED)
    reason = ResetReason::kProtocol;
  if (s.too_large) reason = ResetReason::kTooLarge;
  if (s.slow) reason = ResetReason::kConnectionLost;
  const char* detail = s.slow ? "the peer takes nothing" : nghttp2_http2_strerror(code);
  if (!direct_) {
    unlink(s);
    if (reason == ResetReason::kRefused && streams_ > 0) full_at_ = streams_;
    return s.handler->on_reset(reason, detail);
  }
  s.lost = detail;  // a user is sending: no callback now
  s.lost_reason = reason;
  note(s);
}

void Conn::finish(Error error, bool graceful) {
  if (over()) return;
  finished_ = true;
  timer_.stop();
  if (graceful)
    io::lingering_close(loop_, std::move(io_));
  else
    io_.reset();
  while (first_ != nullptr && !abandoned_) {
    Stream* s = first_;
    s->open = false;
    unlink(*s);
    s->in.clear();
    s->out.clear();
    if (s->released)
      s->recycle();
    else if (s->handler != nullptr && !(s->in_told && s->out_ended))
      s->handler->on_reset(ResetReason::kConnectionLost, error.message);
  }
  if (!abandoned_) tell_closed(error);
}

void Conn::drain_notice() {
  if (over() || draining_) return;
  draining_ = true;
  nghttp2_submit_shutdown_notice(session_);
  nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr);
  flush_later();
}

void Conn::drain_final() {
  if (over() || goaway_sent_) return;
  goaway_sent_ = true;
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE,
                        nghttp2_session_get_last_proc_stream_id(session_), NGHTTP2_NO_ERROR,
                        nullptr, 0);
  flush_later();
}

}  // namespace edgemesh::proxy::h2
