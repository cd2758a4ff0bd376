// Policies on a request, in this order: CORS (preflights carry no credentials), JWT, external
// authorization, RBAC, rate limit, fault. Each lets pass, answers, or waits and goes on later.
#include <algorithm>

#include "core/http/message.h"
#include "proxy/exchange/exchange.h"
#include "proxy/exchange/http_connection.h"
#include "proxy/exchange/l7_worker.h"
#include "proxy/route/mutations.h"

namespace edgemesh::proxy {

void Exchange::run_policies() {
  constexpr uint32_t kSteps = 6;
  while (policy_step_ < kSteps) {
    if (check_policy(policy_step_) == Verdict::kStop) {
      if (state_ == State::kPolicies) update_reading();
      return;
    }
    ++policy_step_;
  }
  act();
}

Exchange::Verdict Exchange::check_policy(uint32_t step) {
  switch (step) {
    case 0: return check_cors();
    case 1: return check_jwt();
    case 2: return check_authz();
    case 3: return check_rbac();
    case 4: return check_rate();
    default: return check_fault();
  }
}

Exchange::Verdict Exchange::check_cors() {
  const CorsRules* cors = policy(&Policies::cors);
  if (cors == nullptr) return Verdict::kGoOn;
  switch (cors->check(*request_)) {
    case CorsRules::Verdict::kNone:
      return Verdict::kGoOn;
    case CorsRules::Verdict::kAllowed:
      cors_ = true;
      return Verdict::kGoOn;
    case CorsRules::Verdict::kPreflight:
      break;
  }
  HeadPtr answer = take_head();
  answer->status = 200;
  cors->preflight_fields(*request_, answer.get());
  detail_ = "CORS preflight";
  send_reply(std::move(answer), "");
  return Verdict::kStop;
}

Exchange::Verdict Exchange::check_rbac() {
  const RbacEngine* rbac = policy(&Policies::rbac, &Policies::no_rbac);
  if (rbac == nullptr) return Verdict::kGoOn;
  const RbacEngine::Verdict verdict = rbac->check(*request_, facts_);
  if (!verdict.shadow_allowed) worker_.stats().rbac_shadow_denied.add();
  if (verdict.allowed) return Verdict::kGoOn;
  worker_.stats().rbac_denied.add();
  const std::string_view name = verdict.policy.empty() ? "none" : verdict.policy;
  reply(403, "RBAC: access denied", 0, fmt::format("rbac_access_denied_matched_policy[{}]", name));
  return Verdict::kStop;
}

Exchange::Verdict Exchange::check_rate() {
  const RateLimiter* limiter = policy(&Policies::rate_limit);
  if (limiter == nullptr) return Verdict::kGoOn;
  TokenBucket* own = limiter->spec().per_connection ? connection_->own_bucket(*limiter) : nullptr;
  const auto now = worker_.loop().now();
  const auto verdict = limiter->check(now, facts_.random, own);
  if (verdict == RateLimiter::Verdict::kPass) return Verdict::kGoOn;
  worker_.stats().rate_limited.add();
  if (verdict == RateLimiter::Verdict::kOverNotEnforced) return Verdict::kGoOn;
  reply(limiter->spec().status, "local_rate_limited", flag::kRateLimited, "local_rate_limited");
  return Verdict::kStop;
}

Exchange::Verdict Exchange::check_fault() {
  if (fault_ != nullptr) {  // the delay is over
    act_on_fault();
    return state_ == State::kPolicies ? Verdict::kGoOn : Verdict::kStop;
  }
  const FaultRules* fault = policy(&Policies::fault);
  if (fault == nullptr) return Verdict::kGoOn;
  const FaultRules::Decision decision = fault->decide(*request_, facts_.random);
  if (!decision.any() || !fault->begin()) return Verdict::kGoOn;
  fault_ = fault;
  fault_abort_ = decision.abort_status;
  fault_grpc_ = decision.abort_grpc;
  if (decision.delay > Duration::zero()) {
    flags_ |= flag::kDelayInjected;
    set_deadline(&wake_at_, worker_.loop().now() + decision.delay);
    return Verdict::kStop;
  }
  act_on_fault();
  return state_ == State::kPolicies ? Verdict::kGoOn : Verdict::kStop;
}

void Exchange::act_on_fault() {
  if (fault_grpc_ >= 0) {
    HeadPtr answer = take_head();
    answer->status = 200;
    answer->add_kept("content-type", "application/grpc");
    answer->add("grpc-status", fmt::format("{}", fault_grpc_));
    answer->add_kept("grpc-message", "fault filter abort");
    flags_ |= flag::kFaultInjected;
    detail_ = "fault filter abort";
    return send_reply(std::move(answer), "");
  }
  if (fault_abort_ != 0)
    reply(fault_abort_, "fault filter abort", flag::kFaultInjected, "fault filter abort");
}

// A policy that waited is done.
void Exchange::resume_policies() {
  ++policy_step_;
  run_policies();
}

// ---- JSON Web Tokens.

Exchange::Verdict Exchange::check_jwt() {
  const JwtGate* gate = (*version_)->jwt.get();
  if (gate == nullptr) return Verdict::kGoOn;
  gate->clean(request_.get());
  const Policies* own = entry_->policies.get();
  if (own != nullptr && own->no_jwt) return Verdict::kGoOn;
  const bool preflight = request_->method == "OPTIONS" && request_->has("origin") &&
                         request_->has("access-control-request-method");
  if (preflight && gate->spec().bypass_cors_preflight) return Verdict::kGoOn;
  const model::JwtRequirement* of_route = own != nullptr ? own->jwt.get() : nullptr;
  const model::JwtRequirement* needed = gate->requirement(of_route, *request_, facts_);
  if (needed == nullptr) return Verdict::kGoOn;
  claims_ = std::make_unique<JwtClaims>();
  const auto wall = worker_.loop().clock().wall_now();
  const JwtGate::Verdict verdict =
      gate->check(*needed, request_.get(), claims_.get(),
                  std::chrono::system_clock::to_time_t(wall),
                  [this](const model::JwtProvider& p) { return worker_.keys().find(p); });
  using Kind = JwtGate::Verdict::Kind;
  if (verdict.kind == Kind::kFetch) {
    key_wait_.wait(worker_.keys(), *verdict.fetch, [this] { run_policies(); });
    return Verdict::kStop;
  }
  if (verdict.kind == Kind::kPass) {
    facts_.claims = claims_.get();
    return Verdict::kGoOn;
  }
  worker_.stats().jwt_denied.add();
  HeadPtr answer = take_head();
  answer->status = 401;
  answer->add("www-authenticate",
              fmt::format("Bearer realm=\"{}\"{}", request_->authority,
                          verdict.missing ? "" : ", error=\"invalid_token\""));
  answer->add_kept("content-type", "text/plain");
  flags_ |= flag::kUnauthorized;
  detail_ = "jwt_authn_access_denied";
  send_reply(std::move(answer), verdict.why);
  return Verdict::kStop;
}

// ---- External authorization.

Exchange::Verdict Exchange::check_authz() {
  const AuthzRules* authz = policy(&Policies::ext_authz, &Policies::no_ext_authz);
  if (authz == nullptr) return Verdict::kGoOn;
  authz_ = authz;
  if (authz_->spec().max_body > 0 && !request_ended_) {
    wants_body_ = true;  // take_body() goes on when it is here
    keep_body_ = true;
    if (request_->expect_continue) {  // the body is wanted before an endpoint can ask for it
      take_expectation();
      send_continue();
    }
    return Verdict::kStop;
  }
  ask_authz();
  return Verdict::kStop;
}

void Exchange::on_body_for_authz() {
  const bool too_long = body_.size() > authz_->spec().max_body;
  if (!request_ended_ && !too_long) return;
  wants_body_ = false;
  if (too_long && !authz_->spec().allow_partial)
    return reply(413, "", 0, "the body is too long for the authorization");
  ask_authz();
}

void Exchange::ask_authz() {
  HeadPtr head = take_head();
  const model::ExtAuthz& spec = authz_->spec();
  head->method = request_->method;
  head->scheme = "http";
  head->authority = head->keep(spec.host.empty() ? request_->authority : spec.host);
  const size_t size = spec.path_prefix.size() + request_->path.size();
  char* path = head->allocate(size);
  spec.path_prefix.copy(path, spec.path_prefix.size());
  request_->path.copy(path + spec.path_prefix.size(), request_->path.size());
  head->path = {path, size};
  head->method = head->keep(request_->method);
  for (const FieldView& field : request_->fields()) {
    if (http::equals_ignore_case(field.name, "authorization") ||
        authz_->sends(to_lower(field.name)))
      head->add(field.name, field.value);
  }
  for (const auto& [name, value] : spec.add_headers) head->set(name, value);
  std::vector<uint8_t> body(body_.begin(),
                            body_.begin() + static_cast<std::ptrdiff_t>(
                                                std::min<size_t>(body_.size(), spec.max_body)));
  SubRequestOptions options;
  options.cluster = spec.cluster;
  options.timeout = spec.timeout;
  sub_ = SubRequest::start(worker_, options, std::move(head), std::move(body),
                           [this](Result<SubAnswer> answer) { on_authz(std::move(answer)); });
}

void Exchange::on_authz(Result<SubAnswer> answer) {
  auto done = std::move(sub_);  // it is running: it must live until this returns
  const model::ExtAuthz& spec = authz_->spec();
  if (!answer || answer->head->status / 100 == 5) {
    worker_.stats().authz_failed.add();
    if (spec.failure_allow) return resume_policies();
    return reply(spec.failure_status, "", flag::kUnauthorized,
                 answer ? "ext_authz_error" : answer.error().message);
  }
  const Head& head = *answer->head;
  if (head.status == 200) {
    for (const FieldView& field : head.fields())
      if (authz_->takes_upstream(to_lower(field.name)) && !is_protected_field(to_lower(field.name)))
        request_->set(field.name, field.value);
    return resume_policies();
  }
  worker_.stats().authz_denied.add();
  HeadPtr refusal = take_head();
  refusal->status = head.status;
  for (const FieldView& field : head.fields())
    if (!is_protected_field(to_lower(field.name)) &&
        authz_->gives_client(to_lower(field.name)))
      refusal->add(field.name, field.value);
  flags_ |= flag::kUnauthorized;
  detail_ = "ext_authz_denied";
  send_reply(std::move(refusal), answer->body);
}

}  // namespace edgemesh::proxy
