// One node's connection. Used by Hub only.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "cloud/hub.h"

namespace edgemesh::cloud {

class HubSession final : public http::WebSocket::Handler {
 public:
  // `not_before`: of the node's certificate, Unix seconds.
  HubSession(Hub& hub, std::string node, std::string address, int64_t not_before,
             std::unique_ptr<http::WebSocket> socket);

  const std::string& node() const { return node_; }
  int64_t not_before() const { return not_before_; }
  NodeStatus status() const;
  // False when the queue is full: the session has then overflowed and must be cut.
  bool enqueue(Frame frame);
  bool overflowed() const { return overflowed_; }
  // Moves queued frames, then frames of the feed, into the socket until that has enough.
  void pump();
  void tick(TimePoint now);
  // Where it stands in the hub's order.
  size_t place() const { return place_; }
  void set_place(size_t place) { place_ = place; }
  void close(uint16_t code, const std::string& reason);
  void pause();
  void resume();
  // No more callbacks reach the hub's controllers.
  void detach() { detached_ = true; }

 private:
  void on_message(std::string_view data, bool text) override;
  void on_pong(std::string_view payload) override;
  void on_heard() override;
  void on_drain() override;
  void on_close(uint16_t code, const std::string& reason) override;
  bool push(const Frame& frame);

  Hub& hub_;
  std::string node_;
  std::string address_;
  int64_t not_before_;
  std::unique_ptr<http::WebSocket> socket_;
  std::deque<Frame> queue_;
  size_t queued_bytes_ = 0;
  NodeStatus counters_;
  size_t place_ = 0;
  TimePoint last_heard_;
  TimePoint last_ping_{};
  TimePoint last_bulk_{};  // when the feed last gave a frame
  bool paused_ = false;
  bool detached_ = false;
  bool overflowed_ = false;
};

}  // namespace edgemesh::cloud
