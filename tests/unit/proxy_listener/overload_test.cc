// Limits of the process: what is over them is told no at once, and all goes on when it is over.
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
  EXPECT_THAT(talk(kept, get("/3"), "overloaded"),
              testing::AllOf(HasSubstr("503"), HasSubstr("Connection: close")));
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
  EXPECT_THAT(talk(second, get("/2"), "overloaded"), HasSubstr("503"));
  EXPECT_THAT(talk(slow, "abc", "|3."), HasSubstr("200"));
  EXPECT_THAT(talk(dial("l"), get("/3"), "|0."), HasSubstr("200"));
}

}  // namespace
}  // namespace edgemesh::proxy
