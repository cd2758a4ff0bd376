// What a connection takes of a peer: how many frames of a kind, and how slow it may be.
#include <algorithm>

#include "proxy/http/h2_callbacks.h"
#include "proxy/http/h2_conn.h"

namespace edgemesh::proxy::h2 {

namespace {
// Memory is given back when no stream came for so long: sooner, busy clients would pay for it.
constexpr Duration kIdleRelease = std::chrono::seconds(2);
// A peer that is told to go has so long to take the GOAWAY.
constexpr Duration kEndWithin = std::chrono::seconds(5);

bool stalls(const Stream& s) {
  return s.open && !s.tunnel && !s.out.empty();
}
}  // namespace

// ---- floods

void Conn::count_frame(const nghttp2_frame_hd& head) {
  switch (head.type) {
    case NGHTTP2_DATA:
      if (server_ && head.stream_id % 2 == 1 &&
          nghttp2_session_find_stream(session_, head.stream_id) == nullptr)
        judge_closed(head.stream_id);
      break;
    case NGHTTP2_HEADERS:
    case NGHTTP2_RST_STREAM: break;  // counted by what they do
    case NGHTTP2_WINDOW_UPDATE:
      if (!updates_.take(loop_.now(), limits_.control_burst, limits_.control_per_second))
        calm("too many WINDOW_UPDATE frames");
      break;
    default: control_frame();
  }
}

// A frame on a stream that is closed: nghttp2 is told to forget those, and would ignore it.
void Conn::judge_closed(int32_t id) {
  switch (closed_.judge(id)) {
    case ClosedStreams::kIgnore: break;
    case ClosedStreams::kStreamError:
      nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_STREAM_CLOSED);
      break;
    case ClosedStreams::kClosed: terminate(NGHTTP2_STREAM_CLOSED); break;
    case ClosedStreams::kNeverOpened: terminate(NGHTTP2_PROTOCOL_ERROR); break;
  }
}

void Conn::glitch() {
  if (!resets_.take(loop_.now(), limits_.reset_burst, limits_.reset_per_second))
    calm("too many streams were reset");
}

void Conn::control_frame() {
  if (!control_.take(loop_.now(), limits_.control_burst, limits_.control_per_second))
    calm("too many control frames");
}

void Conn::calm(std::string_view why) {
  if (end_by_ != TimePoint::max()) return;
  terminate(NGHTTP2_ENHANCE_YOUR_CALM);
  if (!direct_) tell_bad(why);
}

void Conn::terminate(uint32_t code) {
  if (goaway_code_ == 0) goaway_code_ = code;
  nghttp2_session_terminate_session(session_, code);
  end_by_ = std::min(end_by_, loop_.now() + kEndWithin);
  arm(end_by_);
  flush_later();
}

// ---- time

// One timer, that is moved only when it would come too late.
void Conn::arm(TimePoint at) {
  if (over() || at == TimePoint::max()) return;
  if (!timer_.active() || timer_.deadline() > at) timer_.start_at(at);
}

TimePoint Conn::soonest() const {
  TimePoint at = std::min(end_by_, next_time());
  if (head_waits_) at = std::min(at, head_since_ + head_timeout_);
  if (streams_ == 0 && !idle_released_) at = std::min(at, idle_since_ + kIdleRelease);
  if (limits_.write_timeout <= Duration::zero()) return at;
  if (write_blocked_) at = std::min(at, last_output_ + limits_.write_timeout);
  for (const Stream* s = first_; s != nullptr; s = s->next)
    if (stalls(*s)) at = std::min(at, s->waits_since + limits_.write_timeout);
  return at;
}

void Conn::on_timer() {
  Busy busy(*this);
  if (over()) return;
  TimePoint now = loop_.now();
  check_slow(now);
  if (!over()) on_time(now);
  if (over()) return;
  if (streams_ == 0 && !idle_released_ && now - idle_since_ >= kIdleRelease) {
    idle_released_ = out_.empty() && nghttp2_session_want_write(session_) == 0;
    if (idle_released_)
      memory_.release_idle();
    else
      idle_since_ = now;
  }
  arm(soonest());
}

void Conn::check_slow(TimePoint now) {
  auto late = [now](TimePoint since, Duration limit) {
    return limit > Duration::zero() && now - since >= limit;
  };
  if (now >= end_by_)
    return finish({ErrorCode::kTimeout, "HTTP/2: the peer does not take the end", 0}, false);
  if (write_blocked_ && late(last_output_, limits_.write_timeout))
    return finish({ErrorCode::kTimeout, "HTTP/2: the peer takes nothing", 0}, false);
  if (head_waits_ && late(head_since_, head_timeout_)) {
    head_waits_ = false;
    if (!settings_received_) {
      terminate(NGHTTP2_SETTINGS_TIMEOUT);
      tell_bad("the SETTINGS did not come in time");
    } else {
      calm("a frame did not come in time");
    }
    if (over()) return;
  }
  for (Stream* s = first_; s != nullptr; s = s->next) {
    if (!stalls(*s) || !late(s->waits_since, limits_.write_timeout)) continue;
    s->slow = true;
    s->out.clear();
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL);
    flush_later();
  }
}

void Conn::note_write(size_t n) {
  if (n > 0 || !write_blocked_) last_output_ = loop_.now();
}

void Conn::block_writes() {
  write_blocked_ = true;
  if (limits_.write_timeout > Duration::zero()) arm(last_output_ + limits_.write_timeout);
}

// A client whose SETTINGS or whose frame is half there has head_timeout for the rest.
void Conn::note_head() {
  if (!server_ || head_timeout_ <= Duration::zero()) return;
  bool waits = !settings_received_ || scanner_.halfway();
  if (waits && (!head_waits_ || head_begun_ != scanner_.begun())) {
    head_since_ = loop_.now();
    head_begun_ = scanner_.begun();
    arm(head_since_ + head_timeout_);
  }
  head_waits_ = waits;
}

bool Bucket::take(TimePoint now, uint32_t burst, uint32_t per_second) {
  if (left_ < 0) {
    left_ = burst;
    last_ = now;
  }
  double seconds = std::chrono::duration<double>(now - last_).count();
  last_ = now;
  left_ = std::min<double>(burst, left_ + seconds * per_second + std::exchange(more_, 0));
  if (left_ < 1) return false;
  left_ -= 1;
  return true;
}

}  // namespace edgemesh::proxy::h2
