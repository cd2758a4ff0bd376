#include "core/http/client.h"

#include <gtest/gtest.h>

#include "core/http/server.h"
#include "core/io/tcp.h"
#include "tests/support/memory_stream.h"
#include "tests/support/test_pki.h"

namespace edgemesh::http {
namespace {

using namespace std::chrono_literals;  // NOLINT
using test::Collector;
using test::TestPki;
using Writer = std::shared_ptr<ResponseWriter>;

class ClientTest : public ::testing::Test {
 protected:
  void serve(Server::Handler handler, std::shared_ptr<tls::Context> tls = nullptr) {
    ServerOptions options;
    options.listen = TestPki::take(SockAddr::parse("127.0.0.1:0"));
    options.tls = std::move(tls);
    server_ = TestPki::take(Server::create(*loop_, options, std::move(handler)));
    base_ = (options.tls ? "https://" : "http://") + server_->local_addr().to_string();
    if (server_->local_addr().port != 0 && options.tls)
      base_ = "https://" + server_->local_addr().to_string();
  }
  // A server of raw text: answers each connection's first input with `answer`.
  void serve_raw(std::string answer, bool close) {
    listener_ = TestPki::take(
        io::TcpListener::listen(*loop_, TestPki::take(SockAddr::parse("127.0.0.1:0")),
                                [this, answer, close](io::Fd fd, const SockAddr&) {
                                  raw_.push_back(std::make_unique<Collector>(
                                      TestPki::take(io::TcpStream::adopt(*loop_, std::move(fd)))));
                                  raw_.back()->send(answer);
                                  if (close) raw_.back()->finish();
                                }));
    base_ = "http://" + listener_->local_addr().to_string();
  }
  Result<Response> run(Client& client, ClientRequest request) {
    std::optional<Result<Response>> out;
    client.request(std::move(request), [&](Result<Response> r) { out = std::move(r); });
    EXPECT_FALSE(out.has_value());  // never from within request()
    EXPECT_TRUE(until([&] { return out.has_value(); }));
    if (!out) return fail(ErrorCode::kTimeout, "the test waited too long");
    return std::move(*out);
  }
  ClientRequest get(const std::string& path) {
    ClientRequest request;
    request.url = base_ + path;
    return request;
  }
  bool until(const std::function<bool()>& done) { return loop_->run_until(done, 10s); }

  std::unique_ptr<io::Loop> loop_ = TestPki::take(io::Loop::create());
  TestPki pki_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<io::TcpListener> listener_;
  std::vector<std::unique_ptr<Collector>> raw_;
  std::string base_;
};

Server::Handler echo() {
  return [](Request request, Writer writer) {
    writer->respond({200, {}, request.method + " " + request.target + " " + request.body});
  };
}

TEST_F(ClientTest, ReusesItsConnection) {
  std::vector<uint16_t> ports;
  serve([&](Request request, Writer writer) {
    ports.push_back(request.peer_addr.port);
    writer->respond({200, {}, request.method + " " + request.target + " " + request.body});
  });
  Client client(*loop_, {});

  for (int i = 0; i < 3; ++i) {
    auto answer = run(client, get("/a?b"));
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(answer->body, "GET /a?b ");
    EXPECT_EQ(client.idle_connections(), 1u);
  }

  EXPECT_EQ(ports[0], ports[2]);
}

TEST_F(ClientTest, SendsABodyWithAnyMethod) {
  serve(echo());
  Client client(*loop_, {});
  auto request = get("/edge.crt");
  request.body = std::string("\x30\x00\xff", 3);

  auto answer = run(client, request);

  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->body, "GET /edge.crt " + request.body);
  request.method = "POST";
  request.body = std::string(3 << 20, 'x');
  answer = run(client, request);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->body.size(), request.body.size() + 15);
}

TEST_F(ClientTest, HeadHasNoBody) {
  serve(echo());
  Client client(*loop_, {});
  auto request = get("/");
  request.method = "HEAD";

  auto answer = run(client, request);

  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->body, "");
  EXPECT_EQ(answer->headers.get("content-length"), "7");
}

TEST_F(ClientTest, LooksUpNames) {
  serve(echo());
  Client client(*loop_, {});
  ClientRequest request;
  request.url = fmt::format("http://localhost:{}/", server_->local_addr().port);

  auto answer = run(client, request);

  ASSERT_TRUE(answer) << answer.error().message;
  request.url = "http://no-such-host.invalid/";
  answer = run(client, request);
  ASSERT_FALSE(answer);
  EXPECT_NE(answer.error().message.find("no-such-host.invalid"), std::string::npos);
}

TEST_F(ClientTest, TlsWithClientCertificate) {
  std::string seen;
  serve(
      [&](Request request, Writer writer) {
        EXPECT_TRUE(request.secure);
        seen = request.peer ? request.peer->common_name : "nobody";
        writer->respond({200, {}, "ok"});
      },
      pki_.server(pki_.localhost(), tls::ContextOptions::kOptional));
  Client anonymous(*loop_, {pki_.client()});
  Client node(*loop_, {pki_.client(pki_.issue("system:node:n1"))});

  EXPECT_TRUE(run(anonymous, get("/")));
  EXPECT_EQ(seen, "nobody");
  EXPECT_TRUE(run(node, get("/")));
  EXPECT_EQ(seen, "system:node:n1");
}

TEST_F(ClientTest, UnknownServerIsRefusedUnlessInsecureForOneRequest) {
  TestPki other;
  serve(echo(), other.server(other.localhost(), tls::ContextOptions::kNone));
  Client client(*loop_, {pki_.client()});

  auto refused = run(client, get("/"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnauthenticated) << refused.error().message;

  auto request = get("/ca.crt");
  request.insecure = true;
  EXPECT_TRUE(run(client, request));
  EXPECT_EQ(client.idle_connections(), 0u);
  EXPECT_FALSE(run(client, get("/")));
}

TEST_F(ClientTest, ServerNameIsChecked) {
  serve(echo(),
        pki_.server(pki_.issue("x", {{}, {"cloud.example"}, {}}), tls::ContextOptions::kNone));
  Client client(*loop_, {pki_.client()});

  EXPECT_FALSE(run(client, get("/")));
  auto request = get("/");
  request.server_name = "cloud.example";
  EXPECT_TRUE(run(client, request));
}

TEST_F(ClientTest, RefusedConnectionSaysWhere) {
  serve(echo());
  server_.reset();
  Client client(*loop_, {});

  auto answer = run(client, get("/"));

  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kConnectionRefused);
  EXPECT_NE(answer.error().message.find(base_), std::string::npos) << answer.error().message;
}

TEST_F(ClientTest, SendsAgainWhenThePooledConnectionWasClosed) {
  serve(echo());
  Client client(*loop_, {});
  ASSERT_TRUE(run(client, get("/")));
  auto port = server_->local_addr();
  server_.reset();
  ServerOptions options;
  options.listen = port;
  server_ = TestPki::take(Server::create(*loop_, options, echo()));

  auto answer = run(client, get("/again"));

  ASSERT_TRUE(answer) << answer.error().message;
}

TEST_F(ClientTest, BadAnswersAreErrors) {
  for (const char* text : {"nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
                           "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "",
                           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
                           "HTTP/1.1 101 x\r\n\r\n"}) {
    raw_.clear();
    serve_raw(text, true);
    Client client(*loop_, {});
    EXPECT_FALSE(run(client, get("/"))) << text;
  }
}

TEST_F(ClientTest, InterimAnswersAreSkippedAndEndOfInputMayEndABody) {
  serve_raw("HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nall of it", true);
  Client client(*loop_, {});

  auto answer = run(client, get("/"));

  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->body, "all of it");
  EXPECT_EQ(client.idle_connections(), 0u);
}

TEST_F(ClientTest, AnswerBodyIsLimited) {
  serve([](Request, Writer writer) { writer->respond({200, {}, std::string(2000, 'x')}); });
  ClientOptions options;
  options.max_body = 1000;
  Client client(*loop_, options);

  auto answer = run(client, get("/"));

  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kResourceExhausted);
}

TEST_F(ClientTest, SilentServerTimesOut) {
  serve_raw("", false);
  Client client(*loop_, {});
  auto request = get("/");
  request.timeout = 30ms;

  auto answer = run(client, request);

  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kTimeout);
}

TEST_F(ClientTest, CancelledCallNeverReports) {
  std::vector<Writer> writers;
  serve([&](Request, Writer w) { writers.push_back(std::move(w)); });
  Client client(*loop_, {});
  auto call = client.call(get("/"), [](Result<Response>) { FAIL(); });
  ASSERT_TRUE(until([&] { return writers.size() == 1; }));

  call.reset();

  ASSERT_TRUE(until([&] { return server_->connections() == 0; }));
  writers[0]->respond({200, {}, "x"});
}

TEST_F(ClientTest, MoreRequestsThanConnectionsWait) {
  std::vector<Writer> writers;
  serve([&](Request, Writer w) { writers.push_back(std::move(w)); });
  ClientOptions options;
  options.max_per_authority = 2;
  options.max_waiting = 3;
  Client client(*loop_, options);
  int done = 0;
  int refused = 0;
  for (int i = 0; i < 6; ++i)
    client.request(get("/"), [&](Result<Response> r) { r ? ++done : ++refused; });
  ASSERT_TRUE(until([&] { return writers.size() == 2 && refused == 1; }));

  for (size_t i = 0; i < 5; ++i) {
    ASSERT_TRUE(until([&] { return writers.size() > i; }));
    EXPECT_LE(server_->connections(), 2u);
    writers[i]->respond({200, {}, ""});
  }

  ASSERT_TRUE(until([&] { return done == 5; }));
}

struct Stream {
  int status = 0;
  std::string data;
  std::optional<Result<>> end;
  StreamHandler handler() {
    return {[this](const Response& head) { status = head.status; },
            [this](std::string_view d) { data += d; }, [this](Result<> r) { end = std::move(r); }};
  }
};

TEST_F(ClientTest, StreamsAWatch) {
  Writer writer;
  serve([&](Request, Writer w) {
    writer = std::move(w);
    writer->start(200, {});
  });
  Client client(*loop_, {});
  Stream stream;
  auto request = get("/watch");
  request.timeout = 5s;
  auto call = client.stream(request, stream.handler());
  ASSERT_TRUE(until([&] { return stream.status == 200; }));

  writer->write("one\n");
  ASSERT_TRUE(until([&] { return stream.data == "one\n"; }));
  writer->write("two\n");
  writer->end();

  ASSERT_TRUE(until([&] { return stream.end.has_value(); }));
  EXPECT_TRUE(*stream.end);
  EXPECT_EQ(stream.data, "one\ntwo\n");
}

TEST_F(ClientTest, StreamThatIsCutEndsInAnError) {
  Writer writer;
  serve([&](Request, Writer w) {
    writer = std::move(w);
    writer->start(200, {});
    writer->write("one\n");
  });
  Client client(*loop_, {});
  Stream stream;
  auto call = client.stream(get("/watch"), stream.handler());
  ASSERT_TRUE(until([&] { return stream.data == "one\n"; }));

  writer.reset();  // released without end()

  ASSERT_TRUE(until([&] { return stream.end.has_value(); }));
  EXPECT_FALSE(*stream.end);
}

TEST_F(ClientTest, PausedStreamPushesBack) {
  Writer writer;
  serve([&](Request, Writer w) {
    writer = std::move(w);
    writer->start(200, {});
  });
  Client client(*loop_, {});
  Stream stream;
  auto call = client.stream(get("/"), stream.handler());
  ASSERT_TRUE(until([&] { return stream.status == 200; }));
  call->pause();
  std::string piece(256 * 1024, 'x');
  size_t written = 0;
  for (int i = 0; i < 200; ++i) {
    written += piece.size();
    if (!writer->write(piece)) break;
    loop_->run_once();
  }
  EXPECT_LT(stream.data.size(), written);

  call->resume();
  writer->end();

  ASSERT_TRUE(until([&] { return stream.end.has_value(); }));
  EXPECT_EQ(stream.data.size(), written);
}

TEST_F(ClientTest, ClientMayBeDestroyedInACallback) {
  serve(echo());
  auto client = std::make_unique<Client>(*loop_, ClientOptions{});
  bool called = false;
  client->request(get("/"), [&](Result<Response>) {
    client.reset();
    called = true;
  });
  std::unique_ptr<Call> call;
  call = client->stream(get("/"), {nullptr, [&](std::string_view) { call.reset(); }, nullptr});

  ASSERT_TRUE(until([&] { return called; }));
  for (int i = 0; i < 10; ++i) loop_->run_once();
}

}  // namespace
}  // namespace edgemesh::http
