// A server on the proxy's HTTP/2 codec that answers every request, for tests/interop/h2spec.sh.
// Prints its port; ends with its standard input. Without TLS, with prior knowledge.
#include <unistd.h>

#include <cstdio>

#include "core/io/tcp.h"
#include "proxy/http/h2_server.h"

using namespace edgemesh;         // NOLINT
using namespace edgemesh::proxy;  // NOLINT

namespace {

struct Request final : HttpStream::Handler {
  explicit Request(StreamPtr s) : stream(std::move(s)) { stream->set_handler(this); }
  void on_head(HeadPtr, bool) override {}
  void on_data(std::span<const uint8_t>, bool end) override {
    if (end) answer();
  }
  void on_trailers(HeadPtr) override { answer(); }
  void on_reset(ResetReason, std::string_view) override { delete this; }
  void on_writable() override {}
  void answer() {
    HeadPtr head = take_head();
    head->status = 200;
    head->set_length(5);
    stream->send_head(*head, false);
    stream->send_data(io::as_bytes("hello"), true);
    delete this;
  }
  StreamPtr stream;
};

struct Client final : HttpServerConnection::Handler {
  void on_request(StreamPtr stream, HeadPtr, bool end) override {
    auto* request = new Request(std::move(stream));
    if (end) request->answer();
  }
  void on_bad_request(int, std::string_view) override {}
  void on_closed() override { delete this; }
  std::unique_ptr<HttpServerConnection> connection;
};

struct UntilInputEnds final : io::FdWatch::Handler {
  explicit UntilInputEnds(io::Loop& l) : loop(l) {}
  void on_fd(bool, bool) override {
    char byte;
    if (read(STDIN_FILENO, &byte, 1) == 0) loop.stop();
  }
  io::Loop& loop;
};

}  // namespace

int main() {
  auto loop = io::Loop::create().value();
  WriteBatch batch(*loop);
  auto serve = [&](io::Fd fd, const SockAddr&) {
    auto stream = io::TcpStream::adopt(*loop, std::move(fd));
    if (!stream) return;
    auto* client = new Client;
    client->connection = make_h2_server(*loop, batch, std::move(*stream), {}, client);
  };
  auto listener = io::TcpListener::listen(*loop, *SockAddr::parse("127.0.0.1:0"), serve);
  if (!listener) {
    std::fprintf(stderr, "h2_server: %s\n", listener.error().message.c_str());
    return 1;
  }
  UntilInputEnds until(*loop);
  io::FdWatch input;
  if (!input.start(*loop, STDIN_FILENO, &until)) return 1;
  std::printf("%d\n", (*listener)->local_addr().port);
  std::fflush(stdout);
  loop->run();
  return 0;
}
