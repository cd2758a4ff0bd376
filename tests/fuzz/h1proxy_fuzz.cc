// The HTTP/1 codecs of the proxy over memory streams. The input is what a client sends to a server
// codec, and what a server answers to a client codec. Whole and in pieces must be understood the same.
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "proxy/http/h1_client.h"
#include "proxy/http/h1_server.h"
#include "tests/support/memory_stream.h"

using namespace edgemesh;  // NOLINT
using namespace edgemesh::proxy;  // NOLINT

namespace {

// Writes down what it is told; on the server side it answers, too.
struct Exchange final : HttpStream::Handler {
  explicit Exchange(std::string* log) : log_(log) {}
  void on_head(HeadPtr head, bool end) override {
    *log_ += "h" + std::to_string(head->status);
    finish(end);
  }
  void on_data(std::span<const uint8_t> data, bool end) override {
    *log_ += io::as_text(data);
    finish(end);
  }
  void on_trailers(HeadPtr) override { finish(true); }
  void on_reset(ResetReason, std::string_view) override { *log_ += "!"; }
  void on_writable() override {}

  void finish(bool end) {
    if (!end) return;
    *log_ += ".";
    if (!server) return;
    HeadPtr head = take_head();
    head->status = 200;
    stream->send_head(*head, false);
    stream->send_data(io::as_bytes("answer"), true);
  }
  StreamPtr stream;
  bool server = false;

 private:
  std::string* log_;
};

struct Server final : HttpServerConnection::Handler {
  void on_request(StreamPtr stream, HeadPtr head, bool end) override {
    log += "|" + std::string(head->method) + " " + std::string(head->path) + ":";
    for (const FieldView& f : head->fields()) log += std::string(f.name) + std::string(f.value);
    exchanges.push_back(std::make_unique<Exchange>(&log));
    Exchange* exchange = exchanges.back().get();
    exchange->server = true;
    exchange->stream = std::move(stream);
    exchange->stream->set_handler(exchange);
    if (!head->protocol.empty() || head->method == "CONNECT") {
      HeadPtr answer = take_head();
      answer->status = head->method == "CONNECT" ? 200 : 101;
      answer->protocol = answer->keep(head->protocol);
      exchange->server = false;
      exchange->stream->send_head(*answer, false);
    }
    exchange->finish(end);
  }
  void on_bad_request(int status, std::string_view) override { log += "b" + std::to_string(status); }
  void on_closed() override { log += "c"; }
  std::string log;
  std::vector<std::unique_ptr<Exchange>> exchanges;
};

struct Client final : HttpClientConnection::Handler {
  void on_connected() override {}
  void on_available() override { log += "a"; }
  void on_closed(const Error&) override { log += "c"; }
  std::string log;
};

io::Loop& loop() {
  static auto it = io::Loop::create().value();
  return *it;
}

void turns() {
  for (int i = 0; i < 12; ++i) loop().run_once();
}

std::string serve(std::string_view text, size_t piece) {
  WriteBatch batch(loop());
  test::MemoryStreamOptions options;
  options.max_read = piece;
  auto [near, far] = test::MemoryStream::pair(loop(), options);
  test::Collector peer(std::move(far));
  Server server;
  auto connection = make_h1_server(loop(), batch, std::move(near), {}, &server);
  peer.send(text);
  peer.finish();
  turns();
  EM_CHECK(connection->active_streams() <= 1);
  connection.reset();
  turns();
  return server.log;
}

std::string ask(std::string_view text, size_t piece, std::string_view method) {
  WriteBatch batch(loop());
  test::MemoryStreamOptions options;
  options.max_read = piece;
  auto [near, far] = test::MemoryStream::pair(loop(), options);
  test::Collector peer(std::move(far));
  Client client;
  auto connection = make_h1_client(loop(), batch, std::move(near), {}, &client);
  Exchange exchange(&client.log);
  exchange.stream = connection->open(&exchange);
  HeadPtr head = take_head();
  head->method = method;
  head->path = "/";
  head->authority = "h";
  exchange.stream->send_head(*head, true);
  turns();
  peer.send(text);
  peer.finish();
  turns();
  connection.reset();
  turns();
  return client.log;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 16384) return 0;
  std::string_view text = io::as_text({data, size});
  EM_CHECK(serve(text, 0) == serve(text, 1));
  for (std::string_view method : {"GET", "HEAD"}) EM_CHECK(ask(text, 0, method) == ask(text, 3, method));
  return 0;
}
