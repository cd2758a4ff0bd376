#include "core/tls/tls_stream.h"

#include <gtest/gtest.h>

#include "core/io/tcp.h"
#include "tests/support/memory_stream.h"
#include "tests/support/test_pki.h"

namespace edgemesh::tls {
namespace {

using namespace std::chrono_literals;  // NOLINT
using test::Collector;
using test::MemoryStream;
using test::TestPki;
using Options = ContextOptions;

class TlsStreamTest : public ::testing::Test {
 protected:
  struct Ends {
    std::unique_ptr<Collector> client, server;
    MemoryStream* client_pipe = nullptr;
    MemoryStream* server_pipe = nullptr;
    TlsStream& client_tls() { return static_cast<TlsStream&>(client->stream()); }
    TlsStream& server_tls() { return static_cast<TlsStream&>(server->stream()); }
  };

  Ends connect(std::shared_ptr<Context> client, std::shared_ptr<Context> server,
               const std::string& name = "localhost", const test::MemoryStreamOptions& pipe = {}) {
    auto [a, b] = MemoryStream::pair(*loop_, pipe);
    Ends ends;
    ends.client_pipe = a.get();
    ends.server_pipe = b.get();
    ends.client = std::make_unique<Collector>(
        TestPki::take(TlsStream::client(*loop_, std::move(a), std::move(client), name)));
    ends.server = std::make_unique<Collector>(
        TestPki::take(TlsStream::server(*loop_, std::move(b), std::move(server))));
    return ends;
  }
  bool until(const std::function<bool()>& done) { return loop_->run_until(done, 10s); }

  std::unique_ptr<io::Loop> loop_ = TestPki::take(io::Loop::create());
  TestPki pki_;
};

std::string pattern(size_t n) {
  std::string out(n, '\0');
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<char>(i * 31 + i / 251);
  return out;
}

TEST_F(TlsStreamTest, BothSidesSeeTheVerifiedIdentityOfTheOther) {
  auto node = pki_.issue("system:node:n1", {{"spiffe://edgemesh.local/node/n1"}, {}, {}});
  auto ends = connect(pki_.client(node), pki_.server(pki_.localhost(), Options::kRequired));

  ASSERT_TRUE(until([&] { return ends.client->connected && ends.server->connected; }));

  const PeerIdentity* seen = ends.server_tls().peer();
  ASSERT_NE(seen, nullptr);
  EXPECT_EQ(seen->common_name, "system:node:n1");
  EXPECT_EQ(seen->organization, "system:nodes");
  EXPECT_EQ(seen->uri_sans, std::vector<std::string>{"spiffe://edgemesh.local/node/n1"});
  EXPECT_FALSE(seen->expired);
  EXPECT_EQ(seen->sha256, sha256_hex(seen->der));
  ASSERT_NE(ends.client_tls().peer(), nullptr);
  EXPECT_EQ(ends.client_tls().peer()->common_name, "localhost");
  EXPECT_EQ(ends.client_tls().version(), "TLSv1.3");
  EXPECT_EQ(ends.server_tls().server_name(), "localhost");
}

struct PipeCase {
  const char* name;
  test::MemoryStreamOptions pipe;
  int version;
  size_t bytes;
};
class TlsTransferTest : public TlsStreamTest, public ::testing::WithParamInterface<PipeCase> {};

TEST_P(TlsTransferTest, MovesEveryByteBothWaysAndEndsByHalfClose) {
  auto options = pki_.options(pki_.localhost());
  options.min_version = options.max_version = GetParam().version;
  auto ends = connect(TestPki::take(Context::client(options)),
                      pki_.server(pki_.localhost(), Options::kNone), "localhost", GetParam().pipe);
  std::string up = pattern(GetParam().bytes);
  std::string down = pattern(GetParam().bytes / 2 + 7);

  ends.client->send(up);  // before the handshake
  ends.client->finish();
  ASSERT_TRUE(until([&] { return ends.server->eof; }));
  ends.server->send(down);  // the other direction is still open
  ends.server->finish();
  ASSERT_TRUE(until([&] { return ends.client->eof; }));

  EXPECT_EQ(ends.server->received, up);
  EXPECT_EQ(ends.client->received, down);
  EXPECT_FALSE(ends.client->failed || ends.server->failed);
}

INSTANTIATE_TEST_SUITE_P(Pipes, TlsTransferTest,
                         ::testing::Values(PipeCase{"Wide13", {1 << 20, 0, 0}, kTls13, 3'000'000},
                                           PipeCase{"Wide12", {1 << 20, 0, 0}, kTls12, 3'000'000},
                                           PipeCase{"Narrow", {100, 0, 0}, kTls13, 200'000},
                                           PipeCase{"ByteReads13", {4096, 1, 0}, kTls13, 20'000},
                                           PipeCase{"ByteReads12", {4096, 1, 0}, kTls12, 20'000},
                                           PipeCase{"ByteWrites", {4096, 0, 1}, kTls13, 20'000}),
                         [](const auto& param_info) { return param_info.param.name; });

TEST_F(TlsStreamTest, PushesBackOnAWriterWhenTheReaderStops) {
  auto ends = connect(pki_.client(), pki_.server(pki_.localhost(), Options::kNone));
  ASSERT_TRUE(until([&] { return ends.client->connected && ends.server->connected; }));

  ends.server->stop_reading();
  std::string data = pattern(4 << 20);
  ends.client->send(data);
  for (int i = 0; i < 50; ++i) loop_->run_once();
  EXPECT_GT(ends.client->unsent.size(), 3u << 20);

  ends.server->start_reading();
  ASSERT_TRUE(until([&] { return ends.server->received.size() == data.size(); }));
  EXPECT_EQ(ends.server->received, data);
}

TEST_F(TlsStreamTest, AlpnIsAgreed) {
  auto server = pki_.options(pki_.localhost(), Options::kNone);
  server.alpn = {"h2", "http/1.1"};
  auto client = pki_.options({});
  client.alpn = {"http/1.1", "h2"};

  auto ends =
      connect(TestPki::take(Context::client(client)), TestPki::take(Context::server(server)));

  ASSERT_TRUE(until([&] { return ends.client->connected && ends.server->connected; }));
  EXPECT_EQ(ends.client_tls().alpn(), "h2");
  EXPECT_EQ(ends.server_tls().alpn(), "h2");
}

TEST_F(TlsStreamTest, AlpnWithoutCommonProtocolIsRefused) {
  auto server = pki_.options(pki_.localhost(), Options::kNone);
  server.alpn = {"h2"};
  auto client = pki_.options({});
  client.alpn = {"http/1.1"};

  auto ends =
      connect(TestPki::take(Context::client(client)), TestPki::take(Context::server(server)));

  ASSERT_TRUE(until([&] { return ends.client->failed && ends.server->failed; }));
  EXPECT_FALSE(ends.client->connected);
}

TEST_F(TlsStreamTest, ServerOfAnotherCaIsRefused) {
  TestPki other("test CA");
  auto ends = connect(pki_.client(), other.server(other.localhost(), Options::kNone));

  ASSERT_TRUE(until([&] { return ends.client->failed && ends.server->failed; }));
  EXPECT_EQ(ends.client->error.code, ErrorCode::kUnauthenticated);
  EXPECT_FALSE(ends.client->connected);
  EXPECT_FALSE(ends.server->connected);
}

TEST_F(TlsStreamTest, ServerWithAnotherNameIsRefused) {
  for (const char* name : {"other.example", "127.0.0.9", "system:node:x"}) {
    auto ends = connect(pki_.client(), pki_.server(pki_.localhost(), Options::kNone), name);
    ASSERT_TRUE(until([&] { return ends.client->failed; })) << name;
    EXPECT_EQ(ends.client->error.code, ErrorCode::kUnauthenticated) << name;
    EXPECT_NE(ends.client->error.message.find("mismatch"), std::string::npos)
        << ends.client->error.message;
  }
}

TEST_F(TlsStreamTest, AddressIsFoundInTheAlternativeNames) {
  for (const char* name : {"127.0.0.1", "::1", "localhost", ""}) {
    auto ends = connect(pki_.client(), pki_.server(pki_.localhost(), Options::kNone), name);
    EXPECT_TRUE(until([&] { return ends.client->connected; })) << name;
  }
}

TEST_F(TlsStreamTest, CommonNameIsNotTakenForAName) {
  auto ends = connect(pki_.client(), pki_.server(pki_.issue("localhost"), Options::kNone));

  ASSERT_TRUE(until([&] { return ends.client->failed; }));
  EXPECT_EQ(ends.client->error.code, ErrorCode::kUnauthenticated);
}

TEST_F(TlsStreamTest, ExpiredServerIsRefused) {
  auto old = pki_.issue("localhost", {{}, {"localhost"}, {}}, -7200, -3600);
  auto ends = connect(pki_.client(), pki_.server(old, Options::kNone));

  ASSERT_TRUE(until([&] { return ends.client->failed; }));
  EXPECT_NE(ends.client->error.message.find("expired"), std::string::npos)
      << ends.client->error.message;
}

TEST_F(TlsStreamTest, ClientOfAnotherCaIsRefused) {
  TestPki other("test CA");
  auto options = pki_.options(other.issue("system:node:n1"));
  auto ends = connect(TestPki::take(Context::client(options)),
                      pki_.server(pki_.localhost(), Options::kRequired));

  ASSERT_TRUE(until([&] { return ends.server->failed && ends.client->failed; }));
  EXPECT_EQ(ends.server->error.code, ErrorCode::kUnauthenticated);
  EXPECT_EQ(ends.client->error.code, ErrorCode::kUnauthenticated) << ends.client->error.message;
  EXPECT_FALSE(ends.server->connected);
}

TEST_F(TlsStreamTest, ClientWithoutCertificateIsRefusedWhenOneIsRequired) {
  auto ends = connect(pki_.client(), pki_.server(pki_.localhost(), Options::kRequired));

  ASSERT_TRUE(until([&] { return ends.server->failed && ends.client->failed; }));
  EXPECT_EQ(ends.server->error.code, ErrorCode::kUnauthenticated);
}

TEST_F(TlsStreamTest, ClientWithoutCertificateIsAnonymousWhenOneIsOptional) {
  auto ends = connect(pki_.client(), pki_.server(pki_.localhost(), Options::kOptional));

  ASSERT_TRUE(until([&] { return ends.server->connected; }));
  EXPECT_EQ(ends.server_tls().peer(), nullptr);
}

TEST_F(TlsStreamTest, ExpiredClientIsRefusedUnlessAllowed) {
  auto old = pki_.issue("system:node:n1", {}, -7200, -3600);
  auto refused = connect(pki_.client(old), pki_.server(pki_.localhost(), Options::kOptional));
  ASSERT_TRUE(until([&] { return refused.server->failed; }));

  auto options = pki_.options(pki_.localhost(), Options::kOptional);
  options.accept_expired_peer = true;
  auto allowed = connect(pki_.client(old), TestPki::take(Context::server(options)));
  ASSERT_TRUE(until([&] { return allowed.server->connected; }));
  ASSERT_NE(allowed.server_tls().peer(), nullptr);
  EXPECT_TRUE(allowed.server_tls().peer()->expired);
}

TEST_F(TlsStreamTest, UnverifiedConnectionHasNoPeer) {
  TestPki other;
  auto [a, b] = MemoryStream::pair(*loop_);
  Collector client(TestPki::take(
      TlsStream::client(*loop_, std::move(a), pki_.client(), "whatever.example", false)));
  Collector server(TestPki::take(
      TlsStream::server(*loop_, std::move(b), other.server(other.localhost(), Options::kNone))));

  ASSERT_TRUE(until([&] { return client.connected; }));
  EXPECT_EQ(static_cast<TlsStream&>(client.stream()).peer(), nullptr);
}

TEST_F(TlsStreamTest, EndWithoutCloseNotifyIsAnError) {
  auto ends = connect(pki_.client(), pki_.server(pki_.localhost(), Options::kNone));
  ASSERT_TRUE(until([&] { return ends.client->connected && ends.server->connected; }));

  ends.server_pipe->shutdown_write();

  ASSERT_TRUE(until([&] { return ends.client->failed; }));
  EXPECT_FALSE(ends.client->eof);
  EXPECT_EQ(ends.client->error.code, ErrorCode::kConnectionReset);
}

TEST_F(TlsStreamTest, ResetBelowIsAnError) {
  auto ends = connect(pki_.client(), pki_.server(pki_.localhost(), Options::kNone));
  ASSERT_TRUE(until([&] { return ends.client->connected && ends.server->connected; }));

  ends.server_pipe->break_connection();

  ASSERT_TRUE(until([&] { return ends.client->failed && ends.server->failed; }));
}

TEST_F(TlsStreamTest, GarbageEndsTheHandshake) {
  auto [a, b] = MemoryStream::pair(*loop_);
  Collector far(std::move(a));
  Collector server(TestPki::take(
      TlsStream::server(*loop_, std::move(b), pki_.server(pki_.localhost(), Options::kNone))));

  far.send(std::string_view("\x16\x03\x01\x00\x05hello", 10));

  ASSERT_TRUE(until([&] { return server.failed && far.eof; }));
  EXPECT_EQ(server.error.code, ErrorCode::kProtocol) << server.error.message;
  EXPECT_FALSE(far.received.empty());  // the alert
}

TEST(TlsTimeoutTest, SilentPeerEndsTheHandshake) {
  ManualClock clock;
  auto loop = TestPki::take(io::Loop::create(clock));
  TestPki pki;
  auto [a, b] = MemoryStream::pair(*loop);
  Collector silent(std::move(a));
  Collector server(TestPki::take(
      TlsStream::server(*loop, std::move(b), pki.server(pki.localhost(), Options::kNone))));
  loop->run_once();

  clock.advance(11s);

  ASSERT_TRUE(loop->run_until([&] { return server.failed; }, 5s));
  EXPECT_EQ(server.error.code, ErrorCode::kTimeout);
}

TEST(TlsContextTest, ErrorsNameTheWrongPart) {
  TestPki pki;
  auto id = pki.localhost();
  auto check = [&](tls::ContextOptions options, const char* text) {
    auto result = Context::server(options);
    ASSERT_FALSE(result);
    EXPECT_NE(result.error().message.find(text), std::string::npos) << result.error().message;
  };

  auto options = pki.options(id);
  options.cert_pem = "x";
  check(options, "TLS certificate is not readable PEM");
  options = pki.options(id);
  options.key_pem = "x";
  check(options, "private key is not readable");
  options = pki.options(id);
  options.key_pem = TestPki::take(generate_key_pem());
  check(options, "key does not belong");
  options = pki.options(id);
  options.ca_pem = "x";
  check(options, "trusted CA");
  options.ca_pem.clear();
  check(options, "no CA is given");
}

TEST_F(TlsStreamTest, GracefulCloseOverTcpLosesNothing) {
  std::unique_ptr<Collector> server;
  auto context = pki_.server(pki_.localhost(), Options::kNone);
  auto listener = TestPki::take(io::TcpListener::listen(
      *loop_, TestPki::take(SockAddr::parse("127.0.0.1:0")), [&](io::Fd fd, const SockAddr&) {
        server = std::make_unique<Collector>(TestPki::take(TlsStream::server(
            *loop_, TestPki::take(io::TcpStream::adopt(*loop_, std::move(fd))), context)));
        server->send(pattern(100'000));
        server->finish();
      }));
  Collector client(TestPki::take(TlsStream::client(
      *loop_, TestPki::take(io::TcpStream::connect(*loop_, listener->local_addr())), pki_.client(),
      "127.0.0.1")));
  client.finish();

  ASSERT_TRUE(until([&] { return server && server->eof && server->unsent.empty(); }));
  server->drop();  // the client has not read everything yet

  ASSERT_TRUE(until([&] { return client.eof || client.failed; }));
  EXPECT_FALSE(client.failed) << client.error.message;
  EXPECT_EQ(client.received, pattern(100'000));
}

}  // namespace
}  // namespace edgemesh::tls
