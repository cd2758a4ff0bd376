// The whole Proxy with its threads: static listeners, several workers, drain.
#include <sstream>

#include "proxy/proxy.h"
#include "proxy_support.h"

namespace edgemesh::proxy::testing_parts {
namespace {

using namespace std::chrono_literals;

class WorkersTest : public ::testing::Test {
 protected:
  WorkersTest() : loop(std::move(*io::Loop::create())) {}
  std::unique_ptr<Proxy> make(const SockAddr& backend, int workers,
                              Telemetry* telemetry = nullptr) {
    ProxyOptions options;
    options.workers = workers;
    options.l4.access_log = false;
    options.drain_timeout = 300ms;
    ListenerOptions listener;
    listener.listen = loopback();
    listener.endpoints = {backend};
    listener.name = "echo";
    options.listeners = {listener};
    options.telemetry = telemetry;
    auto proxy = Proxy::create(*loop, options, registry);
    EXPECT_TRUE(proxy) << (proxy ? "" : proxy.error().message);
    (*proxy)->start();
    return std::move(*proxy);
  }
  std::unique_ptr<Peer> connect(const SockAddr& to) {
    return std::make_unique<Peer>(std::move(*io::TcpStream::connect(*loop, to)));
  }
  bool wait(const std::function<bool()>& done) { return loop->run_until(done, 20s); }

  std::unique_ptr<io::Loop> loop;
  obs::Registry registry;
};

TEST_F(WorkersTest, SeveralWorkersShareOnePort) {
  Server server(*loop, Server::echo);
  auto proxy = make(server.address(), 3);
  std::vector<std::unique_ptr<Peer>> peers;
  for (int i = 0; i < 60; ++i) {
    peers.push_back(connect(proxy->listen_addrs().at(0)));
    peers.back()->send_text("hello");
  }

  ASSERT_TRUE(wait([&] {
    return std::all_of(peers.begin(), peers.end(), [](auto& p) { return p->text == "hello"; });
  }));
  EXPECT_EQ(proxy->totals().opened, 60u);
  EXPECT_EQ(proxy->totals().active, 60u);
  EXPECT_EQ(proxy->totals().bytes_sent, 300u);
}

TEST_F(WorkersTest, BytesAreToldByService) {
  Server server(*loop, Server::echo);
  auto telemetry = Telemetry::make(*loop, {.workers = 2, .node = "edge-1"});
  ASSERT_TRUE(telemetry);
  auto proxy = make(server.address(), 2, telemetry->get());
  auto peer = connect(proxy->listen_addrs().at(0));
  peer->send_text("hello");
  const auto totals = [&] {
    const auto scopes = (*telemetry)->traffic().scopes(TrafficScope::Kind::kCluster);
    return scopes.empty() ? TrafficScope::Totals{} : scopes[0]->totals();
  };
  // While it is open, too.
  ASSERT_TRUE(wait([&] { return totals().bytes_sent == 5; }));
  EXPECT_EQ(totals().connections_opened, 1u);
  EXPECT_EQ(totals().connections_closed, 0u);
  peer.reset();
  ASSERT_TRUE(wait([&] { return totals().connections_closed == 1; }));
  std::string text;
  (*telemetry)->append_text(text);
  // The end may have flags, and then a row of its own.
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line))
    if (line.starts_with("istio_tcp_received_bytes_total{") && line.ends_with(" 5")) break;
  EXPECT_NE(line.find("source_node=\"edge-1\""), std::string::npos) << line;
  EXPECT_NE(line.find("destination_service_name=\"echo\""), std::string::npos) << line;
  proxy->stop();
}

TEST_F(WorkersTest, DrainEndsWhenTheLastConnectionEnds) {
  Server server(*loop, Server::echo);
  auto proxy = make(server.address(), 2);
  SockAddr to = proxy->listen_addrs().at(0);
  auto peer = connect(to);
  peer->send_text("a");
  ASSERT_TRUE(wait([&] { return peer->received == 1; }));

  bool drained = false;
  proxy->drain([&] { drained = true; });
  // Open connections go on, new ones are not taken.
  ASSERT_TRUE(wait([&] {
    auto late = connect(to);
    return !loop->run_until([&] { return late->connected; }, 20ms) || late->failed;
  }));
  peer->send_text("b");
  peer->end();

  ASSERT_TRUE(wait([&] { return drained && peer->received == 2; }));
}

TEST_F(WorkersTest, DrainGivesUpAfterItsTimeout) {
  Server server(*loop, Server::echo);
  auto proxy = make(server.address(), 1);
  auto peer = connect(proxy->listen_addrs().at(0));
  peer->send_text("a");
  ASSERT_TRUE(wait([&] { return peer->received == 1; }));

  bool drained = false;
  proxy->drain([&] { drained = true; });

  ASSERT_TRUE(wait([&] { return drained; }));
  EXPECT_FALSE(peer->failed);
  proxy->stop();
  ASSERT_TRUE(wait([&] { return peer->failed; }));
}

TEST_F(WorkersTest, APortInUseIsToldInOneLine) {
  Server server(*loop, nullptr);
  ProxyOptions options;
  ListenerOptions listener;
  listener.listen = server.address();
  options.listeners = {listener};

  auto proxy = Proxy::create(*loop, options, registry);

  ASSERT_FALSE(proxy);
  EXPECT_NE(proxy.error().message.find("in use"), std::string::npos);
}

}  // namespace
}  // namespace edgemesh::proxy::testing_parts
