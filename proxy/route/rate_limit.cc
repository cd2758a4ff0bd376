#include <algorithm>

#include "proxy/route/format.h"
#include "proxy/route/policies.h"
#include "proxy/upstream/hash.h"

namespace edgemesh::proxy {

TokenBucket::TokenBucket(uint32_t max_tokens, uint32_t per_fill, Duration interval)
    : max_(std::max<uint32_t>(max_tokens, 1)),
      per_token_(std::clamp<int64_t>(interval.count() / std::max<uint32_t>(per_fill, 1), 1,
                                     INT64_MAX / 4 / max_)) {}

bool TokenBucket::take(TimePoint now) {
  const int64_t at = now.time_since_epoch().count();
  int64_t full = full_at_.load(std::memory_order_relaxed);
  while (true) {
    const int64_t next = std::max(full, at) + per_token_;
    if (next - at > full_span()) return false;
    if (full_at_.compare_exchange_weak(full, next, std::memory_order_relaxed)) return true;
  }
}

Duration TokenBucket::until_full(TimePoint now) const {
  const int64_t at = now.time_since_epoch().count();
  return Duration(std::max(full_at_.load(std::memory_order_relaxed), at) - at);
}

uint32_t TokenBucket::left(TimePoint now) const {
  return static_cast<uint32_t>(
      std::max<int64_t>((full_span() - until_full(now).count()) / per_token_, 0));
}

RateLimiter::RateLimiter(model::Part<model::LocalRateLimit> spec)
    : spec_(std::move(spec)),
      bucket_(spec_->max_tokens, spec_->tokens_per_fill, spec_->fill_interval) {}

std::unique_ptr<TokenBucket> RateLimiter::make_bucket() const {
  return std::make_unique<TokenBucket>(spec_->max_tokens, spec_->tokens_per_fill,
                                       spec_->fill_interval);
}

RateLimiter::Verdict RateLimiter::check(TimePoint now, uint64_t random, TokenBucket* own) const {
  constexpr uint64_t kEnabledDraw = 3, kEnforcedDraw = 4;
  if (mix64(random + kEnabledDraw) % model::kAlways >= spec_->enabled) return Verdict::kPass;
  TokenBucket& bucket = own != nullptr ? *own : bucket_;
  if (bucket.take(now)) return Verdict::kPass;
  return mix64(random + kEnforcedDraw) % model::kAlways < spec_->enforced
             ? Verdict::kOver
             : Verdict::kOverNotEnforced;
}

void RateLimiter::add_fields(TimePoint now, bool refused, Head* answer) const {
  if (spec_->draft_headers) {
    thread_local std::string text;
    const auto put = [&](std::string_view name, uint64_t value) {
      text.clear();
      append_number(value, &text);
      answer->set(name, text);
    };
    put("x-ratelimit-limit", spec_->max_tokens);
    put("x-ratelimit-remaining", bucket_.left(now));
    put("x-ratelimit-reset",
        static_cast<uint64_t>(
            std::chrono::ceil<std::chrono::seconds>(bucket_.until_full(now)).count()));
  }
  if (!refused) return;
  for (const auto& [name, value] : spec_->response_headers) answer->add(name, value);
}

}  // namespace edgemesh::proxy
