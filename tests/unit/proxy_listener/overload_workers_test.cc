// Limits of the process where several workers with threads of their own share them.
#include <algorithm>
#include <cstdlib>
#include <thread>

#include "tests/unit/proxy_listener/listener_fixture.h"

namespace edgemesh::proxy {
namespace {

class OverloadedWorkers : public ListenerTest {
 protected:
  void SetUp() override {
    proxy_->stop();
    for (int i = 0; i < 3; ++i) loops_.push_back(std::move(*io::Loop::create()));
    std::vector<io::Loop*> workers;
    for (const auto& loop : loops_) workers.push_back(loop.get());
    proxy_ = std::move(*L7Proxy::create(*loop_, workers, {}));
    for (const auto& loop : loops_) threads_.emplace_back([&loop] { loop->run(); });
  }
  void TearDown() override {
    clients_.clear();
    proxy_->stop();
    for (const auto& loop : loops_) loop->stop();
    for (auto& thread : threads_) thread.join();
  }
  void limit(const std::string& overload) {
    more_clusters_ = "overload: " + overload + "\n";
    const auto applied = apply(
        "- {name: l, address: 127.0.0.1:0, chains: [{http: {routes: r}}]}\n"
        "- {name: b, address: 127.0.0.1:0, chains: [{tcp: {cluster: bytes}}]}");
    ASSERT_TRUE(applied) << applied.error().message;
  }
  static bool over(const test::Collector& client) { return client.eof || client.failed; }
  // Of a family without labels; -1: there is none.
  int64_t value(const std::string& name) {
    std::string text;
    proxy_->append_metrics(text);
    const std::string line = "\n" + name + " ";
    const size_t at = text.find(line);
    return at == std::string::npos ? -1 : std::atoll(text.c_str() + at + line.size());
  }
  static size_t count(const std::vector<test::Collector*>& clients, const std::string& text) {
    return static_cast<size_t>(std::count_if(
        clients.begin(), clients.end(),
        [&](const auto* client) { return client->received.find(text) != std::string::npos; }));
  }
  std::vector<test::Collector*> crowd(const std::string& listener, int size,
                                      const std::string& text) {
    std::vector<test::Collector*> all;
    for (int i = 0; i < size; ++i) {
      all.push_back(&dial(listener));
      all.back()->send(text);
    }
    return all;
  }

  std::vector<std::unique_ptr<io::Loop>> loops_;
  std::vector<std::thread> threads_;
};

// Exactly as many as may: the workers count together.
TEST_F(OverloadedWorkers, ConnectionsAreCountedTogether) {
  limit("{maxConnections: 20}");
  for (int round = 0; round < 3; ++round) {
    const auto all = crowd("b", 60, "");
    ASSERT_TRUE(until([&] {
      return std::all_of(all.begin(), all.end(), [](const auto* client) {
        return over(*client) || client->received.find(";") != std::string::npos;
      });
    }));
    EXPECT_EQ(count(all, "hello"), 20U) << round;
    EXPECT_EQ(value("edgemesh_overload_refused_connections_total"), 40 * (round + 1));
    clients_.clear();
    ASSERT_TRUE(until([&] { return value("edgemesh_overload_connections") == 0; }));
  }
}

// What is over the limit is answered at once, and what is under way goes on to its end.
TEST_F(OverloadedWorkers, RequestsThatFailAreThoseThatHadTo) {
  limit("{maxRequests: 6}");
  const auto all = crowd("l", 60, "POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n");
  ASSERT_TRUE(until([&] { return count(all, "503 ") >= 54; }));
  const size_t refused = count(all, "503 ");
  for (auto* client : all)
    if (client->received.empty()) client->send("abc");
  ASSERT_TRUE(until([&] { return count(all, "|3.") + refused == all.size(); }));
  EXPECT_EQ(value("edgemesh_http_overloaded_total"), static_cast<int64_t>(refused));
  clients_.clear();
  ASSERT_TRUE(until([&] { return proxy_->totals().active_requests == 0; }));
  for (int i = 0; i < 20; ++i) EXPECT_THAT(talk(dial("l"), get("/after"), "|0."), HasSubstr("200"));
}

}  // namespace
}  // namespace edgemesh::proxy
