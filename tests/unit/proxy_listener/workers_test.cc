// An L7Proxy on several workers with threads of their own: tunnels belong to the first, all use
// them.
#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

#include "tests/unit/proxy_listener/listener_fixture.h"

namespace edgemesh::proxy {
namespace {

// A tunnel that is a TCP connection. Everything happens on one thread, or the test fails.
class OneThreadDialer final : public p2p::Dialer {
 public:
  explicit OneThreadDialer(io::Loop& loop) : loop_(loop) {}
  Result<std::unique_ptr<io::Stream>> open(const std::string& node,
                                           const SockAddr& target) override {
    if (!loop_.on_thread()) ++elsewhere;
    if (node != "far") return fail(ErrorCode::kUnavailable, "node {} is not known", node);
    ++opened;
    EM_TRY(auto stream, io::TcpStream::connect(loop_, target));
    return std::unique_ptr<io::Stream>(std::make_unique<Counted>(std::move(stream), living));
  }
  p2p::PathKind path_kind(const std::string&) const override { return p2p::PathKind::kPunched; }

  std::atomic<int> opened{0}, elsewhere{0}, living{0};

 private:
  class Counted final : public io::Stream {
   public:
    Counted(std::unique_ptr<io::Stream> below, std::atomic<int>& living)
        : below_(std::move(below)), living_(living) {
      ++living_;
    }
    ~Counted() override { --living_; }
    void set_handler(Handler* handler) override { below_->set_handler(handler); }
    io::IoResult read(std::span<uint8_t> into) override { return below_->read(into); }
    io::IoResult write(std::span<const uint8_t> data) override { return below_->write(data); }
    void shutdown_write() override { below_->shutdown_write(); }
    void reset() override { below_->reset(); }

   private:
    std::unique_ptr<io::Stream> below_;
    std::atomic<int>& living_;
  };
  io::Loop& loop_;
};

class WorkersTest : public ListenerTest {
 protected:
  void SetUp() override {
    proxy_->stop();
    for (int i = 0; i < 3; ++i) loops_.push_back(std::move(*io::Loop::create()));
    std::vector<io::Loop*> workers;
    for (const auto& loop : loops_) workers.push_back(loop.get());
    L7ProxyOptions options;
    options.connector.node = "here";
    proxy_ = std::move(*L7Proxy::create(*loop_, workers, options));
    for (const auto& loop : loops_) threads_.emplace_back([&loop] { loop->run(); });
    dialer_ = std::make_unique<OneThreadDialer>(*loops_[0]);
    proxy_->set_dialer(dialer_.get());
    more_clusters_ = fmt::format(
        "- {{name: far, maxRequestsPerConnection: 3, endpoints: [{{address: \"{0}\", node: "
        "far}}]}}\n"
        "- {{name: nowhere, endpoints: [{{address: \"{0}\", node: unknown}}]}}\n"
        "- {{name: farbytes, endpoints: [{{address: \"{1}\", node: far}}]}}\n",
        http_.to_string(), bytes_.to_string());
    ASSERT_TRUE(apply(
        "- {name: l, address: 127.0.0.1:0, chains: [{http: {routes: r}}]}\n"
        "- {name: b, address: 127.0.0.1:0, chains: [{tcp: {cluster: farbytes}}]}",
        "[{match: {prefix: /nowhere}, cluster: nowhere}, {match: {prefix: /}, cluster: far}]"));
  }
  void TearDown() override {
    clients_.clear();
    proxy_->set_dialer(nullptr);
    proxy_->stop();
    dialer_.reset();  // every stream of it is gone
    for (const auto& loop : loops_) loop->stop();
    for (auto& thread : threads_) thread.join();
  }
  std::vector<std::unique_ptr<io::Loop>> loops_;
  std::vector<std::thread> threads_;
  std::unique_ptr<OneThreadDialer> dialer_;
};

TEST_F(WorkersTest, EveryWorkerReachesOtherNodes) {
  for (int i = 0; i < 40; ++i)  // the system spreads them over the workers
    EXPECT_THAT(talk(dial("l"), get("/" + std::to_string(i)), "|0."),
                HasSubstr(fmt::format("http|/{}|", i)));
  EXPECT_GT(dialer_->opened, 3);  // at least a connection of each worker
  EXPECT_EQ(dialer_->elsewhere, 0);
  EXPECT_THAT(talk(dial("l"), get("/nowhere"), "\r\n\r\n"), HasSubstr("503"));
}

TEST_F(WorkersTest, BytesToo) {
  for (int i = 0; i < 20; ++i) {
    auto& client = dial("b");
    EXPECT_EQ(talk(client, "", "hello bytes;"), "hello bytes;");
  }
  EXPECT_EQ(dialer_->opened, 20);
  EXPECT_EQ(dialer_->elsewhere, 0);
}

// Half-close in both orders; the tunnel's loop keeps nothing of what ended.
TEST_F(WorkersTest, NothingStaysOfWhatEnded) {
  auto& servers = std::next(servers_.begin())->raw;
  for (int i = 0; i < 20; ++i) {
    auto& client = dial("b");
    EXPECT_EQ(talk(client, "ping", "hello bytes;"), "hello bytes;");
    ASSERT_TRUE(until([&] { return servers.back()->received == "ping"; }));
    auto& first = i % 2 == 0 ? client : *servers.back();
    auto& second = i % 2 == 0 ? *servers.back() : client;
    first.finish();
    ASSERT_TRUE(until([&] { return second.eof; }));
    second.send("still");
    second.finish();
    ASSERT_TRUE(until([&] { return first.eof; }));
    EXPECT_THAT(first.received, HasSubstr("still"));
  }
  clients_.clear();
  EXPECT_TRUE(until([&] { return dialer_->living == 0; })) << dialer_->living << " of 20";
}

TEST_F(WorkersTest, LargeBodiesPassWhole) {
  const std::string body(3 << 20, 'x');
  std::vector<test::Collector*> clients;
  for (int i = 0; i < 6; ++i) {
    clients.push_back(&dial("l"));
    clients.back()->send(
        fmt::format("POST /{} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", i, body.size()));
    clients.back()->send(body);
  }
  for (auto* client : clients)
    EXPECT_TRUE(until([&] {
      return client->received.find(fmt::format("|{}.", body.size())) != std::string::npos;
    })) << client->received;
}

// Clients that go in the middle, on every worker, and the proxy's end while there is work.
TEST_F(WorkersTest, TheEndInTheMiddle) {
  for (int i = 0; i < 30; ++i) {
    auto& client = dial("l");
    client.send("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" +
                std::string(50'000, 'y'));
    settle(2);
    if (i % 2 == 0) client.drop();
  }
  settle(5);
}

}  // namespace
}  // namespace edgemesh::proxy
