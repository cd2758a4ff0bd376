// QuicConnection: one QUIC connection (RFC 9000, TLS 1.3 with both certificates verified) that carries
// HTTP/3 CONNECT streams. The client side opens streams, the server side gets them.
//
// The connection knows no addresses: it hands trains of datagrams to an Output and is fed by
// receive(). What lies below may change at any time (see quic_endpoint.h).
//
// - Congestion control BBR2, paced; sends trains of equal datagrams for UDP_SEGMENT.
// - Flow control: a stream's window grows from 1 MiB to 16 MiB while its reader keeps up; a stream that
//   is not read holds at most its window. Credit of the connection is given back on arrival until
//   64 MiB wait unread, so that slow readers do not stop the others.
// - Datagrams of CONNECT-UDP streams (RFC 9221, 9297): taken in turn from streams that have some, before
//   stream data but not for more than half of what is sent while both wait. Sent once. Those that find
//   no room are dropped.
// - Peer errors end the stream or the connection, never more. A peer that opens and resets streams
//   without end is closed with H3_EXCESSIVE_LOAD.
// Threads: the loop that made it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/base/net_addr.h"
#include "core/io/loop.h"
#include "core/io/send_budget.h"
#include "core/io/stream.h"
#include "p2p/mesh.h"
#include "p2p/quic_identity.h"

namespace edgemesh::p2p {

struct QuicOptions {
  size_t max_streams = 16384;  // of the peer, at a time
  uint64_t stream_window = 1 << 20, max_stream_window = 16 << 20;
  uint64_t connection_window = 32 << 20;
  size_t unread_budget = 64 << 20;
  size_t unsent_limit = 512 << 10;  // of a stream, waiting to be sent
  size_t held_limit = 16 << 20;     // and with what is on its way and not acknowledged
  // Datagrams of CONNECT-UDP streams in frames of their own (RFC 9221); off: in capsules only.
  bool datagrams = true;
  // How many bytes of them may wait, in each direction: of a stream, of all.
  size_t datagram_limit = 256 << 10, datagram_budget = 8 << 20;
  size_t send_budget = 64 << 20;    // of all streams together, as held_limit; see io::SendBudget
  io::SendPool* send_pool = &io::SendPool::process();  // and of all connections
  // Streams that the peer opens and drops within a second (rapid reset): what it may do at once, and the
  // rate that refills that.
  unsigned reset_burst = 1000, reset_per_second = 200;
  size_t max_datagram = 1452;  // UDP payload; what the path carries up to that is found by probing
  Duration handshake_timeout = std::chrono::seconds(10);
  Duration idle_timeout = std::chrono::seconds(30);
  Duration keep_alive = std::chrono::seconds(10);
};

class QuicConnection {
 public:
  class Output {
   public:
    virtual ~Output() = default;
    // As DatagramPath::send.
    virtual size_t send(std::span<const uint8_t> train, size_t segment) = 0;
  };
  class Handler {
   public:
    virtual ~Handler() = default;
    virtual void on_quic_ready() = 0;  // handshake done, peer verified
    virtual void on_quic_connect(std::unique_ptr<IncomingConnect> connect) = 0;
    // The last callback; streams have got their errors. The connection may be destroyed here.
    virtual void on_quic_closed(QuicConnection& connection, const Error& error) = 0;
  };

  // `peer_node`: whose certificate is expected, on both sides.
  static Result<std::unique_ptr<QuicConnection>> client(io::Loop& loop,
                                                        std::shared_ptr<const QuicIdentity> identity,
                                                        std::string peer_node, Output& output,
                                                        Handler& handler, const QuicOptions& options);
  // For a datagram that no connection owns. kInvalidArgument: it does not begin a connection.
  static Result<std::unique_ptr<QuicConnection>> server(io::Loop& loop,
                                                        std::shared_ptr<const QuicIdentity> identity,
                                                        std::string peer_node, Output& output,
                                                        Handler& handler, const QuicOptions& options,
                                                        std::span<const uint8_t> first);
  virtual ~QuicConnection() = default;  // sends a close when it was open

  // One datagram that came at `now` by the loop's clock. flush() or flush_later() must follow.
  virtual void receive(std::span<const uint8_t> datagram, TimePoint now) = 0;
  // Runs the callbacks that are due and sends what may be sent.
  virtual void flush() = 0;
  virtual void flush_later() = 0;  // at the end of this turn of the loop
  virtual void on_output_writable() = 0;
  // The path below changed: probe at once instead of waiting for timers.
  virtual void on_path_changed() = 0;

  // Changes to new keys (RFC 9001 6), which otherwise happens once the old ones are used up. An error while
  // the last change is not complete.
  virtual Result<> update_keys() = 0;

  // Client only. May be called before the handshake is done.
  // `udp`: CONNECT-UDP.
  virtual Result<std::unique_ptr<io::Stream>> open(const SockAddr& target, bool udp) = 0;
  Result<std::unique_ptr<io::Stream>> open(const SockAddr& target) { return open(target, false); }
  virtual void close(const Error& reason) = 0;  // on_quic_closed follows in this turn

  virtual bool owns(std::span<const uint8_t> connection_id) const = 0;
  virtual bool ready() const = 0;
  virtual bool closed() const = 0;
  virtual size_t streams() const = 0;
  virtual Duration rtt() const = 0;
  // Of the peer's verified certificate, Unix seconds; 0 before the handshake.
  virtual int64_t peer_not_before() const = 0;
  virtual uint64_t tx_bytes() const = 0;  // payload of streams
  virtual uint64_t rx_bytes() const = 0;
  virtual uint64_t bytes_in_flight() const = 0;

  static constexpr size_t kConnectionIdBytes = 16;  // of the ids that we issue
};

// The destination connection id of a datagram; empty: not QUIC.
std::span<const uint8_t> quic_destination_id(std::span<const uint8_t> datagram);

}  // namespace edgemesh::p2p
