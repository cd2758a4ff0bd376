// HubClient: keeps this node's WebSocket to the cloud's hub (KubeEdge's EdgeHub on the wire).
//
//   idle -> connecting -> connected -> waiting -> connecting ...
//
// A link is dead when nothing came for 4.5 s although a ping goes out every 1.5 s. After a break the
// first attempt comes after 0.5 s with jitter, the wait doubles to 30 s, and is reset after a minute
// that held. A message that cannot be queued is refused, not dropped: the sender keeps it.
// Threads: the loop given.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/channel/message.h"
#include "core/http/websocket.h"
#include "core/io/loop.h"
#include "core/obs/metrics.h"
#include "core/tls/context.h"

namespace edgemesh::agent {

struct HubOptions {
  std::string address;  // HOST:PORT
  std::string node;
  std::string project_id = "e632aba927ea4ac2b575ec1603d56f10";
  Duration ping_every = std::chrono::milliseconds(1500);
  Duration dead_after = std::chrono::milliseconds(4500);
  Duration keepalive_every = std::chrono::seconds(15);
  Duration backoff_first = std::chrono::milliseconds(500);
  Duration backoff_max = std::chrono::seconds(30);
  Duration stable_after = std::chrono::seconds(60);
  size_t max_queued_bytes = 8 << 20;
};

class HubClient : private http::WebSocket::Handler {
 public:
  struct Handler {
    virtual ~Handler() = default;
    virtual void on_hub_connected() = 0;
    virtual void on_hub_disconnected(const std::string& reason) = 0;
    virtual void on_hub_message(channel::Message message) = 0;
  };
  struct Status {
    bool connected = false;
    std::string address;
    TimePoint since{};   // of the state
    int64_t rtt_us = 0;
    uint64_t connects = 0;
    std::string reason;  // of the last break
  };

  HubClient(io::Loop& loop, HubOptions options, std::shared_ptr<tls::Context> tls,
            obs::Registry& registry);
  ~HubClient() override;

  void add_handler(Handler* handler) { handlers_.push_back(handler); }
  void start();
  // Tries now instead of later: the network changed.
  void kick();
  // Used from the next connection on; `reconnect` makes it now.
  void set_tls(std::shared_ptr<tls::Context> tls, bool reconnect);
  // kUnavailable when not connected, kResourceExhausted when too much waits.
  Result<> send(const channel::Message& message);
  bool connected() const { return socket_ != nullptr; }
  const Status& status() const { return status_; }

 private:
  void connect();
  void on_connected(std::unique_ptr<http::WebSocket> socket);
  void broken(const std::string& reason);
  void tick();
  void send_keepalive();
  void on_message(std::string_view data, bool text) override;
  void on_pong(std::string_view payload) override;
  void on_close(uint16_t code, const std::string& reason) override;

  io::Loop& loop_;
  HubOptions options_;
  std::shared_ptr<tls::Context> tls_;
  std::vector<Handler*> handlers_;
  std::unique_ptr<http::Call> dialing_;
  std::unique_ptr<http::WebSocket> socket_;
  io::Timer retry_, ping_, keepalive_;
  Status status_;
  Duration backoff_;
  TimePoint heard_{};
  uint64_t random_;
  obs::Gauge& up_;
  obs::Counter &connects_, &breaks_, &received_, &sent_;
};

}  // namespace edgemesh::agent
