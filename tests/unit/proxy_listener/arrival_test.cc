// How connections come to their chain: PROXY headers, sniffing, TLS, codecs.
#include "tests/unit/proxy_listener/listener_fixture.h"

namespace edgemesh::proxy {
namespace {

constexpr char kHttp[] = "  chains: [{name: c, http: {routes: r, useRemoteAddress: true}}]";

class Arrivals : public ListenerTest {
 protected:
  void listen(const std::string& more) {
    auto applied = apply("- name: l\n  address: 127.0.0.1:0\n" + more);
    ASSERT_TRUE(applied) << applied.error().message;
  }
  // The proxy has closed it.
  bool ended(test::Collector& client) {
    return until([&] { return client.eof || client.failed; });
  }
};

TEST_F(Arrivals, ProxyProtocolVersion1) {
  listen(std::string("  proxyProtocol: required\n") + kHttp);
  EXPECT_THAT(talk(dial("l"), "PROXY TCP4 9.8.7.6 1.1.1.1 1000 80\r\n" + get("/a"), "|0."),
              HasSubstr("http|/a|9.8.7.6|"));
  // Byte by byte.
  test::Collector& slow = dial("l");
  for (const char c : "PROXY TCP6 2001:db8::1 ::1 1 80\r\n" + get("/b")) {
    slow.send({&c, 1});
    settle(1);
  }
  EXPECT_THAT(talk(slow, "", "|0."), HasSubstr("http|/b|2001:db8::1|"));
  test::Collector& none = dial("l");
  none.send(get("/c"));
  EXPECT_TRUE(ended(none));
  EXPECT_EQ(none.received, "");
  test::Collector& silent = dial("l");
  settle();
  advance(seconds(5));
  EXPECT_TRUE(ended(silent));
}

TEST_F(Arrivals, ProxyProtocolVersion2) {
  listen(std::string("  proxyProtocol: optional\n") + kHttp);
  std::string header("\r\n\r\n\0\r\nQUIT\n", 12);
  header += std::string("\x21\x11\x00\x0c\x09\x08\x07\x06\x01\x01\x01\x01\x03\xe8\x00\x50", 16);
  EXPECT_THAT(talk(dial("l"), header + get("/a"), "|0."), HasSubstr("http|/a|9.8.7.6|"));
  EXPECT_THAT(talk(dial("l"), get("/b"), "|0."), HasSubstr("http|/b|127.0.0.1|"));
  std::string local("\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", 16);
  EXPECT_THAT(talk(dial("l"), local + get("/c"), "|0."), HasSubstr("http|/c|127.0.0.1|"));
  test::Collector& bad = dial("l");
  bad.send("PROXY TCP4 9.8.7 1.1.1.1 1000 80\r\n" + get("/a"));
  EXPECT_TRUE(ended(bad));
  EXPECT_EQ(bad.received, "");
}

TEST_F(Arrivals, AServerThatSpeaksFirstWaitsForTheSniffTimeout) {
  listen("  sniffTimeout: 2s\n  tlsInspector: true\n  chains: [{tcp: {cluster: bytes}}]");
  test::Collector& client = dial("l");
  settle();
  EXPECT_EQ(client.received, "");
  advance(seconds(2));
  EXPECT_THAT(talk(client, "", ";"), "hello bytes;");
  // Bytes that are no TLS end the wait.
  test::Collector& other = dial("l");
  EXPECT_THAT(talk(other, "no tls", ";"), "hello bytes;");
  ASSERT_TRUE(until([&] { return servers_.back().raw.back()->received == "no tls"; }));
}

TEST_F(Arrivals, ASniffTimeoutMayClose) {
  listen(
      "  sniffTimeout: 2s\n  goOnAfterSniffTimeout: false\n  tlsInspector: true\n"
      "  chains: [{tcp: {cluster: bytes}}]");
  test::Collector& client = dial("l");
  settle();
  advance(seconds(2));
  EXPECT_TRUE(ended(client));
  EXPECT_EQ(client.received, "");
}

TEST_F(Arrivals, ASniffTimeoutOfZeroIsNone) {
  listen("  sniffTimeout: 0s\n  tlsInspector: true\n  chains: [{tcp: {cluster: bytes}}]");
  test::Collector& client = dial("l");
  settle();
  advance(seconds(100));
  EXPECT_EQ(client.received, "");
  EXPECT_THAT(talk(client, "x", ";"), "hello bytes;");
}

TEST_F(Arrivals, HttpAndBytesOnOnePort) {
  listen(R"(  chains:
  - {name: web, match: {applicationProtocols: [http/1.1, http/1.0, h2c]}, http: {routes: r}}
  - {name: raw, tcp: {cluster: bytes}})");
  EXPECT_THAT(talk(dial("l"), get("/a"), "|0."), HasSubstr("http|/a|"));
  EXPECT_THAT(talk(dial("l"), "SSH-2.0-x\r\n", ";"), "hello bytes;");
}

TEST_F(Arrivals, AConnectionThatNoChainTakesIsClosed) {
  listen("  chains: [{match: {serverNames: [a.example]}, tcp: {cluster: bytes}}]");
  test::Collector& client = dial("l");
  client.send("plain");
  EXPECT_TRUE(ended(client));
  EXPECT_EQ(proxy_->totals().active_connections, 0u);
}

// ---- Codecs.

std::string frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
  auto byte = [](size_t value) { return static_cast<char>(value & 0xff); };
  const size_t n = payload.size();
  std::string out{byte(n >> 16), byte(n >> 8),       byte(n),           byte(type), byte(flags),
                  byte(stream >> 24), byte(stream >> 16), byte(stream >> 8), byte(stream)};
  return out.append(payload);
}

TEST_F(Arrivals, AnHttp2PrefaceThatComesByteByByte) {
  listen(kHttp);
  test::Collector& client = dial("l");
  // GET / of "h": the static table's fields.
  const std::string bytes = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, "") +
                            frame(1, 5, 1, std::string("\x82\x86\x84\x41\x01h", 6));
  for (const char c : bytes) {
    client.send({&c, 1});
    settle(1);
  }
  EXPECT_THAT(talk(client, "", "|0."), HasSubstr("http|/|127.0.0.1|"));
  EXPECT_FALSE(client.failed);
}

TEST_F(Arrivals, AMethodThatBeginsLikeAPreface) {
  listen(kHttp);
  for (const std::string method : {"P", "PR", "PRI", "PRIX"}) {
    test::Collector& client = dial("l");
    for (const char c : method + " /x HTTP/1.1\r\nHost: h\r\n\r\n") {
      client.send({&c, 1});
      settle(1);
    }
    EXPECT_THAT(talk(client, "", "\r\n\r\n"), HasSubstr("HTTP/1.1 ")) << method;
  }
}

TEST_F(Arrivals, AHeadThatDoesNotComeIsNotWaitedForLong) {
  listen("  chains: [{http: {routes: r, headTimeout: 3s, idleTimeout: 60s}}]");
  for (const char* text : {"P", "PRI * HTTP/2.0\r\n", "GET / HT"}) {
    test::Collector& client = dial("l");
    client.send(text);
    settle();
    advance(milliseconds(3100));
    settle();
    EXPECT_TRUE(client.eof || client.failed) << text;
    client.finish();
  }
  test::Collector& idle = dial("l");
  settle();
  advance(seconds(50));
  EXPECT_FALSE(idle.eof || idle.failed);
  advance(seconds(11));
  EXPECT_TRUE(ended(idle));
}

TEST_F(Arrivals, NoIdleTimeoutMeansNone) {
  listen("  chains: [{http: {routes: r, idleTimeout: 0s}}]");
  test::Collector& client = dial("l");
  settle();
  advance(std::chrono::hours(3));
  EXPECT_FALSE(client.eof || client.failed);
  EXPECT_THAT(talk(client, get("/late"), "|0."), HasSubstr("http|/late|"));
}

TEST_F(Arrivals, ALongRequestInOnePieceAndAnEndBehindIt) {
  listen(kHttp);
  test::Collector& client = dial("l");
  const std::string body(1'000'000, 'x');
  EXPECT_THAT(talk(client,
                   "POST /long HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" + body, "."),
              HasSubstr("|1000000."));
  test::Collector& half = dial("l");
  half.send(get("/half"));
  half.finish();
  EXPECT_TRUE(ended(half));
  EXPECT_THAT(half.received, HasSubstr("http|/half|"));
  test::Collector& nothing = dial("l");
  nothing.finish();
  EXPECT_TRUE(ended(nothing));
  ASSERT_TRUE(until([&] { return proxy_->totals().active_connections <= 1; }));
}

// ---- TLS.

class TlsArrivals : public Arrivals {
 protected:
  std::string pem(const tls::KeyAndCert& id) {
    return "cert: " + quoted(id.cert_pem) + ", key: " + quoted(id.key_pem);
  }
  test::TestPki pki_;
};

TEST_F(TlsArrivals, AlpnChoosesTheCodec) {
  listen("  chains:\n  - tls: {" + pem(pki_.localhost()) + "}\n    http: {routes: r}");
  for (const auto& alpn : {std::vector<std::string>{}, {"http/1.1"}}) {
    test::Collector& client = dial_tls(addr_of("l"), pki_, "localhost", alpn);
    EXPECT_THAT(talk(client, get("/t"), "|0."), HasSubstr("http|/t|"));
    EXPECT_EQ(tls_->alpn(), alpn.empty() ? "" : "http/1.1");
  }
  test::Collector& h2 = dial_tls(addr_of("l"), pki_, "localhost", {"h2", "http/1.1"});
  ASSERT_TRUE(until([&] { return h2.connected; }));
  EXPECT_EQ(tls_->alpn(), "h2");
  EXPECT_THAT(talk(h2,
                   "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, "") +
                       frame(1, 5, 1, std::string("\x82\x87\x84\x41\x01h", 6)),
                   "|0."),
              HasSubstr("http|/|"));
  test::Collector& plain = dial("l");
  plain.send(get("/"));
  EXPECT_TRUE(ended(plain));
  EXPECT_EQ(plain.received.find("http|"), std::string::npos);
}

TEST_F(TlsArrivals, TheServerNameChoosesTheCertificate) {
  const auto a = pki_.issue("a", {{}, {"a.shop.example"}, {}});
  const auto wild = pki_.issue("w", {{}, {"*.shop.example"}, {}});
  listen("  chains:\n  - tls: {" + pem(pki_.localhost()) +
         ", certificates: [{serverNames: [\"*.shop.example\"], " + pem(wild) +
         "}, {serverNames: [a.shop.example], " + pem(a) + "}]}\n    http: {routes: r}");
  // The client checks that the certificate is for the name that it asked for.
  for (const char* name : {"a.shop.example", "b.shop.example", "localhost"}) {
    test::Collector& client = dial_tls(addr_of("l"), pki_, name);
    EXPECT_THAT(talk(client, get("/t"), "|0."), HasSubstr("http|/t|")) << name;
    ASSERT_NE(tls_->peer(), nullptr);
    EXPECT_EQ(tls_->peer()->common_name, name[0] == 'a'   ? "a"
                                         : name[0] == 'b' ? "w"
                                                          : "localhost");
  }
}

TEST_F(TlsArrivals, MutualTlsTellsWhoTheClientIs) {
  listen("  chains:\n  - tls: {" + pem(pki_.localhost()) + ", ca: " + quoted(pki_.ca().cert_pem) +
         ", clientCert: required, clientSans: [{prefix: \"spiffe://td/\"}]}\n    http: {routes: r, "
         "clientCertField: sanitizeSet}");
  const auto good = pki_.issue("c", {{"spiffe://td/ns/x"}, {}, {}});
  EXPECT_THAT(talk(dial_tls(addr_of("l"), pki_, "localhost", {}, good), get("/"), "|0."),
              HasSubstr("|Hash="));
  const auto other = pki_.issue("c", {{"spiffe://other/ns/x"}, {}, {}});
  test::Collector& refused = dial_tls(addr_of("l"), pki_, "localhost", {}, other);
  refused.send(get("/"));
  EXPECT_TRUE(ended(refused));
  EXPECT_EQ(refused.received, "");
  test::Collector& without = dial_tls(addr_of("l"), pki_, "localhost");
  without.send(get("/"));
  EXPECT_TRUE(ended(without));
  EXPECT_EQ(without.received, "");
}

TEST_F(TlsArrivals, PassThroughByServerName) {
  // The inner listener first: the outer one's cluster is its address.
  const std::string inner = "- name: inner\n  address: 127.0.0.1:0\n  chains:\n  - tls: {" +
                            pem(pki_.localhost()) + "}\n    http: {routes: r}\n";
  ASSERT_TRUE(apply(inner));
  more_clusters_ = cluster("inner", addr_of("inner"));
  ASSERT_TRUE(apply(inner + R"(- name: outer
  address: 127.0.0.1:0
  chains: [{name: pass, match: {serverNames: [localhost], transport: tls}, tcp: {cluster: inner}}]
  defaultChain: {tcp: {cluster: bytes}}
)"));
  EXPECT_THAT(talk(dial_tls(addr_of("outer"), pki_, "localhost"), get("/p"), "|0."),
              HasSubstr("http|/p|"));
  EXPECT_EQ(tls_->peer()->common_name, "localhost");
  EXPECT_THAT(talk(dial("outer"), "plain", ";"), "hello bytes;");
}

TEST_F(TlsArrivals, AHandshakeThatStopsEnds) {
  listen("  chains:\n  - tls: {handshakeTimeout: 4s, " + pem(pki_.localhost()) +
         "}\n    http: {routes: r}");
  test::Collector& client = dial("l");
  client.send(std::string("\x16\x03\x01\x00", 4));
  settle();
  advance(seconds(5));
  EXPECT_TRUE(ended(client));
}

}  // namespace
}  // namespace edgemesh::proxy
