#include "core/http/server.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "core/io/tcp.h"
#include "tests/support/memory_stream.h"
#include "tests/support/test_pki.h"

namespace edgemesh::http {
namespace {

using namespace std::chrono_literals;  // NOLINT
using test::Collector;
using test::TestPki;

class ServerTest : public ::testing::Test {
 protected:
  using Writer = std::shared_ptr<ResponseWriter>;

  void serve(Server::Handler handler, ServerOptions options = {}) {
    options.listen = TestPki::take(SockAddr::parse("127.0.0.1:0"));
    server_ = TestPki::take(Server::create(*loop_, options, std::move(handler)));
  }
  // Answers with what it got, and keeps the requests.
  Server::Handler echo() {
    return [this](Request request, Writer writer) {
      writer->respond({200, {{"X-Method", request.method}}, request.target + "|" + request.body});
      requests_.push_back(std::move(request));
    };
  }
  std::unique_ptr<Collector> connect() {
    return std::make_unique<Collector>(
        TestPki::take(io::TcpStream::connect(*loop_, server_->local_addr())));
  }
  // A client over memory, for odd chunking.
  std::unique_ptr<Collector> connect_memory(const test::MemoryStreamOptions& pipe) {
    auto [a, b] = test::MemoryStream::pair(*loop_, pipe);
    server_->adopt(std::move(b), TestPki::take(SockAddr::parse("192.0.2.1:1234")));
    return std::make_unique<Collector>(std::move(a));
  }
  // Sends, then waits until the server closed; for requests with "Connection: close".
  std::string exchange(const std::string& text) {
    auto client = connect();
    client->send(text);
    EXPECT_TRUE(until([&] { return client->eof || client->failed; })) << client->received;
    return client->received;
  }
  bool until(const std::function<bool()>& done) { return loop_->run_until(done, 10s); }
  static size_t count(const std::string& text, const std::string& part) {
    size_t n = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
    return n;
  }
  static std::string body_of(const std::string& answer) {
    size_t at = answer.find("\r\n\r\n");
    return at == std::string::npos ? "" : answer.substr(at + 4);
  }

  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_ = TestPki::take(io::Loop::create(clock_));
  std::vector<Request> requests_;
  std::unique_ptr<Server> server_;
};

TEST_F(ServerTest, AnswersAndClosesWhenAsked) {
  serve(echo());

  std::string answer = exchange("GET /x?y=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");

  EXPECT_EQ(answer.substr(0, 17), "HTTP/1.1 200 OK\r\n");
  EXPECT_NE(answer.find("Content-Length: 7\r\n"), std::string::npos);
  EXPECT_NE(answer.find("Date: "), std::string::npos);
  EXPECT_NE(answer.find("Connection: close\r\n"), std::string::npos);
  EXPECT_EQ(body_of(answer), "/x?y=1|");
  EXPECT_EQ(requests_[0].peer_addr.ip.to_string(), "127.0.0.1");
  EXPECT_TRUE(until([&] { return server_->connections() == 0; }));
}

TEST_F(ServerTest, TakesRequestsByteByByteAndPipelined) {
  serve(echo());
  std::string text =
      "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
      "POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
      "chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"
      "GET /3 HTTP/1.1\r\nHost: a\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

  for (size_t chunk : {0u, 1u}) {
    auto client = connect_memory({4096, chunk, 0});
    client->send(text);
    client->read_size = 64;
    ASSERT_TRUE(until([&] { return client->eof || client->failed; }));
    EXPECT_EQ(count(client->received, "HTTP/1.1 200"), 4u);
    size_t one = client->received.find("/1|abc");
    size_t two = client->received.find("/2|def");
    size_t four = client->received.find("/4|");
    EXPECT_LT(one, two);
    EXPECT_LT(two, four);
    EXPECT_NE(four, std::string::npos);
  }
}

TEST_F(ServerTest, LateAnswersKeepTheOrderOfRequests) {
  std::vector<Writer> writers;
  serve([&](Request, Writer writer) { writers.push_back(std::move(writer)); });
  auto client = connect();
  client->send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
  ASSERT_TRUE(until([&] { return writers.size() == 2; }));

  writers[1]->respond({200, {}, "second"});
  writers[0]->respond({200, {}, "first"});

  ASSERT_TRUE(until([&] { return count(client->received, "HTTP/1.1 200") == 2; }));
  ASSERT_TRUE(until([&] { return client->received.find("second") != std::string::npos; }));
  EXPECT_LT(client->received.find("first"), client->received.find("second"));
}

TEST_F(ServerTest, PipelinedRequestsAreLimited) {
  std::vector<Writer> writers;
  ServerOptions options;
  options.max_pipelined = 2;
  serve([&](Request, Writer writer) { writers.push_back(std::move(writer)); }, options);
  auto client = connect();
  std::string text;
  for (int i = 0; i < 10; ++i) text += "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  client->send(text);
  ASSERT_TRUE(until([&] { return writers.size() == 2; }));
  for (int i = 0; i < 20; ++i) loop_->run_once();
  EXPECT_EQ(writers.size(), 2u);

  for (size_t i = 0; i < 10; ++i) {
    ASSERT_TRUE(until([&] { return writers.size() > i; })) << i;
    writers[i]->respond({204, {}, ""});
  }
  ASSERT_TRUE(until([&] { return count(client->received, "HTTP/1.1 204") == 10; }));
  EXPECT_EQ(client->received.find("Content-Length"), std::string::npos);
}

TEST_F(ServerTest, HeadHasNoBodyButItsLength) {
  serve([](Request, Writer writer) { writer->respond({200, {}, "12345"}); });

  std::string answer = exchange("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");

  EXPECT_NE(answer.find("Content-Length: 5\r\n"), std::string::npos);
  EXPECT_EQ(body_of(answer), "");
}

TEST_F(ServerTest, ContinueIsSentBeforeTheBody) {
  serve(echo());
  auto client = connect();
  client->send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  ASSERT_TRUE(until([&] { return !client->received.empty(); }));
  EXPECT_EQ(client->received, "HTTP/1.1 100 Continue\r\n\r\n");

  client->send("abc");

  ASSERT_TRUE(until([&] { return client->received.find("/|abc") != std::string::npos; }));
}

TEST_F(ServerTest, OldClientsGetNoChunks) {
  serve([](Request, Writer writer) {
    writer->start(200, {});
    writer->write("abc");
    writer->end();
  });

  EXPECT_EQ(body_of(exchange("GET / HTTP/1.0\r\n\r\n")), "abc");
  EXPECT_EQ(body_of(exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")),
            "3\r\nabc\r\n0\r\n\r\n");
}

struct BadCase {
  const char* request;
  const char* status;
};

TEST_F(ServerTest, BadRequestsAreAnsweredAndTheirConnectionEnds) {
  ServerOptions options;
  options.max_body = 10;
  serve(echo(), options);
  const BadCase cases[] = {
      {"nonsense\r\n\r\n", "400"},
      {"GET / HTTP/1.1\r\n\r\n", "400"},
      {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
       "400"},
      {"GET / HTTP/3.0\r\nHost: a\r\n\r\n", "505"},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n", "413"},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n",
       "413"},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "501"},
      {"POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", "417"},
  };
  for (const BadCase& c : cases)
    EXPECT_EQ(exchange(c.request).substr(0, 12), std::string("HTTP/1.1 ") + c.status) << c.request;
  EXPECT_TRUE(requests_.empty());
  EXPECT_TRUE(until([&] { return server_->connections() == 0; }));
}

TEST_F(ServerTest, ForgottenAnswerIsAnError) {
  serve([](Request, Writer) {});

  EXPECT_EQ(exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").substr(9, 3), "500");
}

TEST_F(ServerTest, LineBreaksInAnswerFieldsAreLeftOut) {
  serve([](Request, Writer writer) {
    writer->respond({200, {{"X-A", "1\r\nX-B: 2"}, {"X\r\n", "1"}, {"X-C", "3"}}, ""});
  });

  std::string answer = exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");

  EXPECT_EQ(answer.find("X-B"), std::string::npos);
  EXPECT_NE(answer.find("X-C: 3"), std::string::npos);
}

TEST_F(ServerTest, StreamPushesBackAndTellsWhenDrained) {
  Writer writer;
  serve([&](Request, Writer w) {
    writer = std::move(w);
    writer->start(200, {});
  });
  auto client = connect();
  client->stop_reading();
  client->send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  ASSERT_TRUE(until([&] { return writer != nullptr; }));
  int drained = 0;
  writer->on_drain([&] { ++drained; });
  std::string piece(64 * 1024, 'x');
  size_t written = 0;
  auto fill = [&] {
    for (int i = 0; i < 1000; ++i) {
      written += piece.size();
      if (!writer->write(piece)) return true;
      loop_->run_once();
    }
    return false;
  };
  ASSERT_TRUE(fill());
  EXPECT_EQ(drained, 0);

  client->start_reading();

  ASSERT_TRUE(until([&] { return drained == 1; }));
  writer->end();
  ASSERT_TRUE(until([&] { return client->received.size() > written; }));
  ASSERT_TRUE(until(
      [&] { return client->received.substr(client->received.size() - 7) == "\r\n0\r\n\r\n"; }));
}

TEST_F(ServerTest, ClientThatGoesAwayEndsItsStream) {
  for (bool reset : {true, false}) {
    Writer writer;
    bool closed = false;
    serve([&](Request, Writer w) {
      writer = std::move(w);
      writer->on_close([&] { closed = true; });
      writer->start(200, {});
      writer->write("first");
    });
    auto client = connect();
    client->send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    ASSERT_TRUE(until([&] { return client->received.find("first") != std::string::npos; }));
    EXPECT_FALSE(closed);

    if (reset)
      client->drop();
    else
      client->finish();

    ASSERT_TRUE(until([&] { return closed; }));
    EXPECT_TRUE(writer->closed());
    writer->write("ignored");
    writer->end();
    EXPECT_TRUE(until([&] { return server_->connections() == 0; }));
  }
}

TEST_F(ServerTest, ClientThatEndsItsSendingStillGetsItsAnswer) {
  Writer writer;
  serve([&](Request, Writer w) { writer = std::move(w); });
  auto client = connect();
  client->send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  client->finish();
  ASSERT_TRUE(until([&] { return writer != nullptr; }));
  for (int i = 0; i < 5; ++i) loop_->run_once();

  writer->respond({200, {}, "late"});

  ASSERT_TRUE(until([&] { return client->eof; }));
  EXPECT_EQ(body_of(client->received), "late");
}

TEST_F(ServerTest, SlowAndSilentClientsAreTimedOut) {
  serve(echo());
  auto silent = connect();
  auto slow_head = connect();
  auto slow_body = connect();
  auto idle = connect();
  slow_head->send("GET / HT");
  slow_body->send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
  idle->send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  ASSERT_TRUE(until([&] { return !idle->received.empty() && server_->connections() == 4; }));
  for (int i = 0; i < 10; ++i) loop_->run_once();

  clock_.advance(11s);
  ASSERT_TRUE(until([&] { return (silent->eof || silent->failed) && slow_head->eof; }));
  EXPECT_EQ(slow_head->received.substr(9, 3), "408");
  EXPECT_FALSE(slow_body->eof || idle->eof);

  clock_.advance(20s);
  ASSERT_TRUE(until([&] { return slow_body->eof; }));
  EXPECT_EQ(slow_body->received.substr(9, 3), "408");
  clock_.advance(100s);
  ASSERT_TRUE(until([&] { return idle->eof; }));
}

TEST_F(ServerTest, ClientThatSendsAndDoesNotReadHoldsLittle) {
  constexpr size_t kAnswer = 100 << 10, kRequests = 2000;
  size_t calls = 0;
  serve([&](Request, Writer writer) {
    ++calls;
    writer->respond({200, {}, std::string(kAnswer, 'x')});
  });
  auto client = connect_memory({});
  client->stop_reading();
  std::string requests;
  std::string padding(200, 'p');  // together more than is read ahead
  for (size_t i = 0; i < kRequests; ++i)
    requests += "GET / HTTP/1.1\r\nHost: a\r\nX: " + padding + "\r\n\r\n";
  client->send(requests);
  for (int i = 0; i < 50; ++i) loop_->run_once();
  // The high-water mark, and the answer that passed it.
  EXPECT_LE(calls, (256 << 10) / kAnswer + 2);
  EXPECT_FALSE(client->unsent.empty());

  client->start_reading();

  ASSERT_TRUE(until([&] { return calls == kRequests; }));
  ASSERT_TRUE(until([&] { return client->received.size() > kRequests * kAnswer; }));
}

TEST_F(ServerTest, SendingIsNoProgressOfAClientThatTakesNoAnswers) {
  Writer writer;
  serve([&](Request, Writer w) {
    writer = std::move(w);
    writer->respond({200, {}, std::string(200 << 10, 'x')});  // below the mark: reading goes on
  });
  auto client = connect_memory({});
  client->stop_reading();
  client->send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  ASSERT_TRUE(until([&] { return writer != nullptr; }));
  for (int i = 0; i < 7; ++i) {
    for (int turn = 0; turn < 5; ++turn) loop_->run_once();
    clock_.advance(10s);
    client->send("G");  // of a head that never ends
  }

  ASSERT_TRUE(until([&] { return server_->connections() == 0; }));
}

TEST_F(ServerTest, AnswersThatWaitForAnEarlierOneAreLimited) {
  std::vector<Writer> writers;
  ServerOptions options;
  options.max_unsent = 1 << 20;
  serve([&](Request, Writer writer) { writers.push_back(std::move(writer)); }, options);
  auto client = connect();
  std::string text;
  for (int i = 0; i < 8; ++i) text += "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  client->send(text);
  ASSERT_TRUE(until([&] { return writers.size() == 8; }));

  for (size_t i = 1; i < 4; ++i) writers[i]->respond({200, {}, std::string(600 << 10, 'x')});

  ASSERT_TRUE(until([&] { return server_->connections() == 0; }));
  EXPECT_TRUE(writers[0]->closed());
}

TEST_F(ServerTest, DrainEndsIdleConnectionsAndStreams) {
  std::vector<Writer> writers;
  int closed = 0;
  serve([&](Request request, Writer w) {
    if (request.target == "/watch") {
      w->start(200, {});
      w->write("event");
      w->on_close([&] { ++closed; });
    }
    if (request.target == "/fast")
      w->respond({200, {}, ""});
    else
      writers.push_back(std::move(w));
  });
  auto idle = connect();
  auto watch = connect();
  auto slow = connect();
  idle->send("GET /fast HTTP/1.1\r\nHost: a\r\n\r\n");
  watch->send("GET /watch HTTP/1.1\r\nHost: a\r\n\r\n");
  slow->send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
  ASSERT_TRUE(until([&] { return writers.size() == 2 && !idle->received.empty(); }));

  server_->drain();

  ASSERT_TRUE(until([&] { return idle->eof && watch->eof; }));
  EXPECT_EQ(closed, 1);
  EXPECT_NE(watch->received.find("0\r\n\r\n"), std::string::npos);
  EXPECT_FALSE(slow->eof);
  for (auto& writer : writers)
    if (!writer->closed()) writer->respond({200, {}, "done"});
  ASSERT_TRUE(until([&] { return slow->eof; }));
  EXPECT_EQ(body_of(slow->received), "done");
  EXPECT_TRUE(until([&] { return server_->connections() == 0; }));
}

// A process that another one takes over from: both have the socket.
TEST_F(ServerTest, ASuccessorTakesTheSocketOver) {
  serve([](Request, Writer w) { w->respond({200, {}, "old"}); });
  auto kept = connect();
  kept->send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  ASSERT_TRUE(until([&] { return !kept->received.empty(); }));
  auto early = connect();
  ASSERT_TRUE(until([&] { return server_->connections() == 2; }));

  ServerOptions options;
  options.socket =
      std::make_shared<io::Fd>(fcntl(server_->listening_fd(), F_DUPFD_CLOEXEC, 3));
  auto successor = Server::create(
      *loop_, options, [](Request, Writer w) { w->respond({200, {}, "new"}); });
  ASSERT_TRUE(successor);
  EXPECT_EQ((*successor)->local_addr(), server_->local_addr());
  server_->stop_accepting();

  EXPECT_EQ(server_->listening_fd(), -1);
  for (auto* one : {&kept, &early}) {
    (*one)->received.clear();
    (*one)->send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    ASSERT_TRUE(until([&] { return (*one)->eof; }));
    EXPECT_EQ(body_of((*one)->received), "old");
  }
  auto late = connect();
  late->send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  ASSERT_TRUE(until([&] { return late->eof; }));
  EXPECT_EQ(body_of(late->received), "new");
}

TEST_F(ServerTest, UpgradeHandsOverTheStreamWithWhatWasReadAlready) {
  std::unique_ptr<Collector> upgraded;
  serve([&](Request request, Writer w) {
    EXPECT_TRUE(request.headers.has_token("connection", "upgrade"));
    upgraded = std::make_unique<Collector>(
        TestPki::take(w->upgrade({{"Upgrade", "echo"}, {"Connection", "Upgrade"}})));
  });
  auto client = connect();
  client->send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly");
  ASSERT_TRUE(until([&] { return upgraded && upgraded->received == "early"; }));

  client->send(" late");
  upgraded->send("hello");

  ASSERT_TRUE(until([&] { return upgraded->received == "early late"; }));
  ASSERT_TRUE(until([&] { return client->received.find("hello") != std::string::npos; }));
  EXPECT_EQ(client->received.substr(9, 3), "101");
  EXPECT_EQ(server_->connections(), 0u);
}

TEST_F(ServerTest, ConnectionsAreLimited) {
  ServerOptions options;
  options.max_connections = 2;
  serve(echo(), options);
  auto one = connect();
  auto two = connect();
  ASSERT_TRUE(until([&] { return server_->connections() == 2; }));

  auto three = connect();

  EXPECT_TRUE(until([&] { return three->failed || three->eof; }));
  EXPECT_EQ(server_->connections(), 2u);
}

TEST_F(ServerTest, DestroyingTheServerTurnsWritersIntoNoOps) {
  Writer writer;
  serve([&](Request, Writer w) {
    writer = std::move(w);
    writer->on_close([writer] { FAIL(); });
  });
  auto client = connect();
  client->send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  ASSERT_TRUE(until([&] { return writer != nullptr; }));

  server_.reset();

  EXPECT_TRUE(writer->closed());
  writer->respond({200, {}, "x"});
  EXPECT_TRUE(until([&] { return client->failed || client->eof; }));
}

}  // namespace
}  // namespace edgemesh::http
