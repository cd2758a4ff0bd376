#include <gtest/gtest.h>

#include "proxy/http/h2_client.h"
#include "proxy/http/h2_server.h"
#include "tests/unit/proxy_http/h1_test_support.h"
#include "tests/unit/proxy_http/h2_raw.h"

namespace edgemesh::proxy {
namespace {

using h1test::ClientSide;
using h1test::ServerSide;
using h1test::Side;
using std::chrono::seconds;

struct H2Test : testing::Test {
  std::unique_ptr<io::Loop> loop = io::Loop::create().value();
  WriteBatch batch{*loop};
  ServerSide server;
  ClientSide client;

  void start(H2ServerOptions server_options = {}, H2ClientOptions client_options = {}) {
    auto [near, far] = test::MemoryStream::pair(*loop);
    server.connection = make_h2_server(*loop, batch, std::move(far), server_options, &server);
    client.connection = make_h2_client(*loop, batch, std::move(near), client_options, &client);
  }
  HeadPtr request(std::string_view method, std::string_view path) {
    HeadPtr head = take_head();
    head->method = method;
    head->scheme = "http";
    head->authority = "host";
    head->path = path;
    return head;
  }
  bool until(const std::function<bool()>& done) { return loop->run_until(done, seconds(5)); }
};

TEST_F(H2Test, ManyRequestsWithBodies) {
  server.echo = true;
  start();
  std::vector<std::unique_ptr<Side>> sides;
  for (int i = 0; i < 50; ++i) {
    auto side = std::make_unique<Side>();
    side->stream = client.connection->open(side.get());
    ASSERT_NE(side->stream, nullptr);
    HeadPtr head = request("POST", "/x");
    head->add("X-Mixed", "v");
    side->stream->send_head(*head, false);
    side->stream->send_data(io::as_bytes("body"), true);
    sides.push_back(std::move(side));
  }
  ASSERT_TRUE(until([&] {
    return std::all_of(sides.begin(), sides.end(), [](auto& s) { return s->ended; });
  }));
  for (auto& side : sides) EXPECT_EQ(side->body, "/x|body");
  EXPECT_TRUE(server.requests[0]->head->has("x-mixed"));
  sides.clear();
  EXPECT_TRUE(until([&] { return server.connection->active_streams() == 0; }));
  EXPECT_EQ(client.connection->active_streams(), 0U);
}

TEST_F(H2Test, StalledReaderIsBoundedAndGoesOn) {
  start();
  Side side;
  side.stream = client.connection->open(&side);
  side.stream->send_head(*request("POST", "/big"), false);
  ASSERT_TRUE(until([&] { return !server.requests.empty(); }));
  Side& far = *server.requests[0];
  far.stream->set_reading(false);
  std::string block(16384, 'a');
  size_t sent = 0;
  bool room = true;
  for (int turn = 0; turn < 300; ++turn) {
    if (!room && side.writable == 0) {
      loop->run_once();
      continue;
    }
    side.writable = 0;
    room = side.stream->send_data(io::as_bytes(block), false);
    sent += block.size();
  }
  EXPECT_LT(sent, 512U * 1024);
  EXPECT_GE(sent, 256U * 1024);
  EXPECT_TRUE(far.body.empty());
  far.stream->set_reading(true);
  side.stream->send_data({}, true);
  ASSERT_TRUE(until([&] { return far.ended; }));
  EXPECT_EQ(far.body.size(), sent);
}

TEST_F(H2Test, TrailersBothWays) {
  start();
  Side side;
  side.stream = client.connection->open(&side);
  side.stream->send_head(*request("POST", "/t"), false);
  side.stream->send_data(io::as_bytes("a"), false);
  HeadPtr trailers = take_head();
  trailers->add("X-T", "1");
  side.stream->send_trailers(*trailers);
  ASSERT_TRUE(until([&] { return !server.requests.empty() && server.requests[0]->ended; }));
  Side& far = *server.requests[0];
  EXPECT_EQ(far.trailers, "x-t=1;");
  HeadPtr head = take_head();
  head->status = 200;
  far.stream->send_head(*head, false);
  far.stream->send_data(io::as_bytes("b"), false);
  far.stream->send_trailers(*trailers);
  ASSERT_TRUE(until([&] { return side.ended; }));
  EXPECT_EQ(side.body, "b");
  EXPECT_EQ(side.trailers, "x-t=1;");
}

TEST_F(H2Test, ExtendedConnect) {
  start();
  Side side;
  side.stream = client.connection->open(&side);
  HeadPtr head = request("GET", "/chat");
  head->protocol = "websocket";
  side.stream->send_head(*head, false);
  ASSERT_TRUE(until([&] { return !server.requests.empty(); }));
  Side& far = *server.requests[0];
  EXPECT_EQ(far.head->protocol, "websocket");
  EXPECT_EQ(far.head->method, "GET");
  HeadPtr agreed = take_head();
  agreed->status = 101;
  far.stream->send_head(*agreed, false);
  far.stream->send_data(io::as_bytes("hello"), false);
  ASSERT_TRUE(until([&] { return side.body == "hello"; }));
  EXPECT_EQ(side.head->status, 101);
}

TEST_F(H2Test, ResetsBothWays) {
  start();
  Side a, b;
  a.stream = client.connection->open(&a);
  a.stream->send_head(*request("POST", "/a"), false);
  b.stream = client.connection->open(&b);
  b.stream->send_head(*request("POST", "/b"), false);
  ASSERT_TRUE(until([&] { return server.requests.size() == 2; }));
  a.stream.reset();
  server.requests[1]->stream.reset();
  ASSERT_TRUE(until([&] { return !b.reset.empty() && !server.requests[0]->reset.empty(); }));
  EXPECT_EQ(b.reason, ResetReason::kCancelled);
}

TEST_F(H2Test, AResetDoesNotOvertakeWhatWasSentBefore) {
  start();
  Side a;
  a.stream = client.connection->open(&a);
  a.stream->send_head(*request("POST", "/a"), false);
  ASSERT_TRUE(until([&] { return server.requests.size() == 1; }));
  Side& far = *server.requests[0];
  HeadPtr head = take_head();
  head->status = 200;
  far.stream->send_head(*head, false);
  far.stream->send_data(io::as_bytes("last words"), false);
  far.stream.reset();
  ASSERT_TRUE(until([&] { return !a.reset.empty(); }));
  EXPECT_EQ(a.body, "last words");
  EXPECT_EQ(a.reason, ResetReason::kCancelled);
}

// The answer is whole and the server wants no more of the request, while the client reads late.
struct H2LateReader : H2Test {
  Side late;
  void begin(bool trailers) {
    start();
    late.stream = client.connection->open(&late);
    late.stream->send_head(*request("POST", "/a"), false);
    late.stream->set_reading(false);
    ASSERT_TRUE(until([&] { return !server.requests.empty(); }));
    HttpStream& far = *server.requests[0]->stream;
    HeadPtr head = take_head();
    head->status = 200;
    far.send_head(*head, false);
    far.send_data(io::as_bytes("answer"), !trailers);
    head->clear();
    head->add("t", "1");
    if (trailers) far.send_trailers(*head);
    server.requests[0]->stream.reset();
    ASSERT_TRUE(until([&] { return server.connection->active_streams() == 0; }));
    for (int i = 0; i < 5; ++i) loop->run_once();
    EXPECT_EQ(late.body, "");
  }
};

TEST_F(H2LateReader, ReleasedInItsLastCallback) {
  for (bool trailers : {false, true}) {
    begin(trailers);
    Side other;  // likely to get the memory of the one that is released
    late.on_any = [&] {
      if (!late.ended) return;
      late.stream.reset();
      other.stream = client.connection->open(&other);
    };
    late.stream->set_reading(true);
    ASSERT_TRUE(until([&] { return late.ended; }));
    for (int i = 0; i < 5; ++i) loop->run_once();
    EXPECT_EQ(late.body, "answer");
    EXPECT_EQ(late.reset, "");
    EXPECT_EQ(other.reset, "");
    EXPECT_EQ(client.connection->active_streams(), 1U);
    late.ended = false;
    late.body.clear();
    late.on_any = nullptr;
    server.requests.clear();
  }
}

TEST_F(H2LateReader, IsToldOfTheResetWhenItGoesOnSending) {
  for (bool trailers : {false, true}) {
    begin(trailers);
    late.stream->set_reading(true);
    ASSERT_TRUE(until([&] { return !late.reset.empty(); }));
    EXPECT_TRUE(late.ended);
    EXPECT_EQ(late.body, "answer");
    EXPECT_EQ(client.connection->active_streams(), 0U);
    late.stream.reset();
    late.reset = late.body = "";
    server.requests.clear();
  }
}

TEST_F(H2LateReader, IsNotResetWhenItEndsInItsLastCallback) {
  begin(false);
  late.on_any = [&] {
    if (late.ended) late.stream->send_data(io::as_bytes("x"), true);
  };
  late.stream->set_reading(true);
  ASSERT_TRUE(until([&] { return late.ended; }));
  for (int i = 0; i < 5; ++i) loop->run_once();
  EXPECT_EQ(late.reset, "");
  EXPECT_EQ(client.connection->active_streams(), 0U);
}

TEST_F(H2Test, TooManyFieldsAreAnswered431) {
  start();
  Side side;
  side.stream = client.connection->open(&side);
  HeadPtr head = request("GET", "/");
  for (int i = 0; i < 150; ++i) head->add("a", "b");
  side.stream->send_head(*head, true);
  ASSERT_TRUE(until([&] { return side.ended; }));
  EXPECT_EQ(side.head->status, 431);
  EXPECT_TRUE(server.requests.empty());
}

TEST_F(H2Test, DrainEndsWhenStreamsHave) {
  start();
  Side side;
  side.stream = client.connection->open(&side);
  side.stream->send_head(*request("GET", "/"), true);
  ASSERT_TRUE(until([&] { return !server.requests.empty(); }));
  server.connection->drain();
  ASSERT_TRUE(until([&] { return client.connection->closing(); }));
  for (int i = 0; i < 10; ++i) loop->run_once();
  EXPECT_FALSE(server.closed);
  h1test::answer(*server.requests[0]->stream, 200, "late");
  ASSERT_TRUE(until([&] { return side.ended; }));
  EXPECT_EQ(side.body, "late");
  side.stream.reset();
  server.requests.clear();
  EXPECT_TRUE(until([&] { return server.closed && client.closed; }));
}

TEST_F(H2Test, DrainsAfterTheLastRequestOfALimit) {
  server.echo = true;
  H2ServerOptions options;
  options.max_requests = 3;
  start(options);
  Side sides[3];
  for (int i = 0; i < 3; ++i) {
    ASSERT_FALSE(client.connection->closing());
    sides[i].stream = client.connection->open(&sides[i]);
    ASSERT_NE(sides[i].stream, nullptr);
    sides[i].stream->send_head(*request("GET", "/"), true);
    ASSERT_TRUE(until([&] { return sides[i].ended; }));
    EXPECT_EQ(sides[i].reset, "");
    sides[i].stream.reset();
  }
  EXPECT_TRUE(until([&] { return server.closed && client.closed; }));
}

TEST_F(H2Test, AnswersWithoutAStatusThatIsOneAreRefused) {
  using namespace h2raw;  // NOLINT
  for (std::string_view status : {"052", "000", "101", ""}) {
    auto [near, far] = test::MemoryStream::pair(*loop);
    client.connection = make_h2_client(*loop, batch, std::move(near), {}, &client);
    Peer peer(std::move(far));
    Side side;
    side.stream = client.connection->open(&side);
    side.stream->send_head(*request("GET", "/"), true);
    for (int i = 0; i < 5; ++i) loop->run_once();  // the request leaves
    peer.send(kSettings, 0, 0, "");
    peer.send(kHeaders, kEndHeaders, 1, status.empty() ? "" : field(":status", status));
    peer.send(kData, kEndStream, 1, "body");
    ASSERT_TRUE(until([&] { return !side.reset.empty(); }));
    EXPECT_EQ(side.reason, ResetReason::kProtocol);
    EXPECT_EQ(side.head, nullptr);
    EXPECT_EQ(side.body, "");
    side.stream.reset();
  }
}

// The connection ends at once, be it that the peer had said goodbye in order, and wherever it leaves
// its own end of it.
TEST_F(H2Test, WhatBreaksTheProtocolAfterAGoawayEndsTheStreams) {
  using namespace h2raw;  // NOLINT
  auto [near, far] = test::MemoryStream::pair(*loop);
  client.connection = make_h2_client(*loop, batch, std::move(near), {}, &client);
  Peer peer(std::move(far));
  Side sides[2];
  for (Side& side : sides) {
    side.stream = client.connection->open(&side);
    side.stream->send_head(*request("GET", "/"), true);
  }
  for (int i = 0; i < 5; ++i) loop->run_once();
  peer.send(kSettings, 0, 0, "");
  peer.send(kGoaway, 0, 0, number(3) + number(0));
  peer.send(kData, 0, 0, "no stream has this id");
  ASSERT_TRUE(until([&] { return !sides[0].reset.empty() && !sides[1].reset.empty(); }));
  EXPECT_TRUE(until([&] { return client.closed; }));
}

TEST_F(H2Test, LargePiecesLeaveAtOnceAndInOrder) {
  start();
  Side side;
  side.stream = client.connection->open(&side);
  side.stream->send_head(*request("POST", "/"), false);
  for (int i = 0; i < 5; ++i) loop->run_once();
  // Small and large, more than a frame, than the batch and than the window; and the end with one.
  std::string all;
  size_t sizes[] = {10, 9000, 20000, 5, 64 * 1024, 150000, 1, 8192};
  for (size_t i = 0; i < std::size(sizes); ++i) {
    std::string piece(sizes[i], static_cast<char>('a' + i));
    all += piece;
    side.stream->send_data(io::as_bytes(piece), i + 1 == std::size(sizes));
    std::fill(piece.begin(), piece.end(), '!');  // what is kept must have been copied
  }
  ASSERT_TRUE(until([&] { return !server.requests.empty() && server.requests[0]->ended; }));
  EXPECT_TRUE(server.requests[0]->body == all);
}

// While one is sending, what happens to others is told later.
TEST_F(H2Test, NoCallbackRunsWithinSendData) {
  start();
  Side a, b;
  a.stream = client.connection->open(&a);
  a.stream->send_head(*request("POST", "/a"), false);
  b.stream = client.connection->open(&b);
  b.stream->send_head(*request("POST", "/b"), false);
  ASSERT_TRUE(until([&] { return server.requests.size() == 2; }));
  // An answer that is malformed: nghttp2 resets b, which leaves with the data of a.
  HeadPtr head = take_head();
  head->status = 200;
  head->set_length(1);
  server.requests[1]->stream->send_head(*head, false);
  server.requests[1]->stream->send_data(io::as_bytes("too much"), false);
  bool sending = false;
  int told = 0;
  b.on_any = [&] {
    EXPECT_FALSE(sending);
    told += b.reset.empty() ? 0 : 1;
  };
  a.on_any = [&] { EXPECT_FALSE(sending); };
  std::string piece(9000, 'x');
  for (int i = 0; i < 50 && told == 0; ++i) {
    loop->defer([&] {  // after what came in this turn, before the turn's writes
      sending = true;
      a.stream->send_data(io::as_bytes(piece), false);
      sending = false;
    });
    loop->run_once();
  }
  EXPECT_EQ(told, 1);
  EXPECT_EQ(b.reason, ResetReason::kProtocol);
  EXPECT_EQ(a.reset, "");
}

TEST_F(H2Test, RapidResetEndsTheConnection) {
  start();
  Side side;
  for (int i = 0; i < 1000 && !client.closed; ++i) {
    StreamPtr stream = client.connection->open(&side);
    if (stream == nullptr) break;
    stream->send_head(*request("GET", "/"), true);
    loop->run_once();
    loop->run_once();
  }
  EXPECT_TRUE(until([&] { return server.closed && client.closed; }));
  EXPECT_LT(server.requests.size(), 600U);
}

TEST_F(H2Test, ConnectionsMayBeDestroyedInCallbacks) {
  start();
  server.hook = [&](Side&) { server.connection.reset(); };
  Side side;
  side.stream = client.connection->open(&side);
  side.stream->send_head(*request("GET", "/"), true);
  side.on_any = [&] { client.connection.reset(); };
  ASSERT_TRUE(until([&] { return !side.reset.empty(); }));
  EXPECT_EQ(client.connection, nullptr);
}

}  // namespace
}  // namespace edgemesh::proxy
