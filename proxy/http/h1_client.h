// The HTTP/1 client side (RFC 9112): see stream.h for the contract. One request at a time.
//
// - A request that is opened while the stream connects leaves when it is connected.
// - An answer may come before the request ended: go on sending, or release the stream; only when both
//   directions ended, the connection is used again.
// - A connection that ends before any byte of an answer: on_reset(kConnectionLost) with a detail that
//   begins with "closed before an answer" (kClosedBeforeAnswer): an idempotent request may be repeated.
// - Bytes that nobody asked for end an idle connection.
// - A request for "websocket" without a Sec-WebSocket-Key, as a client of HTTP/2 makes it (RFC 8441 5),
//   gets one here; the server's Sec-WebSocket-Accept is then checked, and left out of the answer.
// Times (connect, answer, idle) are kept by the user. Threads: the loop's.
#pragma once

#include <memory>
#include <string_view>

#include "core/http/h1_parser.h"
#include "core/io/loop.h"
#include "core/io/stream.h"
#include "proxy/http/stream.h"
#include "proxy/http/write_batch.h"

namespace edgemesh::proxy {

inline constexpr std::string_view kClosedBeforeAnswer = "closed before an answer";

struct H1ClientOptions {
  http::H1Limits limits;
  SockAddr addr;                                      // whom we talk to
  std::shared_ptr<const tls::PeerIdentity> identity;  // null: none was verified
  bool connected = true;  // false: the stream is connecting, its on_connected() is waited for
};

// `handler` is borrowed.
std::unique_ptr<HttpClientConnection> make_h1_client(io::Loop& loop, WriteBatch& batch,
                                                     std::unique_ptr<io::Stream> stream,
                                                     const H1ClientOptions& options,
                                                     HttpClientConnection::Handler* handler);

}  // namespace edgemesh::proxy
