#include "proxy/http/h1_client.h"

#include <algorithm>

#include "core/http/message.h"
#include "core/http/websocket.h"
#include "core/tls/x509.h"
#include "proxy/http/h1_conn.h"
#include "proxy/http/h1_head.h"

namespace edgemesh::proxy {

namespace {

using h1::Framing;

constexpr uint8_t kMaxInformational = 64;  // heads before the answer

class H1ClientConnection final : public HttpClientConnection, private h1::Conn {
 public:
  H1ClientConnection(io::Loop& loop, WriteBatch& batch, std::unique_ptr<io::Stream> stream,
                     const H1ClientOptions& options, HttpClientConnection::Handler* handler)
      : Conn(loop, batch, std::move(stream), http::H1HeadParser::kResponse, options.limits,
             options.connected),
        handler_(handler),
        limits_(options.limits),
        addr_(options.addr),
        identity_(options.identity) {
    if (connected_) resume();
  }
  ~H1ClientConnection() override = default;

  StreamPtr open(HttpStream::Handler* handler) override;
  size_t available() const override { return io_ != nullptr && usable_ && stream_ == nullptr; }
  size_t active_streams() const override { return stream_ != nullptr ? 1 : 0; }
  bool closing() const override { return !usable_ || io_ == nullptr; }

 private:
  void on_connected() override;
  void on_error(const Error& error) override;
  Step step(std::string_view rest, size_t* n) override;
  Step step_head(std::string_view rest, size_t* n);
  Step take_answer(const http::H1Head& parsed, HeadPtr head);
  void write_head(h1::Stream& stream, const Head& head, bool end) override;
  static void write_websocket(h1::Stream& stream, const Head& head, char** at);
  Framing frame(const h1::Stream& stream, const Head& head, bool end) const;
  void on_released(h1::Stream& stream) override;
  void on_bad_body(ResetReason reason, std::string_view why) override { break_off(reason, why); }
  void on_end_of_input() override;
  void on_exchange_end() override;
  void on_idle_turn() override;
  bool reads_idle() const override { return true; }
  bool awaits_head() const override {
    return stream_ != nullptr && stream_->head_sent && !stream_->in_head_done;
  }
  void close_gracefully() override {
    io_->shutdown_write();
    io_.reset();
  }
  void report_closed(const Error& error) override { handler_->on_closed(error); }
  void break_off(ResetReason reason, std::string_view why);

  HttpClientConnection::Handler* handler_;
  http::H1Limits limits_;
  SockAddr addr_;
  std::shared_ptr<const tls::PeerIdentity> identity_;
  bool usable_ = true;      // for a further request
  bool answering_ = false;  // a byte of an answer came
  bool tell_available_ = false;
};

StreamPtr H1ClientConnection::open(HttpStream::Handler* handler) {
  if (available() == 0) return nullptr;
  stream_ = h1::Stream::take(this, addr_, identity_);
  stream_->handler = handler;
  answering_ = false;
  return StreamPtr(stream_);
}

void H1ClientConnection::on_connected() {
  if (connected_) return;
  connected_ = true;
  Watch watch(*this);
  handler_->on_connected();
  if (watch.dead()) return;
  resume();
}

void H1ClientConnection::on_error(const Error& error) {
  usable_ = false;
  Error named = error;
  if (connected_ && stream_ != nullptr && !answering_)
    named = error.with_context(kClosedBeforeAnswer);
  lose(ResetReason::kConnectionLost, named);
}

Framing H1ClientConnection::frame(const h1::Stream& s, const Head& head, bool end) const {
  if (s.wants_tunnel) return Framing::kTunnel;
  if (head.has_length) return Framing::kLength;
  return end ? Framing::kNone : Framing::kChunked;
}

void H1ClientConnection::write_head(h1::Stream& s, const Head& head, bool end) {
  if (s.head_sent || io_ == nullptr) return;
  s.head_sent = true;
  s.is_connect = head.method == "CONNECT" && head.protocol.empty();
  s.is_head = head.method == "HEAD";
  s.wants_tunnel = s.is_connect || !head.protocol.empty();
  s.out_framing = frame(s, head, end);
  s.out_left = head.has_length ? head.length : 0;
  // An extended CONNECT (RFC 8441) is a GET here.
  std::string_view method = head.method == "CONNECT" && !s.is_connect ? "GET" : head.method;
  std::string_view target = s.is_connect ? head.authority : head.path;
  if (target.empty()) target = "/";
  parser_.reset();
  parser_.answers(method);
  char* begin = out_.prepare(fields_size(head) + method.size() + target.size() +
                             head.authority.size() + head.protocol.size() + 300);
  char* at = begin;
  h1::put(&at, method);
  h1::put(&at, " ");
  h1::put(&at, target);
  h1::put(&at, " HTTP/1.1\r\nHost: ");
  h1::put(&at, head.authority);
  h1::put(&at, "\r\n");
  write_fields(head, &at);
  bool means_body = method == "POST" || method == "PUT" || method == "PATCH";
  if (s.out_framing == Framing::kLength || (s.out_framing == Framing::kNone && means_body)) {
    h1::put(&at, "Content-Length: ");
    h1::put_number(&at, s.out_left);
    h1::put(&at, "\r\n");
  }
  if (s.out_framing == Framing::kChunked) h1::put(&at, "Transfer-Encoding: chunked\r\n");
  if (head.expect_continue && !end) h1::put(&at, "Expect: 100-continue\r\n");
  bool te = head.has("te");
  if (!head.protocol.empty()) {
    h1::put(&at, te ? "Connection: upgrade, TE\r\nUpgrade: " : "Connection: upgrade\r\nUpgrade: ");
    h1::put(&at, head.protocol);
    h1::put(&at, "\r\n");
    if (head.protocol == "websocket") write_websocket(s, head, &at);
  } else if (te) {
    h1::put(&at, "Connection: TE\r\n");
  }
  h1::put(&at, "\r\n");
  out_.commit(static_cast<size_t>(at - begin));
  flush_later();
  if (end) {
    if (s.wants_tunnel)
      s.out_ended = true;
    else
      end_output(s);
  }
}

// A client of HTTP/2 gives no key (RFC 8441 5): we make one, and check the answer to it.
void H1ClientConnection::write_websocket(h1::Stream& s, const Head& head, char** at) {
  if (!head.has("sec-websocket-version")) h1::put(at, "Sec-WebSocket-Version: 13\r\n");
  if (head.has("sec-websocket-key")) return;
  std::string key = tls::base64_encode(tls::random_bytes(16));
  s.websocket = key.size() == s.websocket_key.size();
  std::copy_n(key.begin(), s.websocket_key.size(), s.websocket_key.begin());
  h1::put(at, "Sec-WebSocket-Key: ");
  h1::put(at, key);
  h1::put(at, "\r\n");
}

h1::Conn::Step H1ClientConnection::step(std::string_view rest, size_t* n) {
  if (rest.empty()) return kWait;
  if (stream_ == nullptr || !stream_->head_sent) {
    break_off(ResetReason::kConnectionLost, "closed before an answer: bytes that nobody asked for");
    return kWait;
  }
  answering_ = true;
  return stream_->in_head_done ? step_body(rest, n) : step_head(rest, n);
}

h1::Conn::Step H1ClientConnection::step_head(std::string_view rest, size_t* n) {
  http::H1Head parsed;
  switch (parser_.parse(rest, &parsed, n)) {
    case http::H1Status::kIncomplete: return kWait;
    case http::H1Status::kError:
      break_off(parser_.error().status == 431 ? ResetReason::kTooLarge : ResetReason::kProtocol,
                parser_.error().text);
      return kWait;
    case http::H1Status::kComplete: break;
  }
  parser_.reset();
  HeadPtr head = take_head();
  h1::fill_answer(parsed, rest.substr(0, *n), head.get());
  return take_answer(parsed, std::move(head));
}

h1::Conn::Step H1ClientConnection::take_answer(const http::H1Head& parsed, HeadPtr head) {
  h1::Stream& s = *stream_;
  HttpStream::Handler* handler = s.handler;
  int status = parsed.status;
  if (status < 200 && status != 101) {
    if (++s.informational > kMaxInformational) {
      break_off(ResetReason::kProtocol, "too many informational answers");
      return kWait;
    }
    if (handler != nullptr) handler->on_head(std::move(head), false);
    return kMore;
  }
  bool tunnel = s.wants_tunnel && (s.is_connect ? status / 100 == 2 : status == 101);
  if (status == 101 && (!tunnel || head->protocol.empty())) {
    break_off(ResetReason::kProtocol, "status 101 that was not asked for");
    return kWait;
  }
  if (tunnel && s.websocket) {
    std::string_view key(s.websocket_key.data(), s.websocket_key.size());
    if (head->get("sec-websocket-accept") != http::websocket_accept(key)) {
      break_off(ResetReason::kProtocol, "Sec-WebSocket-Accept is wrong");
      return kWait;
    }
    head->remove("sec-websocket-accept");  // the user has not seen the key
  }
  s.in_head_done = true;
  if (!parsed.keep_alive || tunnel) usable_ = false;
  bool end = false;
  if (tunnel) {
    begin_tunnel(s);
    if (s.out_ended) shut_after_write_ = true;
  } else {
    if (s.wants_tunnel) {
      s.wants_tunnel = false;
      s.out_ended = true;  // there is no body to send
      s.out_framing = Framing::kNone;
    }
    s.decoder =
        http::H1BodyDecoder(parsed.body, parsed.content_length, h1::field_storage(), limits_);
    end = parsed.body == http::BodyKind::kNone;
    if (end) end_input(s);
  }
  if (handler != nullptr) handler->on_head(std::move(head), end);
  return kMore;
}

void H1ClientConnection::on_released(h1::Stream& s) {
  if (!s.head_sent) {
    detach();
    return;
  }
  usable_ = false;
  cut();
}

void H1ClientConnection::break_off(ResetReason reason, std::string_view why) {
  usable_ = false;
  io_->reset();
  lose(reason, Error{ErrorCode::kProtocol, std::string(why), 0});
}

void H1ClientConnection::on_end_of_input() {
  usable_ = false;
  if (stream_ == nullptr) {
    if (!closing_) {
      error_ = Error{ErrorCode::kConnectionReset, "the peer closed the idle connection", 0};
      closing_ = true;
      flush_later();
    }
    return;
  }
  h1::Stream& s = *stream_;
  if (s.in_ended) return;
  if (s.tunnel || (s.in_head_done && s.decoder.at_end_of_input())) {
    if (s.reading && in_.empty()) deliver(s, {}, true);
    return;
  }
  io_->reset();
  Error error{ErrorCode::kConnectionReset, "the answer ended too early", 0};
  if (!answering_) error.message = kClosedBeforeAnswer;
  lose(ResetReason::kConnectionLost, error);
}

void H1ClientConnection::on_exchange_end() {
  if (!usable_ || eof_) {
    closing_ = true;
    error_ = Error{ErrorCode::kConnectionReset, "the connection was for one request", 0};
  } else {
    tell_available_ = true;
    if (!in_.empty()) resume();  // nobody asked for it
  }
  flush_later();
}

void H1ClientConnection::on_idle_turn() {
  if (!tell_available_ || !in_.empty()) return;
  tell_available_ = false;
  if (available() > 0) handler_->on_available();
}

}  // namespace

std::unique_ptr<HttpClientConnection> make_h1_client(io::Loop& loop, WriteBatch& batch,
                                                     std::unique_ptr<io::Stream> stream,
                                                     const H1ClientOptions& options,
                                                     HttpClientConnection::Handler* handler) {
  return std::make_unique<H1ClientConnection>(loop, batch, std::move(stream), options, handler);
}

}  // namespace edgemesh::proxy
