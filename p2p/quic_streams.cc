// Streams of a connection: opening, HTTP/3 on them, io::Stream for their users, and events.
#include <algorithm>

#include "p2p/connect_udp.h"
#include "p2p/quic_impl.h"

namespace edgemesh::p2p {

namespace {

std::string_view field(const H3Fields& fields, std::string_view name) {
  for (const auto& [key, value] : fields)
    if (key == name) return value;
  return {};
}

ErrorCode code_of_status(int status) {
  if (status == 403) return ErrorCode::kPermissionDenied;
  if (status == 504) return ErrorCode::kTimeout;
  if (status == 503) return ErrorCode::kUnavailable;
  return ErrorCode::kConnectionRefused;
}

// The reason ends up in headers and logs: printable ASCII, short.
std::string clean_text(std::string_view text) {
  std::string out(text.substr(0, 200));
  for (char& c : out)
    if (c < 0x20 || c > 0x7e) c = '?';
  return out;
}

// A request of the peer that waits for its answer.
class QuicIncoming final : public IncomingConnect {
 public:
  QuicIncoming(StreamPtr core, std::string peer) : core_(std::move(core)), peer_(std::move(peer)) {}
  ~QuicIncoming() override {
    if (!done_) reject(503, "no answer");
  }
  const std::string& peer_node() const override { return peer_; }
  const SockAddr& target() const override { return core_->target; }
  bool udp() const override { return core_->udp; }

  std::unique_ptr<io::Stream> accept() override {
    if (done_) return nullptr;
    done_ = true;
    if (core_->conn() == nullptr || !core_->open || core_->error) {
      core_->user_gone = true;
      if (core_->conn() != nullptr) {
        core_->conn()->consumed(*core_, core_->rx.size());
        core_->conn()->drop_datagrams(*core_, true);
      }
      core_->rx.clear();
      return nullptr;
    }
    static const std::string answer = *h3_encode_headers({{":status", "200"}});
    static const std::string udp_answer =
        *h3_encode_headers({{":status", "200"}, {"capsule-protocol", "?1"}});
    core_->tx.append(io::as_bytes(core_->udp ? udp_answer : answer));
    core_->answered = true;
    core_->conn()->want_send(*core_);
    core_->conn()->flush_later();
    return std::make_unique<QuicStream>(core_);
  }

  void reject(int status, std::string_view reason) override {
    if (done_) return;
    done_ = true;
    core_->user_gone = true;
    if (core_->conn() == nullptr) return;
    core_->conn()->consumed(*core_, core_->rx.size());
    core_->conn()->drop_datagrams(*core_, true);
    core_->rx.clear();
    if (!core_->open || core_->error) return;
    auto answer = h3_encode_headers(
        {{":status", std::to_string(status)}, {"x-edgemesh-reason", clean_text(reason)}});
    if (answer) core_->tx.append(io::as_bytes(*answer));
    core_->fin_wanted = true;
    core_->conn()->want_send(*core_);
    core_->conn()->flush_later();
  }

 private:
  StreamPtr core_;
  std::string peer_;
  bool done_ = false;
};

}  // namespace

void StreamCore::queue_event() {
  if (conn() != nullptr) conn()->queue_event(shared_from_this());
}

void StreamCore::fail_with(Error e) {
  if (error) return;
  error = std::move(e);
  queue_event();
}

void StreamCore::on_h3_headers(H3Fields fields) {
  if (client) {
    std::string_view status = field(fields, ":status");
    if (status.size() == 3 && status[0] == '2') {
      answered = true;
      tell_connected = true;
      queue_event();
      return;
    }
    int number = std::atoi(std::string(status.substr(0, 3)).c_str());
    std::string reason = clean_text(field(fields, "x-edgemesh-reason"));
    refused = true;
    fail_with({code_of_status(number), fmt::format("{} {}", number, reason), 0});
    return;
  }
  std::string_view protocol = field(fields, ":protocol");
  std::optional<SockAddr> to;
  if (protocol == kConnectUdp) {
    udp = true;
    to = connect_udp_target(field(fields, ":path"));
  } else if (auto plain = SockAddr::parse(field(fields, ":authority")); plain && protocol.empty()) {
    to = *plain;
  }
  if (field(fields, ":method") != "CONNECT" || !to || to->port == 0) {
    fail_with({ErrorCode::kProtocol, "not a CONNECT to an address", 0});
    if (auto answer = h3_encode_headers({{":status", "400"}}); answer) tx.append(io::as_bytes(*answer));
    fin_wanted = true;
    conn()->want_send(*this);
    return;
  }
  target = *to;
  tell_incoming = true;
  queue_event();
}

void StreamCore::on_h3_data(std::span<const uint8_t> data) {
  if (user_gone || error) return;  // counted as framing by the caller: the window opens again
  rx.append(data);
}

// ---- QuicConn: streams ----

Result<std::unique_ptr<io::Stream>> QuicConn::open(const SockAddr& target, bool udp) {
  if (closed_) return fail(ErrorCode::kUnavailable, "the tunnel is closed");
  if (streams() >= options_.max_streams)
    return fail(ErrorCode::kResourceExhausted, "{} streams to {} are open", streams(), peer_node_);
  H3Fields fields{{":method", "CONNECT"}, {":authority", udp ? peer_node_ : target.to_string()}};
  // The authority is no address then: an agent that does not know of it answers 400.
  if (udp)
    fields.insert(fields.end(), {{":protocol", std::string(kConnectUdp)},
                                 {":scheme", "https"},
                                 {":path", connect_udp_path(target)},
                                 {"capsule-protocol", "?1"}});
  EM_TRY(std::string request, h3_encode_headers(fields));
  auto stream = std::make_shared<StreamCore>(this, alive_, budget_, true);
  stream->udp = udp;
  stream->tx.append(io::as_bytes(request));
  auto handle = std::make_unique<QuicStream>(stream);
  waiting_.push_back(stream);
  flush_later();
  return std::unique_ptr<io::Stream>(std::move(handle));
}

// Gives ids to streams that wait, as far as the peer allows.
void QuicConn::open_waiting() {
  if (!ready_ || closed_) return;
  if (!control_opened_) {
    int64_t id = -1;
    if (ngtcp2_conn_open_uni_stream(conn_, &id, nullptr) == 0) {
      control_id_ = id;
      control_opened_ = true;
      control_.append(io::as_bytes(h3_control_preface(options_.datagrams)));
    }
  }
  while (!waiting_.empty()) {
    StreamPtr stream = waiting_.front();
    if (stream->user_gone) {
      waiting_.pop_front();
      --waiting_dropped_;
      continue;
    }
    int64_t id = -1;
    if (ngtcp2_conn_open_bidi_stream(conn_, &id, stream.get()) != 0) break;
    waiting_.pop_front();
    stream->id = id;
    streams_.emplace(id, stream);
    want_send(*stream);
  }
}

StreamPtr QuicConn::accept_stream(int64_t id) {
  if (auto it = streams_.find(id); it != streams_.end()) return it->second;
  auto stream = std::make_shared<StreamCore>(this, alive_, budget_, false);
  stream->id = id;
  stream->opened = loop_.now();
  streams_.emplace(id, stream);
  return stream;
}

// A stream that ends young has cost us more than the peer (a dial, a lookup). That many old ones end
// together is no offence: their server may have died. Nor is the end of one that we refused or ended.
void QuicConn::note_dropped(StreamCore& stream) {
  constexpr Duration kYoung = std::chrono::seconds(1);
  TimePoint now = loop_.now();
  if (stream.client || stream.drop_noted || stream.fin_wanted || now - stream.opened > kYoung) return;
  stream.drop_noted = true;
  double seconds = std::chrono::duration<double>(now - drops_refilled_).count();
  drops_left_ = std::min<double>(options_.reset_burst, drops_left_ + seconds * options_.reset_per_second);
  drops_refilled_ = now;
  drops_left_ -= 1;
  if (drops_left_ < 0) too_many_drops_ = true;  // receive() sees it
}

void QuicConn::want_send(StreamCore& stream) {
  if (stream.in_send_list || stream.flow_blocked || !stream.open || stream.id < 0) return;
  if (stream.tx.unsent() == 0 && !(stream.fin_wanted && !stream.fin_sent)) return;
  stream.in_send_list = true;
  stream.turn_bytes = 0;
  send_list_.push_back(stream.shared_from_this());
}

void QuicConn::queue_event(const StreamPtr& stream) {
  if (stream->queued) return;
  stream->queued = true;
  events_.push_back(stream);
  if (!in_events_) flush_later();
}

void QuicConn::consumed_framing(StreamCore& stream, size_t n) {
  if (n == 0 || closed_) return;
  if (stream.open) ngtcp2_conn_extend_max_stream_offset(conn_, stream.id, n);
  ngtcp2_conn_extend_max_offset(conn_, n);
}

// The connection's credit is given back on arrival, as long as not too much waits unread.
void QuicConn::arrived(size_t n) {
  unread_ += n;
  if (unread_ <= options_.unread_budget)
    ngtcp2_conn_extend_max_offset(conn_, n);
  else
    owed_ += n;
}

void QuicConn::consumed(StreamCore& stream, size_t n) {
  if (n == 0) return;
  unread_ -= std::min(unread_, n);
  if (closed_) return;
  size_t give = std::min(owed_, n);
  owed_ -= give;
  if (give > 0) ngtcp2_conn_extend_max_offset(conn_, give);
  if (stream.open && !stream.rx_fin) ngtcp2_conn_extend_max_stream_offset(conn_, stream.id, n);
  flush_later();
}

void QuicConn::drop_stream(StreamCore& stream, uint64_t error) {
  if (closed_ || stream.id < 0 || !stream.open) return;
  stream.drop_noted = true;  // the peer's reset that answers ours is not its doing
  ngtcp2_conn_shutdown_stream(conn_, stream.id, error);
  flush_later();
}

// Taken out when its turn comes, or when the dropped ones are the most: a step for each stream, however
// many wait.
void QuicConn::drop_waiting() {
  if (closed_) return;
  constexpr size_t kFew = 64;
  if (++waiting_dropped_ < kFew || waiting_dropped_ < waiting_.size() / 2) return;
  std::erase_if(waiting_, [](const StreamPtr& stream) { return stream->user_gone; });
  waiting_dropped_ = 0;
}

// Tells one stream's user what happened. The user may destroy anything.
void QuicConn::tell(const StreamPtr& stream) {
  stream->queued = false;
  auto alive = alive_;
  if (stream->tell_incoming) {
    stream->tell_incoming = false;
    if (!stream->error) {
      handler_.on_quic_connect(std::make_unique<QuicIncoming>(stream, peer_node_));
      if (!*alive) return;
    } else {
      // Nobody will read it: its bytes must not count as waiting for ever.
      stream->user_gone = true;
      consumed(*stream, stream->rx.size());
      drop_datagrams(*stream, true);
      stream->rx.clear();
    }
  }
  auto user = [&]() -> io::Stream::Handler* {
    return stream->handle == nullptr ? nullptr : stream->handle->handler();
  };
  if (stream->tell_connected && user() != nullptr) {
    stream->tell_connected = false;
    user()->on_connected();
    if (!*alive) return;
  }
  // What had arrived before an error is offered first where the stream ended well.
  if (stream->error && !stream->error_told) {
    if (user() == nullptr) return;
    stream->error_told = true;
    user()->on_error(*stream->error);
    return;
  }
  if (stream->tell_readable && user() != nullptr && (!stream->client || stream->answered)) {
    stream->tell_readable = false;
    user()->on_readable();
    if (!*alive) return;
  }
  if (stream->tell_writable && user() != nullptr && !stream->error) {
    stream->tell_writable = false;
    user()->on_writable();
  }
}

// ---- QuicStream ----

QuicStream::QuicStream(StreamPtr core) : core_(std::move(core)) {
  core_->handle = this;
  // Data may have come while the request waited for its answer.
  const bool datagrams = core_->datagrams != nullptr && !core_->datagrams->in.empty();
  if (core_->rx.size() > 0 || core_->rx_fin || core_->error || datagrams) {
    core_->want_readable = false;
    core_->tell_readable = true;
    core_->queue_event();
  }
}

QuicStream::~QuicStream() {
  core_->handle = nullptr;
  core_->user_gone = true;
  QuicConn* conn = core_->conn();
  if (conn == nullptr) return;
  conn->drop_datagrams(*core_, true);
  if (core_->id < 0) {
    core_->tx.clear();
    conn->drop_waiting();
    return;
  }
  conn->consumed(*core_, core_->rx.size());
  core_->rx.clear();
  bool graceful = core_->fin_wanted && core_->eof_read && !reset_ && !core_->error;
  if (!graceful) conn->drop_stream(*core_, kH3RequestCancelled);
}

io::IoResult QuicStream::read(std::span<uint8_t> into) {
  if (core_->rx.size() > 0 && !(core_->client && !core_->answered)) {
    size_t n = core_->rx.read(into);
    if (core_->conn() != nullptr) core_->conn()->consumed(*core_, n);
    return {io::IoResult::kOk, 0, n};
  }
  if (core_->rx_fin && core_->rx.size() == 0) {
    core_->eof_read = true;
    return io::kEof;
  }
  if (core_->error || core_->conn() == nullptr) return {io::IoResult::kError, ECONNRESET, 0};
  core_->want_readable = true;
  return io::kWouldBlock;
}

io::IoResult QuicStream::write(std::span<const uint8_t> data) {
  if (core_->error || core_->conn() == nullptr || !core_->open || core_->fin_wanted)
    return {io::IoResult::kError, EPIPE, 0};
  size_t n = std::min(data.size(), core_->conn()->room(*core_));
  if (n == 0) {
    if (!data.empty()) core_->want_writable = true;
    return io::kWouldBlock;
  }
  uint8_t header[9];
  size_t header_size = h3_data_header(n, header);
  core_->tx.append({header, header_size});
  core_->tx.append(data.first(n));
  core_->conn()->note_written(n);
  core_->conn()->want_send(*core_);
  core_->conn()->flush_later();
  // Taking less is a promise to call back.
  if (n < data.size()) core_->want_writable = true;
  return {io::IoResult::kOk, 0, n};
}

void QuicStream::shutdown_write() {
  if (core_->fin_wanted) return;
  core_->fin_wanted = true;
  if (core_->conn() == nullptr) return;
  core_->conn()->want_send(*core_);
  core_->conn()->flush_later();
}

}  // namespace edgemesh::p2p
