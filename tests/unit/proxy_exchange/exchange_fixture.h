// The HTTP data plane of one worker in one process: a configuration in YAML, clients and endpoints at
// the far ends of streams in memory, a clock that is turned by hand.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proxy/exchange/http_connection.h"
#include "proxy/http/h1_client.h"
#include "proxy/http/h2_client.h"
#include "proxy/listener/route_tables.h"
#include "proxy/upstream/cluster_manager.h"
#include "tests/unit/proxy_http/h1_test_support.h"

namespace edgemesh::proxy {

using h1test::Side;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

// A stream that connects, or fails to, in a later turn.
class ConnectingStream final : public io::Stream {
 public:
  ConnectingStream(io::Loop& loop, std::unique_ptr<test::MemoryStream> below, bool works);
  ~ConnectingStream() override { *alive_ = false; }
  void set_handler(Handler* handler) override {
    handler_ = handler;
    if (connected_) below_->set_handler(handler);
  }
  io::IoResult read(std::span<uint8_t> into) override { return below_->read(into); }
  io::IoResult write(std::span<const uint8_t> data) override { return below_->write(data); }
  void shutdown_write() override { below_->shutdown_write(); }
  void reset() override { below_->reset(); }

 private:
  std::unique_ptr<test::MemoryStream> below_;
  Handler* handler_ = nullptr;
  bool connected_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// What stands at an endpoint's address.
struct Backend {
  struct Connection {
    h1test::ServerSide side;
    test::MemoryStream* stream = nullptr;  // ours; gone with the codec
    std::unique_ptr<test::Collector> raw;
  };
  bool http2 = false;
  bool raw = false;       // bytes, no codec
  bool refuse = false;    // connects fail
  bool silent = false;    // requests are not answered
  bool on_head = false;   // the answer begins with the request's head, not its end
  size_t capacity = 64 * 1024;
  std::function<void(Side&)> reply;  // empty: 200 and a text that says what came
  int connects = 0;
  std::vector<ProxiedAddrs> proxied;
  std::list<Connection> connections;

  // Requests of all connections, in the order of their coming.
  std::vector<Side*> requests;
  Side& request(size_t i = 0) { return *requests.at(i); }
  Side& last() { return *requests.back(); }
  std::string field(std::string_view name, size_t i = 0) {
    return std::string(request(i).head->get(name));
  }
  // Breaks the connection that was made last.
  void break_last() { connections.back().stream->break_connection(); }
};

struct ProxyYaml {
  std::string routes = "- {match: {prefix: /}, cluster: a}";
  std::string http;      // of the chain, beside `routes`
  std::string policies;  // of the chain
  std::string host;      // of the virtual host
  std::string a, b, c;   // more of the clusters a (10.0.0.1), b (10.0.0.2), c (10.0.0.3)
  std::string clusters;  // more clusters
  std::string text() const;
};

// A client's connection to the proxy.
struct Client {
  h1test::ClientSide codec;
  test::MemoryStream* stream = nullptr;
  std::list<Side> asked;
  bool gone = false;  // the proxy's end of it
  std::unique_ptr<test::Collector> raw;

  Side& send(std::string_view method, std::string_view path,
             std::vector<std::pair<std::string, std::string>> fields = {},
             std::string_view body = {});
  // The head alone; what follows is the test's.
  Side& begin(std::string_view method, std::string_view path,
              std::vector<std::pair<std::string, std::string>> fields = {},
              std::string_view protocol = {});
};

class ExchangeTest : public testing::Test, public Connector {
 protected:
  ExchangeTest();
  ~ExchangeTest() override;

  // Again: the new one takes the place of the old one.
  void configure(const ProxyYaml& yaml) { configure_text(yaml.text()); }
  void configure_text(const std::string& text);
  void apply(std::shared_ptr<const model::Config> config);
  Client& connect(bool http2 = false, ClientInfo info = {}, test::MemoryStreamOptions options = {});
  Client& connect_raw(ClientInfo info = {});

  // Turns until `done` is true.
  [[nodiscard]] bool until(const std::function<bool()>& done) {
    return loop_->run_until(done, seconds(20));
  }
  // Turns enough for whatever is under way.
  void settle(int turns = 60) {
    for (int i = 0; i < turns; ++i) loop_->run_once();
  }
  void advance(Duration by) {
    settle();
    clock_.advance(by);
    settle();
  }
  // Sends, and waits for the end of the answer or a reset.
  Side& ask(Client& client, std::string_view method, std::string_view path,
            std::vector<std::pair<std::string, std::string>> fields = {},
            std::string_view body = {});
  Side& get(Client& client, std::string_view path,
            std::vector<std::pair<std::string, std::string>> fields = {}) {
    return ask(client, "GET", path, std::move(fields));
  }
  static std::string flags(const Side& side) {
    return side.head == nullptr ? "none" : std::string(side.head->get("x-flags"));
  }
  static int status(const Side& side) { return side.head == nullptr ? 0 : side.head->status; }
  static std::string field(const Side& side, std::string_view name) {
    return side.head == nullptr ? "none" : std::string(side.head->get(name));
  }
  Backend& a() { return backends_["10.0.0.1:80"]; }
  Backend& b() { return backends_["10.0.0.2:80"]; }
  Backend& c() { return backends_["10.0.0.3:80"]; }
  const ClusterStats& cluster_stats(std::string_view name) {
    return worker_->clusters().find(name)->stats();
  }
  void destroy_worker();
  // Before the first configure(): telemetry is on.
  void tell(model::Telemetry spec);

  Result<Connecting> connect(const model::Endpoint& to, const HostSet& set,
                             const ProxiedAddrs* addrs) override;

  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<WriteBatch> batch_;
  L7WorkerOptions options_;
  L7Stats stats_;
  ListenerStats listener_stats_;
  std::map<std::string, Backend> backends_;
  std::unique_ptr<Telemetry> telemetry_;
  std::unique_ptr<L7Worker> worker_;
  std::unique_ptr<ClusterManager> manager_;
  std::shared_ptr<const model::Config> config_;
  RouteTables tables_;
  ListenerRuntimePtr listener_;
  ChainSlotPtr slot_;
  std::list<Client> clients_;

 private:
  std::unique_ptr<io::Stream> accept(ClientInfo info, bool http2, Client& client,
                                     test::MemoryStreamOptions options);
  void serve(Backend& backend, const model::Endpoint& to,
             std::unique_ptr<test::MemoryStream> stream);
};

// "GET /path|body" and the request's fields that a test asks for.
void answer_default(Side& side);

}  // namespace edgemesh::proxy
