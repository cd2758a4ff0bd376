#include "proxy/route/retry.h"

#include <algorithm>
#include <charconv>

namespace edgemesh::proxy {

namespace on = model::retry_on;

Result<std::shared_ptr<const RetryRules>> RetryRules::make(model::Part<model::RetryPolicy> spec) {
  auto out = std::make_shared<RetryRules>();
  EM_TRY(out->headers_, compile_fields(spec->headers));
  EM_TRY(out->request_headers_, compile_fields(spec->request_headers));
  out->spec_ = std::move(spec);
  return std::shared_ptr<const RetryRules>(std::move(out));
}

bool RetryRules::allows(const Head& request) const {
  return request_headers_.empty() || any_matches(request_headers_, request);
}

bool RetryRules::retries_answer(const Head& answer) const {
  const uint32_t bits = spec_->on;
  const int status = answer.status;
  if ((bits & on::k5xx) != 0 && status >= 500) return true;
  if ((bits & on::kGatewayError) != 0 && status >= 502 && status <= 504) return true;
  if ((bits & on::kRetriable4xx) != 0 && status == 409) return true;
  if ((bits & on::kStatuses) != 0 &&
      std::binary_search(spec_->statuses.begin(), spec_->statuses.end(), status))
    return true;
  if ((bits & on::kHeaders) != 0 && any_matches(headers_, answer)) return true;
  constexpr uint32_t kGrpc = on::kGrpcCancelled | on::kGrpcDeadline | on::kGrpcInternal |
                             on::kGrpcExhausted | on::kGrpcUnavailable;
  if ((bits & kGrpc) == 0) return false;
  const std::string_view grpc = answer.get("grpc-status");
  return ((bits & on::kGrpcCancelled) != 0 && grpc == "1") ||
         ((bits & on::kGrpcDeadline) != 0 && grpc == "4") ||
         ((bits & on::kGrpcExhausted) != 0 && grpc == "8") ||
         ((bits & on::kGrpcInternal) != 0 && grpc == "13") ||
         ((bits & on::kGrpcUnavailable) != 0 && grpc == "14");
}

bool RetryRules::should_retry(TryResult result, const Head* answer, bool request_sent) const {
  const uint32_t bits = spec_->on;
  switch (result) {
    case TryResult::kAnswer: return answer != nullptr && retries_answer(*answer);
    case TryResult::kConnectFailure:
      return (bits & (on::k5xx | on::kGatewayError | on::kConnectFailure | on::kReset |
                      on::kResetBeforeRequest)) != 0;
    case TryResult::kRefused:
      return (bits & (on::k5xx | on::kGatewayError | on::kRefusedStream | on::kReset)) != 0 ||
             (!request_sent && (bits & on::kResetBeforeRequest) != 0);
    case TryResult::kReset:
      return (bits & (on::k5xx | on::kGatewayError | on::kReset)) != 0 ||
             (!request_sent && (bits & on::kResetBeforeRequest) != 0);
    case TryResult::kTimeout: return (bits & (on::k5xx | on::kGatewayError)) != 0;
  }
  return false;
}

Duration RetryRules::backoff(uint32_t attempt, uint64_t random) const {
  const Duration base = std::max<Duration>(spec_->base_interval, std::chrono::milliseconds(1));
  const Duration max =
      std::max(base, spec_->max_interval > Duration::zero() ? spec_->max_interval : base * 10);
  Duration bound = base;
  for (uint32_t i = 1; i < attempt && bound < max; ++i) bound = bound > max / 2 ? max : bound * 2;
  bound = std::min(bound, max);
  return Duration(static_cast<int64_t>(random % static_cast<uint64_t>(bound.count())));
}

std::optional<Duration> parse_grpc_timeout(std::string_view text) {
  constexpr size_t kMaxDigits = 8;
  if (text.size() < 2 || text.size() > kMaxDigits + 1) return std::nullopt;
  uint32_t number = 0;
  const char* end = text.data() + text.size() - 1;
  const auto [at, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || at != end) return std::nullopt;
  int64_t unit = 0;
  switch (*end) {
    case 'H': unit = 3'600'000'000'000; break;
    case 'M': unit = 60'000'000'000; break;
    case 'S': unit = 1'000'000'000; break;
    case 'm': unit = 1'000'000; break;
    case 'u': unit = 1'000; break;
    case 'n': unit = 1; break;
    default: return std::nullopt;
  }
  int64_t total = 0;  // 99999999H is more than a Duration holds
  if (__builtin_mul_overflow(int64_t{number}, unit, &total)) return Duration::max();
  return Duration(total);
}

Duration route_timeout(const model::Timeouts& timeouts, const Head& request) {
  const Duration whole = timeouts.max_stream.value_or(timeouts.route);
  if (!timeouts.max_grpc || !is_grpc(request)) return whole;
  const auto asked = parse_grpc_timeout(request.get("grpc-timeout"));
  if (!asked) return whole;
  Duration out = *asked;
  if (*timeouts.max_grpc > Duration::zero()) out = std::min(out, *timeouts.max_grpc);
  // A request whose time is up already fails at once, not never.
  return std::max<Duration>(out - timeouts.grpc_offset, std::chrono::milliseconds(1));
}

Duration try_timeout(const model::RetryPolicy* policy, Duration whole) {
  if (policy == nullptr || policy->per_try_timeout <= Duration::zero()) return Duration::zero();
  const bool useless = whole > Duration::zero() && policy->per_try_timeout >= whole;
  return useless ? Duration::zero() : policy->per_try_timeout;
}

int grpc_status_of_http(int status) {
  switch (status) {
    case 400: return 13;
    case 401: return 16;
    case 403: return 7;
    case 404: return 12;
    case 429:
    case 502:
    case 503:
    case 504: return 14;
    default: return 2;
  }
}

}  // namespace edgemesh::proxy
