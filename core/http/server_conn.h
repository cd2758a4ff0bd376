// One connection of the HTTP/1.1 server, and the answers that wait on it. For core/http only.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>

#include "core/http/h1_parser.h"
#include "core/http/server.h"

namespace edgemesh::http {

class ServerConn;
class ServerImpl;

// The answer to one request, from its dispatch to its last byte in the connection's buffer. The
// connection and the user's writer share it; either may go first.
struct ServerSlot {
  ServerConn* conn = nullptr;  // null once the connection is gone or handed over
  bool head_request = false;
  bool http10 = false;
  bool keep_alive = true;
  bool started = false;
  bool ended = false;
  bool chunked = false;
  bool no_body = false;
  bool has_length = false;
  uint64_t length_left = 0;
  bool above_high_water = false;
  std::string pending;  // output while an earlier answer is not finished
  UniqueFunction<void()> on_drain;
  UniqueFunction<void()> on_close;
};

class SlotWriter final : public ResponseWriter {
 public:
  explicit SlotWriter(std::shared_ptr<ServerSlot> slot) : slot_(std::move(slot)) {}
  ~SlotWriter() override;
  void respond(Response response) override;
  void start(int status, Headers headers) override;
  bool write(std::string_view data) override;
  void end() override;
  void on_drain(UniqueFunction<void()> callback) override { slot_->on_drain = std::move(callback); }
  void on_close(UniqueFunction<void()> callback) override;
  bool closed() const override { return slot_->conn == nullptr; }
  size_t queued_bytes() const override;
  Result<std::unique_ptr<io::Stream>> upgrade(Headers extra) override;

 private:
  void emit_head(int status, const Headers& headers, std::string_view framing);
  void put(std::string_view data);
  std::shared_ptr<ServerSlot> slot_;
};

class ServerConn final : private io::Stream::Handler {
 public:
  ServerConn(ServerImpl& server, std::unique_ptr<io::Stream> stream, const SockAddr& peer,
             bool wait_connected);
  ~ServerConn() override;

  // For the writers.
  ServerImpl& server() { return server_; }
  bool is_front(const ServerSlot& slot) const {
    return !slots_.empty() && slots_.front().get() == &slot;
  }
  // Past max_unsent the data is dropped and the connection cut.
  void append(ServerSlot& slot, std::string_view data);
  size_t unsent() const { return out_.size() - out_at_; }
  void slot_ended();
  void abort();  // cuts the connection in a deferred task
  Result<std::unique_ptr<io::Stream>> hand_over(ServerSlot& slot);

  void drain(bool streams_too);

 private:
  enum class Phase : uint8_t { kConnecting, kHead, kBody, kClosing, kGone };
  enum class Wait : uint8_t { kNone, kHead, kBody, kIdle, kWrite, kFirst };

  void on_connected() override;
  void on_readable() override;
  void on_writable() override;
  void on_error(const Error& error) override;

  void process();
  bool process_head();  // false: wait for more
  bool process_body();
  void begin_request(const H1Head& head);
  void dispatch();
  void refuse(int status, std::string_view text);
  void schedule_flush();
  void flush();
  bool write_out();
  void after_flush();
  void finish_gracefully();
  void gone();  // the client went away: tells the slots
  void remove();
  void arm_timer();
  void on_timeout();
  bool may_read() const;
  bool clogged() const;  // the client leaves too much of our answers lying
  std::string_view input() const { return std::string_view(in_).substr(in_at_); }
  void consume(size_t n);

  ServerImpl& server_;
  std::unique_ptr<io::Stream> stream_;
  SockAddr peer_addr_;
  std::shared_ptr<const tls::PeerIdentity> peer_;
  bool secure_ = false;
  Phase phase_;
  std::string in_;
  size_t in_at_ = 0;
  std::string out_;
  size_t out_at_ = 0;
  size_t pending_ = 0;  // in the slots that are not the front
  H1HeadParser parser_;
  H1BodyDecoder body_;
  Request request_;
  std::shared_ptr<ServerSlot> next_slot_;  // of the request at hand
  bool expect_continue_ = false;
  std::deque<std::shared_ptr<ServerSlot>> slots_;
  io::Timer timer_;
  Wait wait_ = Wait::kNone;
  bool took_input_ = false;  // since the timer was armed
  bool took_output_ = false;
  bool eof_ = false;
  bool no_more_ = false;  // the last request of this connection was dispatched
  bool flush_queued_ = false;
  bool processing_ = false;
  bool aborting_ = false;
  bool read_paused_ = false;  // too much waits unparsed; the stream may hold more
  bool any_request_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::http
