#include "proxy/http/h2_server.h"

#include "proxy/http/h2_conn.h"
#include "proxy/http/h2_head.h"

namespace edgemesh::proxy {

namespace {

using h2::Stream;

class ServerConn final : public h2::Conn {
 public:
  ServerConn(io::Loop& loop, WriteBatch& batch, std::unique_ptr<io::Stream> io,
             const H2ServerOptions& options, HttpServerConnection::Handler* handler,
             H2ServerPeer peer)
      : Conn(loop, batch, std::move(io), options.limits, true),
        handler_(handler),
        idle_timeout_(options.idle_timeout),
        requests_left_(options.max_requests),
        initial_(peer.initial),
        upgrade_(std::move(peer.upgrade)),
        read_before_(!initial_.empty() || upgrade_ != nullptr) {
    peer_ = peer.addr;
    identity_ = std::move(peer.identity);
    if (upgrade_ != nullptr) begin_upgrade(peer.upgrade_settings);
    head_timeout_ = options.head_timeout;
    note_head();
    arm(soonest());
  }

  void drain() {
    if (draining_ || over()) return;
    drain_notice();
    drain_by_ = loop_.now() + std::chrono::seconds(1);
    arm(drain_by_);
  }
  size_t active() const { return streams_; }

 private:
  void begin_upgrade(std::string_view settings) {
    int rc = nghttp2_session_upgrade2(session_, io::as_bytes(settings).data(), settings.size(),
                                      upgrade_->method == "HEAD" ? 1 : 0, nullptr);
    const bool good = rc == 0 && settings_received_;
    settings_received_ = false;  // those of the connection's preface are still to come
    if (!good) {
      upgrade_ = nullptr;
      return terminate(NGHTTP2_PROTOCOL_ERROR);
    }
    Stream* s = Stream::take(this);
    s->id = 1;
    closed_.opened(1);
    s->open = s->released = s->in_end = true;
    nghttp2_session_set_stream_user_data(session_, 1, s);
    s->head = std::move(upgrade_);
    upgraded_ = s;
  }

  void before_flush() override {
    if (!read_before_) return;
    read_before_ = false;
    std::string initial = std::move(initial_);
    initial_.clear();
    if (!over() && !initial.empty()) feed(io::as_bytes(initial));
    // The stream may have told its readiness to whoever read before: ask.
    if (!over()) Conn::on_readable();
  }
  // The request of an upgrade waits for the client's preface: a client (curl) has room for little
  // behind the 101.
  void on_settings() override {
    if (Stream* s = std::exchange(upgraded_, nullptr); s != nullptr) head_done(*s, true);
  }
  // Never before what was read earlier.
  void on_readable() override {
    if (!read_before_) return Conn::on_readable();
    flush_later();
  }

  void head_done(Stream& s, bool end) override {
    s.in_final = true;
    HeadPtr head = std::move(s.head);
    if (head == nullptr) return;
    if (requests_left_ > 0 && --requests_left_ == 0) drain();
    if (s.too_large) return refuse(s, 431, "the header fields are too large");
    if (const char* wrong = h2::finish_request(head.get(), s.host); wrong != nullptr)
      return refuse(s, 400, wrong);
    s.extended = !head->protocol.empty();
    s.tunnel = s.extended || head->method == "CONNECT";
    s.released = false;
    s.in_told = end;
    if (handler_ != nullptr) handler_->on_request(StreamPtr(&s), std::move(head), end);
  }

  void refuse(Stream& s, int status, std::string_view why) {
    HeadPtr answer = take_head();
    answer->status = status;
    answer->set_length(0);
    s.reset_after_end = true;
    s.out_ended = true;
    submit(s, *answer, true);
    if (handler_ != nullptr) handler_->on_bad_request(status, why);
  }

  void on_ping_ack() override {
    if (draining_) drain_final();
  }
  void on_time(TimePoint now) override {
    if (now < next_time()) return;
    if (draining_) return drain_final();
    drain();
  }
  TimePoint next_time() const override {
    if (draining_) return goaway_sent_ ? TimePoint::max() : drain_by_;
    bool idle = streams_ == 0 && idle_timeout_ > Duration::zero();
    return idle ? idle_since_ + idle_timeout_ : TimePoint::max();
  }
  void tell_bad(std::string_view why) override {
    if (handler_ != nullptr) handler_->on_bad_request(400, why);
  }
  void tell_closed(const Error&) override {
    if (auto* handler = std::exchange(handler_, nullptr); handler != nullptr) handler->on_closed();
  }
  void forget_handler() override { handler_ = nullptr; }

  HttpServerConnection::Handler* handler_;
  Duration idle_timeout_;
  uint32_t requests_left_;  // 0: there is no limit, or it was reached
  TimePoint drain_by_{};
  std::string initial_;
  HeadPtr upgrade_;
  Stream* upgraded_ = nullptr;  // until its request is told
  bool read_before_;            // somebody else has read from the stream
};

class H2Server final : public HttpServerConnection {
 public:
  explicit H2Server(ServerConn* conn) : conn_(conn) {}
  ~H2Server() override { conn_->abandon(); }
  void drain(Drain) override { conn_->drain(); }
  size_t active_streams() const override { return conn_->active(); }

 private:
  ServerConn* conn_;
};

}  // namespace

std::unique_ptr<HttpServerConnection> make_h2_server(io::Loop& loop, WriteBatch& batch,
                                                     std::unique_ptr<io::Stream> stream,
                                                     const H2ServerOptions& options,
                                                     HttpServerConnection::Handler* handler,
                                                     H2ServerPeer peer) {
  return std::make_unique<H2Server>(
      new ServerConn(loop, batch, std::move(stream), options, handler, std::move(peer)));
}

}  // namespace edgemesh::proxy
