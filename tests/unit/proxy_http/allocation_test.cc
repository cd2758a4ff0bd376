// In the steady state a request costs no allocation: connections keep what they need, messages come
// from free lists. Every malloc() of this program is counted.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <functional>
#include <vector>

#include "core/io/tcp.h"
#include "proxy/http/h1_client.h"
#include "proxy/http/h1_server.h"
#include "proxy/http/h2_client.h"
#include "proxy/http/h2_server.h"

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

namespace {
size_t allocations = 0;
}

// glibc's own ones under the names that everybody calls, operator new and C libraries, too.
extern "C" {
void* __libc_malloc(size_t);            // NOLINT
void* __libc_calloc(size_t, size_t);    // NOLINT
void* __libc_realloc(void*, size_t);    // NOLINT
void* malloc(size_t bytes) {
  ++allocations;
  return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
  ++allocations;
  return __libc_calloc(count, bytes);
}
void* realloc(void* memory, size_t bytes) {
  ++allocations;
  return __libc_realloc(memory, bytes);
}
}

namespace edgemesh::proxy {
namespace {

struct Answerer final : HttpServerConnection::Handler, HttpStream::Handler {
  StreamPtr stream;
  size_t requests = 0;
  bool closed = false;

  void on_request(StreamPtr s, HeadPtr, bool end) override {
    stream = std::move(s);
    stream->set_handler(this);
    if (end) answer();
  }
  void on_bad_request(int, std::string_view) override {}
  void on_closed() override { closed = true; }
  void on_head(HeadPtr, bool) override {}
  void on_data(std::span<const uint8_t>, bool end) override {
    if (end) answer();
  }
  void on_trailers(HeadPtr) override {}
  void on_reset(ResetReason, std::string_view) override {}
  void on_writable() override {}
  void answer() {
    ++requests;
    HeadPtr head = take_head();
    head->status = 200;
    head->add("server", "test");
    head->set_length(1024);
    stream->send_head(*head, false);
    static const std::string body(1024, 'x');
    stream->send_data(io::as_bytes(body), true);
    stream.reset();
  }
};

struct AllocationTest : testing::Test {
  std::unique_ptr<io::Loop> loop = io::Loop::create().value();
  WriteBatch batch{*loop};
  Answerer answerer;
  std::unique_ptr<HttpServerConnection> connection;
  int fd = -1;

  std::unique_ptr<io::Stream> pair() {
    int fds[2];
    EM_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    fd = fds[0];
    return io::TcpStream::adopt(*loop, io::Fd(fds[1]), true).value();
  }
  ~AllocationTest() override {
    connection.reset();
    if (fd >= 0) close(fd);
  }
  // Allocations while `count` requests are answered.
  size_t cost(size_t count, const std::function<std::string_view()>& request) {
    char sink[16384];
    size_t before = allocations;
    for (size_t i = 0; i < count; ++i) {
      std::string_view text = request();
      EM_CHECK(write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
      size_t want = answerer.requests + 1;
      for (int turn = 0; turn < 5 || answerer.requests < want; ++turn) loop->run_once();
      while (read(fd, sink, sizeof sink) > 0) continue;
    }
    return allocations - before;
  }
};

TEST_F(AllocationTest, Http1RequestsCostNone) {
  connection = make_h1_server(*loop, batch, pair(), {}, &answerer);
  auto get = [] {
    return std::string_view("GET /path?query HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n");
  };
  auto post = [] {
    return std::string_view(
        "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\n0123456789");
  };
  EXPECT_GT(cost(10, get), 0U);  // they are counted
  EXPECT_EQ(cost(100, get), 0U);
  cost(10, post);
  EXPECT_EQ(cost(100, post), 0U);
  EXPECT_EQ(answerer.requests, 220U);
}

struct Asker final : HttpClientConnection::Handler, HttpStream::Handler {
  StreamPtr stream;
  size_t answers = 0;
  void on_connected() override {}
  void on_available() override {}
  void on_closed(const Error&) override {}
  void on_head(HeadPtr, bool end) override { ended(end); }
  void on_data(std::span<const uint8_t>, bool end) override { ended(end); }
  void on_trailers(HeadPtr) override {}
  void on_reset(ResetReason, std::string_view) override {}
  void on_writable() override {}
  void ended(bool end) {
    if (!end) return;
    ++answers;
    stream.reset();
  }
  void ask(HttpClientConnection& connection) {
    stream = connection.open(this);
    EM_CHECK(stream != nullptr);
    HeadPtr head = take_head();
    head->method = "GET";
    head->scheme = "http";
    head->authority = "host.example";
    head->path = "/path?query";
    head->add("accept", "*/*");
    stream->send_head(*head, true);
  }
};

// Both codecs of a version, joined by a socket.
TEST_F(AllocationTest, ClientsAndServersCostNone) {
  for (bool http2 : {false, true}) {
    int fds[2];
    EM_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    auto near = io::TcpStream::adopt(*loop, io::Fd(fds[0]), true).value();
    auto far = io::TcpStream::adopt(*loop, io::Fd(fds[1]), true).value();
    Asker asker;
    std::unique_ptr<HttpClientConnection> client;
    if (http2) {
      connection = make_h2_server(*loop, batch, std::move(far), {}, &answerer);
      client = make_h2_client(*loop, batch, std::move(near), {}, &asker);
    } else {
      connection = make_h1_server(*loop, batch, std::move(far), {}, &answerer);
      client = make_h1_client(*loop, batch, std::move(near), {}, &asker);
    }
    auto run = [&](size_t count) {
      size_t before = allocations;
      for (size_t i = 0; i < count; ++i) {
        asker.ask(*client);
        size_t want = asker.answers + 1;
        for (int turn = 0; turn < 1000 && asker.answers < want; ++turn) loop->run_once();
        EM_CHECK(asker.answers == want);
      }
      return allocations - before;
    };
    run(300);  // windows open, free lists and tables fill
    EXPECT_EQ(run(300), 0U) << http2;
    connection.reset();
  }
}

struct Http2Allocations : AllocationTest {
  uint32_t id = 1;
  std::string frames;

  void SetUp() override {
    connection = make_h2_server(*loop, batch, pair(), {}, &answerer);
    std::string_view preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    std::string hello(preface);
    frame(&hello, 4, 0, 0, "");
    frame(&hello, 4, 1, 0, "");
    // The connection's window: none of the answers shall wait for it.
    frame(&hello, 8, 0, 0, std::string_view("\x3f\xff\x00\x00", 4));
    EM_CHECK(write(fd, hello.data(), hello.size()) == static_cast<ssize_t>(hello.size()));
    for (int turn = 0; turn < 5; ++turn) loop->run_once();
    frames.reserve(1024);
  }
  static void frame(std::string* out, uint8_t type, uint8_t flags, uint32_t stream,
                    std::string_view payload) {
    size_t n = payload.size();
    auto byte = [](size_t value) { return static_cast<char>(value & 0xff); };
    out->append({byte(n >> 16), byte(n >> 8), byte(n), byte(type), byte(flags), byte(stream >> 24),
                 byte(stream >> 16), byte(stream >> 8), byte(stream)});
    out->append(payload);
  }
  std::string_view next(bool body) {
    frames.clear();
    // :method GET or POST, :scheme http, :path /, :authority, all from the static table.
    frame(&frames, 1, body ? 4 : 5, id, body ? "\x83\x86\x84\x01\x01h" : "\x82\x86\x84\x01\x01h");
    if (body) frame(&frames, 0, 1, id, "0123456789");
    id += 2;
    return frames;
  }
};

TEST_F(Http2Allocations, RequestsCostNone) {
  for (bool body : {false, true}) {
    cost(10, [&] { return next(body); });
    EXPECT_EQ(cost(100, [&] { return next(body); }), 0U);
  }
  EXPECT_EQ(answerer.requests, 220U);
}

// With a real client's header fields, so that the tables of both directions are filled.
TEST_F(Http2Allocations, AnIdleConnectionIsSmall) {
  constexpr size_t kConnections = 300;
  ManualClock clock;
  auto still = io::Loop::create(clock).value();
  WriteBatch later(*still);
  std::vector<std::unique_ptr<HttpServerConnection>> connections;
  std::vector<io::Fd> clients;
  std::string fields = "\x82\x86\x84\x41\x0b" "app.example";
  for (auto [name, value] : {std::pair{"user-agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0"},
                             {"accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"},
                             {"accept-language", "de,en-US;q=0.7,en;q=0.3"},
                             {"x-request-id", "4b0b1b4e-3b7e-4a3c-9c53-2f0a7be1f0a1"},
                             {"referer", "https://app.example/some/page/with/a/path"}}) {
    fields += '\x40';
    for (std::string_view text : {std::string_view(name), std::string_view(value)}) {
      fields += static_cast<char>(text.size());
      fields += text;
    }
  }
  std::string hello = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  frame(&hello, 4, 0, 0, "");
  frame(&hello, 4, 1, 0, "");
  frame(&hello, 1, 5, 1, fields);
  auto add = [&](size_t count) {
    for (size_t i = 0; i < count; ++i) {
      int fds[2];
      EM_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
      clients.emplace_back(fds[0]);
      connections.push_back(make_h2_server(
          *still, later, io::TcpStream::adopt(*still, io::Fd(fds[1]), true).value(), {}, &answerer));
      EM_CHECK(write(fds[0], hello.data(), hello.size()) == static_cast<ssize_t>(hello.size()));
      for (int turn = 0; turn < 4; ++turn) still->run_once();
    }
    clock.advance(std::chrono::seconds(3));
    for (int turn = 0; turn < 4; ++turn) still->run_once();
  };
  auto resident = [] {
    std::ifstream statm("/proc/self/statm");
    size_t total = 0;
    size_t pages = 0;
    statm >> total >> pages;
    return pages * 4096;
  };
  size_t asked = answerer.requests;
  add(50);  // what is there once
  size_t before = resident();
  add(kConnections);
  size_t each = (resident() - before) / kConnections;
  EXPECT_EQ(answerer.requests - asked, kConnections + 50);
  std::printf("idle HTTP/2 connection %zu bytes\n", each);
  EXPECT_LT(each, 8192U);
  EXPECT_GT(each, 1024U);  // it was measured
}

}  // namespace
}  // namespace edgemesh::proxy

#endif
