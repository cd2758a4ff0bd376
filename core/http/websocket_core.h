// A WebSocket's state. The user's WebSocket object holds it and may be destroyed within a callback;
// the frames on the stack keep the core. For core/http only.
#pragma once

#include <wslay/wslay.h>

#include <memory>
#include <string>

#include "core/http/websocket.h"

namespace edgemesh::http {

class WebSocketCore final : public std::enable_shared_from_this<WebSocketCore>,
                            private io::Stream::Handler {
 public:
  WebSocketCore(io::Loop& loop, std::unique_ptr<io::Stream> stream, bool server,
                const WebSocketOptions& options);
  ~WebSocketCore() override;
  void start();
  void detach();  // the user's object goes

  Result<> send(uint8_t opcode, std::string_view data);
  void close(uint16_t code, std::string_view reason);
  size_t queued_bytes() const;
  void pause() { paused_ = true; }
  void resume();

  WebSocket::Handler* handler = nullptr;

 private:
  static ssize_t recv_callback(wslay_event_context_ptr, uint8_t* into, size_t size, int flags,
                               void* user);
  static ssize_t send_callback(wslay_event_context_ptr, const uint8_t* data, size_t size, int flags,
                               void* user);
  static int mask_callback(wslay_event_context_ptr, uint8_t* into, size_t size, void* user);
  static void message_callback(wslay_event_context_ptr,
                               const struct wslay_event_on_msg_recv_arg* message, void* user);

  // Where in the peer's frames what was read so far ends (RFC 6455 5.2).
  class Boundary {
   public:
    void take(std::string_view data);
    bool between_messages() const { return have_ == 0 && left_ == 0 && !fragments_; }

   private:
    uint8_t head_[14] = {};
    size_t have_ = 0;         // of the head at hand
    uint64_t left_ = 0;       // of its payload
    bool fragments_ = false;  // the message goes on in a later frame
  };

  // wslay's state is two buffers of 4 KiB; an idle connection has none.
  wslay_event_context_ptr wslay();
  void rest();

  void on_readable() override;
  void on_writable() override { flush(); }
  void on_error(const Error& error) override;

  void on_message(const struct wslay_event_on_msg_recv_arg& message);
  void consume();  // lets wslay take what is in in_
  void schedule_flush();
  void flush();
  bool write_out();
  void check_end();
  void finish(uint16_t code, std::string reason);

  io::Loop& loop_;
  std::unique_ptr<io::Stream> stream_;
  WebSocketOptions options_;
  wslay_event_context_ptr ctx_ = nullptr;  // made when there is something to do
  bool server_ = false;
  Boundary boundary_;
  io::Timer close_timer_;
  std::string in_;  // read, not yet taken
  size_t in_at_ = 0;
  std::string out_;  // framed, not yet taken by the stream
  size_t out_at_ = 0;
  uint16_t peer_code_ = 0;
  std::string peer_reason_;
  uint16_t close_code_ = 0;  // our close frame goes out behind the messages that wait
  std::string close_reason_;
  bool paused_ = false;
  bool closing_ = false;  // nothing more is sent by the user
  bool finished_ = false;
  bool in_wslay_ = false;
  bool flush_queued_ = false;
  bool had_queue_ = false;
};

}  // namespace edgemesh::http
