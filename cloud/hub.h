// Hub: the cloud's end of the control channel. One TLS WebSocket a node, in KubeEdge's format:
// every text frame is one channel message.
//
// - A client certificate of our CA is required. The node is who its certificate says
//   (CN system:node:<name>, O system:nodes); a node_id header that says otherwise is answered 403.
// - One session a node: a second one replaces the first.
// - A node that was silent for ping_interval is pinged, again each ping_interval, and cut after
//   `dead_after`. Whatever comes from it is a sign of life: one that pings by itself, as ours does,
//   is asked only now and then, for the round trip. KubeEdge's agents answer pings by themselves.
// - What is sent to a node waits in a queue of at most max_queued_bytes; a node that does not take
//   it is cut, comes back and catches up. Bulk data is pulled (NodeEvents::next_frame) and never
//   queued.
// - A message that cannot be read ends its connection.
// Threads: the loop given.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "cloud/node_link.h"
#include "core/http/server.h"
#include "core/http/websocket.h"
#include "core/io/loop.h"
#include "core/obs/metrics.h"

namespace edgemesh::cloud {

struct HubOptions {
  std::vector<SockAddr> listen;  // port 10000 by default
  std::string cert_pem;
  std::string key_pem;
  std::string ca_pem;
  // Whether a certificate of the node with this notBefore still counts; may be empty.
  std::function<Result<>(const std::string& node, int64_t not_before)> check_certificate;
  size_t max_nodes = 5000;
  size_t max_message_bytes = 4 << 20;
  size_t max_queued_bytes = 8 << 20;  // a node
  size_t max_queued_frames = 8192;    // a node
  Duration ping_interval = std::chrono::milliseconds(1500);
  Duration rtt_interval = std::chrono::seconds(15);
  Duration dead_after = std::chrono::milliseconds(4400);
  // While bulk data flows to a node its pong stands behind that data.
  Duration dead_after_busy = std::chrono::seconds(20);
};

struct NodeStatus {
  std::string node;
  std::string address;
  int64_t connected_since = 0;  // Unix seconds
  int64_t rtt_us = -1;
  uint64_t messages_in = 0, messages_out = 0;
  uint64_t bytes_in = 0, bytes_out = 0;
  size_t queued_bytes = 0;
};

class HubSession;

class Hub final : public NodeLink {
 public:
  static Result<std::unique_ptr<Hub>> create(io::Loop& loop, HubOptions options,
                                             obs::Registry& registry);
  ~Hub() override;
  // Before the loop's next turn: the controllers need the hub first. Borrowed.
  void set_events(NodeEvents* events) { events_ = events; }

  // Of the first listener.
  SockAddr local_addr() const { return servers_.front()->local_addr(); }
  // A node's connection for streams (core/channel/streams.h), its certificate's notBefore; by then
  // it is upgraded. Without this such requests are refused.
  using TakeStreams =
      std::function<void(const std::string& node, int64_t not_before, std::unique_ptr<io::Stream>)>;
  void set_take_streams(TakeStreams take) { take_streams_ = std::move(take); }
  // A signal that another cloud of this mesh brings (cloud/siblings.h): its sender's name, the
  // destination, the content. Without this such requests are refused.
  using TakeSignal = std::function<Result<>(const std::string& from, const std::string& to,
                                            const std::string& content)>;
  void set_take_signal(TakeSignal take) { take_signal_ = std::move(take); }
  // Tells every node to go (close code 1001) and takes no new ones.
  void drain();
  // Of the certificate of a node that is connected, Unix seconds.
  std::optional<int64_t> not_before(const std::string& node) const;
  // Ends the sessions whose certificate check_certificate refuses by now.
  void close_refused();
  size_t sessions() const { return sessions_.size(); }
  // Sessions whose goodbye is not answered yet.
  size_t closing() const { return closing_.size(); }
  std::vector<NodeStatus> nodes() const;

  bool connected(const std::string& node) const override;
  using NodeLink::send;
  bool send(const std::string& node, Frame frame) override;
  void wake(const std::string& node) override;
  void wake_all() override;
  void pause(const std::string& node) override;
  void resume(const std::string& node) override;

 private:
  friend class HubSession;
  struct Metrics;

  Hub(io::Loop& loop, HubOptions options, obs::Registry& registry);
  void on_request(http::Request request, http::ResponseWriter& writer);
  // The node's name, or the refusal.
  Result<std::string> identify(const http::Request& request) const;
  void take_streams(const std::string& node, const http::Request& request,
                    http::ResponseWriter& writer);
  // The answer to a request of another cloud.
  http::Response take_signal(const http::Request& request);
  void add_session(std::string node, const http::Request& request,
                   std::unique_ptr<http::WebSocket> socket);
  // Takes the session out of the table and tells the controllers; `code` 0 cuts the connection.
  void end_session(HubSession& session, uint16_t code, const std::string& reason);
  void tick();
  void flush_later();
  void flush_woken();
  HubSession* find(const std::string& node) const;
  // The loop's time without the time in which it was late: by this the silence of nodes is
  // measured.
  TimePoint patient_now() const;

  io::Loop& loop_;
  HubOptions options_;
  NodeEvents* events_ = nullptr;
  TakeStreams take_streams_;
  TakeSignal take_signal_;
  std::unique_ptr<Metrics> metrics_;
  std::unordered_map<std::string, std::unique_ptr<HubSession>> sessions_;
  std::vector<HubSession*> order_;  // all of sessions_, for tick()
  size_t next_look_ = 0;
  TimePoint due_{};         // when tick() should run
  Duration stood_still_{};  // how late it was, altogether
  // Sessions that said goodbye and wait for the peer's.
  std::unordered_map<HubSession*, std::unique_ptr<HubSession>> closing_;
  std::vector<std::string> woken_;
  bool wake_all_ = false;
  bool flush_pending_ = false;
  bool draining_ = false;
  io::Timer tick_timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::vector<std::unique_ptr<http::Server>> servers_;
};

}  // namespace edgemesh::cloud
