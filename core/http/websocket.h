// WebSocket (RFC 6455) over an io::Stream, server and client; no extensions.
//
// Incoming pings are answered by themselves. A message beyond max_message_bytes closes with 1009, a
// protocol error with 1002, text that is not UTF-8 with 1007. Threads: the loop that made it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/base/function.h"
#include "core/http/client.h"
#include "core/http/message.h"
#include "core/http/server.h"
#include "core/io/loop.h"
#include "core/tls/context.h"

namespace edgemesh::http {

// Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 1.3): proves that the request was understood.
std::string websocket_accept(std::string_view key);

struct WebSocketOptions {
  size_t max_message_bytes = 16 << 20;
  size_t max_queued_bytes = 64 << 20;                  // unsent; send_* fails beyond
  Duration close_timeout = std::chrono::seconds(3);    // for the peer's close frame
  Duration connect_timeout = std::chrono::seconds(5);  // client: each of connect, TLS, answer
  std::string server_name;  // client: name to check in the certificate, instead of the URL's host
  uint32_t mark = 0;        // client: SO_MARK
};

class WebSocket {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    // `data` is valid during the call.
    virtual void on_message(std::string_view data, bool text) = 0;
    virtual void on_pong(std::string_view payload) { static_cast<void>(payload); }
    // Bytes came, whatever they are: of a large message on a slow line it is a sign of life long before
    // the message is whole. The WebSocket must not be destroyed in it.
    virtual void on_heard() {}
    // The queue of unsent bytes became empty after it was not.
    virtual void on_drain() {}
    // Once, the last callback. `code` is the peer's close code (1005: none given); or ours (1002,
    // 1007, 1009) when the peer broke the rules; or 1006 when the connection broke without a close
    // frame. `reason` is the peer's, or tells how.
    virtual void on_close(uint16_t code, const std::string& reason) = 0;
  };

  // `done` runs once, never from within connect(). Destroying the handle cancels. The handshake's
  // answer is verified (101, Sec-WebSocket-Accept); another status ends in an error that names it.
  using OnConnected = UniqueFunction<void(Result<std::unique_ptr<WebSocket>>)>;
  [[nodiscard]] static std::unique_ptr<Call> connect(io::Loop& loop, std::string_view url,
                                                     const Headers& headers,
                                                     std::shared_ptr<tls::Context> tls,
                                                     OnConnected done,
                                                     const WebSocketOptions& options = {});
  // Answers the upgrade request: 101, or an error after an answer of 400/426 was sent.
  static Result<std::unique_ptr<WebSocket>> accept(io::Loop& loop, const Request& request,
                                                   ResponseWriter& writer,
                                                   const WebSocketOptions& options = {});
  // Over a stream whose handshake is done. For tests and fuzzing.
  static std::unique_ptr<WebSocket> over(io::Loop& loop, std::unique_ptr<io::Stream> stream,
                                         bool server, const WebSocketOptions& options = {});

  // Destroying without close() cuts the connection. Allowed in the handler's callbacks.
  virtual ~WebSocket() = default;
  // Set before the loop's next turn. Borrowed.
  virtual void set_handler(Handler* handler) = 0;
  // Queued; sent in this turn's deferred tasks (several messages leave together). Fails after close
  // and when max_queued_bytes would be passed.
  virtual Result<> send_text(std::string_view text) = 0;
  virtual Result<> send_binary(std::string_view data) = 0;
  virtual Result<> send_ping(std::string_view payload) = 0;  // <= 125 bytes
  virtual size_t queued_bytes() const = 0;
  // Starts the closing handshake; on_close follows. `reason` is cut to 123 bytes.
  virtual void close(uint16_t code, std::string_view reason) = 0;
  // Not reading pushes back on the peer (pings are not answered meanwhile).
  virtual void pause_reading() = 0;
  virtual void resume_reading() = 0;
  // From TLS; null when there is none.
  virtual std::shared_ptr<const tls::PeerIdentity> peer() const = 0;
};

}  // namespace edgemesh::http
