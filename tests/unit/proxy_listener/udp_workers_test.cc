// Listeners of datagrams on several workers with threads of their own.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <set>
#include <thread>

#include "core/io/udp.h"
#include "proxy/listener/l7_proxy.h"
#include "proxy/udp/tunnel.h"
#include "tests/support/memory_stream.h"

namespace edgemesh::proxy {
namespace {

// Tunnels that answer each datagram with itself, on one loop.
class EchoDialer final : public p2p::Dialer {
 public:
  explicit EchoDialer(io::Loop& loop) : loop_(loop) {}
  Result<std::unique_ptr<io::Stream>> open(const std::string&, const SockAddr&) override {
    return fail(ErrorCode::kUnavailable, "datagrams alone");
  }
  Result<std::unique_ptr<io::Stream>> open_udp(const std::string&, const SockAddr&) override {
    if (!loop_.on_thread()) ++elsewhere;
    ++opened;
    auto [near, far] = test::MemoryStream::pair(loop_);
    ends_.push_back(std::make_unique<End>());
    ends_.back()->tunnel = std::make_unique<DatagramTunnel>(loop_, std::move(far), *ends_.back());
    return std::unique_ptr<io::Stream>(std::move(near));
  }
  p2p::PathKind path_kind(const std::string&) const override { return p2p::PathKind::kPunched; }

  std::atomic<int> opened{0}, elsewhere{0};

 private:
  struct End final : DatagramTunnel::Owner {
    void on_tunnel_datagrams(std::span<const Datagram> items) override {
      (void)tunnel->send(items);
    }
    void on_tunnel_end(const Error*) override {}
    std::unique_ptr<DatagramTunnel> tunnel;
  };
  io::Loop& loop_;
  std::vector<std::unique_ptr<End>> ends_;
};

struct Client {
  std::unique_ptr<io::UdpSocket> socket;
  size_t answers = 0;
};

// Answers, and remembers who asked.
struct Endpoint {
  explicit Endpoint(io::Loop& loop) {
    socket = std::move(
        *io::UdpSocket::bind(loop, {IpAddr::loopback(), 0},
                             [this](std::span<const uint8_t> data, size_t, const SockAddr& from) {
                               askers.insert(from.port);
                               (void)socket->send_to(data, from);
                             },
                             {}));
  }
  std::set<uint16_t> askers;
  std::unique_ptr<io::UdpSocket> socket;
};

class UdpWorkersConfigTest : public ::testing::Test {
 protected:
  UdpWorkersConfigTest() {
    for (int i = 0; i < 3; ++i) {
      loops.push_back(std::move(*io::Loop::create()));
      workers.push_back(loops.back().get());
    }
    for (const auto& one : loops) threads.emplace_back([&one] { one->run(); });
  }
  ~UdpWorkersConfigTest() override {
    if (proxy != nullptr) proxy->stop();
    for (const auto& one : loops) one->stop();
    for (auto& thread : threads) thread.join();
  }
  std::unique_ptr<L7Proxy> make(size_t count, InheritedSockets* inherited = nullptr) {
    L7ProxyOptions options;
    options.connector.node = "here";
    options.metrics = &registry;
    options.inherited = inherited;
    return std::move(*L7Proxy::create(
        *loop, {workers.begin(), workers.begin() + static_cast<long>(count)}, options));
  }
  void apply(const std::string& endpoint, int max_flows = 1000) {
    auto config = model::parse_config(
        fmt::format("listeners:\n- {{name: dns, kind: udp, address: \"127.0.0.1:0\", udpCluster: "
                    "c, udpMaxFlows: {}}}\n"
                    "clusters:\n- {{name: c, type: static, endpoints: [{}]}}\n",
                    max_flows, endpoint),
        "test");
    ASSERT_TRUE(config) << config.error().message;
    auto applied = proxy->apply(*config);
    ASSERT_TRUE(applied) << applied.error().message;
  }
  std::string here(const Endpoint& endpoint) {
    return fmt::format("{{address: \"{}\"}}", endpoint.socket->local_addr().to_string());
  }
  // Each of so many clients asks once; more clients come the first time.
  size_t ask(size_t count, std::chrono::milliseconds patience = std::chrono::seconds(20)) {
    const SockAddr at = proxy->listen_addrs().at(0).second;
    while (clients.size() < count) {
      auto client = std::make_unique<Client>();
      client->socket =
          std::move(*io::UdpSocket::bind(*loop, {IpAddr::loopback(), 0},
                                         [one = client.get()](std::span<const uint8_t>, size_t,
                                                              const SockAddr&) { ++one->answers; },
                                         {}));
      clients.push_back(std::move(client));
    }
    size_t before = answers();
    for (size_t i = 0; i < count; ++i)
      EXPECT_TRUE(clients[i]->socket->send_to(io::as_bytes("?"), at));
    (void)loop->run_until([&] { return answers() == before + count; }, patience);
    return answers() - before;
  }
  size_t answers() const {
    size_t sum = 0;
    for (const auto& client : clients) sum += client->answers;
    return sum;
  }
  int metric(const std::string& name, int worker) {
    const std::string text = registry.text();
    const std::string labels = name.ends_with(',') ? "" : "{";
    const std::string line = fmt::format("\n{}{}worker=\"{}\"}} ", name, labels, worker);
    const size_t at = text.find(line);
    return at == std::string::npos ? -1 : std::atoi(text.c_str() + at + line.size());
  }

  std::unique_ptr<io::Loop> loop = std::move(*io::Loop::create());
  obs::Registry registry;
  std::vector<std::unique_ptr<io::Loop>> loops;
  std::vector<io::Loop*> workers;
  std::vector<std::thread> threads;
  std::vector<std::unique_ptr<Client>> clients;
  std::unique_ptr<L7Proxy> proxy;
};

TEST_F(UdpWorkersConfigTest, FlowsAreSharedAmongTheWorkers) {
  Endpoint endpoint(*loop);
  proxy = make(3);
  apply(here(endpoint));
  EXPECT_EQ(ask(100), 100U);
  EXPECT_EQ(ask(100), 100U);
  int sum = 0;
  for (int i = 0; i < 3; ++i) {
    const int opened = metric("edgemesh_udp_flows_opened_total", i);
    EXPECT_GT(opened, 0) << i;
    sum += opened;
  }
  EXPECT_EQ(sum, 100);
  EXPECT_EQ(endpoint.askers.size(), 100U);
}

TEST_F(UdpWorkersConfigTest, TheLimitIsThatOfTheListener) {
  Endpoint endpoint(*loop);
  proxy = make(3);
  apply(here(endpoint), 20);
  // None is idle for a second yet: what is over the limit waits for nobody.
  (void)ask(60, std::chrono::milliseconds(0));
  auto dropped = [&] {
    int sum = 0;
    for (int i = 0; i < 3; ++i)
      sum += metric("edgemesh_udp_dropped_total{reason=\"too_many_flows\",", i);
    return static_cast<size_t>(sum);
  };
  EXPECT_TRUE(
      loop->run_until([&] { return answers() + dropped() == 60; }, std::chrono::seconds(20)))
      << answers() << " answered, " << dropped() << " dropped";
  EXPECT_GE(answers(), 20U);
  EXPECT_LE(answers(), 22U) << "a worker may be one ahead";
}

TEST_F(UdpWorkersConfigTest, TheFirstWorkerCarriesWhatGoesToOtherNodes) {
  proxy = make(3);
  EchoDialer dialer(*loops[0]);
  proxy->set_dialer(&dialer);
  apply("{address: \"10.0.0.1:53\", node: far}");
  EXPECT_EQ(ask(60), 60U);
  EXPECT_EQ(ask(60), 60U);
  EXPECT_EQ(dialer.opened, 60);
  EXPECT_EQ(dialer.elsewhere, 0);
  EXPECT_GT(metric("edgemesh_udp_flows_opened_total", 2), 0);
  proxy->set_dialer(nullptr);
  proxy->stop();
}

// Hot restart: also where the next process has fewer workers, or more.
TEST_F(UdpWorkersConfigTest, FlowsOfAllWorkersGoOnInAnotherProxy) {
  Endpoint endpoint(*loop);
  proxy = make(2);
  apply(here(endpoint));
  EXPECT_EQ(ask(60), 60U);
  for (const size_t count : {2, 1, 3}) {
    SCOPED_TRACE(count);
    InheritedSockets inherited;
    for (const auto& [key, fd] : proxy->listening_sockets())
      inherited.add(key, io::Fd(fcntl(fd, F_DUPFD_CLOEXEC, 3)));
    auto former = std::move(proxy);
    proxy = make(count, &inherited);
    apply(here(endpoint));
    std::optional<std::vector<HandedFlow>> flows;
    former->give_flows([&](std::vector<HandedFlow> given) { flows = std::move(given); });
    ASSERT_TRUE(loop->run_until([&] { return flows.has_value(); }, std::chrono::seconds(20)));
    EXPECT_EQ(flows->size(), 60U);
    proxy->take_flows(std::move(*flows));
    former->stop();
    former.reset();
    EXPECT_EQ(ask(60), 60U);
    EXPECT_EQ(endpoint.askers.size(), 60U) << "endpoints see the same clients";
  }
}

}  // namespace
}  // namespace edgemesh::proxy
