// Retries and times: what may be tried again, after which pause, and how long all of it may take.
// Immutable and thread-safe.
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "proxy/model/route.h"
#include "proxy/route/matchers.h"

namespace edgemesh::proxy {

// How a try ended.
enum class TryResult : uint8_t {
  kAnswer,          // a head came
  kConnectFailure,  // there was no connection
  kRefused,         // REFUSED_STREAM, GOAWAY before it
  kReset,           // the connection or the stream was lost before a head came
  kTimeout,         // of this try
};

class RetryRules {
 public:
  static Result<std::shared_ptr<const RetryRules>> make(model::Part<model::RetryPolicy> spec);
  const model::RetryPolicy& spec() const { return *spec_; }
  // Asked once for each request: the policy may be for some requests only.
  bool allows(const Head& request) const;
  // `answer` is null unless kAnswer. `request_sent`: a byte of the request left. The caller sees to
  // attempts, budgets, and whether the body can be sent again.
  bool should_retry(TryResult result, const Head* answer, bool request_sent) const;
  // Before try `attempt` (1 is the first retry): full jitter below an exponential bound.
  Duration backoff(uint32_t attempt, uint64_t random) const;

 private:
  bool retries_answer(const Head& answer) const;
  model::Part<model::RetryPolicy> spec_;
  std::vector<FieldMatcher> headers_, request_headers_;
};

// gRPC: "10S", "250m"; at most 8 digits and a unit H M S m u n. Absent: not of that form.
std::optional<Duration> parse_grpc_timeout(std::string_view text);
// The request's time as a whole; 0: none.
Duration route_timeout(const model::Timeouts& timeouts, const Head& request);
// Of one try; 0: the request's.
Duration try_timeout(const model::RetryPolicy* policy, Duration whole);
// HTTP status to gRPC status, as gRPC documents it.
int grpc_status_of_http(int status);

}  // namespace edgemesh::proxy
