// HttpStream: one request and its answer on one connection. The four codecs (HTTP/1 and HTTP/2, server
// and client side) look alike to the exchange that stands between a server side stream and a client
// side stream.
//
// Contract
// - Server side: the request's head came with on_request(). Client side: send_head() begins.
// - on_head(), on_data() and on_trailers() come in the message's order; `end` (or on_trailers) is the
//   last of them. What they show is valid until they return; a HeadPtr is the receiver's.
// - on_reset() comes at most once, at any time, and is terminal: the peer reset the stream, or the
//   connection was lost. It does not come after release(), nor when both directions have ended.
// - No callback runs from within send_*(), set_reading() or release().
// - send_data() takes everything. False: more than the high-water mark waits to leave; the caller
//   should stop until on_writable(). At most what one caller pushes past that mark is held.
// - After set_reading(false) no data come (a head may) until set_reading(true); what the peer may send
//   meanwhile is bounded by its window (HTTP/2) or the socket (HTTP/1).
// - Messages of one loop turn leave in one write: see write_batch.h.
// - Bodies: a head with has_length announces it, else the codec frames the body by itself (chunked,
//   DATA frames, end of connection for HTTP/1.0). A codec checks what it receives against the announced
//   length; what it is given to send is the caller's duty.
// - Upgrade and CONNECT: the request has `protocol` or method CONNECT. When the answer is 101 (with
//   protocol; an HTTP/2 codec turns it into 200 and back, RFC 8441) or 2xx to CONNECT, data in both
//   directions are a tunnel's from then on, each direction ended by its `end`. The codecs bridge
//   WebSockets between the versions: Sec-WebSocket-Key and -Accept are HTTP/1's, see h1_client.h,
//   h1_server.h; HTTP/2 does not look at them (RFC 8441 5) but carries them where they are there, as
//   there may be an HTTP/1 hop behind.
// - release() gives the stream back, exactly once, by destroying the StreamPtr. When a direction has
//   not ended, the stream is reset: HTTP/2 RST_STREAM(CANCEL), HTTP/1 closes the connection (a server
//   whose answer is complete first drains a little of the request, so that the client sees the answer).
// Threads: the loop of the connection.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "core/base/net_addr.h"
#include "core/io/stream.h"
#include "core/tls/context.h"
#include "proxy/http/head.h"

namespace edgemesh::proxy {

enum class ResetReason : uint8_t {
  kRefused,         // the peer says that it did not look at it (REFUSED_STREAM, GOAWAY): safe to repeat
  kConnectionLost,  // closed, reset or timed out
  kCancelled,       // RST_STREAM(CANCEL) or another code of the peer
  kProtocol,        // the peer broke the protocol
  kTooLarge,        // over a limit of ours
};

class HttpStream {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    // Client side only: the answer, informational ones first.
    virtual void on_head(HeadPtr head, bool end) = 0;
    virtual void on_data(std::span<const uint8_t> data, bool end) = 0;
    virtual void on_trailers(HeadPtr trailers) = 0;
    virtual void on_reset(ResetReason reason, std::string_view detail) = 0;
    virtual void on_writable() = 0;
  };

  virtual void set_handler(Handler* handler) = 0;  // borrowed; before the callback that gave the stream returns
  virtual void send_head(const Head& head, bool end) = 0;
  virtual bool send_data(std::span<const uint8_t> data, bool end) = 0;
  virtual void send_trailers(const Head& trailers) = 0;
  virtual void set_reading(bool on) = 0;
  // Server side: what the peer is. Client side: whom we talk to.
  virtual const SockAddr& peer_addr() const = 0;
  virtual const tls::PeerIdentity* peer_identity() const = 0;  // null: none was verified

 protected:
  virtual ~HttpStream() = default;
  friend struct ReleaseStream;
  virtual void release() = 0;
};

struct ReleaseStream {
  void operator()(HttpStream* stream) const { stream->release(); }
};
using StreamPtr = std::unique_ptr<HttpStream, ReleaseStream>;

enum class Drain : uint8_t {
  kNow,      // an idle connection is closed at once
  kPatient,  // HTTP/1: it has one more request, as one may be on its way already
};

// A client's connection.
class HttpServerConnection {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    // Dropping the stream resets it. `end`: the request has no body.
    virtual void on_request(StreamPtr stream, HeadPtr head, bool end) = 0;
    // A request that cannot be read was answered by the codec (400, 408, 413, 431, 501, 505) or by
    // GOAWAY: for counters and the access log.
    virtual void on_bad_request(int status, std::string_view why) = 0;
    // HTTP/1 where H1ServerOptions::h2c_upgrade is set: the client goes on in HTTP/2 and was told so.
    // For make_h2_server(): the connection, its first request, what HTTP2-Settings says (decoded), what
    // was read ahead (both valid until this returns). Must destroy the HTTP/1 connection, which has no
    // other callback.
    virtual void on_h2c(std::unique_ptr<io::Stream>, HeadPtr, std::string_view, std::string_view) {}
    // The last callback; all streams have got their on_reset(). May destroy the connection.
    virtual void on_closed() = 0;
  };
  virtual ~HttpServerConnection() = default;  // cuts; no callback follows
  // Ends the connection as soon as its requests are answered: "Connection: close", GOAWAY.
  virtual void drain(Drain how = Drain::kNow) = 0;
  virtual size_t active_streams() const = 0;
};

// A connection to an endpoint.
class HttpClientConnection {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    virtual void on_connected() = 0;  // at most once; before it, requests that are open wait
    // More streams can be opened than before (an answer is through, the peer's limit was raised).
    virtual void on_available() = 0;
    // The last callback; streams have got their on_reset(). `error` says why, kOk code never. May
    // destroy the connection.
    virtual void on_closed(const Error& error) = 0;
  };
  virtual ~HttpClientConnection() = default;
  // Null: no stream can be opened now (HTTP/1: one at a time; HTTP/2: the peer's limit, GOAWAY).
  virtual StreamPtr open(HttpStream::Handler* handler) = 0;
  virtual size_t available() const = 0;  // streams that open() would give
  virtual size_t active_streams() const = 0;
  // It takes no new streams and ends when the open ones have (Connection: close, GOAWAY).
  virtual bool closing() const = 0;
};

}  // namespace edgemesh::proxy
