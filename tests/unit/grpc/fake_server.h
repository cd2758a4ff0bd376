// An HTTP/2 server for tests of the gRPC client: each request goes to a script of the test, which
// answers frame by frame, or breaks what it wants to break.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/io/loop.h"
#include "core/io/tcp.h"

namespace edgemesh::test {

using Fields = std::vector<std::pair<std::string, std::string>>;

inline std::string grpc_frame(std::string_view message) {
  std::string out(5, '\0');
  for (size_t i = 0; i < 4; ++i) out[4 - i] = static_cast<char>(message.size() >> (8 * i));
  return out.append(message);
}

class FakeConnection final : private io::Stream::Handler {
 public:
  struct Request {
    int32_t id = 0;
    Fields headers;
    std::string body;
    std::string header(std::string_view name) const {
      for (const auto& [key, value] : headers)
        if (key == name) return value;
      return "";
    }
  };
  using Script = std::function<void(FakeConnection&, const Request&)>;

  FakeConnection(std::unique_ptr<io::Stream> below, Script script, bool on_head)
      : below_(std::move(below)), script_(std::move(script)), on_head_(on_head) {
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_send_callback(callbacks, send_bytes);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session_server_new(&session_, callbacks, this);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(session_, 0, nullptr, 0);
    below_->set_handler(this);
    flush();
  }
  ~FakeConnection() override { nghttp2_session_del(session_); }

  // A whole answer: headers, messages, trailers.
  void answer(int32_t id, std::string_view data, Fields trailers = {{"grpc-status", "0"}}) {
    auto& reply = replies_[id];
    reply.data.assign(data);
    reply.trailers = std::move(trailers);
    reply.end = true;
    submit(id, {{":status", "200"}, {"content-type", "application/grpc"}});
  }
  // Headers and data; the stream stays open.
  void begin(int32_t id, std::string_view data) {
    replies_[id].data.assign(data);
    submit(id, {{":status", "200"}, {"content-type", "application/grpc"}});
  }
  void more(int32_t id, std::string_view data) {
    replies_[id].data.append(data);
    nghttp2_session_resume_data(session_, id);
    flush();
  }
  void finish(int32_t id, Fields trailers) {
    replies_[id].trailers = std::move(trailers);
    replies_[id].end = true;
    nghttp2_session_resume_data(session_, id);
    flush();
  }
  void headers_only(int32_t id, const Fields& fields) {
    auto list = vector_of(fields);
    nghttp2_submit_response(session_, id, list.data(), list.size(), nullptr);
    flush();
  }
  void reset(int32_t id, uint32_t code) {
    nghttp2_submit_rst_stream(session_, 0, id, code);
    flush();
  }
  void goaway(int32_t last_id) {
    nghttp2_submit_goaway(session_, 0, last_id, NGHTTP2_NO_ERROR, nullptr, 0);
    flush();
  }
  void send_raw(std::string_view bytes) { (void)below_->write(io::as_bytes(bytes)); }
  void cut() {
    if (below_) below_->set_handler(nullptr);
    below_.reset();
  }

  std::vector<Request> seen;
  std::map<int32_t, uint32_t> closed;  // stream: code
  bool gone = false;                   // the client closed

 private:
  struct Reply {
    std::string data;
    size_t at = 0;
    Fields trailers;
    bool end = false;
  };
  static FakeConnection& self(void* user) { return *static_cast<FakeConnection*>(user); }
  static std::vector<nghttp2_nv> vector_of(const Fields& fields) {
    std::vector<nghttp2_nv> out;
    for (const auto& [name, value] : fields) {
      auto bytes = [](const std::string& s) {
        return reinterpret_cast<uint8_t*>(const_cast<char*>(s.data()));  // NOLINT
      };
      out.push_back({bytes(name), bytes(value), name.size(), value.size(), 0});
    }
    return out;
  }
  void submit(int32_t id, const Fields& fields) {
    nghttp2_data_provider data{};
    data.read_callback = read_reply;
    auto list = vector_of(fields);
    nghttp2_submit_response(session_, id, list.data(), list.size(), &data);
    flush();
  }
  static ssize_t read_reply(nghttp2_session* session, int32_t id, uint8_t* into, size_t size,
                            uint32_t* flags, nghttp2_data_source*, void* user) {
    Reply& reply = self(user).replies_[id];
    size_t n = std::min(size, reply.data.size() - reply.at);
    std::memcpy(into, reply.data.data() + reply.at, n);
    reply.at += n;
    if (reply.at == reply.data.size()) {
      if (!reply.end) {
        if (n == 0) return NGHTTP2_ERR_DEFERRED;
        return static_cast<ssize_t>(n);
      }
      *flags |= NGHTTP2_DATA_FLAG_EOF;
      if (!reply.trailers.empty()) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        auto list = vector_of(reply.trailers);
        nghttp2_submit_trailer(session, id, list.data(), list.size());
      }
    }
    return static_cast<ssize_t>(n);
  }
  static ssize_t send_bytes(nghttp2_session*, const uint8_t* data, size_t size, int, void* user) {
    self(user).out_.append(io::as_text({data, size}));
    return static_cast<ssize_t>(size);
  }
  static int on_header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name,
                       size_t name_size, const uint8_t* value, size_t value_size, uint8_t,
                       void* user) {
    self(user).open_[frame->hd.stream_id].headers.emplace_back(io::as_text({name, name_size}),
                                                               io::as_text({value, value_size}));
    return 0;
  }
  static int on_data(nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t size,
                     void* user) {
    self(user).open_[id].body.append(io::as_text({data, size}));
    return 0;
  }
  static int on_frame(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    bool head = frame->hd.type == NGHTTP2_HEADERS;
    bool whole = end && (head || frame->hd.type == NGHTTP2_DATA);
    if (self(user).on_head_ ? head : whole) {
      Request request = self(user).open_[frame->hd.stream_id];
      request.id = frame->hd.stream_id;
      self(user).waiting_.push_back(request);
    }
    return 0;
  }
  static int on_close(nghttp2_session*, int32_t id, uint32_t code, void* user) {
    self(user).closed[id] = code;
    return 0;
  }
  void flush() {
    if (!below_ || nghttp2_session_send(session_) != 0) return;
    while (below_ && !out_.empty()) {
      io::IoResult wrote = below_->write(io::as_bytes(out_));
      if (wrote.status != io::IoResult::kOk) return;
      out_.erase(0, wrote.n);
    }
  }
  void on_readable() override {
    std::vector<uint8_t> buffer(64 * 1024);
    while (below_) {
      io::IoResult got = below_->read(buffer);
      if (got.status == io::IoResult::kWouldBlock) break;
      if (got.status != io::IoResult::kOk) {
        gone = true;
        return;
      }
      (void)nghttp2_session_mem_recv(session_, buffer.data(), got.n);
      for (const Request& request : std::exchange(waiting_, {})) {
        seen.push_back(request);
        if (script_) script_(*this, request);
      }
    }
    flush();
  }
  void on_writable() override { flush(); }
  void on_error(const Error&) override { gone = true; }

  std::unique_ptr<io::Stream> below_;
  Script script_;
  bool on_head_;
  nghttp2_session* session_ = nullptr;
  std::string out_;
  std::map<int32_t, Request> open_;
  std::vector<Request> waiting_;
  std::map<int32_t, Reply> replies_;
};

// Listens on 127.0.0.1; connections live until the end of the test.
class FakeServer {
 public:
  explicit FakeServer(io::Loop& loop, FakeConnection::Script script_in = {})
      : script(std::move(script_in)), loop_(loop) {
    listener_ =
        io::TcpListener::listen(loop, SockAddr{IpAddr::loopback(), 0},
                                [this](io::Fd fd, const SockAddr&) { serve(std::move(fd)); })
            .value();
  }
  void serve(io::Fd fd) {
    auto stream = io::TcpStream::adopt(loop_, std::move(fd)).value();
    connections.push_back(std::make_unique<FakeConnection>(
        std::move(stream),
        [this](FakeConnection& connection, const FakeConnection::Request& request) {
          if (script) script(connection, request);
        },
        on_head));
  }
  std::string target() const { return listener_->local_addr().to_string(); }

  FakeConnection::Script script;
  bool on_head = false;  // the script runs when the headers came, not the whole request
  std::vector<std::unique_ptr<FakeConnection>> connections;

 private:
  io::Loop& loop_;
  std::unique_ptr<io::TcpListener> listener_;
};

}  // namespace edgemesh::test
