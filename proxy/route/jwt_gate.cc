#include "proxy/route/jwt_gate.h"

#include "proxy/route/mutations.h"

namespace edgemesh::proxy {

namespace {

using Verdict = JwtGate::Verdict;

Verdict refuse(std::string why, bool missing = false) {
  return Verdict{Verdict::Kind::kRefuse, nullptr, missing, std::move(why)};
}

}  // namespace

Result<std::shared_ptr<const JwtGate>> JwtGate::make(model::Part<model::Jwt> spec) {
  auto out = std::make_shared<JwtGate>();
  for (const auto& provider : spec->providers) {
    Provider& made = out->providers_[provider.name];
    made.spec = &provider;
    if (provider.jwks.empty()) continue;
    auto keys = KeySet::parse(provider.jwks);
    if (!keys)
      return fail(keys.error().with_context(fmt::format("jwt provider {}", provider.name)));
    made.keys = std::move(*keys);
    made.has_keys = true;
  }
  for (const auto& rule : spec->rules) {
    EM_TRY(auto matcher, RequestMatcher::make(rule.match));
    out->rules_.push_back(std::move(matcher));
  }
  out->spec_ = std::move(spec);
  return std::shared_ptr<const JwtGate>(std::move(out));
}

void JwtGate::clean(Head* request) const {
  for (const auto& provider : spec_->providers) {
    if (!provider.payload_header.empty()) request->remove(provider.payload_header);
    for (const auto& [claim, field] : provider.claim_to_headers) request->remove(field);
  }
}

const model::JwtRequirement* JwtGate::requirement(const model::JwtRequirement* own,
                                                  const Head& request, const Facts& facts) const {
  if (own != nullptr) return own;
  for (size_t i = 0; i < rules_.size(); ++i) {
    if (!rules_[i].matches(request, facts)) continue;
    const auto& needed = spec_->rules[i].requires_token;
    return needed ? &*needed : nullptr;
  }
  return nullptr;
}

Verdict JwtGate::check(const model::JwtRequirement& requirement, Head* request, JwtClaims* claims,
                       int64_t now, const RemoteKeys& remote) const {
  Call call{request, claims, now, remote, {}};
  Verdict verdict = check_tree(requirement, call);
  if (verdict.kind == Verdict::Kind::kPass)
    for (const auto* provider : call.good) apply(*provider, call);
  return verdict;
}

Verdict JwtGate::check_one(const Provider& provider, const std::vector<std::string>& audiences,
                           Call& call) const {
  const model::JwtProvider* spec = provider.spec;
  const std::string_view token = find_jwt(*spec, *call.request);
  if (token.empty()) return refuse("Jwt is missing", true);
  const KeySet* keys = provider.has_keys ? &provider.keys : call.remote(*spec);
  if (keys == nullptr) return Verdict{Verdict::Kind::kFetch, spec, false, {}};
  Result<std::string> payload = fail(ErrorCode::kInternal, "");
  if (audiences.empty()) {
    payload = verify_jwt(*spec, *keys, token, call.now);
  } else {
    model::JwtProvider other = *spec;
    other.audiences = audiences;
    payload = verify_jwt(other, *keys, token, call.now);
  }
  if (!payload) return refuse(payload.error().message);
  call.claims->add(spec->name, std::move(*payload));
  call.good.push_back(spec);
  return {};
}

Verdict JwtGate::check_present(Call& call, bool all_fine) const {
  for (const auto& [name, provider] : providers_) {
    Verdict verdict = check_one(provider, {}, call);
    if (verdict.kind == Verdict::Kind::kFetch) return verdict;
    if (verdict.kind == Verdict::Kind::kRefuse && !verdict.missing && !all_fine) return verdict;
  }
  return {};
}

Verdict JwtGate::check_tree(const model::JwtRequirement& requirement, Call& call) const {
  using Kind = model::JwtRequirement::Kind;
  switch (requirement.kind) {
    case Kind::kProvider: {
      const auto found = providers_.find(requirement.provider);
      if (found == providers_.end()) return refuse("no such Jwt provider");
      return check_one(found->second, requirement.audiences, call);
    }
    case Kind::kAll: {
      for (const auto& part : requirement.all)
        if (Verdict verdict = check_tree(part, call); verdict.kind != Verdict::Kind::kPass)
          return verdict;
      return {};
    }
    case Kind::kAny: {
      Verdict last = refuse("Jwt is missing", true);
      for (const auto& part : requirement.all) {
        Verdict verdict = check_tree(part, call);
        if (verdict.kind != Verdict::Kind::kRefuse) return verdict;
        if (!verdict.missing || last.missing) last = std::move(verdict);
      }
      return last;
    }
    case Kind::kAllowMissing: return check_present(call, false);
    case Kind::kAllowMissingOrFailed: return check_present(call, true);
  }
  return refuse("unknown requirement");
}

// What the provider asks for when its token was good.
void JwtGate::apply(const model::JwtProvider& provider, Call& call) {
  Head& head = *call.request;
  const std::string_view token = find_jwt(provider, head);
  if (!provider.payload_header.empty()) {
    const size_t first = token.find('.'), second = token.rfind('.');
    std::string payload(token.substr(first + 1, second - first - 1));
    while (provider.pad_payload_header && payload.size() % 4 != 0) payload += '=';
    head.set(provider.payload_header, payload);
  }
  for (const auto& [claim, field] : provider.claim_to_headers) {
    std::string value;
    call.claims->any(provider.name, {claim}, [&value](std::string_view text) {
      value = text;
      return true;
    });
    if (!value.empty() && is_field_value(value)) head.set(field, value);
  }
  if (provider.forward) return;
  if (provider.from_headers.empty()) head.remove("authorization");
  for (const auto& header : provider.from_headers) head.remove(header.name);
}

}  // namespace edgemesh::proxy
