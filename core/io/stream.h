// Stream: a bidirectional, ordered byte stream with back-pressure. The one interface under the proxy:
// a TCP socket, TLS over one, an HTTP/2 or HTTP/3 CONNECT stream and a test's memory pipe look alike.
//
// Contract
// - Readiness is edge-like: after read() returned kWouldBlock, on_readable() is called once when there
//   is more (data, end or error). After write() took less than it was given, on_writable() is called
//   once when there is room. Not reading is the way to push back on the peer; a stream holds a
//   bounded amount of what was not read.
// - A stream that is being opened (connect, CONNECT request) accepts writes at once, up to its send
//   limit; on_connected() comes at most once, before any on_readable(). What was written travels with
//   the open where the protocol allows.
// - End of input is kEof from read(); the other direction stays open (half-close) until
//   shutdown_write() or close.
// - on_error() comes at most once and is terminal: no other callback follows. It may come before
//   on_connected() (then the open failed). Data received earlier may no longer be read.
// - No callback runs from within read(), write(), shutdown_write() or the constructor.
// - Destroying a stream closes it: gracefully when both directions ended, else abruptly (reset). It
//   is allowed in any callback of that stream. No callback runs after it.
// Threads: a stream belongs to the loop that made it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "core/base/result.h"

namespace edgemesh::io {

struct IoResult {
  enum Status : uint8_t { kOk, kWouldBlock, kEof, kError };
  Status status = kOk;
  int sys = 0;   // errno for kError
  size_t n = 0;  // bytes moved; > 0 exactly when kOk
};

inline constexpr IoResult kWouldBlock{IoResult::kWouldBlock, 0, 0};
inline constexpr IoResult kEof{IoResult::kEof, 0, 0};

class DatagramSide;

class Stream {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    virtual void on_connected() {}
    virtual void on_readable() = 0;
    virtual void on_writable() = 0;
    virtual void on_error(const Error& error) = 0;
  };

  virtual ~Stream() = default;

  // Must be set before the loop's next turn; may be changed later. Borrowed.
  virtual void set_handler(Handler* handler) = 0;
  virtual IoResult read(std::span<uint8_t> into) = 0;
  // Takes a prefix of `data`: kOk with n > 0, or kWouldBlock. kError: on_error follows.
  virtual IoResult write(std::span<const uint8_t> data) = 0;
  // write(), when shutdown_write() or close_both() follows at once: bytes and end share a packet.
  virtual IoResult write_before_end(std::span<const uint8_t> data) { return write(data); }
  // Ends both directions after what was written. For a peer that is done: what it sends nevertheless is
  // answered by a reset, which may overtake our last bytes. False: nothing happened, the stream cannot.
  virtual bool close_both() { return false; }
  // Ends our direction after what was written. Idempotent.
  virtual void shutdown_write() = 0;
  // Makes the destructor send a reset even if both directions ended.
  virtual void reset() = 0;
  // The descriptor when bytes may be moved around this object with splice(2); else -1.
  virtual int splice_fd() const { return -1; }
  // Of an open that failed or is given up: true where it is certain that the far end got nothing of
  // what was written here, because it never left or the open was refused. Then, and only then, the
  // same bytes may be given to another stream.
  virtual bool nothing_delivered() const { return false; }
  // Once connected: what carries it, a number that the maker of the stream gives a meaning
  // (p2p::PathKind). 0: nothing that has a name. A stream over another one passes the question on.
  virtual uint8_t carrier() const { return 0; }
  // Null: it carries bytes only, or does so yet. Owned by the stream; not to be kept.
  virtual DatagramSide* datagrams() { return nullptr; }
};

inline std::span<const uint8_t> as_bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};  // NOLINT
}
inline std::string_view as_text(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};  // NOLINT
}

}  // namespace edgemesh::io
