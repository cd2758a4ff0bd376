#include "core/grpc/connection.h"

#include <nghttp2/nghttp2.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "core/base/net_addr.h"
#include "core/http/message.h"
#include "core/io/tcp.h"

namespace edgemesh::grpc {

namespace {

constexpr size_t kFrameHead = 5;  // compressed flag, length (32 bits, network order)
constexpr uint32_t kStreamWindow = 1 << 20;
constexpr int32_t kConnectionWindow = 4 << 20;
constexpr size_t kOutLimit = 256 << 10;  // bytes that wait for the socket

std::string_view text(const uint8_t* data, size_t size) {
  return io::as_text({data, size});
}

int number_of(std::string_view digits) {
  int value = -1;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return error == std::errc() && end == digits.data() + digits.size() ? value : -1;
}

Result<io::Fd> connect_unix(std::string_view path) {
  sockaddr_un addr{};
  addr.sun_family = AF_UNIX;
  if (path.size() >= sizeof(addr.sun_path))
    return fail(ErrorCode::kInvalidArgument, "the path of the socket is too long: {}", path);
  std::copy(path.begin(), path.end(), addr.sun_path);
  io::Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail_errno("socket", errno);
  // At once or not at all: EAGAIN is a server whose backlog is full.
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&addr), sizeof(addr)) != 0)  // NOLINT
    return fail_errno("connect", errno);
  return fd;
}

Result<std::unique_ptr<io::Stream>> connect_to(io::Loop& loop, const ChannelOptions& options) {
  std::string_view target = options.target;
  if (target.starts_with("unix://")) target.remove_prefix(7);
  if (target.starts_with("/")) {
    EM_TRY(io::Fd fd, connect_unix(target));
    EM_TRY(auto stream, io::TcpStream::adopt(loop, std::move(fd), true));
    return std::unique_ptr<io::Stream>(std::move(stream));
  }
  EM_TRY(SockAddr to, SockAddr::parse(target));
  io::ConnectOptions how;
  how.timeout = options.connect_timeout;
  EM_TRY(auto stream, io::TcpStream::connect(loop, to, how));
  return std::unique_ptr<io::Stream>(std::move(stream));
}

// "grpc-timeout": at most eight digits and a unit.
std::string timeout_text(Duration left) {
  int64_t ms = std::chrono::duration_cast<std::chrono::milliseconds>(left).count();
  ms = std::max<int64_t>(ms, 1);
  return ms < 100'000'000 ? fmt::format("{}m", ms)
                          : fmt::format("{}S", std::min<int64_t>(ms / 1000, 99'999'999));
}

nghttp2_nv field(std::string_view name, std::string_view value) {
  auto bytes = [](std::string_view s) {
    return reinterpret_cast<uint8_t*>(const_cast<char*>(s.data()));  // NOLINT: nghttp2 copies
  };
  return {bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

}  // namespace

void CallState::take(std::string_view data, size_t max_message) {
  in.append(data);
  size_t at = 0;
  while (problem.empty() && in.size() - at >= kFrameHead) {
    size_t size = 0;
    for (size_t i = 1; i < kFrameHead; ++i) size = size << 8 | static_cast<uint8_t>(in[at + i]);
    if (in[at] != 0) {
      problem = "the answer is compressed, which was not asked for";
    } else if (size > max_message) {
      problem = fmt::format("the answer is larger than {} bytes", max_message);
      problem_code = ErrorCode::kResourceExhausted;
    } else if (!stream && got_message) {
      problem = "more than one message in answer to one request";
    } else if (in.size() - at < kFrameHead + size) {
      break;
    } else {
      messages.push_back(in.substr(at + kFrameHead, size));
      got_message = true;
      at += kFrameHead + size;
    }
  }
  in.erase(0, at);
}

struct Callbacks {
  static Connection& self(void* user) { return *static_cast<Connection*>(user); }
  static CallPtr find(void* user, int32_t id) {
    auto it = self(user).calls_.find(id);
    return it == self(user).calls_.end() ? nullptr : it->second;
  }
  static ssize_t send(nghttp2_session*, const uint8_t* data, size_t size, int, void* user) {
    if (self(user).out_.size() >= kOutLimit) return NGHTTP2_ERR_WOULDBLOCK;
    self(user).out_.append(text(data, size));
    return static_cast<ssize_t>(size);
  }
  static ssize_t read_request(nghttp2_session*, int32_t, uint8_t* into, size_t size,
                              uint32_t* flags, nghttp2_data_source* source, void*) {
    auto& call = *static_cast<CallState*>(source->ptr);
    size_t n = std::min(size, call.out.size() - call.out_at);
    std::memcpy(into, call.out.data() + call.out_at, n);
    call.out_at += n;
    if (call.out_at == call.out.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(n);
  }
  static int header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name,
                    size_t name_size, const uint8_t* value, size_t value_size, uint8_t,
                    void* user) {
    CallPtr call = find(user, frame->hd.stream_id);
    if (!call || call->ended) return 0;
    call->header_bytes += name_size + value_size + 32;  // as RFC 9113 10.5.1 counts
    if (call->header_bytes > self(user).options_.max_header_bytes) {
      call->problem = "the answer's headers are too long";
      call->problem_code = ErrorCode::kResourceExhausted;
      return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // ends this stream alone
    }
    std::string_view key = text(name, name_size);
    std::string_view content = text(value, value_size);
    if (key == ":status") call->http_status = number_of(content);
    if (key == "grpc-status") call->grpc_status = number_of(content);
    // What is badly encoded is shown as it came: better than nothing.
    if (key == "grpc-message")
      call->grpc_message = http::percent_decode(content).value_or(std::string(content));
    return 0;
  }
  static int data(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* bytes, size_t size,
                  void* user) {
    CallPtr call = find(user, id);
    if (!call || call->ended || !call->problem.empty()) return 0;
    call->take(text(bytes, size), self(user).options_.max_message);
    if (!call->problem.empty()) {
      self(user).conclude(call, NGHTTP2_NO_ERROR);
      nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
    } else if (call->stream && !call->messages.empty() && self(user).owner_ != nullptr) {
      self(user).owner_->on_messages(call);
    }
    return 0;
  }
  static int frame_received(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    if (frame->hd.type == NGHTTP2_GOAWAY) self(user).going_away_ = true;
    bool last = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 &&
                (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA);
    if (!last) return 0;
    CallPtr call = find(user, frame->hd.stream_id);
    if (!call) return 0;
    self(user).conclude(call, NGHTTP2_NO_ERROR);
    // The answer is there: nobody reads the rest of the request.
    if (call->out_at < call->out.size())
      nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, call->id, NGHTTP2_CANCEL);
    return 0;
  }
  static int frame_not_sent(nghttp2_session*, const nghttp2_frame* frame, int, void* user) {
    if (frame->hd.type != NGHTTP2_HEADERS) return 0;
    if (CallPtr call = find(user, frame->hd.stream_id)) {
      self(user).conclude(call, NGHTTP2_REFUSED_STREAM);
      self(user).calls_.erase(frame->hd.stream_id);
    }
    return 0;
  }
  static int stream_closed(nghttp2_session*, int32_t id, uint32_t code, void* user) {
    if (CallPtr call = find(user, id)) {
      self(user).conclude(call, code);
      self(user).calls_.erase(id);
    }
    return 0;
  }
  static nghttp2_session_callbacks* make() {
    nghttp2_session_callbacks* made = nullptr;
    EM_CHECK(nghttp2_session_callbacks_new(&made) == 0);
    nghttp2_session_callbacks_set_send_callback(made, send);
    nghttp2_session_callbacks_set_on_header_callback(made, header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(made, frame_received);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(made, frame_not_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(made, stream_closed);
    return made;
  }
};

Connection::Connection(io::Loop& loop, const ChannelOptions& options, Owner* owner)
    : loop_(loop), options_(options), owner_(owner) {}

Connection::~Connection() {
  nghttp2_session_del(session_);
}

Result<std::shared_ptr<Connection>> Connection::open(io::Loop& loop, const ChannelOptions& options,
                                                     Owner* owner) {
  auto made = std::make_shared<Connection>(loop, options, owner);
  EM_TRY(made->below_, connect_to(loop, options));
  made->below_->set_handler(made.get());
  made->start_session();
  return made;
}

void Connection::start_session() {
  static nghttp2_session_callbacks* const callbacks = Callbacks::make();
  EM_CHECK(nghttp2_session_client_new(&session_, callbacks, this) == 0);
  nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kStreamWindow},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<uint32_t>(options_.max_header_bytes)},
      {NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
  EM_CHECK(nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings)) ==
           0);
  EM_CHECK(nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0,
                                                 kConnectionWindow) == 0);
}

Result<> Connection::submit(const CallPtr& call) {
  std::string timeout;
  std::array<nghttp2_nv, 8> fields = {
      field(":method", "POST"),       field(":scheme", "http"),
      field(":path", call->method),   field(":authority", options_.authority),
      field("te", "trailers"),        field("content-type", "application/grpc"),
      field("user-agent", "edgemesh")};
  size_t count = 7;
  if (call->deadline != TimePoint{}) {
    timeout = timeout_text(call->deadline - loop_.now());
    fields[count++] = field("grpc-timeout", timeout);
  }
  nghttp2_data_provider data{};
  data.source.ptr = call.get();
  data.read_callback = Callbacks::read_request;
  int32_t id = nghttp2_submit_request(session_, nullptr, fields.data(), count, &data, nullptr);
  if (id < 0) {
    going_away_ = true;  // out of stream ids: the next call gets a new connection
    return fail(ErrorCode::kUnavailable, "no stream: {}", nghttp2_strerror(id));
  }
  call->id = id;
  call->connection = weak_from_this();
  calls_.emplace(id, call);
  schedule_flush();
  return {};
}

// The stream's answer is complete, or its stream closed with `code`.
void Connection::conclude(const CallPtr& call, uint32_t code) {
  if (call->ended) return;
  if (!call->problem.empty()) {
    finish(call, fail(call->problem_code, "{}", call->problem));
  } else if (call->grpc_status > 0) {
    finish(call, fail(error_of_status(call->grpc_status, call->grpc_message)));
  } else if (code == NGHTTP2_REFUSED_STREAM && call->http_status == 0) {
    if (owner_ != nullptr) owner_->on_refused(call);
  } else if (code != NGHTTP2_NO_ERROR && call->grpc_status < 0) {
    finish(call,
           fail(ErrorCode::kUnavailable, "the call was reset: {}", nghttp2_http2_strerror(code)));
  } else if (call->grpc_status < 0) {
    finish(call, fail(call->http_status == 200 ? ErrorCode::kProtocol : ErrorCode::kUnavailable,
                      "HTTP {} without a gRPC status", call->http_status));
  } else if (!call->in.empty() || (!call->stream && !call->got_message)) {
    finish(call, fail(ErrorCode::kProtocol, "the answer ended without a whole message"));
  } else {
    finish(call, {});
  }
}

void Connection::finish(const CallPtr& call, Result<> result) {
  if (call->ended) return;
  call->ended = true;
  call->result = std::move(result);
  call->in.clear();
  if (owner_ != nullptr) owner_->on_ended(call);
}

void Connection::give_up(const CallPtr& call, ErrorCode code, std::string_view why) {
  if (call->ended) return;
  finish(call, fail(code, "{}", why));
  if (session_ == nullptr || !calls_.contains(call->id)) return;
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, call->id, NGHTTP2_CANCEL);
  schedule_flush();
}

void Connection::schedule_flush() {
  if (std::exchange(flush_scheduled_, true)) return;
  loop_.defer([weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    self->flush_scheduled_ = false;
    self->flush();
  });
}

void Connection::flush() {
  while (below_) {
    if (out_.empty()) {
      int rc = nghttp2_session_send(session_);
      if (rc != 0) return broken(Error{ErrorCode::kProtocol, nghttp2_strerror(rc), 0});
      if (out_.empty()) break;
    }
    io::IoResult wrote = below_->write(io::as_bytes(out_));
    if (wrote.status != io::IoResult::kOk) return;  // on_writable or on_error follows
    out_.erase(0, wrote.n);
  }
  if (!below_) return;
  // After a GOAWAY: the server's, and the last call has ended; or nghttp2's for what the server
  // did.
  if (nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0)
    return broken(
        Error{ErrorCode::kProtocol, "the connection has ended by the rules of HTTP/2", 0});
}

void Connection::on_readable() {
  auto self = shared_from_this();
  while (below_) {
    io::IoResult got = below_->read({loop_.scratch(), io::Loop::kScratchBytes});
    if (got.status == io::IoResult::kWouldBlock || got.status == io::IoResult::kError) break;
    if (got.status == io::IoResult::kEof)
      return broken(Error{ErrorCode::kUnavailable, "the server closed the connection", 0});
    ssize_t n = nghttp2_session_mem_recv(session_, loop_.scratch(), got.n);
    if (n < 0) return broken(Error{ErrorCode::kProtocol, nghttp2_strerror(static_cast<int>(n)), 0});
  }
  if (below_) schedule_flush();
}

void Connection::on_error(const Error& error) {
  auto self = shared_from_this();
  broken(error);
}

// Never called from within nghttp2.
void Connection::broken(const Error& error) {
  auto calls = std::exchange(calls_, {});
  for (auto& [id, call] : calls) finish(call, fail(ErrorCode::kUnavailable, "{}", error.message));
  detach();
}

void Connection::detach() {
  owner_ = nullptr;
  calls_.clear();
  nghttp2_session_del(std::exchange(session_, nullptr));
  out_.clear();
  if (!below_) return;
  below_->set_handler(nullptr);
  // This may be one of its callbacks.
  loop_.defer([below = std::shared_ptr<io::Stream>(std::move(below_))] {});
}

}  // namespace edgemesh::grpc
