// Limits of the process: what is over them is told no at once, and all goes on when it is over.
#include <cstring>

#include "core/base/log.h"
#include "tests/unit/proxy_listener/listener_fixture.h"

namespace edgemesh::proxy {
namespace {

class OverloadedTest : public ListenerTest {
 protected:
  void limit(const std::string& overload) {
    more_clusters_ = "overload: " + overload + "\n";
    const auto applied = apply(
        "- {name: l, address: 127.0.0.1:0, chains: [{http: {routes: r}}]}\n"
        "- {name: b, address: 127.0.0.1:0, chains: [{tcp: {cluster: bytes}}]}");
    ASSERT_TRUE(applied) << applied.error().message;
  }
  // The value of a metric without labels.
  int64_t value(const std::string& name) {
    std::string text;
    proxy_->append_metrics(text);
    const std::string line = "\n" + name + " ";
    const size_t at = text.find(line);
    return at == std::string::npos ? -1 : std::stoll(text.substr(at + line.size()));
  }
  bool ended(test::Collector& client) {
    return until([&] { return client.eof || client.failed; });
  }
};

TEST_F(OverloadedTest, ConnectionsOfAllListenersTogether) {
  limit("{maxConnections: 2}");
  auto& one = dial("l");
  EXPECT_THAT(talk(one, get("/1"), "|0."), HasSubstr("200"));
  auto& two = dial("b");
  EXPECT_EQ(talk(two, "", "hello bytes;"), "hello bytes;");
  auto& three = dial("l");
  EXPECT_TRUE(ended(three));
  EXPECT_EQ(value("edgemesh_overload_refused_connections_total"), 1);
  two.drop();
  settle();
  EXPECT_THAT(talk(dial("l"), get("/4"), "|0."), HasSubstr("200"));
  EXPECT_THAT(talk(one, get("/5"), "/5|"), HasSubstr("200"));
}

TEST_F(OverloadedTest, WithoutMemoryRequestsAreShedAndTakenAgain) {
  limit("{}");
  auto& kept = dial("l");
  EXPECT_THAT(talk(kept, get("/1"), "|0."), HasSubstr("200"));
  limit("{maxMemoryMiB: 1}");  // no process is as small
  kept.received.clear();
  EXPECT_THAT(talk(kept, get("/2"), "|0."), HasSubstr("200"));  // until it was looked
  advance(seconds(1));
  EXPECT_EQ(value("edgemesh_overload_level"), 2);
  kept.received.clear();
  EXPECT_THAT(talk(kept, get("/3"), "\r\n\r\noverloaded"),
              testing::AllOf(HasSubstr("503"), HasSubstr("Connection: close"),
                             HasSubstr("x-edgemesh-overloaded: memory")));
  EXPECT_TRUE(ended(kept));
  EXPECT_TRUE(ended(dial("l")));

  limit("{maxMemoryMiB: 1000000}");
  advance(seconds(1));
  EXPECT_EQ(value("edgemesh_overload_level"), 0);
  EXPECT_THAT(talk(dial("l"), get("/4"), "|0."), HasSubstr("200"));
}

TEST_F(OverloadedTest, Requests) {
  limit("{maxRequests: 1}");
  auto& slow = dial("l");
  slow.send("POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n");
  settle();
  auto& second = dial("l");
  EXPECT_THAT(talk(second, get("/2"), "\r\n\r\noverloaded"),
              testing::AllOf(HasSubstr("503"), HasSubstr("x-edgemesh-overloaded: requests")));
  EXPECT_THAT(talk(slow, "abc", "|3."), HasSubstr("200"));
  EXPECT_THAT(talk(dial("l"), get("/3"), "|0."), HasSubstr("200"));
}

// Who is idle gives its place to others before there is none.
TEST_F(OverloadedTest, NearTheLimitKeptConnectionsEnd) {
  limit("{maxConnections: 10}");
  auto& early = dial("l");
  EXPECT_THAT(talk(early, get("/1"), "|0."), Not(HasSubstr("Connection: close")));
  std::vector<test::Collector*> idle;
  for (int i = 0; i < 8; ++i) talk(*idle.emplace_back(&dial("b")), "", ";");
  early.received.clear();
  EXPECT_THAT(talk(early, get("/2"), "|0."),
              testing::AllOf(HasSubstr("200"), HasSubstr("Connection: close")));
  EXPECT_TRUE(ended(early));
  EXPECT_EQ(value("edgemesh_overload_refused_connections_total"), 0);
}

TEST_F(OverloadedTest, EachChangeIsToldOnce) {
  std::vector<std::string> told;
  log::set_sink([&](std::string_view line) {
    if (line.find("overload: ") != line.npos) told.emplace_back(line);
  });
  limit("{maxConnections: 1}");
  talk(dial("b"), "", ";");
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(ended(dial("l")));
  advance(seconds(1));
  EXPECT_TRUE(ended(dial("l")));
  for (int i = 0; i < 5; ++i) advance(seconds(1));
  log::set_sink({});
  ASSERT_EQ(told.size(), 2U);
  EXPECT_THAT(told[0], HasSubstr("connections are refused, 20"));
  EXPECT_THAT(told[1], HasSubstr("no connection was refused"));
}

TEST_F(OverloadedTest, IdleConnectionsEndWhenMemoryStaysShort) {
  limit("{}");
  auto& idle = dial("l");
  EXPECT_THAT(talk(idle, get("/1"), "|0."), HasSubstr("200"));
  auto& busy = dial("l");
  busy.send("POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n");
  settle();
  limit("{maxMemoryMiB: 1}");
  advance(seconds(1));
  EXPECT_FALSE(idle.eof || idle.failed);  // it may have a request on its way
  for (int i = 0; i < 5; ++i) advance(seconds(1));
  EXPECT_TRUE(ended(idle));
  EXPECT_FALSE(busy.eof || busy.failed);
  EXPECT_THAT(talk(busy, "abc", "|3."), HasSubstr("200"));
}

// Sanitizers bring an allocator of their own.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// What is freed and stays with the allocator is not in use.
TEST_F(OverloadedTest, MemoryThatWasFreedCountsNoMore) {
  limit(fmt::format("{{maxMemoryMiB: {}}}", (resident_memory() >> 20) + 64));
  std::vector<std::unique_ptr<char[]>> crowd;
  for (int i = 0; i < 32 * 1024; ++i) {
    crowd.push_back(std::make_unique<char[]>(4096));
    std::memset(crowd.back().get(), i, 4096);
  }
  auto last = std::move(crowd.back());  // the heap cannot shrink by itself
  advance(seconds(1));
  EXPECT_EQ(value("edgemesh_overload_level"), 2);
  crowd.clear();
  advance(seconds(1));
  EXPECT_EQ(value("edgemesh_overload_level"), 2);
  ASSERT_TRUE(until([&] {
    clock_.advance(seconds(1));
    settle(20);
    return value("edgemesh_overload_level") == 0;
  }));
  EXPECT_THAT(talk(dial("l"), get("/1"), "|0."), HasSubstr("200"));
}
#endif

}  // namespace
}  // namespace edgemesh::proxy
