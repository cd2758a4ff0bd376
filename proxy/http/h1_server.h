// The HTTP/1 server side (RFC 9112): see stream.h for the contract.
//
// - Requests are answered in order: the next is parsed when the one before is answered; up to 64 KiB
//   of what was sent ahead waits, the rest stays in the socket.
// - An upgrade: the request has `protocol`, a body follows only as a tunnel after status 101 was sent;
//   until then `end` is false and nothing comes. CONNECT the same with 2xx. An end of input while
//   an answer is awaited does not end the exchange: the answer is sent, then the connection closes.
//   An answer of 101 to a WebSocket's request that has no Sec-WebSocket-Accept, as a server of HTTP/2
//   makes it (RFC 8441 5), gets it here.
// - What cannot be read is answered with a short text and "Connection: close".
// - Client to send "100 Continue" to: head.expect_continue; send a head with status 100. An answer
//   without it closes the connection after it, as the body may come or not.
// Threads: the loop's. Limits: H1ServerOptions; times of zero mean no limit.
#pragma once

#include <memory>
#include <string_view>

#include "core/http/h1_parser.h"
#include "core/io/loop.h"
#include "core/io/stream.h"
#include "proxy/http/stream.h"
#include "proxy/http/write_batch.h"

namespace edgemesh::proxy {

struct H1ServerOptions {
  http::H1Limits limits;           // at most 100 fields
  uint64_t max_body = 0;           // bytes of a request's body; 0: no limit. More: 413
  uint32_t max_requests = 0;       // of a connection; 0: no limit
  bool h2c_upgrade = false;        // taken of cleartext requests without a body (RFC 7540 3.2)
  Duration head_timeout = std::chrono::seconds(10);   // a head, from its first byte
  Duration body_timeout = std::chrono::seconds(60);   // between two pieces of a body
  Duration idle_timeout = std::chrono::seconds(60);   // between two requests
  Duration write_timeout = std::chrono::seconds(60);  // the client takes nothing
};

// Who the client is, and what was read before it was known that it speaks HTTP/1.
struct H1ServerPeer {
  SockAddr addr;
  std::shared_ptr<const tls::PeerIdentity> identity;  // null: none was verified
  bool tls = false;                                   // scheme "https"
  std::string_view initial;                           // copied
};

// `stream` is connected. `options` are copied; `handler` is borrowed.
std::unique_ptr<HttpServerConnection> make_h1_server(io::Loop& loop, WriteBatch& batch,
                                                     std::unique_ptr<io::Stream> stream,
                                                     const H1ServerOptions& options,
                                                     HttpServerConnection::Handler* handler,
                                                     const H1ServerPeer& peer = {});

// Bytes of a connection object, without its stream: for tests and figures.
size_t h1_server_connection_bytes();

}  // namespace edgemesh::proxy
