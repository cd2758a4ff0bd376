// A pair of io::Streams in memory, for tests without sockets: bounded buffers, scripted chunk
// sizes, end of input, reset. Both ends live on one loop; callbacks come from deferred tasks.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "core/io/loop.h"
#include "core/io/stream.h"

namespace edgemesh::test {

struct MemoryStreamOptions {
  size_t capacity = 64 * 1024;  // bytes on the way, each direction
  size_t max_read = 0;          // bytes a read() gives at most; 0: no limit. 1: byte by byte
  size_t max_write = 0;         // bytes a write() takes at most
};

class MemoryStream final : public io::Stream {
 public:
  // The two ends are connected at once.
  static std::pair<std::unique_ptr<MemoryStream>, std::unique_ptr<MemoryStream>> pair(
      io::Loop& loop, const MemoryStreamOptions& options = {});
  ~MemoryStream() override;

  void set_handler(io::Stream::Handler* handler) override;
  io::IoResult read(std::span<uint8_t> into) override;
  io::IoResult write(std::span<const uint8_t> data) override;
  void shutdown_write() override;
  void reset() override;

  // Breaks both ends now: on_error(kConnectionReset).
  void break_connection();
  bool peer_gone() const;
  uint64_t bytes_read() const { return bytes_read_; }
  uint64_t bytes_written() const { return bytes_written_; }
  uint64_t writes() const { return writes_; }

 private:
  struct Shared;
  MemoryStream(io::Loop& loop, std::shared_ptr<Shared> shared, int side);
  void wake_later();
  void wake();

  io::Loop& loop_;
  std::shared_ptr<Shared> shared_;
  int side_;
  io::Stream::Handler* handler_ = nullptr;
  bool want_readable_ = true;
  bool want_writable_ = false;
  bool wake_queued_ = false;
  bool error_told_ = false;
  bool reset_ = false;
  bool eof_read_ = false;
  uint64_t bytes_read_ = 0;
  uint64_t bytes_written_ = 0;
  uint64_t writes_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// Collects what a stream gives, and sends what it is told; for the far end in tests.
class Collector final : public io::Stream::Handler {
 public:
  explicit Collector(std::unique_ptr<io::Stream> stream);

  // Queued; goes out as the stream takes it.
  void send(std::string_view data);
  void finish();  // shutdown_write() after what is queued
  void stop_reading() { reading_ = false; }
  void start_reading();
  io::Stream& stream() { return *stream_; }
  std::unique_ptr<io::Stream> take();
  void drop() { stream_.reset(); }
  bool alive() const { return stream_ != nullptr; }

  std::string received;
  std::string unsent;
  bool connected = false;
  bool eof = false;
  bool failed = false;
  Error error;
  size_t read_size = 64 * 1024;

 private:
  void on_connected() override { connected = true; }
  void on_readable() override;
  void on_writable() override;
  void on_error(const Error& e) override;

  std::unique_ptr<io::Stream> stream_;
  bool reading_ = true;
  bool finish_ = false;
};

}  // namespace edgemesh::test
