#include "proxy/http/h1_server.h"

#include <algorithm>
#include <optional>

#include "core/http/message.h"
#include "core/http/websocket.h"
#include "core/io/lingering_close.h"
#include "core/tls/x509.h"
#include "proxy/http/h1_conn.h"
#include "proxy/http/h1_head.h"

namespace edgemesh::proxy {

namespace {

using h1::Framing;
using http::BodyKind;

class H1ServerConnection final : public HttpServerConnection, private h1::Conn {
 public:
  H1ServerConnection(io::Loop& loop, WriteBatch& batch, std::unique_ptr<io::Stream> stream,
                     const H1ServerOptions& options, HttpServerConnection::Handler* handler,
                     const H1ServerPeer& peer);
  ~H1ServerConnection() override = default;
  void drain(Drain how) override;
  size_t active_streams() const override { return stream_ != nullptr ? 1 : 0; }

 private:
  Step step(std::string_view rest, size_t* n) override;
  Step step_head(std::string_view rest, size_t* n);
  void begin(const http::H1Head& parsed, HeadPtr head);
  bool go_on_in_http2(const http::H1Head& parsed, HeadPtr* head, std::string_view ahead);
  void write_head(h1::Stream& stream, const Head& head, bool end) override;
  Framing frame(h1::Stream& stream, const Head& head, bool end);
  void on_released(h1::Stream& stream) override;
  void on_bad_body(ResetReason reason, std::string_view why) override;
  void on_end_of_input() override;
  void on_exchange_end() override;
  bool reads_idle() const override { return out_.size() <= h1::kHighWater; }
  void close_gracefully() override;
  void report_closed(const Error& error) override;
  void note_progress() override { last_progress_ = loop_.now(); }
  void after_input() override;
  void refuse(int status, ResetReason reason, std::string_view why);
  void close_later();
  std::optional<TimePoint> deadline() const;
  void on_timer();

  HttpServerConnection::Handler* handler_;
  SockAddr peer_;
  std::shared_ptr<const tls::PeerIdentity> identity_;
  H1ServerOptions options_;
  io::Timer timer_;
  TimePoint since_;  // of the idle time, or of a head's first byte
  TimePoint last_progress_;
  uint32_t requests_ = 0;
  bool tls_;
  bool keep_alive_ = true;
  bool draining_ = false;
  bool head_begun_ = false;
  bool client_ends_ = false;  // the request said that it is the last one
};

H1ServerConnection::H1ServerConnection(io::Loop& loop, WriteBatch& batch,
                                       std::unique_ptr<io::Stream> stream,
                                       const H1ServerOptions& options,
                                       HttpServerConnection::Handler* handler,
                                       const H1ServerPeer& peer)
    : Conn(loop, batch, std::move(stream), http::H1HeadParser::kRequest, options.limits, true),
      handler_(handler),
      peer_(peer.addr),
      identity_(peer.identity),
      options_(options),
      timer_(loop, [this] { on_timer(); }),
      since_(loop.now()),
      last_progress_(since_),
      tls_(peer.tls) {
  max_body_ = options.max_body;
  in_.append(peer.initial);
  // The stream may have told its readiness to somebody else: ask.
  resume();
}

void H1ServerConnection::drain(Drain how) {
  draining_ = true;
  // An answer whose head has left has promised that another request may come.
  const bool promised = stream_ != nullptr && stream_->head_sent;
  if (how == Drain::kNow || !promised) keep_alive_ = false;
  if (how == Drain::kNow && stream_ == nullptr && in_.empty()) close_later();
}

void H1ServerConnection::close_later() {
  closing_ = true;
  flush_later();
}

h1::Conn::Step H1ServerConnection::step(std::string_view rest, size_t* n) {
  return stream_ != nullptr ? step_body(rest, n) : step_head(rest, n);
}

h1::Conn::Step H1ServerConnection::step_head(std::string_view rest, size_t* n) {
  if (rest.empty() || !reads_idle()) return kWait;
  http::H1Head parsed;
  switch (parser_.parse(rest, &parsed, n)) {
    case http::H1Status::kIncomplete: return kWait;
    case http::H1Status::kError:
      refuse(parser_.error().status, ResetReason::kProtocol, parser_.error().text);
      return kWait;
    case http::H1Status::kComplete: break;
  }
  parser_.reset();
  head_begun_ = false;
  if (options_.max_body != 0 && parsed.content_length > options_.max_body) {
    refuse(413, ResetReason::kTooLarge, "the body is too large");
    return kWait;
  }
  HeadPtr head = take_head();
  if (const char* wrong = h1::fill_request(parsed, rest.substr(0, *n), tls_, head.get())) {
    refuse(400, ResetReason::kProtocol, wrong);
    return kWait;
  }
  if (parsed.upgrade && options_.h2c_upgrade && go_on_in_http2(parsed, &head, rest.substr(*n)))
    return kWait;
  begin(parsed, std::move(head));
  return kMore;
}

// The payload of a SETTINGS frame, when this request may be the first stream of an HTTP/2
// connection. What asks for it in a wrong way, or with a body, is answered in HTTP/1 as if it had
// not asked.
std::optional<std::string> h2c_settings(const http::H1Head& parsed) {
  if (parsed.minor_version == 0 || parsed.body != BodyKind::kNone || parsed.method == "CONNECT" ||
      !http::list_has_token(parsed.upgrade_protocol, "h2c") ||
      http::list_has_token(parsed.upgrade_protocol, "websocket"))
    return std::nullopt;
  const http::FieldView* found = nullptr;
  bool named = false;
  for (const http::FieldView& field : parsed.fields) {
    if (http::equals_ignore_case(field.name, "http2-settings")) {
      if (found != nullptr) return std::nullopt;
      found = &field;
    } else if (http::equals_ignore_case(field.name, "connection")) {
      named = named || http::list_has_token(field.value, "http2-settings");
    }
  }
  constexpr size_t kSettingBytes = 6;
  constexpr size_t kMaxBytes = 32 * kSettingBytes;  // as many as are taken of a SETTINGS frame
  if (found == nullptr || !named || found->value.size() > (kMaxBytes + 2) / 3 * 4)
    return std::nullopt;
  auto payload = tls::base64url_decode(found->value);
  if (!payload || payload->size() % kSettingBytes != 0 || payload->size() > kMaxBytes)
    return std::nullopt;
  return std::move(*payload);
}

// True: this connection is gone.
bool H1ServerConnection::go_on_in_http2(const http::H1Head& parsed, HeadPtr* head,
                                        std::string_view ahead) {
  if (tls_ || draining_ || eof_ || !out_.empty()) return false;
  std::optional<std::string> settings = h2c_settings(parsed);
  if (!settings) return false;
  constexpr std::string_view kAgreed =
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
  // Nothing waits before it, so that it leaves whole or not at all.
  io::IoResult done = io_->write(io::as_bytes(kAgreed));
  if (done.status != io::IoResult::kOk) return false;
  if (done.n != kAgreed.size()) {
    io_->reset();
    lose(ResetReason::kConnectionLost,
         Error{ErrorCode::kConnectionReset, "the client takes nothing", 0});
    return true;
  }
  timer_.stop();
  (*head)->version = HttpVersion::kHttp2;
  closed_told_ = true;
  handler_->on_h2c(std::move(io_), std::move(*head), *settings, ahead);
  return true;
}

void H1ServerConnection::begin(const http::H1Head& parsed, HeadPtr head) {
  ++requests_;
  bool last = options_.max_requests != 0 && requests_ >= options_.max_requests;
  keep_alive_ = parsed.keep_alive && !draining_ && !last;
  client_ends_ = !parsed.keep_alive;
  h1::Stream* stream = stream_ = h1::Stream::take(this, peer_, identity_);
  stream->is_head = head->method == "HEAD";
  stream->is_connect = head->method == "CONNECT";
  stream->http10 = parsed.minor_version == 0;
  stream->expects_continue = head->expect_continue;
  stream->wants_tunnel = stream->is_connect || !head->protocol.empty();
  if (head->protocol == "websocket") {
    std::string_view key = head->get("sec-websocket-key");
    stream->websocket = key.size() == stream->websocket_key.size();
    if (stream->websocket) std::copy(key.begin(), key.end(), stream->websocket_key.begin());
  }
  bool end = parsed.body == BodyKind::kNone && !stream->wants_tunnel;
  if (end)
    stream->in_ended = true;
  else
    stream->decoder = http::H1BodyDecoder(parsed.body, parsed.content_length, h1::field_storage(),
                                          options_.limits);
  handler_->on_request(StreamPtr(stream), std::move(head), end);
}

// How the body of this answer is delimited.
Framing H1ServerConnection::frame(h1::Stream& s, const Head& head, bool end) {
  if (s.wants_tunnel && (head.status == 101 || (s.is_connect && head.status / 100 == 2)))
    return Framing::kTunnel;
  if (s.is_head || head.status == 204 || head.status == 304) return Framing::kNone;
  if (head.has_length || end) return Framing::kLength;
  return s.http10 ? Framing::kUntilClose : Framing::kChunked;
}

void H1ServerConnection::write_head(h1::Stream& s, const Head& head, bool end) {
  if (s.head_sent || io_ == nullptr) return;
  bool informational = head.status < 200 && head.status != 101;
  if (informational && s.http10) return;
  std::string_view reason = h1::reason_phrase(head.status);
  char* begin = out_.prepare(fields_size(head) + head.protocol.size() + reason.size() + 220);
  char* at = begin;
  h1::put(&at, "HTTP/1.1 ");
  h1::put_number(&at, static_cast<uint64_t>(head.status));
  h1::put(&at, " ");
  h1::put(&at, reason);
  h1::put(&at, "\r\n");
  write_fields(head, &at);
  if (informational) {
    if (head.status == 100) s.expects_continue = false;
  } else {
    s.head_sent = true;
    s.out_framing = frame(s, head, end);
    s.out_left = head.has_length ? head.length : 0;
    bool unread = !s.in_ended && !s.wants_tunnel;
    if ((unread && (end || s.expects_continue)) || s.out_framing == Framing::kUntilClose)
      keep_alive_ = false;
    bool with_length = s.out_framing == Framing::kLength ||
                       (s.out_framing == Framing::kNone && head.has_length && head.status != 204);
    if (with_length) {
      h1::put(&at, "Content-Length: ");
      h1::put_number(&at, s.out_left);
      h1::put(&at, "\r\n");
    }
    if (s.out_framing == Framing::kChunked) h1::put(&at, "Transfer-Encoding: chunked\r\n");
    if (s.out_framing == Framing::kTunnel) {
      keep_alive_ = false;
      if (head.status == 101) {
        h1::put(&at, "Connection: upgrade\r\nUpgrade: ");
        h1::put(&at, head.protocol);
        h1::put(&at, "\r\n");
        if (s.websocket && !head.has("sec-websocket-accept")) {  // a server of HTTP/2 gives none
          h1::put(&at, "Sec-WebSocket-Accept: ");
          h1::put(&at, http::websocket_accept({s.websocket_key.data(), s.websocket_key.size()}));
          h1::put(&at, "\r\n");
        }
      }
    } else if (!keep_alive_ || eof_) {
      h1::put(&at, "Connection: close\r\n");
    } else if (s.http10) {
      h1::put(&at, "Connection: keep-alive\r\n");
    }
  }
  h1::put(&at, "\r\n");
  out_.commit(static_cast<size_t>(at - begin));
  flush_later();
  if (informational) return;
  if (s.out_framing == Framing::kTunnel) {
    begin_tunnel(s);
  } else if (s.wants_tunnel) {
    s.wants_tunnel = false;  // refused: the request has no body
    s.in_ended = true;
  }
  if (end) end_output(s);
}

void H1ServerConnection::on_released(h1::Stream& s) {
  if (!s.out_ended || s.tunnel) return cut();
  // The answer is whole, the request is not: the client shall see the answer.
  detach();
  close_later();
}

void H1ServerConnection::on_bad_body(ResetReason reason, std::string_view why) {
  if (stream_->head_sent) {
    io_->reset();
    return lose(reason, Error{ErrorCode::kProtocol, std::string(why), 0});
  }
  refuse(reason == ResetReason::kTooLarge ? 413 : 400, reason, why);
}

// Tells the client what is wrong, and ends the connection.
void H1ServerConnection::refuse(int status, ResetReason reason, std::string_view why) {
  h1::Stream* stream = detach();
  char* begin = out_.prepare(why.size() + 256);
  char* at = begin;
  h1::put(&at, "HTTP/1.1 ");
  h1::put_number(&at, static_cast<uint64_t>(status));
  h1::put(&at, " ");
  h1::put(&at, h1::reason_phrase(status));
  h1::put(&at, "\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: ");
  h1::put_number(&at, why.size() + 1);
  h1::put(&at, "\r\n\r\n");
  h1::put(&at, why);
  h1::put(&at, "\n");
  out_.commit(static_cast<size_t>(at - begin));
  close_later();
  handler_->on_bad_request(status, why);
  if (stream != nullptr && stream->handler != nullptr) stream->handler->on_reset(reason, why);
}

void H1ServerConnection::on_end_of_input() {
  keep_alive_ = false;
  if (stream_ == nullptr) return close_later();
  h1::Stream& s = *stream_;
  if (s.in_ended || (s.wants_tunnel && !s.tunnel)) return;
  if (s.tunnel) {
    if (s.reading && in_.empty()) deliver(s, {}, true);
    return;
  }
  io_->reset();
  lose(ResetReason::kConnectionLost,
       Error{ErrorCode::kConnectionReset, "the client ended the request too early", 0});
}

void H1ServerConnection::on_exchange_end() {
  since_ = loop_.now();
  if (!keep_alive_ || eof_) {
    ends_both_ = (client_ends_ || eof_) && in_.empty();  // nothing comes that resets the answer
    return close_later();
  }
  if (!in_.empty() || !reads_idle()) resume();
}

void H1ServerConnection::close_gracefully() {
  if (ends_both_ && in_.empty() && io_->close_both()) return io_.reset();
  if (!eof_) return io::lingering_close(loop_, std::move(io_));
  io_->shutdown_write();
  io_.reset();
}

void H1ServerConnection::report_closed(const Error&) {
  timer_.stop();
  handler_->on_closed();
}

std::optional<TimePoint> H1ServerConnection::deadline() const {
  auto after = [](TimePoint from, Duration limit) {
    return limit > Duration::zero() ? std::optional(from + limit) : std::nullopt;
  };
  if (write_blocked_ && (stream_ == nullptr || !stream_->tunnel))
    return after(last_progress_, options_.write_timeout);
  if (closing_) return std::nullopt;
  if (stream_ == nullptr)
    return after(since_,
                 requests_ == 0 || head_begun_ ? options_.head_timeout : options_.idle_timeout);
  const h1::Stream& s = *stream_;
  if (s.in_ended || !s.reading || s.tunnel || s.wants_tunnel) return std::nullopt;
  return after(last_progress_, options_.body_timeout);
}

// The timer is set when it would come too late only; when it comes too early, it is set anew.
void H1ServerConnection::after_input() {
  if (stream_ == nullptr && !head_begun_ && !in_.empty()) {
    head_begun_ = true;
    since_ = loop_.now();
  }
  auto at = deadline();
  if (at && (!timer_.active() || timer_.deadline() > *at)) timer_.start_at(*at);
}

void H1ServerConnection::on_timer() {
  auto at = deadline();
  if (!at || io_ == nullptr) return;
  if (*at > loop_.now()) return timer_.start_at(*at);
  if (write_blocked_ || (stream_ != nullptr && stream_->head_sent)) {
    io_->reset();
    return lose(ResetReason::kConnectionLost,
                Error{ErrorCode::kTimeout, "the client is too slow", 0});
  }
  if (stream_ == nullptr && in_.empty()) return close_later();
  refuse(408, ResetReason::kConnectionLost, "the request did not come in time");
}

}  // namespace

std::unique_ptr<HttpServerConnection> make_h1_server(io::Loop& loop, WriteBatch& batch,
                                                     std::unique_ptr<io::Stream> stream,
                                                     const H1ServerOptions& options,
                                                     HttpServerConnection::Handler* handler,
                                                     const H1ServerPeer& peer) {
  return std::make_unique<H1ServerConnection>(loop, batch, std::move(stream), options, handler,
                                              peer);
}

size_t h1_server_connection_bytes() {
  return sizeof(H1ServerConnection);
}

}  // namespace edgemesh::proxy
