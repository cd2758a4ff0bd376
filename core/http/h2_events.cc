// What nghttp2 calls: frames that came, bytes to send. Nothing here calls a user.
#include <algorithm>

#include "core/base/log.h"
#include "core/http/h2_core.h"

namespace edgemesh::http {

namespace {

constexpr size_t kBatchBytes = 256 * 1024;

std::string_view text(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};  // NOLINT
}

Error error_of_status(int status, const std::string& reason) {
  ErrorCode code = ErrorCode::kProtocol;
  if (status == 401) code = ErrorCode::kUnauthenticated;
  if (status == 403) code = ErrorCode::kPermissionDenied;
  if (status == 404) code = ErrorCode::kNotFound;
  if (status == 429) code = ErrorCode::kResourceExhausted;
  if (status >= 500) code = ErrorCode::kUnavailable;
  return {code,
          fmt::format("HTTP {}: {}", status,
                      reason.empty() ? std::string(reason_phrase(status)) : reason),
          0};
}

Error error_of_reset(uint32_t code) {
  bool refused = code == NGHTTP2_REFUSED_STREAM;  // no byte of it was processed
  return {refused ? ErrorCode::kUnavailable : ErrorCode::kConnectionReset,
          fmt::format("stream reset by the peer ({})", nghttp2_http2_strerror(code)), 0};
}

}  // namespace

std::vector<uint8_t>& h2_out_batch() {
  thread_local std::vector<uint8_t> batch;
  if (batch.capacity() == 0) batch.reserve(kBatchBytes + 128 * 1024);
  return batch;
}

struct H2Callbacks {
  static H2Core& core(void* user) { return *static_cast<H2Core*>(user); }
  static H2State* state(nghttp2_session* session, int32_t id) {
    return static_cast<H2State*>(nghttp2_session_get_stream_user_data(session, id));
  }

  static ssize_t send(nghttp2_session*, const uint8_t* data, size_t size, int, void*) {
    std::vector<uint8_t>& batch = h2_out_batch();
    if (batch.size() >= kBatchBytes) return NGHTTP2_ERR_WOULDBLOCK;
    batch.insert(batch.end(), data, data + size);
    return static_cast<ssize_t>(size);
  }

  static ssize_t read_source(nghttp2_session*, int32_t, uint8_t*, size_t size, uint32_t* flags,
                             nghttp2_data_source* source, void*) {
    auto& s = *static_cast<H2State*>(source->ptr);
    size_t n = std::min(size, s.out.size());
    if (n == 0 && !s.shut) {
      s.deferred = true;
      return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (s.shut && n == s.out.size()) {
      *flags |= NGHTTP2_DATA_FLAG_EOF;
      s.end_sent = true;
    }
    return static_cast<ssize_t>(n);
  }

  static int send_data(nghttp2_session*, nghttp2_frame* frame, const uint8_t* header, size_t size,
                       nghttp2_data_source* source, void* user) {
    std::vector<uint8_t>& batch = h2_out_batch();
    if (batch.size() >= kBatchBytes) return NGHTTP2_ERR_WOULDBLOCK;
    auto& s = *static_cast<H2State*>(source->ptr);
    static_cast<void>(frame);  // no padding: no padding callback is set
    // The frame was planned when the batch was full, and the user has dropped the stream since.
    if (s.out.size() < size) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    batch.insert(batch.end(), header, header + 9);
    size_t at = batch.size();
    batch.resize(at + size);
    size_t n = s.out.read({batch.data() + at, size});
    EM_ASSERT(n == size);
    core(user).budget_.give(n);
    core(user).bytes_out_ += n;
    if (s.want_writable) core(user).note(s);
    return 0;
  }

  // As large as windows and the peer's frame size allow, within our limit.
  static ssize_t frame_length(nghttp2_session*, uint8_t, int32_t, int32_t session_window,
                              int32_t stream_window, uint32_t remote_max, void* user) {
    int64_t n = std::min<int64_t>(session_window, stream_window);
    return std::min<int64_t>({n, remote_max, core(user).options_.max_frame});
  }

  static int begin_headers(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    H2Core& c = core(user);
    if (!c.server_ || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    auto s = std::make_shared<H2State>();
    s->core = &c;
    s->id = frame->hd.stream_id;
    s->has_user = false;
    nghttp2_session_set_stream_user_data(session, s->id, s.get());
    c.states_.emplace(s->id, std::move(s));
    return 0;
  }

  static int header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                    size_t name_size, const uint8_t* value, size_t value_size, uint8_t,
                    void* user) {
    H2State* s = state(session, frame->hd.stream_id);
    if (s == nullptr) return 0;
    return core(user).header_received(*s, text(name, name_size), text(value, value_size));
  }

  static int frame_received(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    H2Core& c = core(user);
    if (frame->hd.type == NGHTTP2_PING) {
      if ((frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) c.ping_acked(frame->ping.opaque_data);
      return 0;
    }
    if (frame->hd.type == NGHTTP2_GOAWAY) {
      c.goaway_received_ = c.tell_goaway_ = true;
      c.goaway_code_ = frame->goaway.error_code;
      return 0;
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    H2State* s = state(session, frame->hd.stream_id);
    if (s == nullptr) return 0;
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
      s->eof_received = true;
      c.note(*s);
    }
    if (frame->hd.type == NGHTTP2_HEADERS) c.headers_done(*s);
    return 0;
  }

  static int data_received(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data,
                           size_t size, void* user) {
    H2Core& c = core(user);
    H2State* s = state(session, id);
    c.bytes_in_ += size;
    bool wanted = s != nullptr && !s->failed && (s->has_user || !s->answered);
    if (!wanted) {
      nghttp2_session_consume(session, id, size);
      return 0;
    }
    s->in.append({data, size});
    c.note(*s);
    return 0;
  }

  static int stream_closed(nghttp2_session* session, int32_t id, uint32_t code, void* user) {
    H2State* s = state(session, id);
    if (s != nullptr) core(user).stream_closed(*s, code);
    return 0;
  }

  // A refusal left: the peer need not go on sending what nobody reads (RFC 9113 8.1). Submitted
  // with the answer, the reset would overtake it.
  static int frame_sent(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    bool refusal = core(user).server_ && frame->hd.type == NGHTTP2_HEADERS &&
                   (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (refusal && nghttp2_session_get_stream_remote_close(session, frame->hd.stream_id) == 0)
      nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
    return 0;
  }

  // A request that never left: cancelled while it waited, or refused by a GOAWAY.
  static int frame_not_sent(nghttp2_session*, const nghttp2_frame* frame, int error, void* user) {
    H2Core& c = core(user);
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    auto it = c.states_.find(frame->hd.stream_id);
    if (it == c.states_.end()) return 0;
    H2State& s = *it->second;
    c.fail_state(s,
                 Error{ErrorCode::kUnavailable,
                       fmt::format("the stream was not opened: {}", nghttp2_strerror(error)), 0});
    c.stream_closed(s, NGHTTP2_REFUSED_STREAM);
    return 0;
  }

  static nghttp2_session_callbacks* make() {
    nghttp2_session_callbacks* cb = nullptr;
    EM_CHECK(nghttp2_session_callbacks_new(&cb) == 0);
    nghttp2_session_callbacks_set_send_callback(cb, send);
    nghttp2_session_callbacks_set_send_data_callback(cb, send_data);
    nghttp2_session_callbacks_set_data_source_read_length_callback(cb, frame_length);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, frame_received);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, data_received);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, stream_closed);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, frame_sent);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, frame_not_sent);
    return cb;
  }
};

nghttp2_data_provider h2_data_provider(H2State& state) {
  nghttp2_data_provider provider{};
  provider.source.ptr = &state;
  provider.read_callback = H2Callbacks::read_source;
  return provider;
}

Result<> H2Core::init() {
  static nghttp2_session_callbacks* const callbacks = H2Callbacks::make();
  nghttp2_option* option = nullptr;
  EM_CHECK(nghttp2_option_new(&option) == 0);
  nghttp2_option_set_no_auto_window_update(option, 1);
  nghttp2_option_set_no_closed_streams(option, 1);
  nghttp2_option_set_max_outbound_ack(option, 1000);
  nghttp2_option_set_max_reserved_remote_streams(option, 0);
  nghttp2_option_set_stream_reset_rate_limit(option, options_.reset_burst,
                                             options_.reset_per_second);
  int rc = server_ ? nghttp2_session_server_new2(&session_, callbacks, this, option)
                   : nghttp2_session_client_new2(&session_, callbacks, this, option);
  nghttp2_option_del(option);
  if (rc != 0) return fail(ErrorCode::kInternal, "HTTP/2 session: {}", nghttp2_strerror(rc));
  EM_TRY_VOID(submit_settings());
  below_->set_handler(this);
  schedule();
  return {};
}

int H2Core::header_received(H2State& state, std::string_view name, std::string_view value) {
  state.header_bytes += name.size() + value.size() + 32;  // counted as in RFC 9113 6.5.2
  if (state.header_bytes > options_.max_header_bytes) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  if (name == ":method") {
    state.method = value;
  } else if (name == ":authority") {
    state.authority = value;
  } else if (name == ":protocol" || name == ":scheme" || name == ":path") {
    if (!state.extended) state.extended = std::make_unique<ExtendedConnect>();
    (name == ":protocol" ? state.extended->protocol
     : name == ":path"   ? state.extended->path
                         : state.extended->scheme) = value;
  } else if (name == ":status") {
    state.status = 0;  // nghttp2 checked that it is three digits
    for (char c : value) state.status = state.status * 10 + (c - '0');
  } else if (!name.empty() && name[0] != ':') {
    if (name == "x-edgemesh-reason") state.reason = value;
    if (server_) state.headers.add(name, value);
  }
  return 0;
}

void H2Core::headers_done(H2State& state) {
  if (server_)
    request_done(state);
  else
    response_done(state);
}

void H2Core::request_done(H2State& state) {
  if (state.answered || state.has_user) return;  // trailers
  // nghttp2 has checked that a CONNECT has these fields together with :protocol, or none of them.
  bool connect = state.method == "CONNECT" && !state.authority.empty();
  if (!connect) {
    state.answered = true;
    static_cast<void>(
        answer(state, 405, {{"x-edgemesh-reason", "only CONNECT is served here"}}, false));
    return;
  }
  state.has_user = true;
  requests_.push_back(states_.at(state.id));
}

void H2Core::response_done(H2State& state) {
  if (state.connected || state.failed || state.status < 200) return;  // trailers, interim answers
  if (state.status < 300) {
    state.connected = state.tell_connected = true;
    note(state);
    return;
  }
  state.refused = true;
  fail_state(state, error_of_status(state.status, state.reason));
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, state.id, NGHTTP2_CANCEL);
}

void H2Core::stream_closed(H2State& state, uint32_t code) {
  bool whole = code == NGHTTP2_NO_ERROR && state.eof_received && state.end_sent &&
               (server_ || state.connected);
  // RFC 9113 8.7: then no byte of it was processed.
  if (code == NGHTTP2_REFUSED_STREAM && !state.connected) state.refused = true;
  if (!whole) fail_state(state, error_of_reset(code));
  state.closed = true;
  note(state);
  auto it = states_.find(state.id);
  if (it == states_.end()) return;
  auto held = std::move(it->second);
  states_.erase(it);
  if (state.has_user)
    closed_held_.insert(&state);
  else
    state.core = nullptr;
  // Its queues may be on the stack of nghttp2's caller; the last reference goes later.
  if (held.use_count() == 1) loop_.defer([held = std::move(held)] {});
}

void H2Core::ping_acked(const uint8_t* opaque) {
  uint64_t id = 0;
  for (size_t i = 0; i < 8; ++i) id |= static_cast<uint64_t>(opaque[i]) << (8 * i);
  auto it = std::find_if(pings_.begin(), pings_.end(), [&](const Ping& p) { return p.id == id; });
  if (it == pings_.end()) return;
  Duration rtt = loop_.clock().now() - it->sent;
  loop_.defer([done = std::move(it->done), rtt] { done(rtt); });
  pings_.erase(it);
}

}  // namespace edgemesh::http
