// The HTTP/2 codecs of the proxy over memory streams. The input is a script for the user of the codec
// (what it does in its callbacks) and then the frames that a client sends to a server codec, and a
// server to a client codec. The contract of proxy/http/stream.h must hold whatever comes.
//   byte 0: how many bytes of script follow (low 4 bits); bit 7: the peer's bytes come in pieces
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "proxy/http/h2_client.h"
#include "proxy/http/h2_server.h"
#include "tests/support/memory_stream.h"

using namespace edgemesh;         // NOLINT
using namespace edgemesh::proxy;  // NOLINT

namespace {

class Script {
 public:
  explicit Script(std::string_view bytes) : bytes_(bytes) {}
  uint8_t next() {
    return bytes_.empty() ? 0 : static_cast<uint8_t>(bytes_[at_++ % bytes_.size()]);
  }

 private:
  std::string_view bytes_;
  size_t at_ = 0;
};

// One stream's user. It checks the contract and does what the script says.
struct Exchange final : HttpStream::Handler {
  Exchange(Script& s, bool is_server) : script(s), server(is_server) {}
  void on_head(HeadPtr head, bool end) override {
    EM_CHECK(!sending && !server && !ended && !reset && !final_head && stream != nullptr);
    EM_CHECK(!end || head->status >= 200);
    final_head = head->status >= 200 || head->status == 101;
    ended = end;
    act();
  }
  void on_data(std::span<const uint8_t>, bool end) override {
    EM_CHECK(!sending && !ended && !reset && stream != nullptr && (server || final_head));
    EM_CHECK(reading);
    ended = end;
    act();
  }
  void on_trailers(HeadPtr) override {
    EM_CHECK(!sending && !ended && !reset && stream != nullptr);
    ended = true;
    act();
  }
  void on_reset(ResetReason, std::string_view) override {
    EM_CHECK(!sending && !reset && stream != nullptr && !(ended && sent_end));
    reset = true;
    act();
  }
  void on_writable() override {
    EM_CHECK(!sending && !reset && stream != nullptr);
    act();
  }

  void act() {
    if (stream == nullptr) return;
    uint8_t action = script.next();
    if ((action & 0x10) != 0) {
      reading = !reading;
      stream->set_reading(reading);
    }
    switch (action & 7) {
      case 1: return stream.reset();
      case 2: send(100, false); break;
      case 3: send(60000, false); break;
      case 4: trailers(); break;
      case 5: send(0, true); break;
      case 6:
        if (on_six) return on_six();
        break;
      default:
        if (ended) send(10, true);
    }
  }
  void head(bool end) {
    if (sent_head) return;
    sent_head = true;
    HeadPtr h = take_head();
    h->status = 200;
    stream->send_head(*h, end);
    sent_end = sent_end || end;
  }
  void send(size_t bytes, bool end) {
    if (server) head(false);
    sending = true;
    stream->send_data(io::as_bytes(std::string(bytes, 'x')), end);
    sending = false;
    sent_end = sent_end || end;
  }
  void trailers() {
    if (server) head(false);
    HeadPtr t = take_head();
    t->add("t", "1");
    stream->send_trailers(*t);
    sent_end = true;
  }

  StreamPtr stream;
  Script& script;
  std::function<void()> on_six;
  bool server;
  bool reading = true;
  bool final_head = false;
  bool sent_head = false;
  bool sent_end = false;
  bool ended = false;
  bool reset = false;
  static inline bool sending = false;  // no callback comes within
};

using Exchanges = std::vector<std::unique_ptr<Exchange>>;

struct Server final : HttpServerConnection::Handler {
  explicit Server(Script& s) : script(s) {}
  void on_request(StreamPtr stream, HeadPtr head, bool end) override {
    EM_CHECK(!closed && head->method.size() > 0);
    uint8_t action = script.next();
    if (action == 0xff) return;
    exchanges.push_back(std::make_unique<Exchange>(script, true));
    Exchange& exchange = *exchanges.back();
    exchange.stream = std::move(stream);
    exchange.stream->set_handler(&exchange);
    exchange.ended = end;
    exchange.on_six = [this] {
      if (connection != nullptr && script.next() % 8 == 0)
        connection.reset();
      else if (connection != nullptr)
        connection->drain();
    };
    exchange.act();
  }
  void on_bad_request(int, std::string_view) override { EM_CHECK(!closed); }
  void on_closed() override {
    EM_CHECK(!closed);
    closed = true;
    if (script.next() % 2 == 0) connection.reset();
  }
  Script& script;
  bool closed = false;
  Exchanges exchanges;
  std::unique_ptr<HttpServerConnection> connection;
};

struct Client final : HttpClientConnection::Handler {
  explicit Client(Script& s) : script(s) {}
  void on_connected() override {}
  void on_available() override {
    EM_CHECK(!closed);
    if (script.next() % 4 == 3) open(false);
  }
  void on_closed(const Error& error) override {
    EM_CHECK(!closed && !error.message.empty());
    closed = true;
  }
  void open(bool tunnel) {
    if (exchanges.size() > 20) return;
    auto exchange = std::make_unique<Exchange>(script, false);
    exchange->stream = connection->open(exchange.get());
    if (exchange->stream == nullptr) return;
    HeadPtr head = take_head();
    head->method = "GET";
    head->path = "/";
    head->authority = "h";
    if (tunnel) head->protocol = "websocket";
    exchange->sent_end = !tunnel && script.next() % 2 == 0;
    exchange->stream->send_head(*head, exchange->sent_end);
    exchanges.push_back(std::move(exchange));
  }
  Script& script;
  bool closed = false;
  Exchanges exchanges;
  std::unique_ptr<HttpClientConnection> connection;
};

ManualClock& clock_() {
  static ManualClock it;
  return it;
}
io::Loop& loop() {
  static auto it = io::Loop::create(clock_()).value();
  return *it;
}

void turns(int n) {
  for (int i = 0; i < n; ++i) loop().run_once();
}

// Users act between the turns, too.
void send(test::Collector& peer, std::string_view text, bool pieces, Exchanges& exchanges) {
  size_t step = pieces ? 7 : text.size();
  for (size_t i = 0; i < text.size(); i += step) {
    peer.send(text.substr(i, step));
    if (i % 3 == 0) turns(1);
    for (size_t j = 0; j < exchanges.size() && j < 4; ++j)
      loop().defer([&exchanges, j] {
        if (j < exchanges.size()) exchanges[j]->act();
      });
    turns(1);
  }
  turns(8);
  EM_CHECK(peer.received.size() < (8U << 20));
}

void serve(Script script, std::string_view text, bool pieces) {
  WriteBatch batch(loop());
  auto [near, far] = test::MemoryStream::pair(loop());
  test::Collector peer(std::move(far));
  Server server(script);
  server.connection = make_h2_server(loop(), batch, std::move(near), {}, &server);
  peer.send(std::string_view("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33));
  send(peer, text, pieces, server.exchanges);
  if (script.next() % 2 == 0) peer.finish();
  turns(4);
  clock_().advance(std::chrono::seconds(70));
  turns(4);
  server.exchanges.clear();
  turns(4);
  if (server.connection != nullptr) EM_CHECK(server.connection->active_streams() <= 100);
  server.connection.reset();
  turns(4);
}

void ask(Script script, std::string_view text, bool pieces) {
  WriteBatch batch(loop());
  auto [near, far] = test::MemoryStream::pair(loop());
  test::Collector peer(std::move(far));
  Client client(script);
  H2ClientOptions options;
  options.ping_interval = std::chrono::seconds(20);
  client.connection = make_h2_client(loop(), batch, std::move(near), options, &client);
  for (bool tunnel : {false, true, false}) client.open(tunnel);
  turns(4);
  send(peer, text, pieces, client.exchanges);
  if (script.next() % 2 == 0) peer.finish();
  turns(4);
  clock_().advance(std::chrono::seconds(70));
  turns(4);
  client.exchanges.clear();
  turns(4);
  client.connection.reset();
  turns(4);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 16384) return 0;
  std::string_view text = io::as_text({data, size});
  size_t script_bytes = std::min<size_t>(data[0] & 15, size - 1);
  Script script(text.substr(1, script_bytes));
  bool pieces = (data[0] & 0x80) != 0;
  std::string_view frames = text.substr(1 + script_bytes);
  serve(script, frames, pieces);
  ask(script, frames, pieces);
  return 0;
}
