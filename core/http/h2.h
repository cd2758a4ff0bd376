// H2Session: one HTTP/2 connection (RFC 9113) that carries CONNECT streams (RFC 9113 8.5), each as
// an io::Stream. Wire-compatible with Istio's HBONE: ":method CONNECT", ":authority ip:port".
// Servers take extended CONNECT (RFC 8441) too; a client does not wait for the SETTINGS that say so,
// since a server that does not take it ends the stream alone.
//
// - open_connect() returns at once; what is written before the answer travels with the open (no
// extra
//   round trip). on_connected() is the peer's 2xx; another status is on_error, its message "HTTP
//   503: reason" with the reason that the far reject() gave. 403 is kPermissionDenied, 404
//   kNotFound, 5xx kUnavailable.
// - Flow control end to end: a window opens only as the reader takes bytes; a stream holds at most
// its
//   window (receive) and send_buffer (send) bytes.
// - Frames of one loop turn leave in one write.
// - Limits against floods: concurrent streams, resets by the peer, unacknowledged settings and
// pings,
//   header bytes. A peer that passes them gets GOAWAY(ENHANCE_YOUR_CALM) and is closed.
// Streams may outlive the session: then they end in on_error. Threads: the loop that made it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/base/function.h"
#include "core/http/message.h"
#include "core/io/loop.h"
#include "core/io/send_budget.h"
#include "core/io/stream.h"

namespace edgemesh::http {

struct H2Options {
  uint32_t max_concurrent_streams = 16384;  // of the peer
  uint32_t stream_window = 4 << 20;
  uint32_t connection_window = 16 << 20;
  uint32_t max_frame = 64 << 10;
  size_t send_buffer = 512 << 10;  // a stream; grows on demand
  size_t send_budget = 64 << 20;   // all streams together; see io::SendBudget
  io::SendPool* send_pool = &io::SendPool::process();  // and all sessions
  size_t max_header_bytes = 16 << 10;
  uint32_t reset_burst = 1000;      // resets by the peer...
  uint32_t reset_per_second = 200;  // ...and the rate that refills the burst
  // Between GOAWAY and the end: how long open streams may go on.
  Duration drain_timeout = std::chrono::seconds(30);
};

// Extended CONNECT (RFC 8441): what a stream carries beside its bytes.
struct ExtendedConnect {
  std::string protocol;  // "connect-udp"
  std::string scheme;
  std::string path;
};

// One CONNECT of the peer (server side). Dropping it without an answer refuses with 503.
class H2Connect {
 public:
  virtual ~H2Connect() = default;
  virtual const std::string& authority() const = 0;
  virtual const Headers& headers() const = 0;  // without pseudo-header fields
  virtual const ExtendedConnect* extended() const = 0;  // null: a plain CONNECT
  // 200. Null when the peer has gone meanwhile. Once.
  virtual std::unique_ptr<io::Stream> accept(const Headers& extra = {}) = 0;
  virtual void reject(int status, std::string_view reason) = 0;
};

class H2Session {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    // Server side only. May be kept and answered later.
    virtual void on_connect(std::unique_ptr<H2Connect> connect) = 0;
    // The peer will take no new streams (GOAWAY): open a new session for them. Open streams go on.
    virtual void on_goaway() {}
    // The last callback: the connection ended. kCancelled after our own goaway() ran dry. The
    // session may be destroyed here.
    virtual void on_close(const Error& error) = 0;
  };

  // `below` is connected or connecting (TCP, TLS with ALPN h2). The session becomes its handler.
  static Result<std::unique_ptr<H2Session>> client(io::Loop& loop,
                                                   std::unique_ptr<io::Stream> below,
                                                   Handler* handler, const H2Options& options = {});
  static Result<std::unique_ptr<H2Session>> server(io::Loop& loop,
                                                   std::unique_ptr<io::Stream> below,
                                                   Handler* handler, const H2Options& options = {});
  virtual ~H2Session() = default;  // cuts the connection; allowed in any callback

  // Client side. Fails when the session is closed, going away, or has no stream ids left. Streams
  // beyond the peer's concurrent limit wait inside.
  virtual Result<std::unique_ptr<io::Stream>> open_connect(
      std::string_view authority, const Headers& extra = {},
      const ExtendedConnect* extended = nullptr) = 0;
  // Round-trip time of a PING; an error when the session ends before the answer.
  virtual void ping(UniqueFunction<void(Result<Duration>)> done) = 0;
  // Graceful: no new streams, the connection ends when the open ones have.
  virtual void goaway() = 0;
  virtual bool accepts_streams() const = 0;
  virtual size_t active_streams() const = 0;
  virtual uint64_t bytes_in() const = 0;  // payload of DATA
  virtual uint64_t bytes_out() const = 0;
  // For TLS identity and addresses. Valid until on_close() returned.
  virtual io::Stream& below() = 0;
};

}  // namespace edgemesh::http
