// The whole Proxy with two workers: datagrams of many clients.
#include "core/io/udp.h"
#include "proxy/proxy.h"
#include "proxy_support.h"

namespace edgemesh::proxy::testing_parts {
namespace {

using namespace std::chrono_literals;

class UdpWorkersTest : public ::testing::Test {
 protected:
  UdpWorkersTest() : loop(std::move(*io::Loop::create())) {}
  ~UdpWorkersTest() override {
    if (proxy) proxy->stop();
  }
  void start(ListenerOptions listener) {
    ProxyOptions options;
    options.workers = 2;
    options.l4.node = "here";
    options.l4.access_log = false;
    listener.listen = loopback();
    options.listeners = {listener};
    auto made = Proxy::create(*loop, options, registry);
    ASSERT_TRUE(made) << made.error().message;
    proxy = std::move(*made);
  }
  // As many clients, each with a question of its own; how many got it back.
  size_t ask(size_t clients) {
    size_t right = 0;
    std::vector<std::unique_ptr<io::UdpSocket>> sockets;
    for (size_t i = 0; i < clients; ++i) {
      auto made = io::UdpSocket::bind(
          *loop, loopback(),
          [&right, i](std::span<const uint8_t> data, size_t, const SockAddr&) {
            right += io::as_text(data) == "question " + std::to_string(i) ? 1 : 0;
          },
          {});
      EXPECT_TRUE(made);
      EXPECT_TRUE((*made)->send_to(io::as_bytes("question " + std::to_string(i)),
                                   proxy->listen_addrs().at(0)));
      sockets.push_back(std::move(*made));
    }
    (void)loop->run_until([&] { return right == clients; }, 20s);
    return right;
  }
  int opened_by(int worker) {
    const std::string text = registry.text();
    const std::string name =
        "\nedgemesh_udp_flows_opened_total{worker=\"" + std::to_string(worker) + "\"} ";
    const size_t at = text.find(name);
    return at == std::string::npos ? -1 : std::atoi(text.c_str() + at + name.size());
  }

  std::unique_ptr<io::Loop> loop;
  obs::Registry registry;
  std::unique_ptr<Proxy> proxy;
};

TEST_F(UdpWorkersTest, ClientsAreSharedAmongTheWorkers) {
  io::UdpSocket* echo = nullptr;
  auto server =
      io::UdpSocket::bind(*loop, loopback(),
                          [&echo](std::span<const uint8_t> data, size_t, const SockAddr& from) {
                            (void)echo->send_to(data, from);
                          },
                          {});
  ASSERT_TRUE(server);
  echo = server->get();
  ListenerOptions listener;
  listener.kind = ListenerOptions::Kind::kStaticUdp;
  listener.endpoints = {(*server)->local_addr()};
  start(listener);
  proxy->start();

  EXPECT_EQ(ask(100), 100u);
  // Each worker has its share: the kernel spreads them by the client's address.
  EXPECT_GT(opened_by(0), 0);
  EXPECT_GT(opened_by(1), 0);
  EXPECT_EQ(opened_by(0) + opened_by(1), 100);
}

}  // namespace
}  // namespace edgemesh::proxy::testing_parts
