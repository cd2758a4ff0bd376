// HTTP/1.1 client on one loop: keep-alive pool per authority, TLS, whole or streamed answers.
// Names are resolved by getaddrinfo on the loop's pool; each address is tried in turn.
// A request that found its pooled connection closed before any byte of the answer is sent again
// once on a new connection when that is safe (idempotent method). No redirects are followed, no
// proxies. Threads: everything on the loop given. Callbacks never run from within request() or
// stream().
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/function.h"
#include "core/http/message.h"
#include "core/io/loop.h"
#include "core/tls/context.h"

namespace edgemesh::http {

struct ClientOptions {
  std::shared_ptr<tls::Context> tls;                    // for https; null: the system's CAs
  Duration connect_timeout = std::chrono::seconds(5);   // each address, and the TLS handshake
  Duration request_timeout = std::chrono::seconds(30);  // whole exchange of request(); 0: none
  Duration idle_timeout = std::chrono::seconds(60);     // pooled connections
  size_t max_idle_per_authority = 4;
  size_t max_per_authority = 32;  // more requests wait; streams do not count
  size_t max_waiting = 1024;
  size_t max_body = 32 << 20;  // of an answer to request()
  size_t max_head = 64 << 10;
  uint32_t mark = 0;  // SO_MARK
};

struct ClientRequest {
  std::string method = "GET";
  std::string url;
  Headers headers;                  // Host, Content-Length and Connection are set by the client
  std::string body;                 // sent with any method, GET too
  std::optional<Duration> timeout;  // instead of request_timeout; for streams: until the head
  // Accepts any certificate, for this request only, on a connection of its own. For fetching a CA
  // whose hash is checked afterwards; never for anything secret.
  bool insecure = false;
  std::string server_name;  // name to check in the certificate, instead of the URL's host
};

// A running exchange. Destroying it cancels: no callback runs afterwards. Allowed in its callbacks.
class Call {
 public:
  virtual ~Call() = default;
  // Stops and starts reading of the answer's body: back-pressure up to the server.
  virtual void pause() {}
  virtual void resume() {}
};

struct StreamHandler {
  // The head came; `body` of the response is empty. Always before on_data.
  UniqueFunction<void(const Response& head)> on_head;
  UniqueFunction<void(std::string_view data)> on_data;
  // Once: the whole body came (a value), or the exchange failed.
  UniqueFunction<void(Result<> result)> on_end;
};

class Client {
 public:
  Client(io::Loop& loop, ClientOptions options);
  ~Client();  // cancels everything: callbacks do not run
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Any status is a value; errors are failures of transport, protocol or limits.
  void request(ClientRequest request, UniqueFunction<void(Result<Response>)> done);
  // The same, cancellable: destroy the handle and `done` never runs.
  [[nodiscard]] std::unique_ptr<Call> call(ClientRequest request,
                                           UniqueFunction<void(Result<Response>)> done);
  // For watches and large bodies. The connection is its own, not from the pool.
  [[nodiscard]] std::unique_ptr<Call> stream(ClientRequest request, StreamHandler handler);

  // New connections use it; pooled ones are closed (a rotated client certificate).
  void set_tls(std::shared_ptr<tls::Context> tls);
  size_t idle_connections() const;

  struct Impl;  // for core/http only

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace edgemesh::http
