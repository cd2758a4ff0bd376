// SubRequest: a request that the proxy itself makes of a cluster (external authorization, a key set, a
// mirrored request), with the clusters and the pool of its worker. The answer comes whole, bounded.
// Destroying it before it is done cancels it. Threads: the worker's loop.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/function.h"
#include "proxy/http/stream.h"
#include "proxy/upstream/pool.h"

namespace edgemesh::proxy {

class L7Worker;

struct SubAnswer {
  HeadPtr head;
  std::string body;
};

struct SubRequestOptions {
  std::string_view cluster;
  Duration timeout{};  // of all of it; must be more than zero
  size_t max_answer = 64 * 1024;
  bool keep_answer = true;  // else its body is read and dropped
};

class SubRequest final : public HttpStream::Handler, public PoolWaiter {
 public:
  using Done = UniqueFunction<void(Result<SubAnswer>)>;
  // `head` and `body` are the request's. `done` runs once, in a later turn at the earliest, and may
  // destroy the object.
  static std::unique_ptr<SubRequest> start(L7Worker& worker, const SubRequestOptions& options,
                                           HeadPtr head, std::vector<uint8_t> body, Done done);
  ~SubRequest() override = default;

 private:
  SubRequest(L7Worker& worker, const SubRequestOptions& options, HeadPtr head,
             std::vector<uint8_t> body, Done done);
  Result<> begin(std::string_view cluster);
  void send(StreamPtr stream);
  void end(Result<SubAnswer> result);
  void on_pool_stream(StreamPtr stream, const ConnectionInfo&) override;
  void on_pool_failure(PoolFailure failure, const Error& error) override;
  void on_head(HeadPtr head, bool end) override;
  void on_data(std::span<const uint8_t> data, bool end) override;
  void on_trailers(HeadPtr) override;
  void on_reset(ResetReason reason, std::string_view detail) override;
  void on_writable() override {}

  L7Worker& worker_;
  HeadPtr request_;
  std::vector<uint8_t> body_;
  Done done_;
  size_t max_answer_;
  bool keep_answer_;
  HostRef host_;
  RequestTicket ticket_;
  StreamPtr stream_;
  SubAnswer answer_;
  Result<SubAnswer> failed_;  // what began badly and is told by the timer
  bool failed_at_once_ = false;
  io::Timer timer_;
};

}  // namespace edgemesh::proxy
