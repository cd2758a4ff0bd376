// What the tests of the HTTP/1 codecs share: handlers that write down what they are told.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "proxy/http/h1_client.h"
#include "proxy/http/h1_server.h"
#include "tests/support/memory_stream.h"

namespace edgemesh::proxy::h1test {

inline std::string text_of(const Head& head) {
  std::string out = head.status != 0 ? std::to_string(head.status)
                                     : std::string(head.method) + " " + std::string(head.scheme) +
                                           " " + std::string(head.authority) + " " +
                                           std::string(head.path);
  if (!head.protocol.empty()) out += " [" + std::string(head.protocol) + "]";
  for (const FieldView& field : head.fields())
    out += "\n" + std::string(field.name) + ": " + std::string(field.value);
  return out;
}

// One side of an exchange.
struct Side final : HttpStream::Handler {
  StreamPtr stream;
  HeadPtr head;  // the request's or the final answer's
  std::vector<std::string> informational;
  std::string body;
  std::string trailers;
  std::string reset;
  ResetReason reason{};
  bool ended = false;
  int writable = 0;
  std::function<void()> on_any;  // after each callback

  void on_head(HeadPtr h, bool end) override {
    if (h->status < 200 && h->status != 101)
      informational.push_back(text_of(*h));
    else
      head = std::move(h);
    ended = end;
    if (on_any) on_any();
  }
  void on_data(std::span<const uint8_t> data, bool end) override {
    body += io::as_text(data);
    ended = end;
    if (on_any) on_any();
  }
  void on_trailers(HeadPtr t) override {
    for (const FieldView& f : t->fields())
      trailers += std::string(f.name) + "=" + std::string(f.value) + ";";
    ended = true;
    if (on_any) on_any();
  }
  void on_reset(ResetReason r, std::string_view detail) override {
    reason = r;
    reset = detail;
    if (on_any) on_any();
  }
  void on_writable() override { ++writable; }
};

inline void answer(HttpStream& stream, int status, std::string_view body) {
  HeadPtr head = take_head();
  head->status = status;
  head->set_length(body.size());
  stream.send_head(*head, body.empty());
  if (!body.empty()) stream.send_data(io::as_bytes(body), true);
}

struct ServerSide final : HttpServerConnection::Handler {
  std::vector<std::unique_ptr<Side>> requests;
  std::vector<int> bad;
  std::string why;
  bool closed = false;
  bool echo = false;     // answers by itself when the request is whole
  bool destroy = false;  // the connection in on_closed
  std::unique_ptr<HttpServerConnection> connection;
  std::function<void(Side&)> hook;

  void on_request(StreamPtr stream, HeadPtr head, bool end) override {
    requests.push_back(std::make_unique<Side>());
    Side* side = requests.back().get();
    side->head = std::move(head);
    side->ended = end;
    stream->set_handler(side);
    side->stream = std::move(stream);
    if (hook) hook(*side);
    if (!echo) return;
    auto reply = [side] {
      if (!side->ended || !side->stream || !side->reset.empty()) return;
      answer(*side->stream, 200, std::string(side->head->path) + "|" + side->body);
      side->stream.reset();
    };
    side->on_any = reply;
    reply();
  }
  void on_bad_request(int status, std::string_view text) override {
    bad.push_back(status);
    why = text;
  }
  void on_h2c(std::unique_ptr<io::Stream> stream, HeadPtr first, std::string_view settings,
              std::string_view ahead) override {
    if (h2c) connection = h2c(std::move(stream), std::move(first), settings, ahead);
  }
  void on_closed() override {
    closed = true;
    if (destroy) connection.reset();
  }
  std::function<std::unique_ptr<HttpServerConnection>(std::unique_ptr<io::Stream>, HeadPtr,
                                                      std::string_view, std::string_view)>
      h2c;
};

struct ClientSide final : HttpClientConnection::Handler {
  std::unique_ptr<HttpClientConnection> connection;
  int connected = 0;
  int available = 0;
  bool closed = false;
  Error error;
  void on_connected() override { ++connected; }
  void on_available() override { ++available; }
  void on_closed(const Error& e) override {
    closed = true;
    error = e;
  }
};

}  // namespace edgemesh::proxy::h1test
