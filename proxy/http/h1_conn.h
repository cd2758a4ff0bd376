// What the HTTP/1 server and client connections share: buffers, framing of bodies both ways, tunnels,
// reading and writing. One exchange at a time. For proxy/http/h1_* only.
//
// The Stream is an object of its own from a free list of the thread: an idle connection has none, and
// whoever holds the StreamPtr may do so longer than the connection lives.
// No callback runs from within a call of the user: what those calls cause is done by flush_writes(),
// at the end of the turn. Each callback may destroy the connection: Watch tells.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string_view>

#include "core/io/loop.h"
#include "core/io/stream.h"
#include "proxy/http/h1_buffer.h"
#include "proxy/http/stream.h"
#include "proxy/http/write_batch.h"

namespace edgemesh::proxy::h1 {

class Conn;

inline constexpr size_t kHighWater = 64 * 1024;  // bytes that wait to leave
inline constexpr size_t kLowWater = 16 * 1024;
inline constexpr size_t kReadBytes = 64 * 1024;  // at a time; what a paused connection may hold
inline constexpr size_t kMaxFields = 100;

// Fields of the head that is being parsed: every parser of the thread uses this one.
std::span<http::FieldView> field_storage();

enum class Framing : uint8_t { kNone, kLength, kChunked, kUntilClose, kTunnel };

class Stream final : public HttpStream {
 public:
  void set_handler(Handler* h) override { handler = h; }
  void send_head(const Head& head, bool end) override;
  bool send_data(std::span<const uint8_t> data, bool end) override;
  void send_trailers(const Head& trailers) override;
  void set_reading(bool on) override;
  const SockAddr& peer_addr() const override { return peer; }
  const tls::PeerIdentity* peer_identity() const override { return identity.get(); }

  // A fresh one from the thread's free list.
  static Stream* take(Conn* conn, const SockAddr& peer,
                      const std::shared_ptr<const tls::PeerIdentity>& identity);

  Conn* conn = nullptr;  // null: ended or lost
  Handler* handler = nullptr;
  SockAddr peer;
  std::shared_ptr<const tls::PeerIdentity> identity;
  http::H1BodyDecoder decoder;
  uint64_t out_left = 0;  // of an announced length
  uint64_t received = 0;  // bytes of body
  Framing out_framing = Framing::kNone;
  uint8_t informational = 0;  // how many
  bool reading = true;
  bool in_head_done = false;  // client: the final head came
  bool in_ended = false;
  bool head_sent = false;  // server: the final head; client: the request's
  bool out_ended = false;
  bool wants_tunnel = false;  // CONNECT or an upgrade, not answered yet
  bool tunnel = false;
  bool is_head = false;
  bool is_connect = false;
  bool http10 = false;
  bool expects_continue = false;  // and no 100 was sent
  bool websocket = false;         // and its key is below: the client's, or the one we made
  std::array<char, 24> websocket_key{};

 private:
  void release() override;
};

class Conn : public io::Stream::Handler, public WriteBatch::Member {
 public:
  virtual void write_head(Stream& stream, const Head& head, bool end) = 0;
  bool write_data(Stream& stream, std::span<const uint8_t> data, bool end);
  void write_trailers(Stream& stream, const Head& trailers);
  void resume();
  // The user gave the stream back before both directions ended.
  virtual void on_released(Stream& stream) = 0;

 protected:
  enum Step : uint8_t { kMore, kWait };

  Conn(io::Loop& loop, WriteBatch& batch, std::unique_ptr<io::Stream> io,
       http::H1HeadParser::Kind kind, const http::H1Limits& limits, bool connected);
  ~Conn() override;
  Conn(const Conn&) = delete;
  Conn& operator=(const Conn&) = delete;

  // Tells after a callback whether the connection was destroyed in it. Those of a thread, of whichever
  // connection, are on its stack one within the other: a list that a destructor looks through.
  class Watch {
   public:
    explicit Watch(Conn& conn) : conn_(&conn), outer_(innermost_) { innermost_ = this; }
    ~Watch() { innermost_ = outer_; }
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;
    bool dead() const { return conn_ == nullptr; }

   private:
    friend class Conn;
    static constinit thread_local Watch* innermost_;
    Conn* conn_;
    Watch* outer_;
  };

  // io::Stream::Handler
  void on_readable() override;
  void on_writable() override;
  void on_error(const Error& error) override;
  void flush_writes() override;

  // One step of parsing. `n` bytes of `rest` were used.
  virtual Step step(std::string_view rest, size_t* n) = 0;
  Step step_body(std::string_view rest, size_t* n);
  virtual void on_bad_body(ResetReason reason, std::string_view why) = 0;
  virtual void on_end_of_input() = 0;
  // Both directions of the exchange ended; the stream is detached.
  virtual void on_exchange_end() = 0;
  virtual void on_idle_turn() {}  // from flush_writes()
  virtual bool reads_idle() const = 0;
  virtual bool awaits_head() const { return false; }  // a client whose request was sent
  virtual void close_gracefully() = 0;  // everything was written
  virtual void report_closed(const Error& error) = 0;
  virtual void note_progress() {}
  virtual void after_input() {}

  // Gives `body` to the stream; may destroy the connection.
  void deliver(Stream& stream, std::string_view body, bool end);
  void end_input(Stream& stream);
  void end_output(Stream& stream);
  void maybe_finish(Stream& stream);
  Stream* detach();
  // The stream is told, the connection closed at once and that reported.
  void lose(ResetReason reason, const Error& error);
  void cut();  // closes at once; reported by flush_writes()
  void tell_closed();
  void flush_later() { batch_.add(*this); }
  bool write_out();  // false: something is left
  bool feed(std::string_view bytes);  // false: the connection was destroyed
  bool feed_buffered();
  bool may_read() const;
  void begin_tunnel(Stream& stream);
  void write_fields(const Head& head, char** at);
  static size_t fields_size(const Head& head);

  io::Loop& loop_;
  WriteBatch& batch_;
  std::unique_ptr<io::Stream> io_;
  Stream* stream_ = nullptr;
  ByteBuffer in_;   // what could not be used yet
  ByteBuffer out_;  // what waits to leave
  http::H1HeadParser parser_;
  Error error_;  // why it was closed
  uint64_t max_body_ = 0;
  bool connected_;
  bool eof_ = false;
  bool write_blocked_ = false;
  bool above_high_water_ = false;
  bool closing_ = false;  // when all is written
  bool shut_after_write_ = false;
  bool resume_ = false;
  bool misframed_ = false;  // the user sent less or more than announced
  bool closed_told_ = false;
  bool ends_both_ = false;  // with the last byte that is written; the peer has said all

 private:
  Step end_of_body(Stream& stream);
  void write_large(std::string_view data);
};

inline void put(char** at, std::string_view text) {
  __builtin_memcpy(*at, text.data(), text.size());
  *at += text.size();
}
void put_number(char** at, uint64_t number);

}  // namespace edgemesh::proxy::h1
