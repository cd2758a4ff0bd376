#include "proxy/http/h1_conn.h"

#include <array>
#include <charconv>
#include <vector>

#include "core/http/message.h"

namespace edgemesh::proxy::h1 {

using http::H1BodyDecoder;
using io::IoResult;

std::span<http::FieldView> field_storage() {
  thread_local std::array<http::FieldView, kMaxFields> fields;
  return fields;
}

void put_number(char** at, uint64_t number) {
  *at = std::to_chars(*at, *at + 20, number).ptr;
}

constinit thread_local Conn::Watch* Conn::Watch::innermost_ = nullptr;

Conn::Conn(io::Loop& loop, WriteBatch& batch, std::unique_ptr<io::Stream> io,
           http::H1HeadParser::Kind kind, const http::H1Limits& limits, bool connected)
    : loop_(loop),
      batch_(batch),
      io_(std::move(io)),
      parser_(kind, field_storage(), limits),
      connected_(connected) {
  io_->set_handler(this);
}

Conn::~Conn() {
  for (Watch* watch = Watch::innermost_; watch != nullptr; watch = watch->outer_)
    if (watch->conn_ == this) watch->conn_ = nullptr;
  if (stream_ != nullptr) stream_->conn = nullptr;
}

// ---- input

bool Conn::may_read() const {
  if (io_ == nullptr || closing_ || eof_ || !connected_) return false;
  if (stream_ == nullptr) return reads_idle();
  const Stream& s = *stream_;
  if (awaits_head()) return true;
  if (!s.in_ended && (!s.wants_tunnel || s.tunnel)) return s.reading;
  // Nothing is wanted but the news that the connection is lost.
  return in_.empty();
}

void Conn::on_readable() {
  Watch watch(*this);
  while (may_read()) {
    IoResult got = io_->read({loop_.scratch(), kReadBytes});
    if (got.status == IoResult::kError) return;  // on_error() follows
    if (got.status == IoResult::kWouldBlock) break;
    if (got.status == IoResult::kEof) {
      eof_ = true;
      on_end_of_input();
      if (watch.dead()) return;
      break;
    }
    note_progress();
    if (!feed(io::as_text({loop_.scratch(), got.n}))) return;
  }
  if (io_ != nullptr) after_input();
}

bool Conn::feed(std::string_view bytes) {
  if (!in_.empty()) {
    in_.append(bytes);
    return feed_buffered();
  }
  Watch watch(*this);
  Step next = kMore;
  while (next == kMore && io_ != nullptr && !closing_) {
    size_t n = 0;
    next = step(bytes, &n);
    if (watch.dead()) return false;
    bytes.remove_prefix(n);
  }
  if (io_ != nullptr && !closing_) in_.append(bytes);
  return true;
}

bool Conn::feed_buffered() {
  Watch watch(*this);
  Step next = kMore;
  while (next == kMore && io_ != nullptr && !closing_) {
    size_t n = 0;
    next = step(in_.view(), &n);
    if (watch.dead()) return false;
    if (n > 0) in_.consume(n);
  }
  return true;
}

void Conn::deliver(Stream& stream, std::string_view body, bool end) {
  Stream::Handler* handler = stream.handler;
  if (end) end_input(stream);
  if (handler != nullptr) handler->on_data(io::as_bytes(body), end);
}

Conn::Step Conn::step_body(std::string_view rest, size_t* n) {
  Stream& s = *stream_;
  if (s.in_ended || !s.reading || (s.wants_tunnel && !s.tunnel)) return kWait;
  if (s.tunnel) {
    if (rest.empty()) return kWait;
    *n = rest.size();
    deliver(s, rest, false);
    return kMore;
  }
  std::string_view data;
  switch (s.decoder.next(rest, n, &data)) {
    case H1BodyDecoder::kNeedMore: return kWait;
    case H1BodyDecoder::kError:
      on_bad_body(ResetReason::kProtocol, s.decoder.error().text);
      return kWait;
    case H1BodyDecoder::kEnd: return end_of_body(s);
    case H1BodyDecoder::kData: break;
  }
  s.received += data.size();
  if (max_body_ != 0 && s.received > max_body_) {
    on_bad_body(ResetReason::kTooLarge, "the body is too large");
    return kWait;
  }
  deliver(s, data, s.decoder.done());
  return kMore;
}

Conn::Step Conn::end_of_body(Stream& stream) {
  std::span<const http::FieldView> fields = stream.decoder.trailers();
  if (fields.empty()) {
    deliver(stream, {}, true);
    return kMore;
  }
  HeadPtr trailers = take_head();
  for (const http::FieldView& field : fields) trailers->add(field.name, field.value);
  Stream::Handler* handler = stream.handler;
  end_input(stream);
  if (handler != nullptr) handler->on_trailers(std::move(trailers));
  return kMore;
}

void Conn::end_input(Stream& stream) {
  stream.in_ended = true;
  maybe_finish(stream);
}

void Conn::end_output(Stream& stream) {
  if (stream.out_ended) return;
  stream.out_ended = true;
  if (stream.out_framing == Framing::kLength && stream.out_left != 0) misframed_ = true;
  if (stream.tunnel) shut_after_write_ = true;
  flush_later();
  if (!misframed_) maybe_finish(stream);
}

void Conn::maybe_finish(Stream& stream) {
  if (!stream.in_ended || !stream.out_ended || stream_ != &stream) return;
  detach();
  on_exchange_end();
}

Stream* Conn::detach() {
  Stream* stream = stream_;
  if (stream != nullptr) stream->conn = nullptr;
  stream_ = nullptr;
  above_high_water_ = false;
  return stream;
}

void Conn::begin_tunnel(Stream& stream) {
  stream.tunnel = true;
  stream.wants_tunnel = false;
  resume();  // what was sent ahead
}

void Conn::resume() {
  resume_ = true;
  flush_later();
}

// ---- output

bool Conn::write_out() {
  if (!connected_) return out_.empty();
  while (!out_.empty()) {
    std::span<const uint8_t> bytes = io::as_bytes(out_.view());
    IoResult done = closing_ && ends_both_ ? io_->write_before_end(bytes) : io_->write(bytes);
    if (done.status != IoResult::kOk) {
      write_blocked_ = true;
      return false;
    }
    out_.consume(done.n);
    note_progress();
  }
  write_blocked_ = false;
  return true;
}

void Conn::write_large(std::string_view data) {
  // The head and the beginning of the body go together; the rest is not copied.
  if (!out_.empty() && out_.size() < ByteBuffer::kBlockBytes) {
    size_t room = ByteBuffer::kBlockBytes - out_.size();
    size_t n = room < data.size() ? room : data.size();
    out_.append(data.substr(0, n));
    data.remove_prefix(n);
  }
  if (write_out()) {
    while (!data.empty()) {
      IoResult done = io_->write(io::as_bytes(data));
      if (done.status != IoResult::kOk) {
        write_blocked_ = true;
        break;
      }
      note_progress();
      data.remove_prefix(done.n);
    }
  }
  out_.append(data);
}

bool Conn::write_data(Stream& s, std::span<const uint8_t> bytes, bool end) {
  if (s.out_ended || io_ == nullptr || misframed_) return true;
  std::string_view data = io::as_text(bytes);
  bool framed = s.out_framing != Framing::kNone;
  if (s.out_framing == Framing::kLength) {
    if (data.size() > s.out_left) {
      misframed_ = true;
      flush_later();
      return true;
    }
    s.out_left -= data.size();
  }
  bool chunk = s.out_framing == Framing::kChunked && !data.empty();
  if (chunk) {
    char line[20];
    char* at = std::to_chars(line, line + 16, data.size(), 16).ptr;
    put(&at, "\r\n");
    out_.append({line, static_cast<size_t>(at - line)});
  }
  if (framed && !data.empty()) {
    if (data.size() >= ByteBuffer::kBlockBytes && connected_ && !write_blocked_)
      write_large(data);
    else
      out_.append(data);
  }
  if (chunk) out_.append("\r\n");
  if (end) {
    if (s.out_framing == Framing::kChunked) out_.append("0\r\n\r\n");
    end_output(s);
    return true;
  }
  if (!out_.empty()) flush_later();
  if (out_.size() <= kHighWater) return true;
  above_high_water_ = true;
  return false;
}

void Conn::write_trailers(Stream& s, const Head& trailers) {
  if (s.out_ended || io_ == nullptr || misframed_) return;
  if (s.out_framing == Framing::kChunked) {
    char* begin = out_.prepare(fields_size(trailers) + 16);
    char* at = begin;
    put(&at, "0\r\n");
    for (const FieldView& field : trailers.fields()) {
      put(&at, field.name);
      put(&at, ": ");
      put(&at, field.value);
      put(&at, "\r\n");
    }
    put(&at, "\r\n");
    out_.commit(static_cast<size_t>(at - begin));
  }
  end_output(s);
}

size_t Conn::fields_size(const Head& head) {
  size_t bytes = 0;
  for (const FieldView& field : head.fields()) bytes += field.name.size() + field.value.size() + 4;
  return bytes;
}

// Content-Length and Expect are written from what the head says besides.
void Conn::write_fields(const Head& head, char** at) {
  for (const FieldView& field : head.fields()) {
    if (field.name.size() == 14 && http::equals_ignore_case(field.name, "content-length")) continue;
    if (field.name.size() == 6 && http::equals_ignore_case(field.name, "expect")) continue;
    put(at, field.name);
    put(at, ": ");
    put(at, field.value);
    put(at, "\r\n");
  }
}

void Conn::on_writable() {
  write_blocked_ = false;
  flush_writes();
}

void Conn::flush_writes() {
  Watch watch(*this);
  if (misframed_ && io_ != nullptr) {
    write_out();
    io_->reset();
    Error error{ErrorCode::kInternal, "a body of another length than announced", 0};
    return lose(ResetReason::kProtocol, error);
  }
  if (io_ == nullptr) return tell_closed();
  if (!connected_) return;
  bool all = write_out();
  if (above_high_water_ && out_.size() <= kLowWater && stream_ != nullptr) {
    above_high_water_ = false;
    if (stream_->handler != nullptr) stream_->handler->on_writable();
    if (watch.dead()) return;
    if (io_ == nullptr || misframed_) return flush_later();
    all = out_.empty();
  }
  if (all && shut_after_write_) {
    shut_after_write_ = false;
    io_->shutdown_write();
  }
  if (all && closing_) {
    close_gracefully();
    return tell_closed();
  }
  after_input();
  on_idle_turn();
  if (watch.dead() || io_ == nullptr || closing_) return;
  if (!resume_ || (stream_ == nullptr && !reads_idle())) return;
  resume_ = false;
  if (!in_.empty() && !feed_buffered()) return;
  if (eof_) {
    on_end_of_input();
    if (watch.dead()) return;
  }
  on_readable();
}

// ---- ends

void Conn::on_error(const Error& error) {
  lose(ResetReason::kConnectionLost, error);
}

void Conn::lose(ResetReason reason, const Error& error) {
  Watch watch(*this);
  error_ = error;
  io_.reset();
  if (Stream* stream = detach(); stream != nullptr && stream->handler != nullptr) {
    stream->handler->on_reset(reason, error_.message);
    if (watch.dead()) return;
  }
  tell_closed();
}

void Conn::cut() {
  detach();
  if (io_ == nullptr) return;
  write_out();  // earlier answers
  io_->reset();
  io_.reset();
  out_.clear();
  flush_later();
}

void Conn::tell_closed() {
  if (closed_told_) return;
  closed_told_ = true;
  Error error = std::move(error_);
  report_closed(error);
}

// ---- Stream

namespace {
struct FreeStreams {
  std::vector<Stream*> list;
  ~FreeStreams() {
    for (Stream* stream : list) delete stream;
  }
};
thread_local FreeStreams free_streams;
constexpr size_t kKeepStreams = 256;
}  // namespace

Stream* Stream::take(Conn* conn, const SockAddr& peer,
                     const std::shared_ptr<const tls::PeerIdentity>& identity) {
  Stream* stream = nullptr;
  if (free_streams.list.empty()) {
    stream = new Stream;
  } else {
    stream = free_streams.list.back();
    free_streams.list.pop_back();
    *stream = Stream{};
  }
  stream->conn = conn;
  stream->peer = peer;
  stream->identity = identity;
  return stream;
}

void Stream::release() {
  handler = nullptr;
  if (conn != nullptr) conn->on_released(*this);
  if (free_streams.list.size() >= kKeepStreams) {
    delete this;
    return;
  }
  identity.reset();
  free_streams.list.push_back(this);
}

void Stream::send_head(const Head& head, bool end) {
  if (conn != nullptr) conn->write_head(*this, head, end);
}

bool Stream::send_data(std::span<const uint8_t> data, bool end) {
  return conn == nullptr || conn->write_data(*this, data, end);
}

void Stream::send_trailers(const Head& trailers) {
  if (conn != nullptr) conn->write_trailers(*this, trailers);
}

void Stream::set_reading(bool on) {
  if (reading == on) return;
  reading = on;
  if (on && conn != nullptr) conn->resume();
}

}  // namespace edgemesh::proxy::h1
