// The HTTP/2 client side (RFC 9113, RFC 8441), many streams on a connection: see stream.h.
//
// - A request with `protocol` leaves as an extended CONNECT; it waits for the server's SETTINGS, and is
//   reset (kRefused) when the server does not take that. A 2xx to it is given as 101.
// - Streams that the server refuses, or that are above the last one of its GOAWAY: kRefused.
// - After GOAWAY, or when stream ids are used up, closing() is true; it ends when its streams have.
// Threads: the loop's.
#pragma once

#include "proxy/http/h2_server.h"

namespace edgemesh::proxy {

struct H2ClientOptions {
  H2Limits limits;
  SockAddr addr;                                      // whom we talk to
  std::shared_ptr<const tls::PeerIdentity> identity;  // null: none was verified
  bool connected = true;  // false: the stream is connecting, its on_connected() is waited for
  // A ping when nothing came for this long; the connection ends without an answer to it. 0: none.
  Duration ping_interval{};
  Duration ping_timeout = std::chrono::seconds(10);
};

// `handler` is borrowed.
std::unique_ptr<HttpClientConnection> make_h2_client(io::Loop& loop, WriteBatch& batch,
                                                     std::unique_ptr<io::Stream> stream,
                                                     const H2ClientOptions& options,
                                                     HttpClientConnection::Handler* handler);

}  // namespace edgemesh::proxy
