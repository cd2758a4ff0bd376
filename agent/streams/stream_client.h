// StreamClient: the node's end of the cloud's streams (core/channel/streams.h), as the bus module
// "edgestream". Asked over the channel, it connects to the hub's port; the streams that the cloud
// opens over that connection are requests to the NodeApi. Without a connection it costs nothing.
// Threads: the loop given.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "agent/streams/node_api.h"
#include "core/base/function.h"
#include "core/bus/bus.h"
#include "core/channel/streams.h"
#include "core/config/reader.h"
#include "core/http/h2.h"
#include "core/http/h2_keepalive.h"
#include "core/http/server.h"
#include "core/http/upgrade.h"
#include "core/obs/metrics.h"

namespace edgemesh::streams {

inline constexpr const char* kStreamModule = "edgestream";

struct StreamClientOptions {
  config::HostPort hub;
  // Of the node's identity as it is now; asked at each connection.
  std::function<std::shared_ptr<tls::Context>()> tls;
  Duration connect_timeout = std::chrono::seconds(5);
  Duration ping_every = std::chrono::seconds(15);
  Duration ping_limit = std::chrono::seconds(10);
  size_t max_streams = 100;
  uint32_t mark = 0;  // SO_MARK
};

class StreamClient final : public bus::Module, private http::H2Session::Handler {
 public:
  static Result<std::unique_ptr<StreamClient>> create(io::Loop& loop, NodeApi& api,
                                                      StreamClientOptions options,
                                                      obs::Registry& registry);
  ~StreamClient() override;

  std::string_view name() const override { return kStreamModule; }
  std::string_view group() const override { return channel::kStreamsGroup; }
  Result<> start(bus::Bus& bus) override;
  void stop() override;
  void on_message(bus::Message message) override;

  bool connected() const { return h2_ != nullptr; }
  // A connection that was made: for connect(), and for tests.
  void use(std::unique_ptr<io::Stream> stream);

 private:
  StreamClient(io::Loop& loop, StreamClientOptions options, obs::Registry& registry);
  void connect();
  void on_connect(std::unique_ptr<http::H2Connect> connect) override;
  void on_close(const Error& error) override;
  void drop();  // in a later turn: it may be on the stack

  io::Loop& loop_;
  StreamClientOptions options_;
  std::unique_ptr<http::Server> server_;
  std::unique_ptr<http::Call> connecting_;
  std::unique_ptr<http::H2Session> h2_;
  std::unique_ptr<http::H2Keepalive> keepalive_;
  obs::Gauge& up_;
  obs::Counter& streams_;
};

}  // namespace edgemesh::streams
