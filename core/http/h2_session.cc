// The session: life cycle, output, callbacks to the users. Events from nghttp2 are in h2_events.cc.
#include <algorithm>
#include <cctype>

#include "core/http/h2_core.h"
#include "core/io/lingering_close.h"

namespace edgemesh::http {

using io::IoResult;

namespace {

class H2SessionImpl final : public H2Session {
 public:
  explicit H2SessionImpl(std::shared_ptr<H2Core> core) : core_(std::move(core)) {}
  ~H2SessionImpl() override { core_->abandon(); }
  Result<std::unique_ptr<io::Stream>> open_connect(std::string_view authority,
                                                   const Headers& extra,
                                                   const ExtendedConnect* extended) override {
    EM_TRY(auto state, core_->open(authority, extra, extended));
    return std::unique_ptr<io::Stream>(std::make_unique<H2StreamImpl>(std::move(state)));
  }
  void ping(UniqueFunction<void(Result<Duration>)> done) override { core_->ping(std::move(done)); }
  void goaway() override { core_->goaway(); }
  bool accepts_streams() const override { return core_->accepts_streams(); }
  size_t active_streams() const override { return core_->active_streams(); }
  uint64_t bytes_in() const override { return core_->bytes_in(); }
  uint64_t bytes_out() const override { return core_->bytes_out(); }
  io::Stream& below() override { return core_->below(); }

 private:
  std::shared_ptr<H2Core> core_;
};

Result<std::unique_ptr<H2Session>> make(io::Loop& loop, std::unique_ptr<io::Stream> below,
                                        H2Session::Handler* handler, const H2Options& options,
                                        bool server) {
  auto core = std::make_shared<H2Core>(loop, std::move(below), handler, options, server);
  EM_TRY_VOID(core->init());
  return std::unique_ptr<H2Session>(std::make_unique<H2SessionImpl>(std::move(core)));
}

}  // namespace

Result<std::unique_ptr<H2Session>> H2Session::client(io::Loop& loop,
                                                     std::unique_ptr<io::Stream> below,
                                                     Handler* handler, const H2Options& options) {
  return make(loop, std::move(below), handler, options, false);
}

Result<std::unique_ptr<H2Session>> H2Session::server(io::Loop& loop,
                                                     std::unique_ptr<io::Stream> below,
                                                     Handler* handler, const H2Options& options) {
  return make(loop, std::move(below), handler, options, true);
}

H2Core::H2Core(io::Loop& loop, std::unique_ptr<io::Stream> below, H2Session::Handler* handler,
               const H2Options& options, bool server)
    : loop_(loop),
      below_(std::move(below)),
      handler_(handler),
      options_(options),
      server_(server),
      budget_(options_.send_budget, *options_.send_pool),
      drain_timer_(loop, [this] {
        finish(Error{ErrorCode::kCancelled, "streams were still open when draining ended", 0},
               false);
      }) {}

H2Core::~H2Core() {
  for (auto& [id, state] : states_) state->core = nullptr;
  for (H2State* state : closed_held_) state->core = nullptr;
  nghttp2_session_del(session_);
}

void H2Core::abandon() {
  handler_ = nullptr;
  finish(Error{ErrorCode::kCancelled, "the connection was closed here", 0}, false);
  // Its frames may be on the stack.
  loop_.defer([self = shared_from_this()] {});
}

Result<> H2Core::submit_settings() {
  std::vector<nghttp2_settings_entry> entries = {
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options_.stream_window},
      {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, options_.max_frame},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<uint32_t>(options_.max_header_bytes)},
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, server_ ? options_.max_concurrent_streams : 0},
  };
  if (server_)
    entries.push_back({NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1});
  else
    entries.push_back({NGHTTP2_SETTINGS_ENABLE_PUSH, 0});
  int rc = nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, entries.data(), entries.size());
  if (rc == 0)
    rc = nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0,
                                               static_cast<int32_t>(options_.connection_window));
  if (rc != 0)
    return fail(ErrorCode::kInvalidArgument, "HTTP/2 settings: {}", nghttp2_strerror(rc));
  return {};
}

void H2Core::schedule() {
  if (scheduled_ || finished_) return;
  scheduled_ = true;
  loop_.defer([weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    self->scheduled_ = false;
    self->flush();
    self->dispatch();
  });
}

bool H2Core::write_out() {
  while (out_at_ < out_.size()) {
    IoResult r = below_->write({out_.data() + out_at_, out_.size() - out_at_});
    if (r.status != IoResult::kOk) return false;
    out_at_ += r.n;
  }
  out_at_ = 0;
  std::vector<uint8_t>().swap(out_);
  return true;
}

void H2Core::flush() {
  if (finished_) return;
  while (write_out() && nghttp2_session_want_write(session_) != 0) {
    std::vector<uint8_t>& batch = h2_out_batch();
    batch.clear();
    int rc = nghttp2_session_send(session_);
    if (rc != 0)
      return finish(Error{ErrorCode::kProtocol, fmt::format("HTTP/2: {}", nghttp2_strerror(rc)), 0},
                    false);
    if (batch.empty()) break;
    IoResult r = below_->write(batch);
    if (r.status == IoResult::kError) return;  // its on_error follows
    if (r.n < batch.size()) {
      out_.assign(batch.begin() + static_cast<ptrdiff_t>(r.n), batch.end());
      break;
    }
  }
  check_end();
}

void H2Core::check_end() {
  if (finished_ || !out_.empty()) return;
  if (nghttp2_session_want_read(session_) != 0 || nghttp2_session_want_write(session_) != 0) return;
  bool drained = goaway_code_ == NGHTTP2_NO_ERROR && (goaway_sent_ || goaway_received_);
  finish(drained ? Error{ErrorCode::kCancelled, "the connection was drained", 0}
                 : Error{ErrorCode::kProtocol,
                         fmt::format("HTTP/2: the connection ended: {}",
                                     nghttp2_http2_strerror(goaway_code_)),
                         0},
         true);
}

void H2Core::on_writable() {
  auto self = shared_from_this();
  flush();
  dispatch();
}

void H2Core::on_readable() {
  auto self = shared_from_this();
  while (!finished_) {
    IoResult r = below_->read({loop_.scratch(), io::Loop::kScratchBytes});
    if (r.status == IoResult::kWouldBlock || r.status == IoResult::kError) break;
    if (r.status == IoResult::kEof) {
      bool idle = states_.empty() && (goaway_received_ || goaway_sent_);
      finish(idle ? Error{ErrorCode::kCancelled, "the connection was drained", 0}
                  : Error{ErrorCode::kConnectionReset, "the peer closed the HTTP/2 connection", 0},
             true);
      break;
    }
    ssize_t n = nghttp2_session_mem_recv(session_, loop_.scratch(), r.n);
    if (n < 0) {
      auto code = static_cast<int>(n);
      nghttp2_session_terminate_session(session_, code == NGHTTP2_ERR_FLOODED
                                                      ? NGHTTP2_ENHANCE_YOUR_CALM
                                                      : NGHTTP2_PROTOCOL_ERROR);
      flush();
      finish(Error{ErrorCode::kProtocol, fmt::format("HTTP/2: {}", nghttp2_strerror(code)), 0},
             true);
      break;
    }
    dispatch();
  }
  if (!finished_) schedule();
}

void H2Core::on_error(const Error& error) {
  auto self = shared_from_this();
  finish(error, false);
}

void H2Core::note(H2State& state) {
  if (state.queued || !state.has_user) return;
  auto it = states_.find(state.id);
  if (it == states_.end() || it->second.get() != &state) return;
  state.queued = true;
  ready_.push_back(it->second);
}

void H2Core::wake(const std::shared_ptr<H2State>& state) {
  if (!state->queued) {
    state->queued = true;
    ready_.push_back(state);
  }
  schedule();
}

void H2Core::dispatch() {
  if (dispatching_) return;
  auto self = shared_from_this();
  dispatching_ = true;
  while (!ready_.empty() || !requests_.empty() || tell_goaway_) {
    auto ready = std::move(ready_);
    ready_.clear();
    auto requests = std::move(requests_);
    requests_.clear();
    for (auto& state : requests) {
      auto connect = std::make_unique<H2ConnectImpl>(state);
      if (handler_ != nullptr && !finished_) handler_->on_connect(std::move(connect));
    }
    for (auto& state : ready) dispatch_one(state);
    if (std::exchange(tell_goaway_, false) && handler_ != nullptr) handler_->on_goaway();
  }
  dispatching_ = false;
}

void H2Core::dispatch_one(const std::shared_ptr<H2State>& state) {
  H2State& s = *state;
  s.queued = false;
  if (s.handler == nullptr) return;
  if (s.failed) {
    if (std::exchange(s.tell_failed, false)) s.handler->on_error(s.error);
    return;
  }
  if (std::exchange(s.tell_connected, false)) s.handler->on_connected();
  // A callback may have dropped the stream or its handler, or failed it.
  bool readable = (s.connected || server_) && (!s.in.empty() || s.eof_received);
  if (s.handler != nullptr && !s.failed && s.want_readable && readable) {
    s.want_readable = false;
    s.handler->on_readable();
  }
  // Half of what a stream that holds nothing would get: none waits for ever.
  bool enough = room(s) >= std::min(options_.send_buffer, budget_.room(0)) / 2;
  if (s.handler != nullptr && !s.failed && s.want_writable && enough && !s.shut && !s.closed) {
    s.want_writable = false;
    s.handler->on_writable();
  }
}

size_t H2Core::room(const H2State& state) const {
  size_t held = state.out.size();
  if (held >= options_.send_buffer) return 0;
  return std::min(options_.send_buffer - held, budget_.room(held));
}

void H2Core::append_out(H2State& state, std::span<const uint8_t> data) {
  budget_.take(data.size());
  state.out.append(data);
  data_ready(state);
}

void H2Core::drop_out(H2State& state) {
  budget_.give(state.out.size());
  state.out.clear();
}

void H2Core::fail_state(H2State& state, Error error) {
  if (state.failed) return;
  state.failed = state.tell_failed = true;
  state.error = std::move(error);
  if (session_ != nullptr && !state.in.empty())
    nghttp2_session_consume_connection(session_, state.in.size());
  state.in.clear();
  drop_out(state);
  note(state);
}

// Ends everything. Streams learn it before the session's own handler.
void H2Core::finish(Error error, bool graceful) {
  if (finished_) return;
  auto self = shared_from_this();
  finished_ = true;
  drain_timer_.stop();
  auto states = std::move(states_);
  states_.clear();
  for (auto& [id, state] : states) {
    drop_out(*state);
    state->core = nullptr;
    state->closed = true;
    if (state->failed && !state->tell_failed) continue;
    state->failed = state->tell_failed = true;
    if (state->error.message.empty()) state->error = error;
    if (state->queued || !state->has_user) continue;
    state->queued = true;
    ready_.push_back(std::move(state));
  }
  for (H2State* state : closed_held_) state->core = nullptr;
  closed_held_.clear();
  requests_.clear();
  auto pings = std::move(pings_);
  pings_.clear();
  below_->set_handler(nullptr);
  loop_.defer([self, graceful, error = std::move(error), pings = std::move(pings)] {
    // The stream stays in place while callbacks run: the user may ask for its identity.
    self->dispatch();
    for (const Ping& ping : pings) ping.done(fail(error));
    if (auto* handler = std::exchange(self->handler_, nullptr); handler != nullptr)
      handler->on_close(error);
    if (graceful)
      io::lingering_close(self->loop_, std::move(self->below_));
    else
      self->below_.reset();
  });
}

Result<std::shared_ptr<H2State>> H2Core::open(std::string_view authority, const Headers& extra,
                                              const ExtendedConnect* extended) {
  if (server_) return fail(ErrorCode::kInternal, "HTTP/2: only the client side opens streams");
  if (!accepts_streams())
    return fail(ErrorCode::kUnavailable, "HTTP/2: the connection takes no new streams");
  auto view = [](std::string_view s) {
    return reinterpret_cast<uint8_t*>(const_cast<char*>(s.data()));  // NOLINT: nghttp2 copies
  };
  std::vector<nghttp2_nv> fields;
  fields.reserve(5 + extra.size());
  auto add = [&](std::string_view name, std::string_view value) {
    fields.push_back({view(name), view(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE});
  };
  add(":method", "CONNECT");
  add(":authority", authority);
  if (extended != nullptr) {
    add(":protocol", extended->protocol);
    add(":scheme", extended->scheme);
    add(":path", extended->path);
  }
  std::vector<std::string> names;  // HTTP/2 wants them in lower case
  names.reserve(extra.size());
  for (const auto& [name, value] : extra) {
    std::string& lower = names.emplace_back(name);
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    add(lower, value);
  }
  auto state = std::make_shared<H2State>();
  state->core = this;
  state->authority = authority;
  nghttp2_data_provider data = h2_data_provider(*state);
  int32_t id =
      nghttp2_submit_request(session_, nullptr, fields.data(), fields.size(), &data, state.get());
  if (id < 0) return fail(ErrorCode::kUnavailable, "HTTP/2: no stream: {}", nghttp2_strerror(id));
  state->id = id;
  states_.emplace(id, state);
  schedule();
  return state;
}

Result<> H2Core::answer(H2State& state, int status, const Headers& extra, bool with_data) {
  std::string code = std::to_string(status);
  std::vector<nghttp2_nv> fields;
  auto add = [&](std::string_view name, std::string_view value) {
    fields.push_back({reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),   // NOLINT
                      reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())),  // NOLINT
                      name.size(), value.size(), NGHTTP2_NV_FLAG_NONE});
  };
  add(":status", code);
  for (const auto& [name, value] : extra) add(name, value);
  nghttp2_data_provider data = h2_data_provider(state);
  int rc = nghttp2_submit_response(session_, state.id, fields.data(), fields.size(),
                                   with_data ? &data : nullptr);
  schedule();
  if (rc != 0) return fail(ErrorCode::kInternal, "HTTP/2 answer: {}", nghttp2_strerror(rc));
  return {};
}

void H2Core::consumed(H2State& state, size_t n) {
  if (state.closed)
    nghttp2_session_consume_connection(session_, n);
  else
    nghttp2_session_consume(session_, state.id, n);
  if (nghttp2_session_want_write(session_) != 0) schedule();
}

void H2Core::data_ready(H2State& state) {
  if (std::exchange(state.deferred, false)) nghttp2_session_resume_data(session_, state.id);
  schedule();
}

void H2Core::user_gone(const std::shared_ptr<H2State>& state, bool reset) {
  H2State& s = *state;
  if (!s.in.empty()) {
    nghttp2_session_consume_connection(session_, s.in.size());
    s.in.clear();
  }
  if (s.closed) {
    closed_held_.erase(&s);
    s.core = nullptr;
    return;
  }
  bool rejected = s.answered && !s.connected;
  bool graceful = s.eof_received && s.shut && !reset;
  if (!rejected && !graceful && !s.failed) {
    drop_out(s);
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, s.id,
                              reset ? NGHTTP2_CONNECT_ERROR : NGHTTP2_CANCEL);
  }
  schedule();
}

void H2Core::ping(UniqueFunction<void(Result<Duration>)> done) {
  constexpr size_t kMaxPings = 16;
  uint64_t id = next_ping_++;
  uint8_t opaque[8];
  for (size_t i = 0; i < 8; ++i) opaque[i] = static_cast<uint8_t>(id >> (8 * i));
  if (finished_ || pings_.size() >= kMaxPings ||
      nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, opaque) != 0) {
    loop_.defer([done = std::move(done)] {
      done(fail(ErrorCode::kUnavailable, "HTTP/2: the connection takes no ping"));
    });
    return;
  }
  pings_.push_back({id, loop_.clock().now(), std::move(done)});
  schedule();
}

void H2Core::goaway() {
  if (finished_ || goaway_sent_) return;
  goaway_sent_ = true;
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE,
                        nghttp2_session_get_last_proc_stream_id(session_), NGHTTP2_NO_ERROR,
                        nullptr, 0);
  drain_timer_.start(options_.drain_timeout);
  schedule();
}

}  // namespace edgemesh::http
