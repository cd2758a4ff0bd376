// Configurations that follow each other, chains that forward bytes, and the end.
#include "tests/unit/proxy_listener/listener_fixture.h"

namespace edgemesh::proxy {
namespace {

std::string listener(const std::string& name, const std::string& more) {
  return "- name: " + name + "\n  address: 127.0.0.1:0\n" + more + "\n";
}
constexpr char kWeb[] = "  chains: [{name: c, http: {routes: r}}]";

class Proxy : public ListenerTest {
 protected:
  // A port that is free, and stays so for a while.
  static uint16_t free_port() {
    auto fd = io::open_tcp_listener(SockAddr{IpAddr::v4(0x7f000001), 0});
    EM_CHECK(fd.has_value());
    return io::original_dst(fd->get(), false)->port;
  }
};

TEST_F(Proxy, RoutesChangeUnderAConnection) {
  ASSERT_TRUE(apply(listener("l", kWeb)));
  const SockAddr addr = addr_of("l");
  test::Collector& client = dial("l");
  EXPECT_THAT(talk(client, get("/1"), "|0."), HasSubstr("http|/1|"));
  ASSERT_TRUE(apply(listener("l", kWeb), "[{match: {prefix: /}, respond: {body: new.}}]"));
  EXPECT_EQ(addr_of("l"), addr);
  EXPECT_THAT(talk(client, get("/2"), "new."), HasSubstr("new."));
  EXPECT_FALSE(client.eof);
}

TEST_F(Proxy, AListenerThatIsRemovedFinishesItsRequests) {
  ASSERT_TRUE(apply(listener("l", kWeb) + listener("m", kWeb)));
  const SockAddr gone = addr_of("l");
  test::Collector& busy = dial("l");
  talk(busy, get("/0"), "|0.");
  busy.send("POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nx");
  test::Collector& idle = dial("l");
  talk(idle, get("/1"), "|0.");
  test::Collector& other = dial("m");
  talk(other, get("/2"), "|0.");
  ASSERT_TRUE(apply(listener("m", kWeb)));
  ASSERT_TRUE(until([&] { return idle.eof || idle.failed; }));
  EXPECT_FALSE(busy.eof || busy.failed);
  busy.received.clear();
  EXPECT_THAT(talk(busy, "y", "|2."), HasSubstr("http|/slow|"));
  ASSERT_TRUE(until([&] { return busy.eof || busy.failed; }));
  other.received.clear();
  EXPECT_THAT(talk(other, get("/3"), "|0."), HasSubstr("http|/3|"));
  test::Collector& late = dial(gone);
  ASSERT_TRUE(until([&] { return late.failed; }));
}

TEST_F(Proxy, APortThatChangesKeepsConnections) {
  const uint16_t first = free_port(), second = free_port();
  auto at = [](uint16_t port) {
    return fmt::format("- name: l\n  address: 127.0.0.1:{}\n{}\n", port, kWeb);
  };
  ASSERT_TRUE(apply(at(first)));
  test::Collector& client = dial("l");
  talk(client, get("/1"), "|0.");
  ASSERT_TRUE(apply(at(second)));
  EXPECT_EQ(addr_of("l").port, second);
  EXPECT_THAT(talk(dial("l"), get("/2"), "|0."), HasSubstr("http|/2|"));
  client.received.clear();
  EXPECT_THAT(talk(client, get("/3"), "|0."), HasSubstr("http|/3|"));
  test::Collector& late = dial(SockAddr{IpAddr::v4(0x7f000001), first});
  ASSERT_TRUE(until([&] { return late.failed; }));
}

TEST_F(Proxy, AConfigurationThatIsWrongChangesNothing) {
  ASSERT_TRUE(apply(listener("l", kWeb)));
  test::Collector& client = dial("l");
  talk(client, get("/1"), "|0.");
  const std::string taken =
      fmt::format("- name: z\n  address: {}\n{}\n", http_.to_string(), kWeb);
  auto applied = apply(listener("new", kWeb) + taken, "[{match: {prefix: /}, respond: {body: x}}]");
  ASSERT_FALSE(applied);
  EXPECT_THAT(applied.error().message, HasSubstr("listener z"));
  EXPECT_EQ(proxy_->listen_addrs().size(), 1u);
  client.received.clear();
  EXPECT_THAT(talk(client, get("/2"), "|0."), HasSubstr("http|/2|"));
}

TEST_F(Proxy, AChainThatIsRemovedEndsItsConnections) {
  const std::string two = R"(  chains:
  - {name: web, match: {applicationProtocols: [http/1.1]}, http: {routes: r}}
  - {name: raw, tcp: {cluster: bytes}})";
  ASSERT_TRUE(apply(listener("l", two)));
  test::Collector& client = dial("l");
  talk(client, get("/1"), "|0.");
  ASSERT_TRUE(apply(listener("l", "  chains: [{name: raw, tcp: {cluster: bytes}}]")));
  ASSERT_TRUE(until([&] { return client.eof || client.failed; }));
}

TEST_F(Proxy, ConnectionsOverTheLimitAreClosed) {
  ASSERT_TRUE(apply(listener("l", std::string("  maxConnections: 1\n") + kWeb)));
  test::Collector& client = dial("l");
  talk(client, get("/1"), "|0.");
  test::Collector& second = dial("l");
  ASSERT_TRUE(until([&] { return second.eof || second.failed; }));
  client.finish();
  ASSERT_TRUE(until([&] { return client.eof || client.failed; }));
  settle();
  EXPECT_THAT(talk(dial("l"), get("/2"), "|0."), HasSubstr("http|/2|"));
}

// ---- Bytes.

TEST_F(Proxy, BytesBothWaysAndHalfEnds) {
  ASSERT_TRUE(apply(listener("l", "  chains: [{tcp: {cluster: bytes}}]")));
  test::Collector& client = dial("l");
  EXPECT_EQ(talk(client, "early", ";"), "hello bytes;");
  test::Collector& server = *servers_.back().raw.back();
  ASSERT_TRUE(until([&] { return server.received == "early"; }));
  client.finish();
  ASSERT_TRUE(until([&] { return server.eof; }));
  server.send("late");
  ASSERT_TRUE(until([&] { return client.received == "hello bytes;late"; }));
  EXPECT_FALSE(client.eof);
  server.finish();
  ASSERT_TRUE(until([&] { return client.eof; }));
}

TEST_F(Proxy, BytesGoToAnotherEndpointWhenOneRefuses) {
  more_clusters_ = fmt::format(
      "- {{name: two, endpoints: [{{address: \"127.0.0.1:{}\"}}, {{address: \"{}\"}}]}}\n",
      free_port(), bytes_.to_string());
  ASSERT_TRUE(apply(listener("l", "  chains: [{tcp: {cluster: two, connectAttempts: 2}}]")));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(talk(dial("l"), "x", ";"), "hello bytes;");
  ASSERT_TRUE(apply(listener("l", "  chains: [{tcp: {cluster: two}}]")));
  int failed = 0;
  for (int i = 0; i < 4; ++i) failed += talk(dial("l"), "x", ";").empty() ? 1 : 0;
  EXPECT_EQ(failed, 2);  // every second one
}

TEST_F(Proxy, BytesAreForThoseWhoMay) {
  ASSERT_TRUE(apply(listener("l", R"(  proxyProtocol: optional
  chains:
  - tcp:
      cluster: bytes
      rbac: {rules: [{action: deny, policies: [{principals: [{sourceIp: 9.0.0.0/8}]}]}]})")));
  EXPECT_EQ(talk(dial("l"), "xxxxxxxx", ";"), "hello bytes;");
  test::Collector& refused = dial("l");
  refused.send("PROXY TCP4 9.8.7.6 1.1.1.1 1000 80\r\n");
  ASSERT_TRUE(until([&] { return refused.eof || refused.failed; }));
  EXPECT_EQ(refused.received, "");
}

TEST_F(Proxy, BytesThatRestEnd) {
  ASSERT_TRUE(apply(listener("l", "  chains: [{tcp: {cluster: bytes, idleTimeout: 10s}}]")));
  test::Collector& client = dial("l");
  talk(client, "x", ";");
  advance(seconds(8));
  client.send("y");
  settle();
  advance(seconds(8));
  EXPECT_FALSE(client.eof || client.failed);
  advance(seconds(11));
  ASSERT_TRUE(until([&] { return client.eof || client.failed; }));
}

// ---- The end.

TEST_F(Proxy, ADrainIsDoneWithTheLastRequest) {
  ASSERT_TRUE(apply(listener("l", kWeb)));
  test::Collector& idle = dial("l");
  talk(idle, get("/1"), "|0.");
  test::Collector& busy = dial("l");
  talk(busy, get("/2"), "|0.");
  busy.received.clear();
  busy.send("POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nx");
  settle();
  bool done = false;
  proxy_->drain([&] { done = true; });
  ASSERT_TRUE(until([&] { return idle.eof || idle.failed; }));
  advance(milliseconds(100));
  EXPECT_FALSE(done);
  EXPECT_THAT(talk(busy, "y", "|2."), HasSubstr("http|/slow|"));
  busy.finish();
  for (int i = 0; i < 50 && !done; ++i) advance(milliseconds(50));
  EXPECT_TRUE(done);
}

TEST_F(Proxy, ADrainThatLastsTooLongIsDoneAllTheSame) {
  ASSERT_TRUE(apply(listener("l", "  chains: [{tcp: {cluster: bytes}}]")));
  talk(dial("l"), "x", ";");
  bool done = false;
  proxy_->drain([&] { done = true; });
  advance(seconds(9));
  EXPECT_FALSE(done);
  advance(seconds(2));
  EXPECT_TRUE(done);
}

TEST_F(Proxy, StopsInTheMiddleOfEverything) {
  const std::string two = R"(  proxyProtocol: optional
  chains:
  - {name: web, match: {applicationProtocols: [http/1.1]}, http: {routes: r}}
  - {name: raw, tcp: {cluster: bytes}})";
  ASSERT_TRUE(apply(listener("l", two)));
  dial("l");                                                        // silent
  dial("l").send("PROX");                                           // half a header
  dial("l").send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx");  // half a request
  talk(dial("l"), "bytes here", ";");
  dial("l").send("bytes there");  // connecting
  loop_->run_once();
  proxy_->stop();
  proxy_.reset();
  for (auto& client : clients_)
    ASSERT_TRUE(until([&] { return client->eof || client->failed; }));
}

}  // namespace
}  // namespace edgemesh::proxy
