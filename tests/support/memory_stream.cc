#include "tests/support/memory_stream.h"

#include <algorithm>
#include <cerrno>
#include <vector>

namespace edgemesh::test {

using io::IoResult;

struct MemoryStream::Shared {
  struct Direction {
    std::string bytes;  // written by side i, read by side 1 - i
    bool ended = false;
  };
  MemoryStreamOptions options;
  Direction from[2];
  MemoryStream* end[2] = {nullptr, nullptr};
  bool broken = false;
};

std::pair<std::unique_ptr<MemoryStream>, std::unique_ptr<MemoryStream>> MemoryStream::pair(
    io::Loop& loop, const MemoryStreamOptions& options) {
  auto shared = std::make_shared<Shared>();
  shared->options = options;
  std::unique_ptr<MemoryStream> a(new MemoryStream(loop, shared, 0));
  std::unique_ptr<MemoryStream> b(new MemoryStream(loop, shared, 1));
  shared->end[0] = a.get();
  shared->end[1] = b.get();
  a->wake_later();
  b->wake_later();
  return {std::move(a), std::move(b)};
}

MemoryStream::MemoryStream(io::Loop& loop, std::shared_ptr<Shared> shared, int side)
    : loop_(loop), shared_(std::move(shared)), side_(side) {}

MemoryStream::~MemoryStream() {
  *alive_ = false;
  shared_->end[side_] = nullptr;
  MemoryStream* other = shared_->end[1 - side_];
  bool graceful = shared_->from[side_].ended && eof_read_ && !reset_;
  if (!graceful) shared_->broken = true;
  if (other != nullptr) other->wake_later();
}

void MemoryStream::set_handler(io::Stream::Handler* handler) {
  handler_ = handler;
  if (handler != nullptr) wake_later();
}

IoResult MemoryStream::read(std::span<uint8_t> into) {
  if (shared_->broken) return {IoResult::kError, ECONNRESET, 0};
  Shared::Direction& in = shared_->from[1 - side_];
  size_t n = std::min(into.size(), in.bytes.size());
  if (shared_->options.max_read != 0) n = std::min(n, shared_->options.max_read);
  if (n == 0) {
    if (in.ended && in.bytes.empty()) {
      eof_read_ = true;
      return io::kEof;
    }
    want_readable_ = true;
    return io::kWouldBlock;
  }
  std::copy_n(in.bytes.data(), n, into.data());
  in.bytes.erase(0, n);
  bytes_read_ += n;
  if (MemoryStream* other = shared_->end[1 - side_]; other != nullptr && other->want_writable_)
    other->wake_later();
  return {IoResult::kOk, 0, n};
}

IoResult MemoryStream::write(std::span<const uint8_t> data) {
  Shared::Direction& out = shared_->from[side_];
  if (shared_->broken || out.ended) return {IoResult::kError, EPIPE, 0};
  size_t room = shared_->options.capacity - std::min(shared_->options.capacity, out.bytes.size());
  size_t n = std::min(data.size(), room);
  if (shared_->options.max_write != 0) n = std::min(n, shared_->options.max_write);
  if (n < data.size()) {
    want_writable_ = true;
    if (n < room) wake_later();  // only max_write held it back: room is there at once
  }
  if (n == 0) return io::kWouldBlock;
  out.bytes.append(io::as_text(data.first(n)));
  bytes_written_ += n;
  ++writes_;
  if (MemoryStream* other = shared_->end[1 - side_]; other != nullptr) other->wake_later();
  return {IoResult::kOk, 0, n};
}

void MemoryStream::shutdown_write() {
  shared_->from[side_].ended = true;
  if (MemoryStream* other = shared_->end[1 - side_]; other != nullptr) other->wake_later();
}

void MemoryStream::reset() {
  reset_ = true;
}

void MemoryStream::break_connection() {
  shared_->broken = true;
  for (MemoryStream* end : shared_->end)
    if (end != nullptr) end->wake_later();
}

bool MemoryStream::peer_gone() const {
  return shared_->end[1 - side_] == nullptr;
}

void MemoryStream::wake_later() {
  if (wake_queued_) return;
  wake_queued_ = true;
  loop_.defer([this, alive = alive_] {
    if (*alive) wake();
  });
}

void MemoryStream::wake() {
  wake_queued_ = false;
  if (handler_ == nullptr) return;
  if (shared_->broken) {
    if (error_told_) return;
    error_told_ = true;
    handler_->on_error(Error{ErrorCode::kConnectionReset, "connection reset by peer", ECONNRESET});
    return;
  }
  auto alive = alive_;
  const Shared::Direction& in = shared_->from[1 - side_];
  if (want_readable_ && (!in.bytes.empty() || in.ended)) {
    want_readable_ = false;
    handler_->on_readable();
    if (!*alive || handler_ == nullptr) return;
  }
  if (want_writable_ && shared_->from[side_].bytes.size() < shared_->options.capacity) {
    want_writable_ = false;
    handler_->on_writable();
  }
}

Collector::Collector(std::unique_ptr<io::Stream> stream) : stream_(std::move(stream)) {
  stream_->set_handler(this);
}

void Collector::send(std::string_view data) {
  unsent.append(data);
  on_writable();
}

void Collector::finish() {
  finish_ = true;
  on_writable();
}

void Collector::start_reading() {
  reading_ = true;
  on_readable();
}

std::unique_ptr<io::Stream> Collector::take() {
  stream_->set_handler(nullptr);
  return std::move(stream_);
}

void Collector::on_readable() {
  std::vector<uint8_t> buffer(read_size);
  while (reading_ && stream_ && !failed) {
    IoResult r = stream_->read(buffer);
    if (r.status == IoResult::kEof) eof = true;
    if (r.status != IoResult::kOk) return;
    received.append(io::as_text({buffer.data(), r.n}));
  }
}

void Collector::on_writable() {
  while (stream_ && !unsent.empty() && !failed) {
    IoResult r = stream_->write(io::as_bytes(unsent));
    if (r.status != IoResult::kOk) return;
    unsent.erase(0, r.n);
  }
  if (finish_ && stream_ && !failed) stream_->shutdown_write();
}

void Collector::on_error(const Error& e) {
  failed = true;
  error = e;
}

}  // namespace edgemesh::test
