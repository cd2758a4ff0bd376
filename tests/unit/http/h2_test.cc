#include "tests/unit/http/h2_fixture.h"

#include "core/http/byte_queue.h"
#include "core/io/tcp.h"
#include "core/tls/tls_stream.h"

namespace edgemesh::http {
namespace {

TEST(ByteQueueTest, KeepsOrderOverBlocks) {
  ByteQueue queue;
  std::string data = pattern(100'000);
  std::string out;
  for (size_t at = 0; at < data.size(); at += 777) {
    queue.append(io::as_bytes(std::string_view(data).substr(at, 777)));
    uint8_t buffer[500];
    size_t n = queue.read(buffer);
    out.append(io::as_text({buffer, n}));
  }
  std::vector<uint8_t> rest(queue.size());
  EXPECT_EQ(queue.read(rest), rest.size());
  out.append(io::as_text(rest));
  EXPECT_EQ(out, data);
  EXPECT_TRUE(queue.empty());
  queue.append(io::as_bytes(data));
  queue.clear();
  EXPECT_EQ(queue.read(rest), 0u);
}

TEST_F(H2Test, StreamConnectsAndBothSidesTalk) {
  start();
  auto near = TestPki::take(client_->open_connect("10.0.0.1:80", {{"Baggage", "k=v"}}));
  Collector client(std::move(near));
  ASSERT_TRUE(until([&] { return at_server_.connects.size() == 1; }));
  EXPECT_EQ(at_server_.connects[0]->authority(), "10.0.0.1:80");
  EXPECT_EQ(at_server_.connects[0]->headers().get("baggage"), "k=v");
  EXPECT_FALSE(client.connected);

  Collector server(at_server_.connects[0]->accept());
  at_server_.connects.clear();
  server.send("down");
  ASSERT_TRUE(until([&] { return client.connected && client.received == "down"; }));
  client.send("up");
  client.finish();
  ASSERT_TRUE(until([&] { return server.eof; }));
  EXPECT_EQ(server.received, "up");
  EXPECT_FALSE(client.eof);
  server.send(" and more");  // the other half is still open
  server.finish();
  ASSERT_TRUE(until([&] { return client.eof; }));
  EXPECT_EQ(client.received, "down and more");
  client.drop();
  server.drop();
  ASSERT_TRUE(until([&] { return client_->active_streams() + server_->active_streams() == 0; }));
  EXPECT_EQ(client_->bytes_out(), 2u);
  EXPECT_EQ(client_->bytes_in(), 13u);
}

TEST_F(H2Test, FirstBytesTravelWithTheOpen) {
  start();
  auto client = open();
  client->send("first");

  ASSERT_TRUE(until([&] { return at_server_.connects.size() == 1; }));
  Collector server(at_server_.connects[0]->accept());
  loop_->run_once();

  EXPECT_EQ(server.received, "first");
  EXPECT_FALSE(client->connected);  // the answer is not back yet
}

struct PipeCase {
  const char* name;
  test::MemoryStreamOptions pipe;
  size_t bytes;
};
class H2TransferTest : public H2Test, public ::testing::WithParamInterface<PipeCase> {};

TEST_P(H2TransferTest, MovesEveryByteOfManyStreams) {
  H2Options options;
  options.stream_window = 100'000;
  options.connection_window = 200'000;
  options.send_buffer = 50'000;
  start(GetParam().pipe, options);
  constexpr int kStreams = 5;
  std::vector<std::unique_ptr<Collector>> near, far;
  for (int i = 0; i < kStreams; ++i) {
    auto [a, b] = open_pair();
    near.push_back(std::move(a));
    far.push_back(std::move(b));
  }

  for (int i = 0; i < kStreams; ++i) {
    near[static_cast<size_t>(i)]->send(pattern(GetParam().bytes, i));
    near[static_cast<size_t>(i)]->finish();
    far[static_cast<size_t>(i)]->send(pattern(GetParam().bytes / 2, i + 100));
    far[static_cast<size_t>(i)]->finish();
  }

  for (int i = 0; i < kStreams; ++i) {
    auto k = static_cast<size_t>(i);
    ASSERT_TRUE(until([&] { return near[k]->eof && far[k]->eof; }));
    EXPECT_TRUE(far[k]->received == pattern(GetParam().bytes, i));
    EXPECT_TRUE(near[k]->received == pattern(GetParam().bytes / 2, i + 100));
  }
}

INSTANTIATE_TEST_SUITE_P(Pipes, H2TransferTest,
                         ::testing::Values(PipeCase{"Wide", {1 << 20, 0, 0}, 3'000'000},
                                           PipeCase{"Narrow", {1000, 0, 0}, 200'000},
                                           PipeCase{"ByteReads", {4096, 1, 0}, 20'000},
                                           PipeCase{"ByteWrites", {4096, 0, 1}, 20'000}),
                         [](const auto& p) { return p.param.name; });

TEST_F(H2Test, ReaderThatStopsHoldsBackOnlyItsStream) {
  H2Options options;
  options.stream_window = 100'000;
  options.connection_window = 1'000'000;
  options.send_buffer = 64 * 1024;
  start({}, options);
  auto [slow_near, slow_far] = open_pair();
  auto [near, far] = open_pair();
  slow_far->stop_reading();
  slow_near->send(pattern(2'000'000));
  near->send(pattern(2'000'000));

  ASSERT_TRUE(until([&] { return far->received.size() == 2'000'000; }));
  EXPECT_GE(slow_near->unsent.size(), 2'000'000 - options.stream_window - options.send_buffer);
  EXPECT_TRUE(slow_far->received.empty());
  EXPECT_LE(server_->bytes_in(), 2'000'000 + options.stream_window);

  slow_far->start_reading();
  ASSERT_TRUE(until([&] { return slow_far->received.size() == 2'000'000; }));
  EXPECT_TRUE(slow_far->received == pattern(2'000'000));
}

TEST_F(H2Test, RefusalIsAnErrorWithStatusAndReason) {
  start();
  const std::pair<int, ErrorCode> cases[] = {{403, ErrorCode::kPermissionDenied},
                                             {404, ErrorCode::kNotFound},
                                             {503, ErrorCode::kUnavailable}};
  for (auto [status, code] : cases) {
    auto client = open();
    client->send("bytes that nobody wants");
    ASSERT_TRUE(until([&] { return !at_server_.connects.empty(); }));
    at_server_.connects.back()->reject(status, "not an endpoint");
    at_server_.connects.clear();

    ASSERT_TRUE(until([&] { return client->failed; }));
    EXPECT_EQ(client->error.code, code);
    EXPECT_EQ(client->error.message, fmt::format("HTTP {}: not an endpoint", status));
    EXPECT_FALSE(client->connected);
    EXPECT_TRUE(client->stream().nothing_delivered());
  }
  ASSERT_TRUE(until([&] { return client_->active_streams() + server_->active_streams() == 0; }));
}

TEST_F(H2Test, NobodyKnowsWhatWasDeliveredWhenTheConnectionBreaks) {
  start();
  auto client = open();
  client->send("bytes that somebody may have got");
  ASSERT_TRUE(until([&] { return !at_server_.connects.empty(); }));
  EXPECT_FALSE(client->stream().nothing_delivered());

  pipe_->break_connection();

  ASSERT_TRUE(until([&] { return client->failed; }));
  EXPECT_FALSE(client->stream().nothing_delivered());
}

TEST_F(H2Test, ForgottenConnectIsRefused) {
  start();
  at_server_.take = [](std::unique_ptr<H2Connect>) {};
  auto client = open();

  ASSERT_TRUE(until([&] { return client->failed; }));
  EXPECT_EQ(client->error.code, ErrorCode::kUnavailable);
}

TEST_F(H2Test, DroppedStreamResetsTheFarEnd) {
  start();
  auto [near, far] = open_pair();
  near->send("some");
  ASSERT_TRUE(until([&] { return far->received == "some"; }));

  near->drop();

  ASSERT_TRUE(until([&] { return far->failed; }));
  EXPECT_EQ(far->error.code, ErrorCode::kConnectionReset);
  auto [near2, far2] = open_pair();  // the session goes on
  far2->drop();
  ASSERT_TRUE(until([&] { return near2->failed; }));
  ASSERT_TRUE(until([&] { return client_->active_streams() + server_->active_streams() == 0; }));
}

TEST_F(H2Test, StreamDroppedBeforeItIsSentOrAnsweredLeavesNothing) {
  start();
  open()->drop();
  auto waiting = open();
  ASSERT_TRUE(until([&] { return !at_server_.connects.empty(); }));
  waiting->drop();
  turns();
  EXPECT_EQ(at_server_.connects.back()->accept(), nullptr);
  ASSERT_TRUE(until([&] { return client_->active_streams() + server_->active_streams() == 0; }));
}

TEST_F(H2Test, UnreadBytesOfADroppedStreamDoNotCloseTheConnectionWindow) {
  H2Options options;
  options.stream_window = 65'535;
  options.connection_window = 100'000;
  start({}, options);
  for (int i = 0; i < 10; ++i) {
    auto [near, far] = open_pair();
    far->stop_reading();
    near->send(pattern(60'000));
    turns();
    far->drop();
    turns();
  }

  auto [near, far] = open_pair();
  near->send(pattern(300'000));

  ASSERT_TRUE(until([&] { return far->received.size() == 300'000; }));
}

TEST_F(H2Test, GracefulCloseOfAStreamKeepsWhatIsUnread) {
  start();
  auto [near, far] = open_pair();
  far->stop_reading();
  near->send("everything");
  near->finish();
  far->finish();
  ASSERT_TRUE(until([&] { return near->eof; }));
  near->drop();
  ASSERT_TRUE(until([&] { return server_->active_streams() == 0; }));

  far->start_reading();

  EXPECT_EQ(far->received, "everything");
  EXPECT_TRUE(far->eof);
}

TEST_F(H2Test, BrokenConnectionFailsEveryStreamThenTheSession) {
  start();
  auto [near, far] = open_pair();
  auto pending = open();
  turns(2);

  pipe_->break_connection();

  ASSERT_TRUE(until([&] { return at_client_.closed && at_server_.closed; }));
  EXPECT_TRUE(near->failed && far->failed && pending->failed);
  EXPECT_EQ(at_client_.closed->code, ErrorCode::kConnectionReset);
  EXPECT_FALSE(client_->accepts_streams());
  EXPECT_FALSE(client_->open_connect("a:1"));
}

TEST_F(H2Test, DestroyedSessionFailsItsStreams) {
  start();
  auto [near, far] = open_pair();

  client_.reset();

  ASSERT_TRUE(until([&] { return near->failed && far->failed && at_server_.closed; }));
  EXPECT_FALSE(at_client_.closed);
  near->drop();
  far->drop();
}

TEST_F(H2Test, SessionMayBeDestroyedInItsCallbacks) {
  start();
  auto near = open();
  at_server_.take = [&](std::unique_ptr<H2Connect> connect) {
    connect.reset();
    server_.reset();
  };

  ASSERT_TRUE(until([&] { return near->failed && at_client_.closed; }));
}

TEST_F(H2Test, GoawayLetsOpenStreamsFinish) {
  start();
  auto [near, far] = open_pair();

  server_->goaway();
  ASSERT_TRUE(until([&] { return at_client_.going_away; }));
  EXPECT_FALSE(client_->accepts_streams());
  EXPECT_FALSE(client_->open_connect("a:1"));
  near->send("still here");
  near->finish();
  ASSERT_TRUE(until([&] { return far->eof; }));
  EXPECT_EQ(far->received, "still here");
  EXPECT_FALSE(at_server_.closed);
  far->finish();

  ASSERT_TRUE(until([&] { return at_client_.closed && at_server_.closed; }));
  EXPECT_TRUE(near->eof);
  EXPECT_EQ(at_server_.closed->code, ErrorCode::kCancelled) << at_server_.closed->message;
  EXPECT_EQ(at_client_.closed->code, ErrorCode::kCancelled) << at_client_.closed->message;
}

TEST_F(H2Test, PingTellsTheRoundTrip) {
  start();
  std::optional<Result<Duration>> rtt;
  client_->ping([&](Result<Duration> r) { rtt = std::move(r); });
  ASSERT_TRUE(until([&] { return rtt.has_value(); }));
  ASSERT_TRUE(*rtt);
  EXPECT_GT(**rtt, 0ns);

  bool failed = false;
  server_->ping([&](Result<Duration> r) { failed = !r; });
  pipe_->break_connection();
  ASSERT_TRUE(until([&] { return failed; }));
}

TEST_F(H2Test, StreamsBeyondThePeersLimitWait) {
  H2Options options;
  options.max_concurrent_streams = 2;
  start({}, options);
  auto [near, far] = open_pair();  // settings are known now
  auto second = open();
  auto third = open();
  ASSERT_TRUE(until([&] { return at_server_.connects.size() == 2; }));
  turns();
  EXPECT_EQ(at_server_.connects.size(), 2u);

  near->drop();

  ASSERT_TRUE(until([&] { return at_server_.connects.size() == 3; }));
  EXPECT_FALSE(third->failed);
}

TEST_F(H2Test, RapidResetsEndTheConnection) {
  H2Options options;
  options.reset_burst = 20;
  options.reset_per_second = 1;
  start({}, options);

  for (int i = 0; i < 100 && !at_server_.closed; ++i) {
    auto near = client_->open_connect("10.0.0.1:80");
    if (!near) break;
    turns(2);
    near->reset();
    turns(2);
    at_server_.connects.clear();
  }

  ASSERT_TRUE(until([&] { return at_server_.closed && at_client_.closed; }));
  EXPECT_EQ(at_server_.closed->code, ErrorCode::kProtocol) << at_server_.closed->message;
}

TEST_F(H2Test, GarbageEndsTheSession) {
  auto [a, b] = MemoryStream::pair(*loop_);
  Collector far(std::move(a));
  server_ = TestPki::take(H2Session::server(*loop_, std::move(b), &at_server_));

  far.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");

  ASSERT_TRUE(until([&] { return at_server_.closed.has_value(); }));
  EXPECT_EQ(at_server_.closed->code, ErrorCode::kProtocol);
}

TEST_F(H2Test, WritesOfOneTurnLeaveTogether) {
  start();
  auto [near, far] = open_pair();
  turns();
  uint64_t before = pipe_->writes();

  for (int i = 0; i < 10; ++i) near->send("x");
  ASSERT_TRUE(until([&] { return far->received.size() == 10; }));

  EXPECT_EQ(pipe_->writes() - before, 1u);
}

TEST_F(H2Test, OverMutualTlsAndTcp) {
  TestPki pki;
  auto server_id = pki.issue("system:node:b", {{"spiffe://edgemesh.local/node/b"}, {}, {}});
  auto server_options = pki.options(server_id);
  server_options.alpn = {"h2"};
  auto client_options =
      pki.options(pki.issue("system:node:a", {{"spiffe://edgemesh.local/node/a"}, {}, {}}));
  client_options.alpn = {"h2"};
  auto server_context = TestPki::take(tls::Context::server(server_options));
  auto listener = TestPki::take(io::TcpListener::listen(
      *loop_, TestPki::take(SockAddr::parse("127.0.0.1:0")), [&](io::Fd fd, const SockAddr&) {
        auto tls = TestPki::take(tls::TlsStream::server(
            *loop_, TestPki::take(io::TcpStream::adopt(*loop_, std::move(fd))), server_context));
        server_ = TestPki::take(H2Session::server(*loop_, std::move(tls), &at_server_));
      }));
  client_ = TestPki::take(H2Session::client(
      *loop_,
      TestPki::take(tls::TlsStream::client(
          *loop_, TestPki::take(io::TcpStream::connect(*loop_, listener->local_addr())),
          TestPki::take(tls::Context::client(client_options)), "")),
      &at_client_));

  auto near = open();  // before the handshake
  near->send(pattern(20'000'000));
  near->finish();
  ASSERT_TRUE(until([&] { return !at_server_.connects.empty(); }));
  auto& tls = dynamic_cast<tls::TlsStream&>(server_->below());
  EXPECT_EQ(tls.peer()->uri_sans[0], "spiffe://edgemesh.local/node/a");
  EXPECT_EQ(tls.alpn(), "h2");
  Collector far(at_server_.connects[0]->accept());

  ASSERT_TRUE(until([&] { return far.eof; }));
  EXPECT_TRUE(far.received == pattern(20'000'000));
  server_->goaway();
  far.finish();
  ASSERT_TRUE(until([&] { return at_client_.closed && at_server_.closed; }));
}

}  // namespace
}  // namespace edgemesh::http
