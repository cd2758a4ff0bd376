#include <algorithm>
#include <charconv>

#include "proxy/route/policies.h"
#include "proxy/upstream/hash.h"

namespace edgemesh::proxy {

Result<std::shared_ptr<const CorsRules>> CorsRules::make(model::Part<model::Cors> spec) {
  auto out = std::make_shared<CorsRules>();
  EM_TRY(out->origins_, compile_texts(spec->origins));
  out->spec_ = std::move(spec);
  return std::shared_ptr<const CorsRules>(std::move(out));
}

CorsRules::Verdict CorsRules::check(const Head& request) const {
  const std::string_view origin = request.get("origin");
  if (origin.empty()) return Verdict::kNone;
  const bool preflight =
      request.method == "OPTIONS" && !request.get("access-control-request-method").empty();
  if (any_matches(origins_, origin)) return preflight ? Verdict::kPreflight : Verdict::kAllowed;
  return preflight && !spec_->forward_unmatched_preflight ? Verdict::kPreflight : Verdict::kNone;
}

void CorsRules::preflight_fields(const Head& request, Head* answer) const {
  const std::string_view origin = request.get("origin");
  if (!any_matches(origins_, origin)) return;
  answer->set("access-control-allow-origin", origin);
  if (spec_->credentials) answer->set("access-control-allow-credentials", "true");
  if (!spec_->methods.empty()) answer->set("access-control-allow-methods", spec_->methods);
  if (!spec_->headers.empty()) answer->set("access-control-allow-headers", spec_->headers);
  if (!spec_->max_age.empty()) answer->set("access-control-max-age", spec_->max_age);
  if (spec_->private_network && request.get("access-control-request-private-network") == "true")
    answer->set("access-control-allow-private-network", "true");
  answer->add("vary", "origin");
}

void CorsRules::add_fields(std::string_view origin, Head* answer) const {
  answer->set("access-control-allow-origin", origin);
  if (spec_->credentials) answer->set("access-control-allow-credentials", "true");
  if (!spec_->expose.empty()) answer->set("access-control-expose-headers", spec_->expose);
  answer->add("vary", "origin");
}

Result<std::shared_ptr<const FaultRules>> FaultRules::make(model::Part<model::Fault> spec) {
  auto out = std::make_shared<FaultRules>();
  EM_TRY(out->headers_, compile_fields(spec->headers));
  out->spec_ = std::move(spec);
  return std::shared_ptr<const FaultRules>(std::move(out));
}

namespace {

// A number from a field, within the limits; -1: none.
int number_of(std::string_view text, int min, int max) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && value >= min && value <= max ? value : -1;
}

// Independent draws from one random number.
bool drawn(uint64_t random, uint64_t which, model::PerMillion share) {
  return mix64(random + which * 0x9e3779b97f4a7c15ULL) % model::kAlways < share;
}

}  // namespace

FaultRules::Decision FaultRules::decide(const Head& request, uint64_t random) const {
  Decision out;
  if (!all_match(headers_, request)) return out;
  if (!spec_->off_header.empty() && request.has(spec_->off_header)) return out;
  Duration delay = spec_->delay;
  int status = spec_->abort_status;
  int grpc = spec_->abort_grpc;
  if (spec_->by_header) {
    constexpr int kMaxDelayMs = 3'600'000;
    const int ms = number_of(request.get("x-envoy-fault-delay-request"), 0, kMaxDelayMs);
    if (ms >= 0) delay = std::chrono::milliseconds(ms);
    const int asked = number_of(request.get("x-envoy-fault-abort-request"), 200, 599);
    if (asked >= 0) status = asked;
    const int asked_grpc = number_of(request.get("x-envoy-fault-abort-grpc-request"), 0, 16);
    if (asked_grpc >= 0) grpc = asked_grpc;
  }
  if (drawn(random, 1, spec_->delay_share)) out.delay = delay;
  if (drawn(random, 2, spec_->abort_share)) {
    out.abort_grpc = grpc;
    out.abort_status = grpc >= 0 ? 200 : status;
  }
  return out;
}

bool FaultRules::begin() const {
  if (active_.fetch_add(1, std::memory_order_relaxed) < spec_->max_active) return true;
  end();
  return false;
}

}  // namespace edgemesh::proxy
