#include "agent/streams/stream_client.h"

#include "core/base/log.h"

namespace edgemesh::streams {
namespace {

// All streams together fit the connection's window: one that is not read does not hold the others.
constexpr uint32_t kStreamWindow = 256 << 10;

}  // namespace

StreamClient::StreamClient(io::Loop& loop, StreamClientOptions options, obs::Registry& registry)
    : loop_(loop),
      options_(std::move(options)),
      up_(registry.gauge("edgemesh_streams_connected",
                         "1 while the node's stream connection to the cloud is open.")),
      streams_(registry.counter("edgemesh_streams_total", "Streams that the cloud opened.")) {}

StreamClient::~StreamClient() {
  if (server_ != nullptr) server_->drain();
}

Result<std::unique_ptr<StreamClient>> StreamClient::create(io::Loop& loop, NodeApi& api,
                                                           StreamClientOptions options,
                                                           obs::Registry& registry) {
  std::unique_ptr<StreamClient> self(new StreamClient(loop, std::move(options), registry));
  http::ServerOptions server;
  server.adopt_only = true;
  server.max_connections = self->options_.max_streams;
  server.max_body = 64 << 10;
  // `kubectl logs -f | less` stands still as long as somebody reads the page.
  server.write_timeout = std::chrono::hours(4);
  server.name = "streams";
  EM_TRY(self->server_,
         http::Server::create(loop, server, [&api](http::Request request, auto writer) {
           api.handle(request, writer);
         }));
  return self;
}

Result<> StreamClient::start(bus::Bus&) {
  return {};
}

void StreamClient::stop() {
  if (connecting_ != nullptr) loop_.defer([call = std::move(connecting_)] {});
  drop();
}

void StreamClient::on_message(bus::Message message) {
  if (message.operation == channel::kStreamsOpen) connect();
}

// The cloud asks when it has no connection: one that is thought to be open is dead.
void StreamClient::connect() {
  if (connecting_ != nullptr) return;
  drop();
  http::ClientOptions client;
  client.tls = options_.tls();
  client.connect_timeout = options_.connect_timeout;
  client.mark = options_.mark;
  http::ClientRequest request;
  request.url = fmt::format("https://{}{}", options_.hub.to_string(), channel::kStreamsPath);
  request.headers = {{"Connection", "Upgrade"}, {"Upgrade", channel::kStreamsProtocol}};
  request.timeout = 2 * options_.connect_timeout;
  connecting_ = http::start_upgrade(
      loop_, std::move(client), std::move(request), [this](Result<http::Upgraded> upgraded) {
        loop_.defer([call = std::move(connecting_)] {});
        if (!upgraded) {
          EM_LOG(kWarn, "streams", "no connection for streams to {}: {}", options_.hub.to_string(),
                 upgraded.error().message);
          return;
        }
        use(std::move(upgraded->stream));
      });
}

void StreamClient::use(std::unique_ptr<io::Stream> stream) {
  http::H2Options options;
  options.max_concurrent_streams = static_cast<uint32_t>(options_.max_streams);
  options.stream_window = kStreamWindow;
  options.connection_window = kStreamWindow * static_cast<uint32_t>(options_.max_streams + 1);
  auto session = http::H2Session::server(loop_, std::move(stream), this, options);
  if (!session) {
    EM_LOG(kWarn, "streams", "{}", session.error().message);
    return;
  }
  h2_ = std::move(*session);
  keepalive_ = std::make_unique<http::H2Keepalive>(
      loop_, *h2_, options_.ping_every, options_.ping_limit, [this] {
        EM_LOG(kInfo, "streams", "the cloud does not answer: cut");
        drop();
      });
  up_.set(1);
  EM_LOG(kDebug, "streams", "connected to {}", options_.hub.to_string());
}

void StreamClient::on_connect(std::unique_ptr<http::H2Connect> connect) {
  if (connect->authority() != channel::kStreamsAuthority || connect->extended() != nullptr)
    return connect->reject(404, "only kubelet's API is here");
  auto stream = connect->accept();
  if (stream == nullptr) return;
  streams_.add();
  server_->adopt(std::move(stream), SockAddr{});
}

void StreamClient::on_close(const Error& error) {
  EM_LOG(kDebug, "streams", "the connection for streams ended: {}", error.message);
  drop();
}

void StreamClient::drop() {
  up_.set(0);
  if (h2_ == nullptr) return;
  loop_.defer([session = std::move(h2_), keepalive = std::move(keepalive_)] {});
}

}  // namespace edgemesh::streams
