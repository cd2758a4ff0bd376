#include <gtest/gtest.h>

#include "core/io/tcp.h"
#include "tests/unit/proxy_http/h1_test_support.h"

namespace edgemesh::proxy {
namespace {

using h1test::answer;
using h1test::ServerSide;
using h1test::Side;
using h1test::text_of;
using test::Collector;
using test::MemoryStream;

struct H1Server : testing::Test {
  void start(test::MemoryStreamOptions options = {}, std::string_view initial = {},
             bool tls = false) {
    auto [a, b] = MemoryStream::pair(*loop, options);
    memory = a.get();
    peer = std::make_unique<Collector>(std::move(b));
    H1ServerPeer who;
    who.initial = initial;
    who.tls = tls;
    handler.connection = make_h1_server(*loop, batch, std::move(a), server_options, &handler, who);
    turn();
  }
  void turn(int n = 30) {
    for (int i = 0; i < n; ++i) loop->run_once();
  }
  void send(std::string_view text) {
    peer->send(text);
    turn();
  }
  void advance(Duration by) {
    clock.advance(by);
    turn(4);
  }
  Side& request(size_t i) { return *handler.requests.at(i); }

  ManualClock clock;
  std::unique_ptr<io::Loop> loop = io::Loop::create(clock).value();
  WriteBatch batch{*loop};
  H1ServerOptions server_options;
  ServerSide handler;
  std::unique_ptr<Collector> peer;
  MemoryStream* memory = nullptr;
};

TEST_F(H1Server, AnswersAndKeepsTheConnection) {
  handler.echo = true;
  start();
  send("GET /a?b=c HTTP/1.1\r\nHost: x.example\r\nX-Case: Kept\r\n\r\n");
  EXPECT_EQ(peer->received, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n/a?b=c|");
  EXPECT_EQ(text_of(*request(0).head), "GET http x.example /a?b=c\nX-Case: Kept");
  send("GET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(handler.requests.size(), 2u);
  EXPECT_FALSE(peer->eof);
  EXPECT_EQ(memory->writes(), 2u);  // head and body together
}

TEST_F(H1Server, TakesConnectionFieldsOut) {
  handler.echo = true;
  start();
  send(
      "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Hop, TE\r\nX-Hop: 1\r\n"
      "Keep-Alive: 5\r\nProxy-Connection: close\r\nTE: gzip, trailers\r\nX-End: 2\r\n\r\n");
  EXPECT_EQ(text_of(*request(0).head), "GET http x /\nTE: trailers\nX-End: 2");
}

TEST_F(H1Server, SplitsAbsoluteTargets) {
  handler.echo = true;
  start({}, {}, true);
  send(
      "GET HTTP://a.example:81/p?q HTTP/1.1\r\nHost: other\r\n\r\n"
      "GET http://a?q HTTP/1.1\r\nHost: other\r\n\r\n"
      "OPTIONS http://a HTTP/1.1\r\nHost: other\r\n\r\n"
      "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
  ASSERT_EQ(handler.requests.size(), 4u);
  EXPECT_EQ(text_of(*request(0).head), "GET http a.example:81 /p?q");
  EXPECT_EQ(text_of(*request(1).head), "GET http a /?q");
  EXPECT_EQ(text_of(*request(2).head), "OPTIONS http a *");
  EXPECT_EQ(text_of(*request(3).head), "OPTIONS https h *");
}

TEST_F(H1Server, AnswersPipelinedRequestsInOrderInOneWrite) {
  handler.echo = true;
  start();
  send(
      "POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: "
      "x\r\n\r\n"
      "POST /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\nT: "
      "v\r\n\r\n");
  EXPECT_EQ(peer->received,
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n/1|abc"
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n/2|"
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n/3|de");
  EXPECT_EQ(memory->writes(), 1u);
  EXPECT_EQ(request(2).trailers, "T=v;");
}

TEST_F(H1Server, ParsesTheNextRequestOnlyAfterTheAnswer) {
  start();
  send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_EQ(handler.requests.size(), 1u);
  answer(*request(0).stream, 200, "one");
  turn();
  ASSERT_EQ(handler.requests.size(), 2u);
  EXPECT_EQ(request(1).head->path, "/2");
  request(0).stream.reset();  // late: harms nothing
  answer(*request(1).stream, 204, "");
  turn();
  EXPECT_NE(peer->received.find("HTTP/1.1 204 No Content\r\n\r\n"), std::string::npos);
}

TEST_F(H1Server, UnderstandsByteByByte) {
  handler.echo = true;
  test::MemoryStreamOptions options;
  options.max_read = 1;
  options.max_write = 1;
  start(options);
  peer->send(
      "POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;e=1\r\nhello\r\n0\r\n"
      "\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
  turn(600);
  EXPECT_EQ(peer->received,
            "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n/1|hello"
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n/2|");
}

TEST_F(H1Server, TakesWhatASnifferRead) {
  handler.echo = true;
  start({}, "GET /s HTTP/1.1\r\nHo");
  send("st: x\r\n\r\n");
  ASSERT_EQ(handler.requests.size(), 1u);
  EXPECT_EQ(request(0).head->path, "/s");
}

// Over real sockets: an early close would turn what the client still sends into a reset of the
// answer.
TEST_F(H1Server, TheLastAnswerArrivesWhole) {
  for (bool talks_on : {false, true}) {
    handler.closed = false;
    std::unique_ptr<io::TcpStream> server;
    auto listener = *io::TcpListener::listen(
        *loop, *SockAddr::parse("127.0.0.1:0"),
        [&](io::Fd fd, const SockAddr&) { server = *io::TcpStream::adopt(*loop, std::move(fd)); });
    Collector client(*io::TcpStream::connect(*loop, listener->local_addr()));
    ASSERT_TRUE(loop->run_until([&] { return server != nullptr; }, std::chrono::seconds(5)));
    handler.connection = make_h1_server(*loop, batch, std::move(server), server_options, &handler);
    const std::string more(talks_on ? 100'000 : 0, 'x');
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + more);
    const size_t n = handler.requests.size() + 1;
    ASSERT_TRUE(
        loop->run_until([&] { return handler.requests.size() == n; }, std::chrono::seconds(5)));
    const std::string body(200'000, 'b');
    answer(*request(n - 1).stream, 200, body);
    client.send(more);
    ASSERT_TRUE(
        loop->run_until([&] { return client.eof || client.failed; }, std::chrono::seconds(5)));
    EXPECT_FALSE(client.failed);
    EXPECT_TRUE(client.received.ends_with(body)) << client.received.size();
    ASSERT_TRUE(loop->run_until([&] { return handler.closed; }, std::chrono::seconds(5)));
  }
}

TEST_F(H1Server, ClosesAfterHttp10UnlessKeptAlive) {
  handler.echo = true;
  start();
  send("GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_NE(peer->received.find("Connection: keep-alive\r\n"), std::string::npos);
  EXPECT_FALSE(peer->eof);
  send("GET /2 HTTP/1.0\r\n\r\n");
  EXPECT_NE(peer->received.find("Connection: close\r\n"), std::string::npos);
  EXPECT_TRUE(peer->eof);
  EXPECT_TRUE(handler.closed);
}

TEST_F(H1Server, FramesAnswersWithoutLength) {
  start();
  send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n");
  HeadPtr head = take_head();
  head->status = 200;
  request(0).stream->send_head(*head, false);
  request(0).stream->send_data(io::as_bytes("hello world, 20 byte"), false);
  HeadPtr trailers = take_head();
  trailers->add("grpc-status", "0");
  request(0).stream->send_trailers(*trailers);
  turn();
  EXPECT_EQ(
      peer->received,
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\nhello world, 20 byte\r\n0\r\n"
      "grpc-status: 0\r\n\r\n");
  peer->received.clear();
  send("GET /2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  request(1).stream->send_head(*head, false);
  request(1).stream->send_data(io::as_bytes("to the end"), true);
  turn();
  EXPECT_EQ(peer->received, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end");
  EXPECT_TRUE(peer->eof);
}

TEST_F(H1Server, AnswersHeadWithoutBody) {
  start();
  send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
  HeadPtr head = take_head();
  head->status = 200;
  head->set_length(1000);
  request(0).stream->send_head(*head, true);
  turn();
  EXPECT_EQ(peer->received, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
  EXPECT_FALSE(peer->eof);
}

TEST_F(H1Server, PassesExpectationsOn) {
  start();
  std::string post =
      "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
  send(post);
  ASSERT_TRUE(request(0).head->expect_continue);
  HeadPtr head = take_head();
  head->status = 100;
  request(0).stream->send_head(*head, false);
  turn();
  EXPECT_EQ(peer->received, "HTTP/1.1 100 Continue\r\n\r\n");
  send("ab");
  EXPECT_TRUE(request(0).ended);
  answer(*request(0).stream, 200, "x");
  turn();
  EXPECT_FALSE(peer->eof);
  peer->received.clear();
  send(post);
  answer(*request(1).stream, 413, "no");
  request(1).stream.reset();
  turn();
  EXPECT_NE(peer->received.find("Connection: close"), std::string::npos);
  EXPECT_TRUE(peer->eof);
}

TEST_F(H1Server, TunnelsAfterAnUpgrade) {
  start();
  send("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\nearly");
  EXPECT_EQ(request(0).head->protocol, "websocket");
  EXPECT_FALSE(request(0).ended);
  EXPECT_EQ(request(0).body, "");
  HeadPtr head = take_head();
  head->status = 101;
  head->protocol = "websocket";
  request(0).stream->send_head(*head, false);
  turn();
  EXPECT_EQ(
      peer->received,
      "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
  EXPECT_EQ(request(0).body, "early");
  peer->finish();
  turn();
  EXPECT_TRUE(request(0).ended);
  request(0).stream->send_data(io::as_bytes("late"), true);
  turn();
  EXPECT_TRUE(peer->received.ends_with("late"));
  EXPECT_TRUE(peer->eof);
  EXPECT_TRUE(handler.closed);
}

TEST_F(H1Server, GoesOnAfterARefusedUpgrade) {
  start();
  send(
      "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
      "GET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
  answer(*request(0).stream, 403, "no");
  turn();
  ASSERT_EQ(handler.requests.size(), 2u);
  EXPECT_EQ(request(1).head->path, "/2");
}

TEST_F(H1Server, ConnectMakesATunnelWithHalfClose) {
  start();
  send("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n");
  EXPECT_EQ(text_of(*request(0).head), "CONNECT http a.example:443 ");
  HeadPtr head = take_head();
  head->status = 200;
  request(0).stream->send_head(*head, false);
  request(0).stream->send_data(io::as_bytes("bytes"), true);
  turn();
  EXPECT_EQ(peer->received, "HTTP/1.1 200 OK\r\n\r\nbytes");
  EXPECT_TRUE(peer->eof);
  EXPECT_FALSE(handler.closed);
  send("more");
  EXPECT_EQ(request(0).body, "more");
}

TEST_F(H1Server, PausesReadingAndWriting) {
  test::MemoryStreamOptions options;
  options.capacity = 32 * 1024;
  start(options);
  peer->stop_reading();
  send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
  request(0).stream->set_reading(false);
  peer->send(std::string(1000000, 'x'));
  turn();
  EXPECT_LT(request(0).body.size(), 200000u);
  EXPECT_GT(peer->unsent.size(), 700000u);
  request(0).stream->set_reading(true);
  turn(200);
  EXPECT_EQ(request(0).body.size(), 1000000u);
  EXPECT_TRUE(request(0).ended);

  HeadPtr head = take_head();
  head->status = 200;
  head->set_length(300000);
  request(0).stream->send_head(*head, false);
  bool more = request(0).stream->send_data(io::as_bytes(std::string(299000, 'y')), false);
  EXPECT_FALSE(more);
  turn();
  EXPECT_EQ(request(0).writable, 0);
  peer->start_reading();
  turn(200);
  EXPECT_EQ(request(0).writable, 1);
  request(0).stream->send_data(io::as_bytes(std::string(1000, 'z')), true);
  turn();
  EXPECT_EQ(peer->received.size() - peer->received.find("\r\n\r\n") - 4, 300000u);
}

TEST_F(H1Server, AnAnswerOfTheWrongLengthBreaksTheConnection) {
  start();
  send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  HeadPtr head = take_head();
  head->status = 200;
  head->set_length(5);
  request(0).stream->send_head(*head, false);
  request(0).stream->send_data(io::as_bytes("123456"), true);
  turn();
  EXPECT_TRUE(handler.closed);
  EXPECT_TRUE(peer->failed);
  EXPECT_NE(request(0).reset, "");
}

TEST_F(H1Server, DroppingAStreamCutsButEarlierAnswersLeave) {
  start();
  handler.hook = [](Side& side) { side.stream.reset(); };
  send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(handler.closed);
  EXPECT_TRUE(peer->failed);
}

TEST_F(H1Server, AnsweredBeforeTheRequestEnded) {
  start();
  send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
  answer(*request(0).stream, 404, "no");
  request(0).stream.reset();
  turn();
  EXPECT_TRUE(peer->received.ends_with("no"));
  EXPECT_TRUE(peer->eof);
  EXPECT_TRUE(handler.closed);
}

TEST_F(H1Server, TellsThatTheClientIsGone) {
  handler.destroy = true;
  start();
  send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
  peer->drop();
  turn();
  EXPECT_NE(request(0).reset, "");
  EXPECT_EQ(handler.connection, nullptr);
  request(0).stream->send_data(io::as_bytes("x"), true);
  request(0).stream.reset();  // after the connection
}

TEST_F(H1Server, MayBeDestroyedInEachCallback) {
  for (int at = 0; at < 3; ++at) {
    ServerSide side;
    auto [a, b] = MemoryStream::pair(*loop);
    Collector far(std::move(b));
    side.connection = make_h1_server(*loop, batch, std::move(a), server_options, &side);
    int seen = 0;
    side.hook = [&](Side& r) {
      auto count = [&side, &seen, at] {
        if (seen++ == at) side.connection.reset();
      };
      r.on_any = count;
      count();
    };
    far.send(
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /");
    turn();
    EXPECT_EQ(side.connection, nullptr);
    EXPECT_FALSE(side.closed);
  }
}

TEST_F(H1Server, DrainsAndCountsRequests) {
  server_options.max_requests = 2;
  handler.echo = true;
  start();
  send(
      "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\nGET /3 "
      "HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(handler.requests.size(), 2u);
  EXPECT_TRUE(peer->eof);

  handler.closed = false;
  handler.echo = false;
  server_options.max_requests = 0;
  start();
  send("GET /4 HTTP/1.1\r\nHost: x\r\n\r\n");
  handler.connection->drain();
  turn();
  EXPECT_FALSE(handler.closed);
  answer(*request(2).stream, 200, "x");
  turn();
  EXPECT_NE(peer->received.find("Connection: close"), std::string::npos);
  EXPECT_TRUE(handler.closed);

  handler.closed = false;
  start();
  handler.connection->drain();
  turn();
  EXPECT_TRUE(handler.closed);
  EXPECT_TRUE(peer->eof);
}

// For a process that another one takes over from: a request may be on its way already.
TEST_F(H1Server, APatientDrainLeavesOneMoreRequest) {
  handler.echo = true;
  start();
  send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n");
  handler.connection->drain(Drain::kPatient);
  turn();
  EXPECT_FALSE(handler.closed);
  EXPECT_EQ(peer->received.find("Connection: close"), std::string::npos);
  send("GET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(peer->received.find("Connection: close"), std::string::npos);
  EXPECT_TRUE(handler.closed);
}

// Its head said nothing of an end, so the client may count on another request.
TEST_F(H1Server, APatientDrainInTheMiddleOfAnAnswer) {
  start();
  send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n");
  Head head;
  head.status = 200;
  head.add("content-length", "4");
  request(0).stream->send_head(head, false);
  turn();
  handler.connection->drain(Drain::kPatient);
  turn();
  request(0).stream->send_data(io::as_bytes("done"), true);
  request(0).stream.reset();
  turn();
  EXPECT_FALSE(handler.closed);
  handler.echo = true;
  send("GET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(peer->received.find("Connection: close"), std::string::npos);
  EXPECT_TRUE(handler.closed);
}

TEST_F(H1Server, KeepsItsTimes) {
  handler.echo = true;
  start();
  send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET ");
  advance(std::chrono::seconds(9));
  send("/2 ");
  advance(std::chrono::seconds(2));
  EXPECT_EQ(handler.bad, std::vector<int>{408});
  EXPECT_NE(peer->received.find("HTTP/1.1 408 Request Timeout"), std::string::npos);
  EXPECT_TRUE(peer->eof);

  handler.closed = false;
  start();
  send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n");
  for (int i = 0; i < 5; ++i) advance(std::chrono::seconds(11));
  EXPECT_FALSE(handler.closed);
  advance(std::chrono::seconds(6));
  EXPECT_TRUE(handler.closed);

  handler.closed = false;
  start();
  send("POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n");
  advance(std::chrono::seconds(61));
  advance(std::chrono::seconds(61));
  EXPECT_TRUE(handler.closed);
  EXPECT_EQ(handler.bad.size(), 2u);
}

TEST_F(H1Server, AnIdleConnectionIsSmall) {
  size_t bytes = h1_server_connection_bytes() + sizeof(io::TcpStream);
  RecordProperty("bytes", static_cast<int>(bytes));
  std::printf("server connection %zu + TcpStream %zu = %zu bytes\n", h1_server_connection_bytes(),
              sizeof(io::TcpStream), bytes);
  EXPECT_LT(bytes, 900u);
}

struct BadCase {
  const char* name;
  std::string text;
  int status;
};

struct H1ServerRefuses : H1Server, testing::WithParamInterface<BadCase> {};

TEST_P(H1ServerRefuses, WithOneAnswerAndAClose) {
  server_options.max_body = 1000;
  handler.echo = true;
  start();
  send(GetParam().text);
  EXPECT_EQ(handler.bad, std::vector<int>{GetParam().status});
  std::string line = "HTTP/1.1 " + std::to_string(GetParam().status) + " ";
  EXPECT_EQ(peer->received.find(line), 0u) << peer->received;
  EXPECT_EQ(peer->received.find("HTTP/1.1", 1), std::string::npos);
  EXPECT_TRUE(peer->eof);
  for (auto& r : handler.requests) EXPECT_NE(r->reset, "");
}

std::string with(const std::string& fields, const std::string& body = "") {
  return "POST / HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n" + body;
}
std::string chunked(const std::string& body) {
  return with("Transfer-Encoding: chunked\r\n", body);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, H1ServerRefuses,
    testing::Values(
        BadCase{"TwoLengths", with("Content-Length: 1\r\nContent-Length: 2\r\n", "ab"), 400},
        BadCase{"SameLengths", with("Content-Length: 1\r\nContent-Length: 1\r\n", "a"), 400},
        BadCase{"ListedLength", with("Content-Length: 1, 1\r\n", "a"), 400},
        BadCase{"SignedLength", with("Content-Length: +1\r\n", "a"), 400},
        BadCase{"HugeLength", with("Content-Length: 99999999999999999999\r\n"), 400},
        BadCase{"BothFramings",
                with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400},
        BadCase{"TwoCodings", with("Transfer-Encoding: gzip, chunked\r\n"), 501},
        BadCase{"UnknownCoding", with("Transfer-Encoding: xchunked\r\n"), 501},
        BadCase{"RepeatedCoding",
                with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400},
        BadCase{"CodingInHttp10", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                400},
        BadCase{"Folded", with("X: 1\r\n 2\r\n"), 400},
        BadCase{"BareLf", "GET / HTTP/1.1\nHost: x\n\n", 400},
        BadCase{"BareLfInField", with("X: 1\nY: 2\r\n"), 400},
        BadCase{"BareCr", with("X: 1\rY: 2\r\n"), 400},
        BadCase{"Nul", with(std::string("X: 1") + '\0' + "\r\n"), 400},
        BadCase{"SpaceBeforeColon", with("Content-Length : 1\r\n", "a"), 400},
        BadCase{"NoColon", with("Content-Length\r\n"), 400},
        BadCase{"NoHost", "GET / HTTP/1.1\r\n\r\n", 400},
        BadCase{"TwoHosts", with("Host: y\r\n"), 400},
        BadCase{"BadAbsolute", "GET http://u@h/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        BadCase{"OtherScheme", "GET ftp://h/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        BadCase{"Version", "GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505},
        BadCase{"NotHttp", "\x16\x03\x01\x02", 400},
        BadCase{"LongLine", "GET /" + std::string(9000, 'a'), 414},
        BadCase{"LongHead", with("X: " + std::string(70000, 'a') + "\r\n"), 431},
        BadCase{"ManyFields", with([] {
                  std::string s;
                  for (int i = 0; i < 101; ++i) s += "A: b\r\n";
                  return s;
                }()),
                431},
        BadCase{"Expectation", with("Expect: 200-ok\r\n"), 417},
        BadCase{"LargeBody", with("Content-Length: 1001\r\n"), 413},
        BadCase{"LargeChunks", chunked("3e9\r\n" + std::string(1001, 'a') + "\r\n"), 413},
        BadCase{"ChunkHex", chunked("0x5\r\nhello\r\n0\r\n\r\n"), 400},
        BadCase{"ChunkSign", chunked("-5\r\n"), 400},
        BadCase{"ChunkSpace", chunked("5 \r\nhello\r\n0\r\n\r\n"), 400},
        BadCase{"ChunkOverflow", chunked("ffffffffffffffff1\r\n"), 400},
        BadCase{"ChunkLf", chunked("5\nhello\r\n0\r\n\r\n"), 400},
        BadCase{"ChunkTooLong", chunked("5\r\nhelloX\r\n0\r\n\r\n"), 400},
        BadCase{"TrailerFraming", chunked("0\r\nContent-Length: 5\r\n\r\n"), 400}),
    [](const auto& param_info) { return param_info.param.name; });

}  // namespace
}  // namespace edgemesh::proxy
