#include "proxy/http/h2_client.h"

#include <algorithm>

#include "proxy/http/h2_conn.h"

namespace edgemesh::proxy {

namespace {

using h2::Stream;

class ClientConn final : public h2::Conn {
 public:
  ClientConn(io::Loop& loop, WriteBatch& batch, std::unique_ptr<io::Stream> io,
             const H2ClientOptions& options, HttpClientConnection::Handler* handler)
      : Conn(loop, batch, std::move(io), options.limits, false),
        handler_(handler),
        interval_(options.ping_interval),
        timeout_(options.ping_timeout) {
    peer_ = options.addr;
    identity_ = options.identity;
    connected_ = options.connected;
    arm(soonest());
  }

  Stream* open(HttpStream::Handler* handler) {
    if (available() == 0) return nullptr;
    Stream* s = Stream::take(this);
    s->handler = handler;
    return s;
  }
  size_t available() const {
    if (closing()) return 0;
    size_t limit = std::min<size_t>(
        std::min<size_t>(limits_.max_streams, full_at_),
        nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS));
    return limit > streams_ ? limit - streams_ : 0;
  }
  size_t active() const { return streams_; }
  bool closing() const {
    constexpr uint32_t kLastIds = 0x7fffffffU - 2000;
    return over() || goaway_received_ || goaway_code_ != 0 ||
           nghttp2_session_get_next_stream_id(session_) > kLastIds;
  }

 private:
  void head_done(Stream& s, bool end) override {
    HeadPtr head = std::move(s.head);
    if (head == nullptr || s.released || s.handler == nullptr) return;
    // There is no status 101 in HTTP/2 (RFC 9113 8.6).
    bool malformed = head->status < 100 || head->status == 101;
    if (s.too_large || malformed) {
      nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, s.id,
                                malformed ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_CANCEL);
      return;
    }
    s.in_final = head->status >= 200;
    if (s.extended && head->status >= 200 && head->status < 300) {
      head->status = 101;
      head->protocol = head->keep(s.protocol);
      head->drop_length();
    }
    s.in_told = end;
    s.handler->on_head(std::move(head), end);
  }

  void on_settings() override {
    full_at_ = SIZE_MAX;
    for (Stream* s = first_; s != nullptr; s = s->next)
      if (s->extended && !s->open) note(*s);
  }
  void on_time(TimePoint now) override {
    if (pinged_ && last_input_ > pinged_at_) pinged_ = false;
    if (now < next_time()) return;
    if (pinged_)
      return finish({ErrorCode::kTimeout, "the peer does not answer to pings", 0}, false);
    pinged_ = true;
    pinged_at_ = now;
    nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr);
    flush_later();
  }
  TimePoint next_time() const override {
    if (interval_ <= Duration::zero()) return TimePoint::max();
    return pinged_ ? pinged_at_ + timeout_ : last_input_ + interval_;
  }
  void on_ping_ack() override { pinged_ = false; }
  void tell_connected() override {
    if (handler_ != nullptr) handler_->on_connected();
  }
  void tell_available() override {
    if (handler_ != nullptr && available() > 0) handler_->on_available();
  }
  void tell_closed(const Error& error) override {
    if (auto* handler = std::exchange(handler_, nullptr); handler != nullptr)
      handler->on_closed(error);
  }
  void forget_handler() override { handler_ = nullptr; }

  HttpClientConnection::Handler* handler_;
  Duration interval_;
  Duration timeout_;
  TimePoint pinged_at_{};
  bool pinged_ = false;
};

class H2Client final : public HttpClientConnection {
 public:
  explicit H2Client(ClientConn* conn) : conn_(conn) {}
  ~H2Client() override { conn_->abandon(); }
  StreamPtr open(HttpStream::Handler* handler) override { return StreamPtr(conn_->open(handler)); }
  size_t available() const override { return conn_->available(); }
  size_t active_streams() const override { return conn_->active(); }
  bool closing() const override { return conn_->closing(); }

 private:
  ClientConn* conn_;
};

}  // namespace

std::unique_ptr<HttpClientConnection> make_h2_client(io::Loop& loop, WriteBatch& batch,
                                                     std::unique_ptr<io::Stream> stream,
                                                     const H2ClientOptions& options,
                                                     HttpClientConnection::Handler* handler) {
  return std::make_unique<H2Client>(
      new ClientConn(loop, batch, std::move(stream), options, handler));
}

}  // namespace edgemesh::proxy
