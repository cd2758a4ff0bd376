// Session: one open WebSocket of the control channel, either end. Decodes and encodes messages, pings,
// notices a dead link, sends KubeEdge's keepalive, bounds what waits.
//
// - A ping every ping_interval; nothing heard (message, pong) for dead_after ends the session. A loop
//   that itself stood still for longer than a ping interval does not count as the peer's silence.
// - A message that cannot be read ends the session (close code 1007), a binary one too (1003).
// - Beehive's framing operations config, ping and pong are answered here, as KubeEdge's viaduct does.
// Threads: the loop given.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/channel/message.h"
#include "core/http/websocket.h"
#include "core/io/loop.h"

namespace edgemesh::channel {

struct SessionOptions {
  Duration ping_interval = std::chrono::milliseconds(1500);
  Duration dead_after = std::chrono::milliseconds(4400);
  Duration keepalive_interval = std::chrono::seconds(15);  // edge only; 0: none
  size_t max_message_bytes = kMaxMessageBytes;
  size_t max_queued_bytes = 8 << 20;
};

class Session final : private http::WebSocket::Handler {
 public:
  struct Handlers {
    std::function<void(Message message)> on_message;
    // Once, the last callback; `reason` in words. Inside of callbacks detach() and destroy it in a
    // deferred task.
    std::function<void(const std::string& reason)> on_closed;
    std::function<void()> on_drain;  // may be empty
  };
  struct Counters {
    uint64_t tx_messages = 0, rx_messages = 0;
    uint64_t tx_bytes = 0, rx_bytes = 0;
    int64_t rtt_us = -1;
  };

  Session(io::Loop& loop, std::unique_ptr<http::WebSocket> socket, SessionOptions options,
          Handlers handlers);
  ~Session() override;  // cuts the connection
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // kResourceExhausted: max_queued_bytes wait; try again after on_drain.
  Result<> send(const Message& message);
  Result<> send_encoded(std::string_view frame);
  // No callback runs any more. The connection ends when this object does, which may then be later.
  void detach();
  // The closing handshake; on_closed follows.
  void close(uint16_t code, std::string_view reason);
  // Pings now; the link must answer within `limit`.
  void probe(Duration limit);
  const Counters& counters() const { return counters_; }
  size_t queued_bytes() const { return socket_->queued_bytes(); }

 private:
  void on_message(std::string_view data, bool text) override;
  void on_pong(std::string_view payload) override;
  void on_heard() override;
  void on_drain() override;
  void on_close(uint16_t code, const std::string& reason) override;
  void tick();
  void ping();
  void end(std::string reason);

  io::Loop& loop_;
  std::unique_ptr<http::WebSocket> socket_;
  SessionOptions options_;
  Handlers handlers_;
  Counters counters_;
  TimePoint last_heard_;
  TimePoint last_tick_;
  TimePoint last_ping_;
  TimePoint last_keepalive_{};
  TimePoint probe_deadline_{};
  bool ended_ = false;
  io::Timer timer_;
};

}  // namespace edgemesh::channel
