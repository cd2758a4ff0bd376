// Private to the quic_*.cc files: a connection's parts. The only header with ngtcp2 in it.
//
// Callbacks of ngtcp2 only record what happened; handlers are told from run_events(), when no call of
// ngtcp2 is on the stack, so that a handler may do anything, even destroy its stream.
#pragma once

#include <gnutls/gnutls.h>
#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>

#include <array>
#include <deque>
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include "p2p/h3_codec.h"
#include "p2p/quic_buffers.h"
#include "p2p/quic_connection.h"
#include "p2p/quic_datagrams.h"

namespace edgemesh::p2p {

class QuicConn;
class QuicStream;

// One request stream. Held by the connection while QUIC knows it, and by the io::Stream of its user.
struct StreamCore final : H3StreamReader::Sink, std::enable_shared_from_this<StreamCore> {
  StreamCore(QuicConn* c, std::shared_ptr<bool> alive, std::shared_ptr<io::SendBudget> budget,
             bool is_client)
      : client(is_client), tx(std::move(budget)), conn_(c), conn_alive_(std::move(alive)) {}

  // Null when the connection is gone: the user's stream may outlive it.
  QuicConn* conn() const { return *conn_alive_ ? conn_ : nullptr; }

  void on_h3_headers(H3Fields fields) override;
  void on_h3_data(std::span<const uint8_t> data) override;
  void queue_event();  // has run_events() look at this stream
  void fail_with(Error e);

  const bool client;
  int64_t id = -1;     // -1: waits for the handshake or for the peer's stream limit
  QuicStream* handle = nullptr;
  SendBuffer tx;
  RecvBuffer rx;
  H3StreamReader reader;

  bool open = true;              // QUIC has not closed it
  bool answered = false;         // client: 2xx came; server: 2xx was sent
  bool refused = false;          // client: another answer came
  bool user_gone = false;        // the io::Stream (or IncomingConnect) was destroyed
  bool fin_wanted = false;       // shutdown_write()
  bool fin_sent = false;
  bool rx_fin = false;           // the peer's end came
  bool eof_read = false;
  bool want_readable = true;
  bool want_writable = false;
  bool in_send_list = false;
  bool flow_blocked = false;     // the stream's window at the peer is used up
  bool queued = false;           // in the event list
  bool tell_connected = false;
  bool tell_readable = false;
  bool tell_writable = false;
  bool tell_incoming = false;    // server: the request came
  bool write_closed = false;     // the peer wants no more
  std::optional<Error> error;    // to be told, once
  bool error_told = false;
  SockAddr target;               // server side
  bool udp = false;              // CONNECT-UDP
  TimePoint opened{};            // server side
  bool drop_noted = false;       // by note_dropped()
  size_t turn_bytes = 0;         // sent since it came to the front of the send list
  std::unique_ptr<StreamDatagrams> datagrams;  // null until there is one

 private:
  QuicConn* conn_;
  std::shared_ptr<bool> conn_alive_;
};
using StreamPtr = std::shared_ptr<StreamCore>;

class QuicStream final : public io::Stream, private io::DatagramSide {
 public:
  explicit QuicStream(StreamPtr core);
  ~QuicStream() override;
  void set_handler(io::Stream::Handler* handler) override { handler_ = handler; }
  io::IoResult read(std::span<uint8_t> into) override;
  io::IoResult write(std::span<const uint8_t> data) override;
  void shutdown_write() override;
  void reset() override { reset_ = true; }
  bool nothing_delivered() const override { return core_->refused || core_->id < 0; }
  io::DatagramSide* datagrams() override { return core_->udp ? this : nullptr; }
  io::Stream::Handler* handler() const { return handler_; }

 private:
  size_t max_datagram() const override;
  bool send_datagram(std::span<const uint8_t> data) override;
  std::optional<size_t> read_datagram(std::span<uint8_t> into) override;
  uint64_t take_lost() override;

  StreamPtr core_;
  io::Stream::Handler* handler_ = nullptr;
  bool reset_ = false;
};

class QuicConn final : public QuicConnection {
 public:
  QuicConn(io::Loop& loop, std::shared_ptr<const QuicIdentity> identity, std::string peer_node,
           Output& output, Handler& handler, const QuicOptions& options, bool server);
  ~QuicConn() override;

  // quic_connection.cc
  Result<> init_client();
  Result<> init_server(std::span<const uint8_t> first);
  void receive(std::span<const uint8_t> datagram, TimePoint now) override;
  void flush() override;
  void flush_later() override;
  void on_output_writable() override;
  void on_path_changed() override;
  Result<> update_keys() override;
  using QuicConnection::open;
  Result<std::unique_ptr<io::Stream>> open(const SockAddr& target, bool udp) override;
  void close(const Error& reason) override;
  bool owns(std::span<const uint8_t> connection_id) const override;
  bool ready() const override { return ready_ && !closed_; }
  bool closed() const override { return closed_; }
  size_t streams() const override { return streams_.size() + waiting_.size() - waiting_dropped_; }
  Duration rtt() const override;
  int64_t peer_not_before() const override { return peer_not_before_; }
  uint64_t tx_bytes() const override { return tx_bytes_; }
  uint64_t rx_bytes() const override { return rx_bytes_; }
  uint64_t bytes_in_flight() const override;

  // quic_streams.cc: for StreamCore, QuicStream and the incoming requests
  void open_waiting();
  StreamPtr accept_stream(int64_t id);
  void want_send(StreamCore& stream);
  void consumed(StreamCore& stream, size_t n);      // the reader took n bytes
  void consumed_framing(StreamCore& stream, size_t n);
  void arrived(size_t n);                           // payload that waits for a reader
  void note_written(size_t n) { tx_bytes_ += n; }
  void drop_stream(StreamCore& stream, uint64_t error);  // reset both directions
  void drop_waiting();  // the user of a stream in waiting_ is gone
  void queue_event(const StreamPtr& stream);
  size_t room(const StreamCore& stream) const;
  void tell_room(StreamCore& stream);
  // quic_datagrams.cc
  size_t max_datagram(const StreamCore& stream) const;
  bool send_datagram(StreamCore& stream, std::span<const uint8_t> data);
  std::optional<size_t> read_datagram(StreamCore& stream, std::span<uint8_t> into);
  void drop_datagrams(StreamCore& stream, bool received_too);  // those that wait
  const std::string& peer_node() const { return peer_node_; }
  bool server() const { return server_; }

 private:
  friend struct QuicCallbacks;
  static constexpr size_t kFullPacket = 1500, kSmallPacket = 1200;
  static constexpr Duration kWidenFirst = std::chrono::seconds(10);
  // quic_connection.cc
  Result<> init_tls();
  ngtcp2_settings settings() const;
  ngtcp2_transport_params params() const;
  void on_timer();
  void run_events();
  void tell(const StreamPtr& stream);
  void note_dropped(StreamCore& stream);  // the peer gave its stream up
  void fail_connection(Error error, const ngtcp2_connection_close_error* to_send);
  void end(Error error);
  Error read_error(int rv);
  // quic_send.cc
  void send_packets();
  bool send_train();
  bool hand_over(const uint8_t* data, size_t size, size_t segment);
  ngtcp2_ssize write_one(uint8_t* to, size_t room, uint64_t ts);
  void fail_write(int rv);
  void rotate_send_list(StreamCore& front, size_t sent);
  void send_close(const ngtcp2_connection_close_error& error);
  void arm_timer();
  void watch_path_size();
  void widen();
  uint64_t now_ns() const;
  // quic_datagrams.cc
  void on_datagram(std::span<const uint8_t> frame);
  void on_peer_stream(int64_t id, std::span<const uint8_t> data);  // a unidirectional one
  bool datagrams_turn() const;
  bool next_datagram();
  ngtcp2_ssize write_datagram(uint8_t* to, size_t room, uint64_t ts);
  size_t datagram_room(size_t packet_room, size_t prefix) const;
  void violation(H3Error code, Error error);

  io::Loop& loop_;
  std::shared_ptr<const QuicIdentity> identity_;
  const std::string peer_node_;
  int64_t peer_not_before_ = 0;
  Output& output_;
  Handler& handler_;
  const QuicOptions options_;
  const bool server_;

  ngtcp2_conn* conn_ = nullptr;
  gnutls_session_t session_ = nullptr;
  ngtcp2_crypto_conn_ref conn_ref_{};
  ngtcp2_path_storage path_{};  // a constant: addresses are below us
  std::vector<ngtcp2_cid> ids_;
  std::string verify_error_;    // why the peer's certificate was refused
  io::Timer timer_;

  bool ready_ = false;
  bool ready_told_ = false;
  bool control_opened_ = false;
  bool closed_ = false;
  bool close_told_ = false;
  bool flush_queued_ = false;
  bool blocked_ = false;        // the output would block
  bool in_events_ = false;
  size_t packet_room_ = kFullPacket;  // of the packets that we send
  TimePoint widen_at_{};              // when full ones are tried again...
  Duration widen_after_ = kWidenFirst;  // ...and how long to wait the next time
  std::optional<Error> close_error_;
  std::vector<uint8_t> leftover_;  // of a train that the output took in part
  size_t leftover_segment_ = 0;

  std::shared_ptr<io::SendBudget> budget_;  // the streams' send buffers, which may outlive us
  std::unordered_map<int64_t, StreamPtr> streams_;
  std::deque<StreamPtr> waiting_;    // client streams without an id
  size_t waiting_dropped_ = 0;       // of them, those that nobody wants any more
  std::deque<StreamPtr> send_list_;  // streams with something to send, in turn
  std::vector<StreamPtr> events_;
  SendBuffer control_;               // our control stream
  int64_t control_id_ = -1;
  double drops_left_;                // of the allowance for rapid resets...
  TimePoint drops_refilled_;         // ...and up to when it was refilled
  bool too_many_drops_ = false;
  // What the peer did wrong, by a callback: receive() closes the connection.
  std::optional<std::pair<H3Error, Error>> violation_;
  std::unordered_map<int64_t, H3UniReader> peer_streams_;  // unidirectional
  bool peer_has_control_ = false;
  bool peer_datagrams_ = false;          // its settings say so
  std::deque<StreamPtr> datagram_list_;  // streams with datagrams to send, in turn
  std::array<uint8_t, io::DatagramSide::kMaxBytes + 8> datagram_;  // the next frame to send...
  size_t datagram_size_ = 0;             // ...if there is one...
  size_t datagram_prefix_ = 0;           // ...which begins with the stream's number
  StreamPtr datagram_of_;
  size_t datagrams_out_ = 0, datagrams_in_ = 0;            // bytes that wait
  size_t turn_of_datagrams_ = 0, turn_of_streams_ = 0;     // bytes sent while both wait
  size_t unread_ = 0;                // payload that waits for readers
  size_t owed_ = 0;                  // connection credit not given back for it
  uint64_t tx_bytes_ = 0;
  uint64_t rx_bytes_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// Fills the callbacks; quic_callbacks.cc.
ngtcp2_callbacks quic_callbacks(bool server);
Error quic_error(std::string_view what, int rv);
void random_fill(uint8_t* to, size_t n);
extern thread_local bool quic_conn_is_being_made;  // see QuicCallbacks::rand

}  // namespace edgemesh::p2p
