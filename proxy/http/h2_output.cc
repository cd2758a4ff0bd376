// What a connection sends.
#include "proxy/http/h2_callbacks.h"
#include "proxy/http/h2_conn.h"
#include "proxy/http/h2_head.h"

namespace edgemesh::proxy::h2 {

using io::IoResult;

namespace {
// Smaller pieces wait for the end of the turn, so that they leave together.
constexpr size_t kDirectBytes = 8 * 1024;
}  // namespace

void Conn::submit(Stream& s, const Head& head, bool end) {
  nghttp2_data_provider data = data_provider(s);
  if (server_) {
    auto list = answer_list(head);
    nghttp2_submit_response(session_, s.id, list.data(), list.size(), end ? nullptr : &data);
  } else {
    auto list = request_list(head);
    s.id = nghttp2_submit_request(session_, nullptr, list.data(), list.size(),
                                  end ? nullptr : &data, &s);
    if (s.id < 0) {
      s.fail = "no more streams on this connection";
      note(s);
    } else {
      s.open = true;
    }
  }
  if (end) s.end_sent = true;
}

void Conn::send_head(Stream& s, const Head& head, bool end) {
  if (s.out_ended || s.head_sent) return;
  flush_later();
  if (server_ && head.status < 200 && head.status != 101) {
    auto list = answer_list(head);
    nghttp2_submit_headers(session_, NGHTTP2_FLAG_NONE, s.id, nullptr, list.data(), list.size(),
                           nullptr);
    return;
  }
  s.head_sent = true;
  s.out_ended = end;
  if (server_) {
    submit(s, head, end);
    return;
  }
  s.extended = !head.protocol.empty();
  s.tunnel = s.extended || head.method == "CONNECT";
  if (!s.extended) return submit(s, head, end);
  s.protocol = head.protocol;
  s.head = take_head();
  s.head->copy_from(head);
  s.head_ends = end;
  if (settings_received_) note(s);
}

bool Conn::send_data(Stream& s, std::span<const uint8_t> data, bool end) {
  if (s.out_ended || s.slow) return true;
  s.out_ended = end;
  if (!s.open && s.head == nullptr) return true;
  if (s.out.empty() && !data.empty()) {
    s.waits_since = loop_.now();
    if (limits_.write_timeout > Duration::zero()) arm(s.waits_since + limits_.write_timeout);
  }
  if (s.deferred) {
    s.deferred = false;
    nghttp2_session_resume_data(session_, s.id);
  }
  if (data.size() >= kDirectBytes && depth_ == 0 && !out_frames().busy && connected_ &&
      !write_blocked_ && s.open && s.out.empty() && out_.empty())
    data = send_direct(s, data);
  s.out.append(data);
  flush_later();
  if (end || s.out.size() <= limits_.high_water) return true;
  s.blocked = true;
  return false;
}

// Large pieces leave at once, as far as windows allow, and are not copied before. Returns the rest.
std::span<const uint8_t> Conn::send_direct(Stream& s, std::span<const uint8_t> data) {
  Busy busy(*this);
  direct_ = true;
  s.direct = data;
  send_frames();
  direct_ = false;
  std::span<const uint8_t> rest = std::exchange(s.direct, {});
  return s.open ? rest : std::span<const uint8_t>{};
}

// A reset would overtake what waits for the end of the turn, and that may be the last words of a
// WebSocket whose other end has gone.
void Conn::send_before_reset(Stream& s) {
  if (s.out.empty() || depth_ > 0 || out_frames().busy || !connected_ || write_blocked_ || over())
    return;
  Busy busy(*this);
  direct_ = true;      // no callbacks
  s.released = false;  // should it end now: our caller still needs it
  send_frames();
  s.released = true;
  direct_ = false;
}

void Conn::send_trailers(Stream& s, const Head& trailers) {
  if (s.out_ended) return;
  if (!trailers.fields().empty()) {
    s.out_trailers = take_head();
    s.out_trailers->copy_from(trailers);
  }
  send_data(s, {}, true);
}

bool Conn::write_out() {
  while (!out_.empty()) {
    IoResult r = io_->write(out_.view());
    note_write(r.n);
    if (r.status != IoResult::kOk) {
      block_writes();
      return false;
    }
    out_.consume(r.n);
  }
  return true;
}

void Conn::fail_session(int code) {
  finish({ErrorCode::kProtocol, fmt::format("HTTP/2: {}", nghttp2_strerror(code)), 0}, false);
}

void Conn::send_frames() {
  while (!over() && failed_ == 0 && write_out() && nghttp2_session_want_write(session_) != 0) {
    std::vector<uint8_t>& frames = out_frames().bytes;
    frames.clear();
    out_frames().busy = true;
    int rc = nghttp2_session_send(session_);
    out_frames().busy = false;
    if (abandoned_) return;
    if (!frames.empty()) {
      IoResult r = io_->write(frames);
      if (r.status == IoResult::kError) return;  // its on_error follows
      note_write(r.n);
      if (r.n < frames.size()) {
        block_writes();
        out_.append(std::span<const uint8_t>(frames).subspan(r.n));
      }
    }
    if (rc != 0 && !direct_) return fail_session(rc);
    if (rc != 0) {
      failed_ = rc;
      return flush_later();
    }
    if (frames.empty()) break;
  }
}

}  // namespace edgemesh::proxy::h2
