// QuicEndpoint: the QUIC connections between this node and one peer, over whatever DatagramPath is in
// use. One connection that we opened (for our streams) and those that the peer opened. Packets are
// taken from every path, sent on the one set by use_path().
//
// Frames of our own beside QUIC are told apart by the first byte (RFC 9443): 0x80-0xBF go to
// Handler::on_other; what is neither is dropped.
// Threads: the loop that made it.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "p2p/datagram_path.h"
#include "p2p/quic_connection.h"

namespace edgemesh::p2p {

class QuicEndpoint final : public DatagramPath::Receiver,
                           private QuicConnection::Output,
                           private QuicConnection::Handler {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    virtual void on_tunnel_ready() {}
    virtual void on_tunnel_connect(std::unique_ptr<IncomingConnect> connect) = 0;
    // A connection ended (ours: the next open() makes a new one).
    virtual void on_tunnel_closed(const Error&) {}
    virtual void on_other(DatagramPath&, std::span<const uint8_t> /*datagram*/) {}
    virtual void on_path_data(DatagramPath&, size_t /*bytes*/) {}  // something came, anything
  };

  QuicEndpoint(io::Loop& loop, std::shared_ptr<const QuicIdentity> identity, std::string peer_node,
               Handler& handler, QuicOptions options = {});
  ~QuicEndpoint() override;

  // Null: none; packets wait until there is one. Borrowed; must be unset before it dies.
  void use_path(DatagramPath* path);
  void path_changed();  // the path in use sends another way now
  DatagramPath* path() const { return path_; }
  void set_identity(std::shared_ptr<const QuicIdentity> identity) { identity_ = std::move(identity); }

  // Over our connection, which is opened when there is none.
  Result<std::unique_ptr<io::Stream>> open(const SockAddr& target, bool udp = false);
  // Opens our connection ahead of the first stream.
  Result<> connect();
  Result<> update_keys();           // of our connection
  void close(const Error& reason);  // all connections
  // Those whose peer's certificate was revoked.
  void close_revoked(const Revocations& revocations);

  bool ready() const { return client_ != nullptr && client_->ready(); }
  bool idle() const;  // no connection at all
  size_t streams() const;
  uint64_t tx_bytes() const;
  uint64_t rx_bytes() const;
  Duration rtt() const;
  bool in_flight() const;  // something was sent that is not acknowledged

  void on_datagrams(DatagramPath& path, std::span<const uint8_t> train, size_t segment) override;
  void on_path_writable(DatagramPath& path) override;

 private:
  static constexpr size_t kMaxServers = 4;
  static constexpr size_t kFlushBytes = 64 << 10;

  size_t send(std::span<const uint8_t> train, size_t segment) override;
  void on_quic_ready() override { handler_.on_tunnel_ready(); }
  void on_quic_connect(std::unique_ptr<IncomingConnect> connect) override {
    handler_.on_tunnel_connect(std::move(connect));
  }
  void on_quic_closed(QuicConnection& connection, const Error& error) override;
  QuicConnection* find(std::span<const uint8_t> id);
  void one(DatagramPath& path, std::span<const uint8_t> datagram, TimePoint now);
  void accept(std::span<const uint8_t> first, TimePoint now);
  void flush_touched();
  template <class F>
  void each(F f) const;

  io::Loop& loop_;
  std::shared_ptr<const QuicIdentity> identity_;
  const std::string peer_node_;
  Handler& handler_;
  const QuicOptions options_;
  DatagramPath* path_ = nullptr;
  std::unique_ptr<QuicConnection> client_;
  std::vector<std::unique_ptr<QuicConnection>> servers_;  // oldest first
  std::vector<QuicConnection*> touched_;                  // by the train that is being read
  TimePoint turn_{};        // of the loop, in which came...
  size_t turn_bytes_ = 0;   // ...so many bytes since the last flush
  uint64_t past_tx_ = 0;  // of connections that ended
  uint64_t past_rx_ = 0;
};

}  // namespace edgemesh::p2p
