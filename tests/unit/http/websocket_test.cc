#include "core/http/websocket.h"

#include <gtest/gtest.h>

#include "core/io/tcp.h"
#include "tests/support/memory_stream.h"
#include "tests/support/test_pki.h"

namespace edgemesh::http {
namespace {

using namespace std::chrono_literals;  // NOLINT
using test::Collector;
using test::MemoryStream;
using test::TestPki;

struct Recorder : WebSocket::Handler {
  std::vector<std::string> messages;
  std::vector<std::string> pongs;
  std::optional<uint16_t> code;
  std::string reason;
  int drained = 0;
  bool last_text = false;
  std::function<void(std::string_view)> react;
  void on_message(std::string_view data, bool text) override {
    messages.emplace_back(data);
    last_text = text;
    if (react) react(data);
  }
  void on_pong(std::string_view payload) override { pongs.emplace_back(payload); }
  void on_drain() override { ++drained; }
  void on_close(uint16_t c, const std::string& r) override {
    EXPECT_FALSE(code.has_value());
    code = c;
    reason = r;
  }
};

class WebSocketTest : public ::testing::Test {
 protected:
  bool until(const std::function<bool()>& done) { return loop_->run_until(done, 10s); }
  void pair(const test::MemoryStreamOptions& pipe = {}, const WebSocketOptions& options = {}) {
    auto [a, b] = MemoryStream::pair(*loop_, pipe);
    client_ = WebSocket::over(*loop_, std::move(a), false, options);
    server_ = WebSocket::over(*loop_, std::move(b), true, options);
    client_->set_handler(&at_client_);
    server_->set_handler(&at_server_);
  }
  // A raw far end of the server's socket.
  std::unique_ptr<Collector> raw_client(const WebSocketOptions& options = {}) {
    auto [a, b] = MemoryStream::pair(*loop_);
    server_ = WebSocket::over(*loop_, std::move(b), true, options);
    server_->set_handler(&at_server_);
    return std::make_unique<Collector>(std::move(a));
  }
  static std::string frame(uint8_t first, const std::string& payload, bool masked = true) {
    std::string out(1, static_cast<char>(first));
    out += static_cast<char>((masked ? 0x80 : 0) | payload.size());
    if (masked) out += std::string(4, '\0');  // a mask of zeros
    return out + payload;
  }

  std::unique_ptr<io::Loop> loop_ = TestPki::take(io::Loop::create());
  Recorder at_client_, at_server_;
  std::unique_ptr<WebSocket> client_, server_;
};

TEST_F(WebSocketTest, MessagesGoBothWaysWholeAndInOrder) {
  for (size_t chunk : {0u, 1u}) {
    at_client_ = at_server_ = Recorder{};
    pair({300, chunk, 0});
    std::string large(100'000, 'x');

    EXPECT_TRUE(client_->send_text("hello"));
    EXPECT_TRUE(client_->send_text(large));
    EXPECT_TRUE(client_->send_text(""));
    EXPECT_TRUE(server_->send_binary(std::string("\0\xff", 2)));

    ASSERT_TRUE(
        until([&] { return at_server_.messages.size() == 3 && !at_client_.messages.empty(); }));
    EXPECT_EQ(at_server_.messages, (std::vector<std::string>{"hello", large, ""}));
    EXPECT_EQ(at_client_.messages[0], std::string("\0\xff", 2));
    EXPECT_TRUE(at_server_.last_text);
    EXPECT_FALSE(at_client_.last_text);
    EXPECT_EQ(client_->queued_bytes(), 0u);
    EXPECT_EQ(at_client_.drained, 1);
  }
}

TEST_F(WebSocketTest, PingsAreAnswered) {
  pair();

  EXPECT_TRUE(client_->send_ping("12"));
  EXPECT_TRUE(server_->send_ping(""));
  EXPECT_FALSE(server_->send_ping(std::string(126, 'x')));

  ASSERT_TRUE(until([&] { return !at_client_.pongs.empty() && !at_server_.pongs.empty(); }));
  EXPECT_EQ(at_client_.pongs[0], "12");
}

TEST_F(WebSocketTest, CloseIsAnsweredWithItsCode) {
  pair();
  EXPECT_TRUE(client_->send_text("last"));

  client_->close(1001, "going");

  ASSERT_TRUE(until([&] { return at_client_.code && at_server_.code; }));
  EXPECT_EQ(at_server_.messages, std::vector<std::string>{"last"});
  EXPECT_EQ(*at_server_.code, 1001);
  EXPECT_EQ(at_server_.reason, "going");
  EXPECT_EQ(*at_client_.code, 1001);
  EXPECT_FALSE(client_->send_text("x"));
  EXPECT_FALSE(server_->send_text("x"));
}

TEST_F(WebSocketTest, CutConnectionIs1006) {
  pair();
  client_.reset();

  ASSERT_TRUE(until([&] { return at_server_.code.has_value(); }));
  EXPECT_EQ(*at_server_.code, 1006);
  EXPECT_FALSE(at_client_.code);
}

TEST_F(WebSocketTest, MessageBeyondTheLimitIs1009) {
  WebSocketOptions options;
  options.max_message_bytes = 1000;
  pair({}, options);

  EXPECT_TRUE(client_->send_text(std::string(1001, 'x')));

  ASSERT_TRUE(until([&] { return at_client_.code && at_server_.code; }));
  EXPECT_EQ(*at_client_.code, 1009);
  EXPECT_EQ(*at_server_.code, 1009);
  EXPECT_TRUE(at_server_.messages.empty());
}

struct BadFrames {
  const char* name;
  std::string bytes;
  int code;
};

TEST_F(WebSocketTest, FramesAgainstTheRulesCloseTheConnection) {
  const BadFrames cases[] = {
      {"not masked", frame(0x81, "a", false), 1002},
      {"reserved bit", frame(0xc1, "a"), 1002},
      {"reserved opcode", frame(0x83, "a"), 1002},
      {"continuation of nothing", frame(0x80, "a"), 1002},
      {"new message within one", frame(0x01, "a") + frame(0x81, "b"), 1002},
      {"fragmented ping", frame(0x09, "a"), 1002},
      {"long ping", std::string("\x89\xfe\x00\x80\0\0\0\0", 8) + std::string(128, 'x'), 1002},
      {"not UTF-8", frame(0x81, "\xff"), 1007},
      {"close with a reserved code", frame(0x88, std::string("\x03\xed", 2)), 1002},
      {"63-bit length", std::string("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0x", 15), 1009},
      {"64-bit length", std::string("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0x", 15), 1002},
  };
  for (const BadFrames& c : cases) {
    at_server_ = Recorder{};
    auto far = raw_client();
    far->send(c.bytes);
    ASSERT_TRUE(until([&] { return at_server_.code && far->eof; }))
        << c.name << ": " << at_server_.code.value_or(0) << " " << far->received.size();
    EXPECT_EQ(*at_server_.code, c.code) << c.name;
    ASSERT_GE(far->received.size(), 2u) << c.name;
    EXPECT_EQ(static_cast<uint8_t>(far->received[0]), 0x88) << c.name;
    if (far->received.size() < 4) continue;  // a close frame may come without a code
    EXPECT_EQ(
        (static_cast<uint8_t>(far->received[2]) << 8) + static_cast<uint8_t>(far->received[3]),
        c.code)
        << c.name;
    EXPECT_TRUE(at_server_.messages.empty()) << c.name;
  }
}

TEST_F(WebSocketTest, FragmentsAreJoined) {
  auto far = raw_client();

  far->send(frame(0x01, "ab") + frame(0x89, "ping") + frame(0x00, "cd") + frame(0x80, "ef"));

  ASSERT_TRUE(until([&] { return !at_server_.messages.empty(); }));
  EXPECT_EQ(at_server_.messages[0], "abcdef");
  ASSERT_TRUE(until([&] { return !far->received.empty(); }));
  EXPECT_EQ(far->received, "\x8a\x04ping");
}

TEST_F(WebSocketTest, UnreadMessagesPushBackAndAreLimited) {
  WebSocketOptions options;
  options.max_queued_bytes = 1 << 20;
  pair({10'000, 0, 0}, options);
  server_->pause_reading();
  std::string piece(50'000, 'x');
  int sent = 0;
  while (client_->send_text(piece)) {
    ++sent;
    loop_->run_once();
    ASSERT_LT(sent, 1000);
  }
  EXPECT_GT(client_->queued_bytes(), 900'000u);
  EXPECT_TRUE(at_server_.messages.empty());

  server_->resume_reading();

  ASSERT_TRUE(until([&] { return static_cast<int>(at_server_.messages.size()) == sent; }));
  ASSERT_TRUE(until([&] { return client_->queued_bytes() == 0; }));
  EXPECT_TRUE(client_->send_text("again"));
}

TEST_F(WebSocketTest, SilentPeerEndsTheClosingHandshake) {
  WebSocketOptions options;
  options.close_timeout = 20ms;
  auto far = raw_client(options);

  server_->close(1000, std::string(500, 'x'));

  ASSERT_TRUE(until([&] { return at_server_.code.has_value(); }));
  EXPECT_EQ(*at_server_.code, 1006);
}

TEST_F(WebSocketTest, MayBeDestroyedInItsCallbacks) {
  pair();
  at_server_.react = [&](std::string_view) { server_.reset(); };
  EXPECT_TRUE(client_->send_text("a"));
  EXPECT_TRUE(client_->send_text("b"));

  ASSERT_TRUE(until([&] { return at_client_.code.has_value(); }));
  EXPECT_EQ(at_server_.messages.size(), 1u);
}

class WebSocketHandshakeTest : public WebSocketTest {
 protected:
  void serve(std::shared_ptr<tls::Context> tls = nullptr) {
    ServerOptions options;
    options.listen = TestPki::take(SockAddr::parse("127.0.0.1:0"));
    options.tls = tls;
    http_ = TestPki::take(
        Server::create(*loop_, options, [this](Request request, std::shared_ptr<ResponseWriter> w) {
          seen_ = request;
          auto socket = WebSocket::accept(*loop_, request, *w);
          if (!socket) return;
          server_ = std::move(*socket);
          server_->set_handler(&at_server_);
        }));
    url_ = (tls ? "wss://" : "ws://") + http_->local_addr().to_string() + "/a/b/events";
  }
  Error connect(const Headers& headers, std::shared_ptr<tls::Context> tls = nullptr) {
    std::optional<Error> error;
    bool done = false;
    auto call = WebSocket::connect(*loop_, url_, headers, tls,
                                   [&](Result<std::unique_ptr<WebSocket>> socket) {
                                     done = true;
                                     if (!socket) {
                                       error = socket.error();
                                       return;
                                     }
                                     client_ = std::move(*socket);
                                     client_->set_handler(&at_client_);
                                   });
    EXPECT_TRUE(until([&] { return done; }));
    return error.value_or(Error{ErrorCode::kInternal, "", 0});
  }
  std::unique_ptr<Server> http_;
  Request seen_;
  std::string url_;
};

TEST_F(WebSocketHandshakeTest, OverTlsWithClientCertificate) {
  TestPki pki;
  serve(pki.server(pki.localhost(), tls::ContextOptions::kRequired));

  auto error = connect({{"node_id", "n1"}}, pki.client(pki.issue("system:node:n1")));

  ASSERT_EQ(error.message, "");
  ASSERT_TRUE(client_ && server_);
  EXPECT_EQ(server_->peer()->common_name, "system:node:n1");
  EXPECT_EQ(client_->peer()->common_name, "localhost");
  EXPECT_EQ(seen_.headers.get("Node_Id"), "n1");
  EXPECT_EQ(seen_.target, "/a/b/events");
  EXPECT_TRUE(client_->send_text("up"));
  EXPECT_TRUE(server_->send_text("down"));
  ASSERT_TRUE(until([&] { return !at_server_.messages.empty() && !at_client_.messages.empty(); }));
  client_->close(1000, "");
  ASSERT_TRUE(until([&] { return at_server_.code && at_client_.code; }));
}

TEST_F(WebSocketHandshakeTest, WrongServerCertificateIsRefused) {
  TestPki pki, other;
  serve(other.server(other.localhost(), tls::ContextOptions::kNone));

  auto error = connect({}, pki.client());

  EXPECT_EQ(error.code, ErrorCode::kUnauthenticated) << error.message;
  EXPECT_FALSE(client_);
}

TEST_F(WebSocketHandshakeTest, PlainRequestsAreRefused) {
  serve();
  Client client(*loop_, {});
  auto status = [&](const Headers& headers) {
    int out = 0;
    ClientRequest request;
    request.url = "http://" + http_->local_addr().to_string();
    request.headers = headers;
    client.request(request, [&](Result<Response> r) { out = r ? r->status : -1; });
    EXPECT_TRUE(until([&] { return out != 0; }));
    return out;
  };
  EXPECT_EQ(status({}), 426);
  EXPECT_EQ(status({{"Upgrade", "websocket"}}), 426);
  EXPECT_FALSE(server_);
}

TEST_F(WebSocketHandshakeTest, ServerThatDoesNotUpgradeIsNamed) {
  ServerOptions options;
  options.listen = TestPki::take(SockAddr::parse("127.0.0.1:0"));
  http_ =
      TestPki::take(Server::create(*loop_, options, [](Request, std::shared_ptr<ResponseWriter> w) {
        w->respond({403, {}, "no"});
      }));
  url_ = "ws://" + http_->local_addr().to_string();

  auto error = connect({});

  EXPECT_NE(error.message.find("403"), std::string::npos) << error.message;
}

// The example of RFC 6455 section 1.3.
TEST_F(WebSocketHandshakeTest, AnswersTheStandardsExample) {
  serve();
  Collector far(TestPki::take(io::TcpStream::connect(*loop_, http_->local_addr())));

  far.send(
      "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n"
      "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
      "Sec-WebSocket-Version: 13\r\n\r\n" +
      frame(0x81, "Hello"));

  ASSERT_TRUE(until([&] { return !at_server_.messages.empty(); }));
  EXPECT_EQ(at_server_.messages[0], "Hello");
  ASSERT_TRUE(until([&] { return far.received.find("\r\n\r\n") != std::string::npos; }));
  EXPECT_NE(far.received.find("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
            std::string::npos);
}

TEST_F(WebSocketHandshakeTest, WrongAcceptIsRefused) {
  std::unique_ptr<Collector> far;
  auto listener = TestPki::take(io::TcpListener::listen(
      *loop_, TestPki::take(SockAddr::parse("127.0.0.1:0")), [&](io::Fd fd, const SockAddr&) {
        far =
            std::make_unique<Collector>(TestPki::take(io::TcpStream::adopt(*loop_, std::move(fd))));
        far->send(
            "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
      }));
  url_ = "ws://" + listener->local_addr().to_string();

  auto error = connect({});

  EXPECT_NE(error.message.find("Accept"), std::string::npos) << error.message;
  EXPECT_FALSE(client_);
}

}  // namespace
}  // namespace edgemesh::http
