// Forward: one request that was received here, sent on over a stream that carries nothing else; its
// answer goes to the one who asked, as it comes: status, fields, body with back-pressure. An answer
// of 101 hands both connections over to each other. For relays of control traffic (kubectl's
// streams to nodes and to container runtimes); the proxy has its own path for data. Threads: the
// loop given.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/http/message.h"
#include "core/http/server.h"
#include "core/io/loop.h"
#include "core/io/stream.h"

namespace edgemesh::http {

// Fields that go on are the sender's choice; Host, Content-Length and, without an upgrade,
// "Connection: close" are added.
struct ForwardRequest {
  std::string method, target;
  std::string host = "localhost";
  Headers headers;
  std::string body;
};

struct ForwardOptions {
  Duration answer_timeout = std::chrono::seconds(30);  // until the head of the answer
  Duration idle_timeout = std::chrono::hours(4);       // of an answer or upgraded connection
  Duration linger = std::chrono::minutes(2);           // see io::StreamPair
  size_t max_head = 64 << 10;
  // What the client gets when there is no answer; null: 502 with the error's text.
  std::function<Response(const Error&)> failure;
};

class Forward {
 public:
  // Once, from an event of the loop; the Forward may be destroyed in it. An error is for a log
  // line: the client has got its answer, or noticed that it is not whole.
  using Done = UniqueFunction<void(const Result<>&)>;
  // `stream` is connected or connecting.
  static std::unique_ptr<Forward> start(io::Loop& loop, ForwardRequest request,
                                        std::unique_ptr<io::Stream> stream,
                                        std::shared_ptr<ResponseWriter> writer,
                                        ForwardOptions options, Done done);
  virtual ~Forward() = default;  // cuts both connections

  // What goes on of a request or an answer that asks for or agrees to an upgrade: all but what is
  // of one connection (RFC 9110 7.6.1), and the fields that tell who asks.
  static Headers end_to_end(const Headers& headers, bool upgrade);
};

}  // namespace edgemesh::http
