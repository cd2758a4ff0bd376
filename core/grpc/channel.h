// Channel: a gRPC client (gRPC over HTTP/2, "PROTOCOL-HTTP2") without TLS, to a unix socket or a
// TCP address. Messages are bytes: callers encode and decode them. Many calls share one connection.
//
// - The connection is opened by the first call, and anew by the first call after it broke. Calls
//   that were open when it broke fail with kUnavailable and are not repeated: whether the server
//   worked on them is not known. After GOAWAY the open calls go on, new ones get a new connection;
//   a call that the server refused unseen (RFC 9113 8.7) is sent once more by itself.
// - `done` and `on_end` run exactly once, never from within the call that started them, and never
//   after the Channel or (streams) the Call is destroyed. Both may be destroyed in any callback.
// - Errors carry the code that fits the grpc-status (see error_of_status) and the server's message.
// - Limits: bytes of a message, of an answer's headers, calls at a time.
// Threads: the loop that made it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/base/clock.h"
#include "core/base/function.h"
#include "core/base/result.h"
#include "core/io/loop.h"

namespace edgemesh::grpc {

struct ChannelOptions {
  std::string
      target;  // "unix:///run/containerd/containerd.sock", "/run/x.sock" or "10.0.0.1:50051"
  std::string authority = "localhost";
  size_t max_message = 16 << 20;  // either way
  size_t max_header_bytes = 16 << 10;
  size_t max_calls = 1024;
  Duration connect_timeout = std::chrono::seconds(5);  // TCP
};

// An open server stream. Destroying it cancels the call.
class Call {
 public:
  virtual ~Call() = default;
};

class Channel {
 public:
  using Done = UniqueFunction<void(Result<std::string>)>;
  using OnMessage = UniqueFunction<void(std::string)>;
  using OnEnd = UniqueFunction<void(Result<>)>;

  // Fails when the target cannot be understood; connects later.
  static Result<std::unique_ptr<Channel>> create(io::Loop& loop, ChannelOptions options);
  virtual ~Channel() = default;

  // `method` is "/package.Service/Method". `timeout` zero: none. The server is told the deadline;
  // when it passes, `done` gets kTimeout whatever the server does.
  virtual void unary(std::string_view method, std::string_view request, Duration timeout,
                     Done done) = 0;
  // One request, answers until the server ends the stream. Each goes to `on_message` in order.
  [[nodiscard]] virtual std::unique_ptr<Call> server_stream(std::string_view method,
                                                            std::string_view request,
                                                            OnMessage on_message, OnEnd on_end) = 0;
};

// The error for a grpc-status other than 0 with the server's text. UNIMPLEMENTED is kProtocol,
// FAILED_PRECONDITION and ABORTED are kConflict, UNKNOWN (what most servers send) is kUnavailable.
Error error_of_status(int status, std::string message);

}  // namespace edgemesh::grpc
