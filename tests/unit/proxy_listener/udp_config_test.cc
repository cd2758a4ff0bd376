// Listeners of datagrams of a configuration: to the endpoints of a cluster, changed, removed.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <optional>
#include <set>

#include "core/io/udp.h"
#include "proxy/listener/l7_proxy.h"

namespace edgemesh::proxy {
namespace {

class UdpConfigTest : public ::testing::Test {
 protected:
  UdpConfigTest() {
    L7ProxyOptions options;
    options.metrics = &registry;
    proxy = std::move(*L7Proxy::create(*loop, {loop.get()}, options));
  }
  ~UdpConfigTest() override { proxy->stop(); }

  // A server that answers with its own name.
  std::unique_ptr<io::UdpSocket> server(const std::string& name) {
    auto self = std::make_shared<io::UdpSocket*>(nullptr);
    auto made =
        io::UdpSocket::bind(*loop, {IpAddr::loopback(), 0},
                            [self, name](std::span<const uint8_t>, size_t, const SockAddr& from) {
                              (void)(*self)->send_to(io::as_bytes(name), from);
                            },
                            {});
    EXPECT_TRUE(made);
    *self = made->get();
    return std::move(*made);
  }
  Result<> apply(const std::string& listen, const SockAddr& endpoint) {
    const std::string yaml = fmt::format(
        "listeners:\n- {{name: dns, kind: udp, address: \"{}\", udpCluster: c}}\n"
        "clusters:\n- {{name: c, type: static, endpoints: [{{address: \"{}\"}}]}}\n",
        listen, endpoint.to_string());
    EM_TRY(auto config, model::parse_config(yaml, "test"));
    auto applied = proxy->apply(config);
    loop->run_once();  // the worker is told by post
    return applied;
  }
  std::string ask(const SockAddr& to) {
    std::string answer;
    auto client =
        io::UdpSocket::bind(*loop, {IpAddr::loopback(), 0},
                            [&](std::span<const uint8_t> data, size_t, const SockAddr& from) {
                              if (from == to) answer = io::as_text(data);
                            },
                            {});
    EXPECT_TRUE(client);
    EXPECT_TRUE((*client)->send_to(io::as_bytes("?"), to));
    (void)loop->run_until([&] { return !answer.empty(); }, std::chrono::seconds(10));
    return answer;
  }

  std::unique_ptr<io::Loop> loop = std::move(*io::Loop::create());
  obs::Registry registry;
  std::unique_ptr<L7Proxy> proxy;
};

TEST_F(UdpConfigTest, DatagramsGoToTheClusterAndFollowItsChange) {
  auto one = server("one"), two = server("two");
  auto applied = apply("127.0.0.1:0", one->local_addr());
  ASSERT_TRUE(applied) << applied.error().message;
  ASSERT_EQ(proxy->listen_addrs().size(), 1u);
  const SockAddr at = proxy->listen_addrs()[0].second;
  EXPECT_NE(at.port, 0);
  EXPECT_EQ(ask(at), "one");

  ASSERT_TRUE(apply("127.0.0.1:0", two->local_addr()));
  EXPECT_EQ(ask(at), "two");
  EXPECT_NE(registry.text().find("edgemesh_udp_flows_opened_total{worker=\"0\"} 2"),
            std::string::npos);
}

// An endpoint that tells each client's port.
TEST_F(UdpConfigTest, FlowsGoOnInAnotherProxy) {
  size_t asked = 0;
  std::set<uint16_t> ports;
  io::UdpSocket* self = nullptr;
  auto endpoint = io::UdpSocket::bind(*loop, {IpAddr::loopback(), 0},
                                      [&](std::span<const uint8_t>, size_t, const SockAddr& from) {
                                        ++asked;
                                        ports.insert(from.port);
                                        (void)self->send_to(io::as_bytes("!"), from);
                                      },
                                      {});
  ASSERT_TRUE(endpoint);
  self = endpoint->get();
  ASSERT_TRUE(apply("127.0.0.1:0", self->local_addr()));
  const SockAddr at = proxy->listen_addrs()[0].second;
  size_t answers = 0;
  auto client = io::UdpSocket::bind(*loop, {IpAddr::loopback(), 0},
                                    [&](std::span<const uint8_t>, size_t, const SockAddr& from) {
                                      if (from == at) ++answers;
                                    },
                                    {});
  ASSERT_TRUE(client);
  auto ask_again = [&](size_t n) {
    EXPECT_TRUE((*client)->send_to(io::as_bytes("?"), at));
    return loop->run_until([&] { return answers == n; }, std::chrono::seconds(10));
  };
  ASSERT_TRUE(ask_again(1));

  InheritedSockets inherited;
  for (const auto& [key, fd] : proxy->listening_sockets())
    inherited.add(key, io::Fd(fcntl(fd, F_DUPFD_CLOEXEC, 3)));
  L7ProxyOptions options;
  options.inherited = &inherited;
  auto first = std::move(proxy);
  proxy = std::move(*L7Proxy::create(*loop, {loop.get()}, options));
  ASSERT_TRUE(apply("127.0.0.1:0", self->local_addr()));
  ASSERT_TRUE(ask_again(2)) << "the first one serves";

  std::optional<std::vector<HandedFlow>> flows;
  first->give_flows([&](std::vector<HandedFlow> given) { flows = std::move(given); });
  ASSERT_TRUE(loop->run_until([&] { return flows.has_value(); }, std::chrono::seconds(10)));
  ASSERT_EQ(flows->size(), 1U);
  // Between the two nobody reads: it waits.
  EXPECT_TRUE((*client)->send_to(io::as_bytes("?"), at));
  for (int i = 0; i < 5; ++i) loop->run_once(std::chrono::milliseconds(1));
  EXPECT_EQ(asked, 2U);
  proxy->take_flows(std::move(*flows));
  EXPECT_TRUE(loop->run_until([&] { return answers == 3; }, std::chrono::seconds(10)));
  first->stop();
  first.reset();
  EXPECT_TRUE(ask_again(4));
  EXPECT_EQ(ports.size(), 1U) << "the endpoint sees one client";
}

TEST_F(UdpConfigTest, FlowsThatAreTakenBackBeginAnew) {
  auto one = server("one");
  ASSERT_TRUE(apply("127.0.0.1:0", one->local_addr()));
  const SockAddr at = proxy->listen_addrs()[0].second;
  EXPECT_EQ(ask(at), "one");
  bool given = false;
  proxy->give_flows([&](std::vector<HandedFlow>) { given = true; });
  ASSERT_TRUE(loop->run_until([&] { return given; }, std::chrono::seconds(10)));
  proxy->take_flows({});
  EXPECT_EQ(ask(at), "one");
}

// The configuration of the successor has another endpoint.
TEST_F(UdpConfigTest, AFlowWhoseEndpointIsGoneIsLeft) {
  auto one = server("one"), two = server("two");
  ASSERT_TRUE(apply("127.0.0.1:0", one->local_addr()));
  const SockAddr at = proxy->listen_addrs()[0].second;
  EXPECT_EQ(ask(at), "one");
  std::optional<std::vector<HandedFlow>> flows;
  proxy->give_flows([&](std::vector<HandedFlow> given) { flows = std::move(given); });
  ASSERT_TRUE(loop->run_until([&] { return flows.has_value(); }, std::chrono::seconds(10)));
  ASSERT_TRUE(apply("127.0.0.1:0", two->local_addr()));
  proxy->take_flows(std::move(*flows));
  EXPECT_EQ(ask(at), "two");
}

}  // namespace
}  // namespace edgemesh::proxy
