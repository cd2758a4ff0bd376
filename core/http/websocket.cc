#include "core/http/websocket.h"

#include <openssl/sha.h>

#include "core/http/client_impl.h"
#include "core/http/websocket_core.h"
#include "core/tls/x509.h"

namespace edgemesh::http {

std::string websocket_accept(std::string_view key) {
  std::string text = std::string(key) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  std::string hash(SHA_DIGEST_LENGTH, '\0');
  SHA1(reinterpret_cast<const unsigned char*>(text.data()), text.size(),  // NOLINT
       reinterpret_cast<unsigned char*>(hash.data()));                    // NOLINT
  return tls::base64_encode(hash);
}

namespace {

class WebSocketImpl final : public WebSocket {
 public:
  WebSocketImpl(io::Loop& loop, std::unique_ptr<io::Stream> stream, bool server,
                const WebSocketOptions& options, std::shared_ptr<const tls::PeerIdentity> peer)
      : core_(std::make_shared<WebSocketCore>(loop, std::move(stream), server, options)),
        peer_(std::move(peer)) {
    core_->start();
  }
  ~WebSocketImpl() override { core_->detach(); }

  void set_handler(Handler* handler) override { core_->handler = handler; }
  Result<> send_text(std::string_view text) override { return core_->send(WSLAY_TEXT_FRAME, text); }
  Result<> send_binary(std::string_view data) override {
    return core_->send(WSLAY_BINARY_FRAME, data);
  }
  Result<> send_ping(std::string_view payload) override {
    if (payload.size() > 125)
      return fail(ErrorCode::kInvalidArgument, "a ping carries at most 125 bytes");
    return core_->send(WSLAY_PING, payload);
  }
  size_t queued_bytes() const override { return core_->queued_bytes(); }
  void close(uint16_t code, std::string_view reason) override { core_->close(code, reason); }
  void pause_reading() override { core_->pause(); }
  void resume_reading() override { core_->resume(); }
  std::shared_ptr<const tls::PeerIdentity> peer() const override { return peer_; }

 private:
  std::shared_ptr<WebSocketCore> core_;
  std::shared_ptr<const tls::PeerIdentity> peer_;
};

Result<> check_answer(const Response& head, std::string_view key) {
  if (!head.headers.has_token("connection", "upgrade") ||
      !head.headers.has_token("upgrade", "websocket"))
    return fail(ErrorCode::kProtocol, "WebSocket: the server upgraded to something else");
  if (head.headers.get_or("sec-websocket-accept", "") != websocket_accept(key))
    return fail(ErrorCode::kProtocol, "WebSocket: the server's Sec-WebSocket-Accept is wrong");
  if (!head.headers.get_or("sec-websocket-extensions", "").empty())
    return fail(ErrorCode::kProtocol, "WebSocket: the server uses an extension nobody asked for");
  return {};
}

// Returns what is wrong with an upgrade request, or null; sets the status to answer with.
const char* check_request(const Request& request, int* status) {
  *status = 400;
  if (request.method != "GET" || request.version != 11)
    return "a WebSocket opens with GET, HTTP/1.1";
  if (!request.headers.has_token("connection", "upgrade") ||
      !request.headers.has_token("upgrade", "websocket")) {
    *status = 426;
    return "this address wants a WebSocket";
  }
  if (request.headers.get_or("sec-websocket-version", "") != "13") {
    *status = 426;
    return "only WebSocket version 13 is known";
  }
  auto key = tls::base64_decode(request.headers.get_or("sec-websocket-key", ""));
  return key && key->size() == 16 ? nullptr : "Sec-WebSocket-Key is not 16 bytes in base64";
}

}  // namespace

std::unique_ptr<Call> WebSocket::connect(io::Loop& loop, std::string_view url,
                                         const Headers& headers, std::shared_ptr<tls::Context> tls,
                                         OnConnected done, const WebSocketOptions& options) {
  std::string key = tls::base64_encode(tls::random_bytes(16));
  ClientRequest request;
  request.url = url;
  request.server_name = options.server_name;
  request.headers = headers;
  request.headers.set("Connection", "Upgrade");
  request.headers.set("Upgrade", "websocket");
  request.headers.set("Sec-WebSocket-Version", "13");
  request.headers.set("Sec-WebSocket-Key", key);
  ClientOptions client;
  client.tls = std::move(tls);
  client.connect_timeout = options.connect_timeout;
  client.request_timeout = 3 * options.connect_timeout;
  client.mark = options.mark;
  return start_upgrade(
      loop, std::move(client), std::move(request),
      [&loop, key = std::move(key), options, done = std::move(done)](Result<Upgraded> upgraded) {
        if (!upgraded) return done(fail(std::move(upgraded).error()));
        if (auto ok = check_answer(upgraded->head, key); !ok)
          return done(fail(std::move(ok).error()));
        done(std::make_unique<WebSocketImpl>(loop, std::move(upgraded->stream), false, options,
                                             std::move(upgraded->peer)));
      });
}

Result<std::unique_ptr<WebSocket>> WebSocket::accept(io::Loop& loop, const Request& request,
                                                     ResponseWriter& writer,
                                                     const WebSocketOptions& options) {
  int status = 0;
  if (const char* wrong = check_request(request, &status); wrong != nullptr) {
    Headers headers{{"Content-Type", "text/plain"}};
    if (status == 426) {
      headers.add("Upgrade", "websocket");
      headers.add("Sec-WebSocket-Version", "13");
    }
    writer.respond({status, std::move(headers), std::string(wrong) + "\n"});
    return fail(ErrorCode::kProtocol, "{}", wrong);
  }
  EM_TRY(auto stream, writer.upgrade({{"Upgrade", "websocket"},
                                      {"Connection", "Upgrade"},
                                      {"Sec-WebSocket-Accept", websocket_accept(request.headers.get_or(
                                                                   "sec-websocket-key", ""))}}));
  return std::unique_ptr<WebSocket>(
      std::make_unique<WebSocketImpl>(loop, std::move(stream), true, options, request.peer));
}

std::unique_ptr<WebSocket> WebSocket::over(io::Loop& loop, std::unique_ptr<io::Stream> stream,
                                           bool server, const WebSocketOptions& options) {
  return std::make_unique<WebSocketImpl>(loop, std::move(stream), server, options, nullptr);
}

}  // namespace edgemesh::http
