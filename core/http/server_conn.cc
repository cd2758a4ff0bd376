#include "core/http/server_conn.h"

#include "core/base/log.h"
#include "core/http/prefix_stream.h"
#include "core/http/server_impl.h"
#include "core/io/lingering_close.h"
#include "core/tls/tls_stream.h"

namespace edgemesh::http {

using io::IoResult;

namespace {
// Input that may wait unparsed while earlier requests are in work.
constexpr size_t kReadAhead = 64 * 1024;
}  // namespace

ServerConn::ServerConn(ServerImpl& server, std::unique_ptr<io::Stream> stream, const SockAddr& peer,
                       bool wait_connected)
    : server_(server),
      stream_(std::move(stream)),
      peer_addr_(peer),
      phase_(wait_connected ? Phase::kConnecting : Phase::kHead),
      parser_(H1HeadParser::kRequest, server.fields, server.limits()),
      timer_(server.loop, [this] { on_timeout(); }) {
  stream_->set_handler(this);
  arm_timer();
}

ServerConn::~ServerConn() {
  *alive_ = false;
  if (next_slot_) next_slot_->conn = nullptr;
  // Callbacks often hold the writer, and the writer the slot: that ring ends here.
  for (auto& slot : slots_) {
    slot->conn = nullptr;
    auto on_close = std::move(slot->on_close);
    auto on_drain = std::move(slot->on_drain);
  }
}

void ServerConn::on_connected() {
  if (phase_ != Phase::kConnecting) return;
  phase_ = Phase::kHead;
  server_.handshake_over();
  if (auto* tls = dynamic_cast<tls::TlsStream*>(stream_.get())) {
    secure_ = true;
    peer_ = tls->shared_peer();
  }
  arm_timer();
}

bool ServerConn::may_read() const {
  if (eof_ || phase_ == Phase::kClosing || phase_ == Phase::kGone) return false;
  if (clogged()) return false;
  return phase_ == Phase::kBody || in_.size() - in_at_ < kReadAhead + server_.options.max_head;
}

// Requests are a few bytes, their answers may be megabytes: a client that sends and does not read must
// not have us make more of them.
bool ServerConn::clogged() const { return unsent() > server_.options.high_water; }

void ServerConn::on_readable() {
  while (!(read_paused_ = !may_read())) {
    IoResult r = stream_->read({server_.loop.scratch(), io::Loop::kScratchBytes});
    if (r.status == IoResult::kError) return;  // on_error follows
    if (r.status == IoResult::kWouldBlock) break;
    if (r.status == IoResult::kEof) {
      eof_ = true;
    } else {
      took_input_ = true;
      in_.append(io::as_text({server_.loop.scratch(), r.n}));
    }
    process();
    if (stream_ == nullptr) return;  // upgraded
  }
  if (phase_ != Phase::kGone) arm_timer();
}

void ServerConn::consume(size_t n) {
  in_at_ += n;
  if (in_at_ == in_.size()) {
    in_at_ = 0;
    if (in_.capacity() > 4096)
      std::string().swap(in_);  // an idle connection keeps no buffer
    else
      in_.clear();
  } else if (in_at_ > 256 * 1024) {
    in_.erase(0, in_at_);
    in_at_ = 0;
  }
}

void ServerConn::process() {
  if (processing_) return;
  processing_ = true;
  bool more = true;
  while (more && (phase_ == Phase::kHead || phase_ == Phase::kBody) && stream_ != nullptr)
    more = phase_ == Phase::kHead ? process_head() : process_body();
  processing_ = false;
  if (stream_ != nullptr && eof_) schedule_flush();
}

bool ServerConn::process_head() {
  if (no_more_ || clogged() || input().empty()) return false;
  if (slots_.size() >= server_.options.max_pipelined) return false;
  H1Head head;
  size_t consumed = 0;
  H1Status status = parser_.parse(input(), &head, &consumed);
  if (status == H1Status::kError) {
    refuse(parser_.error().status, parser_.error().text);
    return false;
  }
  if (status == H1Status::kIncomplete) return false;
  // A body waits until earlier answers are out: only one is held in memory.
  if (head.body != BodyKind::kNone && !slots_.empty()) {
    parser_.reset();
    return false;
  }
  if (head.has_content_length && head.content_length > server_.options.max_body) {
    refuse(413, "the body is too large");
    return false;
  }
  begin_request(head);
  consume(consumed);
  parser_.reset();
  phase_ = Phase::kBody;
  return true;
}

void ServerConn::begin_request(const H1Head& head) {
  any_request_ = true;
  request_ = Request{};
  request_.method = head.method;
  request_.target = head.target;
  for (const FieldView& field : head.fields) request_.headers.add(field.name, field.value);
  request_.peer_addr = peer_addr_;
  request_.peer = peer_;
  request_.secure = secure_;
  request_.version = 10 + head.minor_version;
  if (head.body == BodyKind::kLength && head.content_length <= 64 * 1024)
    request_.body.reserve(static_cast<size_t>(head.content_length));
  body_ = H1BodyDecoder(head.body, head.content_length, server_.fields, server_.limits());
  expect_continue_ = head.expect_continue && head.body != BodyKind::kNone;
  next_slot_ = std::make_shared<ServerSlot>();
  next_slot_->conn = this;
  next_slot_->head_request = head.method == "HEAD";
  next_slot_->http10 = head.minor_version == 0;
  next_slot_->keep_alive = head.keep_alive && !server_.draining();
}

bool ServerConn::process_body() {
  size_t n = 0;
  std::string_view data;
  auto event = body_.next(input(), &n, &data);
  if (event == H1BodyDecoder::kData) {
    expect_continue_ = false;
    if (request_.body.size() + data.size() > server_.options.max_body) {
      refuse(413, "the body is too large");
      return false;
    }
    request_.body.append(data);
  }
  consume(n);
  switch (event) {
    case H1BodyDecoder::kData: return true;
    case H1BodyDecoder::kEnd: dispatch(); return true;
    case H1BodyDecoder::kError: refuse(400, body_.error().text); return false;
    case H1BodyDecoder::kNeedMore: break;
  }
  if (expect_continue_) {  // no earlier answer is open: process_head saw to that
    expect_continue_ = false;
    out_ += "HTTP/1.1 100 Continue\r\n\r\n";
    schedule_flush();
  }
  return false;
}

void ServerConn::dispatch() {
  phase_ = Phase::kHead;
  auto slot = std::move(next_slot_);
  next_slot_ = nullptr;
  if (!slot->keep_alive) no_more_ = true;
  slots_.push_back(slot);
  auto writer = std::make_shared<SlotWriter>(std::move(slot));
  server_.handler(std::exchange(request_, Request{}), std::move(writer));
}

// Answers what cannot be parsed and ends the connection after earlier answers.
void ServerConn::refuse(int status, std::string_view text) {
  EM_LOG(kDebug, server_.options.name, "{}: bad request: {}", peer_addr_.to_string(), text);
  no_more_ = true;
  phase_ = Phase::kHead;
  auto slot = next_slot_ ? std::move(next_slot_) : std::make_shared<ServerSlot>();
  next_slot_ = nullptr;
  slot->conn = this;
  slot->keep_alive = false;
  slots_.push_back(slot);
  SlotWriter writer(std::move(slot));
  writer.respond({status, {{"Content-Type", "text/plain"}}, std::string(text) + "\n"});
}

void ServerConn::append(ServerSlot& slot, std::string_view data) {
  if (aborting_) return;
  // What waits already counts, not `data`: one answer may be as large as its handler makes it.
  if (unsent() + pending_ > server_.options.max_unsent) {
    EM_LOG(kWarn, server_.options.name, "a client that does not read its answers is cut off");
    return abort();
  }
  if (!is_front(slot)) {
    pending_ += data.size();
    slot.pending.append(data);
    return;
  }
  out_.append(data);
  schedule_flush();
}

void ServerConn::slot_ended() {
  while (!slots_.empty() && slots_.front()->ended) {
    auto done = std::move(slots_.front());
    slots_.pop_front();
    done->conn = nullptr;
    // One of them may be the caller: they are destroyed after it returned.
    if (done->on_close || done->on_drain)
      server_.loop.defer([a = std::move(done->on_close), b = std::move(done->on_drain)] {});
    if (!done->keep_alive) {
      no_more_ = true;
      phase_ = Phase::kClosing;
      for (auto& slot : slots_) slot->conn = nullptr;  // cannot be: no request is taken after it
      slots_.clear();
      break;
    }
    if (slots_.empty()) break;
    ServerSlot& next = *slots_.front();
    pending_ -= next.pending.size();
    out_.append(next.pending);
    std::string().swap(next.pending);
  }
  schedule_flush();
}

void ServerConn::abort() {
  if (aborting_) return;
  aborting_ = true;
  server_.loop.defer([this, alive = alive_] {
    if (!*alive || stream_ == nullptr) return;
    stream_->reset();
    gone();
  });
}

void ServerConn::schedule_flush() {
  if (flush_queued_) return;
  flush_queued_ = true;
  server_.loop.defer([this, alive = alive_] {
    if (!*alive) return;
    flush_queued_ = false;
    flush();
  });
}

bool ServerConn::write_out() {
  while (out_at_ < out_.size()) {
    IoResult r = stream_->write(io::as_bytes(std::string_view(out_).substr(out_at_)));
    if (r.status != IoResult::kOk) return false;
    took_output_ = true;
    out_at_ += r.n;
  }
  out_at_ = 0;
  if (out_.capacity() > 4096)
    std::string().swap(out_);
  else
    out_.clear();
  return true;
}

void ServerConn::flush() {
  if (stream_ == nullptr || phase_ == Phase::kGone || phase_ == Phase::kConnecting) return;
  if (!write_out()) {
    if (out_at_ > 256 * 1024) {
      out_.erase(0, out_at_);
      out_at_ = 0;
    }
    if (eof_ && !slots_.empty() && slots_.front()->started) return gone();
    return arm_timer();
  }
  after_flush();
}

void ServerConn::after_flush() {
  if (phase_ == Phase::kClosing) return finish_gracefully();
  auto alive = alive_;
  if (!slots_.empty() && slots_.front()->above_high_water) {
    auto slot = slots_.front();
    slot->above_high_water = false;
    if (slot->on_drain) {
      // The callback may replace itself, or end the answer.
      auto callback = std::move(slot->on_drain);
      callback();
      if (!*alive) return;
      if (!slot->on_drain && slot->conn != nullptr) slot->on_drain = std::move(callback);
      if (stream_ == nullptr || phase_ == Phase::kGone) return;
    }
  }
  // The peer ended its direction: whole answers still go out, a stream without end does not.
  if (eof_ && !slots_.empty() && slots_.front()->started) return gone();
  if (eof_ && slots_.empty() && out_.empty()) return finish_gracefully();
  if (slots_.empty() && server_.draining() && phase_ == Phase::kHead) return finish_gracefully();
  // An answer went out: there may be requests that waited for it.
  process();
  if (stream_ == nullptr || phase_ == Phase::kGone) return;
  if (read_paused_ && may_read()) return on_readable();
  arm_timer();
}

void ServerConn::finish_gracefully() {
  if (stream_ == nullptr) return;
  phase_ = Phase::kGone;
  timer_.stop();
  stream_->set_handler(nullptr);
  if (eof_) {
    stream_->shutdown_write();
    stream_.reset();
  } else {
    io::lingering_close(server_.loop, std::move(stream_));
  }
  remove();
}

void ServerConn::gone() {
  if (phase_ == Phase::kGone) return;
  if (phase_ == Phase::kConnecting) server_.handshake_over();
  phase_ = Phase::kGone;
  timer_.stop();
  if (stream_) stream_->set_handler(nullptr);
  auto slots = std::move(slots_);
  slots_.clear();
  for (auto& slot : slots) slot->conn = nullptr;
  remove();
  for (auto& slot : slots) {
    slot->on_drain = nullptr;
    auto callback = std::move(slot->on_close);
    if (callback) callback();
  }
}

void ServerConn::remove() {
  server_.remove(this);
}

void ServerConn::on_writable() {
  flush();
}

void ServerConn::on_error(const Error& error) {
  EM_LOG(kDebug, server_.options.name, "{}: {}", peer_addr_.to_string(), error.message);
  gone();
}

Result<std::unique_ptr<io::Stream>> ServerConn::hand_over(ServerSlot& slot) {
  if (eof_) return fail(ErrorCode::kConnectionReset, "upgrade: the client went away");
  bool flushed = write_out();
  // Read up to "would block": only then the stream tells its new owner about more.
  bool would_block = false;
  while (in_.size() - in_at_ < 256 * 1024) {
    IoResult r = stream_->read({server_.loop.scratch(), io::Loop::kScratchBytes});
    would_block = r.status == IoResult::kWouldBlock;
    if (r.status != IoResult::kOk) break;
    in_.append(io::as_text({server_.loop.scratch(), r.n}));
  }
  std::unique_ptr<io::Stream> out = std::move(stream_);
  out->set_handler(nullptr);
  if (!flushed || !would_block || !input().empty())
    out = std::make_unique<PrefixStream>(server_.loop, std::move(out), std::string(input()),
                                         out_.substr(out_at_));
  phase_ = Phase::kGone;
  timer_.stop();
  slot.conn = nullptr;
  slots_.clear();
  remove();
  return out;
}

void ServerConn::drain(bool streams_too) {
  if (stream_ == nullptr || phase_ == Phase::kGone) return;
  if (phase_ == Phase::kConnecting) return gone();
  for (auto& slot : slots_) slot->keep_alive = false;
  if (next_slot_) next_slot_->keep_alive = false;
  if (!slots_.empty() && streams_too && slots_.front()->started && !slots_.front()->ended) {
    auto slot = slots_.front();
    auto callback = std::move(slot->on_close);
    if (slot->has_length || slots_.size() > 1) {
      abort();  // the answer cannot be completed
    } else {
      if (slot->chunked && !slot->no_body) append(*slot, "0\r\n\r\n");
      slot->ended = true;
      slot_ended();
    }
    if (callback) callback();
    return;
  }
  // Nothing in work and nothing half received.
  if (slots_.empty() && phase_ == Phase::kHead && input().empty()) schedule_flush();
}

void ServerConn::arm_timer() {
  if (phase_ == Phase::kGone) return;
  Wait wait = Wait::kNone;
  if (phase_ == Phase::kConnecting)
    wait = Wait::kFirst;
  else if (unsent() > 0)
    wait = Wait::kWrite;
  else if (phase_ == Phase::kBody)
    wait = Wait::kBody;
  else if (slots_.empty())
    wait = !input().empty() ? Wait::kHead : any_request_ ? Wait::kIdle : Wait::kFirst;
  // A head must be whole in its time however it trickles; the others count from the last progress.
  // Requests that keep coming do not excuse a client that takes no answers.
  bool progress = false;
  if (wait == Wait::kWrite) progress = took_output_;
  if (wait == Wait::kBody) progress = took_input_;
  if (wait == Wait::kIdle) progress = took_input_ || took_output_;
  bool keep = wait == wait_ && timer_.active() && !progress;
  took_input_ = took_output_ = false;
  if (keep) return;
  wait_ = wait;
  const ServerOptions& o = server_.options;
  switch (wait) {
    case Wait::kNone: return timer_.stop();
    case Wait::kFirst:
    case Wait::kHead: return timer_.start(o.head_timeout);
    case Wait::kBody: return timer_.start(o.body_timeout);
    case Wait::kIdle: return timer_.start(o.idle_timeout);
    case Wait::kWrite: return timer_.start(o.write_timeout);
  }
}

void ServerConn::on_timeout() {
  if (stream_ == nullptr) return;
  switch (wait_) {
    case Wait::kHead:
    case Wait::kBody: return refuse(408, "the request did not come in time");
    case Wait::kIdle: return finish_gracefully();
    default: stream_->reset(); gone();
  }
}

}  // namespace edgemesh::http
