// The HTTP/2 server side (RFC 9113, RFC 8441): see stream.h for the contract.
//
// - An extended CONNECT is given as method GET with `protocol` (what an HTTP/1 upgrade looks like); an
//   answer with status 101 leaves as 200. Host is `authority`; a Host that differs from it is refused.
// - A header list over the limits is answered 431. What breaks the protocol ends the stream or, by
//   GOAWAY, the connection.
// - drain(): GOAWAY(2^31-1), after a ping's answer or 1 s the final one; the end when streams ended.
// - A stream whose answer is complete may be released before its request ended: RST_STREAM(NO_ERROR)
//   follows the answer.
// - Frames of a body may come as slowly as they like: who waits for them keeps the time.
// Threads: the loop's. Sizes in bytes; times of zero mean no limit.
#pragma once

#include <memory>
#include <string_view>

#include "core/io/loop.h"
#include "core/io/stream.h"
#include "proxy/http/stream.h"
#include "proxy/http/write_batch.h"

namespace edgemesh::proxy {

struct H2Limits {
  uint32_t max_streams = 100;  // concurrent; client: also of its own, under the peer's limit
  uint32_t stream_window = 256 * 1024;
  uint32_t connection_window = 1024 * 1024;
  uint32_t header_table = 4096;  // HPACK, each direction
  size_t max_header_bytes = 64 * 1024;  // counted as in RFC 9113 6.5.2
  size_t max_fields = 100;
  size_t high_water = 64 * 1024;  // of a stream's data that wait to leave
  // What is above these rates ends the connection with GOAWAY(ENHANCE_YOUR_CALM).
  uint32_t reset_burst = 200;  // streams that the peer resets, or makes us reset; each that ends in
  uint32_t reset_per_second = 100;  // order makes up for one
  uint32_t control_burst = 1000;  // PING, SETTINGS, PRIORITY, CONTINUATION, empty DATA, frames that
  uint32_t control_per_second = 500;  // are unknown or refused
  uint32_t updates_per_data = 10;  // WINDOW_UPDATE: at the rates for control frames, and this many for
                                   // each DATA frame that we send
  // The peer takes nothing: of the connection, it ends; of a stream (but tunnels), that is reset.
  Duration write_timeout = std::chrono::seconds(60);
};

struct H2ServerOptions {
  H2Limits limits;
  uint32_t max_requests = 0;  // of a connection: then drain(); 0: no limit
  Duration idle_timeout = std::chrono::seconds(300);  // without a stream
  // From the connection's beginning to the client's SETTINGS, and from the first to the last byte of a
  // header block or of another frame but DATA.
  Duration head_timeout = std::chrono::seconds(10);
};

struct H2ServerPeer {
  SockAddr addr;
  std::shared_ptr<const tls::PeerIdentity> identity;  // null: none was verified
  std::string_view initial;                           // bytes a sniffer read; copied
  // The h2c upgrade (RFC 7540 3.2): the request that asked for it becomes stream 1. The caller has
  // written the 101. Its body, if any, was refused by the caller.
  HeadPtr upgrade;
  std::string_view upgrade_settings;  // of HTTP2-Settings, decoded
};

// `stream` is connected; `handler` is borrowed.
std::unique_ptr<HttpServerConnection> make_h2_server(io::Loop& loop, WriteBatch& batch,
                                                     std::unique_ptr<io::Stream> stream,
                                                     const H2ServerOptions& options,
                                                     HttpServerConnection::Handler* handler,
                                                     H2ServerPeer peer = {});

}  // namespace edgemesh::proxy
