// An HTTP/1.1 server on one loop (RFC 9112): admin endpoints, the bootstrap, the Kubernetes API.
//
// Requests come whole, with their body (up to max_body). Answers go out in the order of the
// requests of a connection (pipelining). A handler may answer at once or later, whole or as a
// stream. Slow or silent peers are timed out; every buffer is bounded. Bad input is answered (400,
// 413, 414, 431, 501, 505) and ends that connection only. Threads: everything on the loop given.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "core/base/function.h"
#include "core/base/net_addr.h"
#include "core/http/message.h"
#include "core/io/fd.h"
#include "core/io/loop.h"
#include "core/io/stream.h"
#include "core/tls/context.h"

namespace edgemesh::http {

// The answer to one request. After the client went away every call does nothing. When the last
// reference goes without an answer, the client gets a 500.
class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;

  // The whole answer. Content-Length, Date and Connection are added; HEAD is handled.
  virtual void respond(Response response) = 0;
  // An answer in pieces: chunked, or as long as a Content-Length that `headers` has.
  virtual void start(int status, Headers headers) = 0;
  // False: more than the high-water mark waits in our buffer (the data was taken all the same);
  // stop until on_drain. What is written beyond the hard limit (16x) closes the connection.
  virtual bool write(std::string_view data) = 0;
  virtual void end() = 0;
  // Called each time the buffer became empty after write() returned false.
  virtual void on_drain(UniqueFunction<void()> callback) = 0;
  // Called once if the client goes away before the answer was ended. Both callbacks are dropped
  // after the answer. The writer may be released inside of them.
  virtual void on_close(UniqueFunction<void()> callback) = 0;
  virtual bool closed() const = 0;
  virtual size_t queued_bytes() const = 0;
  // Sends 101 with `extra` fields (Upgrade and Connection are the caller's) and hands over the
  // connection as a raw stream. No handler is set on it: set one before the loop's next turn.
  // An error when an earlier answer is not finished or the answer was started.
  virtual Result<std::unique_ptr<io::Stream>> upgrade(Headers extra) = 0;
};

struct ServerOptions {
  SockAddr listen;
  bool adopt_only = false;            // it listens nowhere: connections come by adopt()
  std::shared_ptr<io::Fd> socket;  // listens already, and is taken; null: one is opened on `listen`
  std::shared_ptr<tls::Context> tls;  // null: plain. Its ALPN list should have "http/1.1".
  size_t max_body = 8 << 20;
  size_t max_head = 64 << 10;  // start line and fields together
  size_t max_headers = 100;
  size_t max_connections = 4096;  // more are closed at once
  // TLS handshakes at a time; further connections wait in the kernel, where they cost nothing, and those whose
  // clients gave up meanwhile cost no handshake. Peers that stand still in theirs hold others up for moments
  // only. 0: no limit.
  size_t max_handshakes = 0;
  // Connections that wait in the kernel. What cannot be served before clients give up should not wait at all.
  int backlog = 4096;
  size_t max_pipelined = 16;      // requests of one connection in work; reading stops beyond
  // A client's answers that wait to be sent: beyond this no request of it is read or begun.
  size_t high_water = 256 << 10;
  size_t max_unsent = 64 << 20;  // more is not added to that; the connection is cut
  Duration head_timeout = std::chrono::seconds(10);   // first byte to end of the head; also TLS
  Duration body_timeout = std::chrono::seconds(30);   // without progress of the body
  Duration idle_timeout = std::chrono::seconds(120);  // between requests
  Duration write_timeout = std::chrono::seconds(60);  // the client takes nothing
  bool reuse_port = false;
  std::string name = "http";  // component in log lines
};

class Server {
 public:
  using Handler = std::function<void(Request, std::shared_ptr<ResponseWriter>)>;
  static Result<std::unique_ptr<Server>> create(io::Loop& loop, ServerOptions options,
                                                Handler handler);
  virtual ~Server() =
      default;  // closes all connections; writers turn into no-ops, on_close runs not

  virtual SockAddr local_addr() const = 0;
  virtual int listening_fd() const = 0;  // -1: it does not listen any more
  // Takes a connection from elsewhere (a memory stream in tests, a mesh stream).
  virtual void adopt(std::unique_ptr<io::Stream> stream, const SockAddr& peer) = 0;
  // Stops listening; connections that are open have one more answer, for who is taken over from.
  virtual void stop_accepting() = 0;
  // Stops listening, ends idle connections, and the others after their answer. Streams (watches)
  // get on_close when `streams_too`.
  virtual void drain(bool streams_too = true) = 0;
  virtual size_t connections() const = 0;
};

}  // namespace edgemesh::http
