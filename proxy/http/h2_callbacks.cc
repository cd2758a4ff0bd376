#include "proxy/http/h2_callbacks.h"

#include <algorithm>

#include "core/base/log.h"
#include "proxy/http/h2_head.h"

namespace edgemesh::proxy::h2 {

namespace {
constexpr size_t kBatchBytes = 128 * 1024;

std::string_view text(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};  // NOLINT
}
}  // namespace

OutFrames& out_frames() {
  thread_local OutFrames frames;
  if (frames.bytes.capacity() == 0) frames.bytes.reserve(kBatchBytes + 32 * 1024);
  return frames;
}

struct Callbacks {
  static Conn& conn(void* user) { return *static_cast<Conn*>(user); }
  static Stream* stream(nghttp2_session* session, int32_t id) {
    return static_cast<Stream*>(nghttp2_session_get_stream_user_data(session, id));
  }
  static int result(void* user) {
    return conn(user).abandoned_ ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
  }

  static ssize_t send(nghttp2_session*, const uint8_t* data, size_t size, int, void*) {
    std::vector<uint8_t>& frames = out_frames().bytes;
    if (frames.size() >= kBatchBytes) return NGHTTP2_ERR_WOULDBLOCK;
    frames.insert(frames.end(), data, data + size);
    return static_cast<ssize_t>(size);
  }

  static ssize_t read_source(nghttp2_session* session, int32_t id, uint8_t*, size_t size,
                             uint32_t* flags, nghttp2_data_source* source, void* user) {
    if (conn(user).abandoned_) return NGHTTP2_ERR_CALLBACK_FAILURE;
    auto& s = *static_cast<Stream*>(source->ptr);
    size_t waiting = s.ahead().size();
    size_t n = std::min(size, waiting);
    if (n == 0 && !s.out_ended) {
      s.deferred = true;
      return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (s.out_ended && n == waiting) {
      *flags |= NGHTTP2_DATA_FLAG_EOF;
      if (HeadPtr trailers = std::move(s.out_trailers); trailers != nullptr) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        auto list = trailer_list(*trailers);
        nghttp2_submit_trailer(session, id, list.data(), list.size());
      }
      s.end_sent = true;
    }
    return static_cast<ssize_t>(n);
  }

  static int send_data(nghttp2_session*, nghttp2_frame*, const uint8_t* header, size_t size,
                       nghttp2_data_source* source, void* user) {
    if (conn(user).abandoned_) return NGHTTP2_ERR_CALLBACK_FAILURE;
    std::vector<uint8_t>& frames = out_frames().bytes;
    if (frames.size() >= kBatchBytes) return NGHTTP2_ERR_WOULDBLOCK;
    auto& s = *static_cast<Stream*>(source->ptr);
    // The frame was planned when the batch was full, and the user has dropped the stream since.
    if (s.ahead().size() < size) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    frames.insert(frames.end(), header, header + 9);
    if (size > 0) {
      auto data = s.ahead().first(size);
      frames.insert(frames.end(), data.begin(), data.end());
      s.consume(size);
    }
    Conn& c = conn(user);
    s.waits_since = c.loop_.now();
    c.updates_.give(c.limits_.updates_per_data);
    if (s.blocked && s.out.size() <= c.limits_.high_water / 2) c.note(s);
    return 0;
  }

  static int begin_frame(nghttp2_session* session, const nghttp2_frame_hd* head, void* user) {
    Conn& c = conn(user);
    if (!c.server_ || head->type != NGHTTP2_HEADERS || head->stream_id % 2 == 0) return 0;
    if (nghttp2_session_find_stream(session, head->stream_id) != nullptr) return 0;
    if (!c.closed_.begin(head->stream_id)) c.judge_closed(head->stream_id);
    return 0;
  }

  static int begin_headers(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    Conn& c = conn(user);
    Stream* s = stream(session, frame->hd.stream_id);
    if (c.server_ && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
      s = Stream::take(&c);
      s->id = frame->hd.stream_id;
      c.closed_.opened(s->id);
      s->open = true;
      s->released = true;  // until a user gets it
      nghttp2_session_set_stream_user_data(session, s->id, s);
    }
    if (s == nullptr) return 0;
    s->head = take_head();
    s->head->version = HttpVersion::kHttp2;
    s->header_bytes = s->header_fields = 0;
    s->host = {};
    return 0;
  }

  static int header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                    size_t name_size, const uint8_t* value, size_t value_size, uint8_t,
                    void* user) {
    Conn& c = conn(user);
    Stream* s = stream(session, frame->hd.stream_id);
    if (s == nullptr || s->head == nullptr) return 0;
    s->header_bytes += name_size + value_size + 32;
    ++s->header_fields;
    if (s->header_bytes > 4 * c.limits_.max_header_bytes) {
      c.calm("the header fields are far too large");
      return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (s->header_bytes > c.limits_.max_header_bytes || s->header_fields > c.limits_.max_fields) {
      s->too_large = true;
      return 0;
    }
    read_field(s->head.get(), &s->host, text(name, name_size), text(value, value_size));
    return 0;
  }

  static int headers_received(Conn& c, Stream& s, bool end) {
    if (end) s.in_end = true;
    if (!s.in_final) {
      c.head_done(s, end);
    } else if (end && !s.too_large && !s.released) {
      s.in_trailers = std::move(s.head);
      c.deliver_trailers(s);
    } else if (!s.released) {
      nghttp2_submit_rst_stream(c.session_, NGHTTP2_FLAG_NONE, s.id, NGHTTP2_ENHANCE_YOUR_CALM);
    }
    return c.abandoned_ ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
  }

  static int frame_received(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    Conn& c = conn(user);
    bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    bool ack = (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0;
    Stream* s = nullptr;
    switch (frame->hd.type) {
      case NGHTTP2_DATA:
        s = stream(session, frame->hd.stream_id);
        if (frame->hd.length <= frame->data.padlen && !end) c.control_frame();
        if (s != nullptr && end) s->in_end = true;
        if (s != nullptr && end && c.pending_ == nullptr)
          c.deliver(*s, {}, true);
        else
          c.flush_pending(end);
        return result(user);
      case NGHTTP2_HEADERS:
        c.flush_pending(false);
        if (c.abandoned_) return NGHTTP2_ERR_CALLBACK_FAILURE;
        s = stream(session, frame->hd.stream_id);
        return s == nullptr ? 0 : headers_received(c, *s, end);
      case NGHTTP2_RST_STREAM:
        // A server that refuses or breaks off what we asked for does us no harm.
        if (!c.server_) break;
        c.closed_.reset(frame->hd.stream_id, true);
        c.glitch();
        break;
      case NGHTTP2_SETTINGS:
        if (!ack) {
          c.settings_received_ = true;
          c.available_ = true;
          c.on_settings();
        }
        break;
      case NGHTTP2_PING:
        if (ack) c.on_ping_ack();
        break;
      case NGHTTP2_GOAWAY:
        c.goaway_received_ = true;
        c.goaway_code_ = frame->goaway.error_code;
        c.flush_later();
        break;
      default: break;
    }
    return result(user);
  }

  static int invalid_frame(nghttp2_session*, const nghttp2_frame*, int error, void* user) {
    Conn& c = conn(user);
    c.tell_bad(nghttp2_strerror(error));
    if (!c.abandoned_) c.control_frame();
    return result(user);
  }

  static int data_received(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data,
                           size_t size, void* user) {
    Conn& c = conn(user);
    c.flush_pending(false);
    if (c.abandoned_) return NGHTTP2_ERR_CALLBACK_FAILURE;
    Stream* s = stream(session, id);
    if (s == nullptr) {
      nghttp2_session_consume(session, id, size);
      return 0;
    }
    c.pending_ = s;
    c.pending_data_ = {data, size};
    return 0;
  }

  static int stream_closed(nghttp2_session* session, int32_t id, uint32_t code, void* user) {
    Conn& c = conn(user);
    Stream* s = stream(session, id);
    if (c.server_ && (s == nullptr || !s->in_end)) c.closed_.reset(id, false);
    if (s != nullptr) c.stream_closed(*s, code);
    return result(user);
  }

  static int frame_sent(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    Conn& c = conn(user);
    if (frame->hd.type == NGHTTP2_RST_STREAM && c.server_) {
      uint32_t code = frame->rst_stream.error_code;
      if (code != NGHTTP2_NO_ERROR && code != NGHTTP2_CANCEL && code != NGHTTP2_REFUSED_STREAM)
        c.glitch();  // the peer made us reset it
      return result(user);
    }
    // Of nghttp2's own: the peer broke the protocol. An earlier goodbye of the peer's counts no more.
    if (frame->hd.type == NGHTTP2_GOAWAY && c.goaway_code_ == 0)
      c.goaway_code_ = frame->goaway.error_code;
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0 || !c.server_) return 0;
    Stream* s = stream(session, frame->hd.stream_id);
    if (s == nullptr || s->in_end) return 0;
    // Submitted with the answer, the reset would overtake it.
    if (s->reset_after_end)
      nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR);
    s->reset_after_end = true;  // from now on release() does it
    return 0;
  }

  // A request that never left: cancelled while it waited, or refused by a GOAWAY.
  static int frame_not_sent(nghttp2_session* session, const nghttp2_frame* frame, int, void* user) {
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    Conn& c = conn(user);
    for (Stream* s = c.first_; s != nullptr; s = s->next) {
      if (s->id != frame->hd.stream_id) continue;
      // nghttp2 may have made the stream, and then says that it closes.
      if (nghttp2_session_find_stream(session, s->id) == nullptr)
        c.stream_closed(*s, NGHTTP2_REFUSED_STREAM);
      break;
    }
    return result(user);
  }

  static nghttp2_session_callbacks* make() {
    nghttp2_session_callbacks* cb = nullptr;
    EM_CHECK(nghttp2_session_callbacks_new(&cb) == 0);
    nghttp2_session_callbacks_set_send_callback(cb, send);
    nghttp2_session_callbacks_set_send_data_callback(cb, send_data);
    nghttp2_session_callbacks_set_on_begin_frame_callback(cb, begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, frame_received);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, data_received);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, stream_closed);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, frame_sent);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, frame_not_sent);
    return cb;
  }
};

nghttp2_data_provider data_provider(Stream& s) {
  nghttp2_data_provider provider{};
  provider.source.ptr = &s;
  provider.read_callback = Callbacks::read_source;
  return provider;
}

nghttp2_session* make_session(Conn* conn, SessionMemory& memory, const H2Limits& limits,
                              bool server) {
  static nghttp2_session_callbacks* const callbacks = Callbacks::make();
  nghttp2_option* option = nullptr;
  EM_CHECK(nghttp2_option_new(&option) == 0);
  nghttp2_option_set_no_auto_window_update(option, 1);
  nghttp2_option_set_no_closed_streams(option, 1);
  nghttp2_option_set_max_outbound_ack(option, 1000);
  nghttp2_option_set_max_reserved_remote_streams(option, 0);
  nghttp2_option_set_max_deflate_dynamic_table_size(option, limits.header_table);
  // Behind the limit that is kept in Conn::glitch(), which gives the right code.
  nghttp2_option_set_stream_reset_rate_limit(option, 10ULL * limits.reset_burst,
                                             10ULL * limits.reset_per_second);
  nghttp2_session* session = nullptr;
  auto* make = server ? nghttp2_session_server_new3 : nghttp2_session_client_new3;
  int rc = make(&session, callbacks, conn, option, memory.functions());
  memory.session_made();
  nghttp2_option_del(option);
  EM_CHECK(rc == 0);
  nghttp2_settings_entry entries[] = {
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, limits.stream_window},
      {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, limits.header_table},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<uint32_t>(limits.max_header_bytes)},
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, server ? limits.max_streams : 0},
      {server ? NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL : NGHTTP2_SETTINGS_ENABLE_PUSH,
       server ? 1U : 0U},
  };
  nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, entries, std::size(entries));
  nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0,
                                        static_cast<int32_t>(limits.connection_window));
  return session;
}

}  // namespace edgemesh::proxy::h2
