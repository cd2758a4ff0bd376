#include "proxy/route/policies.h"

#include "core/base/clock.h"
#include "proxy/upstream/hash.h"

namespace edgemesh::proxy {

namespace {

template <class T>
const model::Part<T>& either(const model::Part<T>& inner, const model::Part<T>& outer) {
  return inner.get() != nullptr ? inner : outer;
}

}  // namespace

Result<std::shared_ptr<const AuthzRules>> AuthzRules::make(model::Part<model::ExtAuthz> spec) {
  auto out = std::make_shared<AuthzRules>();
  EM_TRY(out->request_, compile_texts(spec->request_headers));
  EM_TRY(out->upstream_, compile_texts(spec->upstream_headers));
  EM_TRY(out->client_, compile_texts(spec->client_headers));
  out->spec_ = std::move(spec);
  return std::shared_ptr<const AuthzRules>(std::move(out));
}

Result<std::shared_ptr<const Policies>> Policies::make(const model::RoutePolicies& spec,
                                                       const model::RoutePolicies& outer,
                                                       const Policies* previous) {
  auto out = std::make_shared<Policies>();
  if (const auto& cors = either(spec.cors, outer.cors); cors.get() != nullptr) {
    EM_TRY(out->cors, CorsRules::make(cors));
  }
  if (const auto& fault = either(spec.fault, outer.fault); fault.get() != nullptr) {
    EM_TRY(out->fault, FaultRules::make(fault));
  }
  if (const auto& limit = either(spec.rate_limit, outer.rate_limit); limit.get() != nullptr) {
    if (previous != nullptr && previous->rate_limit && previous->rate_limit->spec() == *limit)
      out->rate_limit = previous->rate_limit;
    else
      out->rate_limit = std::make_shared<RateLimiter>(limit);
  }
  if (const auto& rbac = either(spec.rbac, outer.rbac); rbac.get() != nullptr) {
    EM_TRY(out->rbac, RbacEngine::make(rbac));
  }
  out->jwt = either(spec.jwt, outer.jwt);
  if (const auto& authz = either(spec.ext_authz, outer.ext_authz); authz.get() != nullptr) {
    EM_TRY(out->ext_authz, AuthzRules::make(authz));
  }
  out->compression = either(spec.compression, outer.compression);
  out->no_ext_authz = spec.no_ext_authz || (outer.no_ext_authz && spec.ext_authz == nullptr);
  out->no_jwt = spec.no_jwt || (outer.no_jwt && spec.jwt == nullptr);
  out->no_rbac = spec.no_rbac || (outer.no_rbac && spec.rbac == nullptr);
  out->no_compression =
      spec.no_compression || (outer.no_compression && spec.compression == nullptr);
  const bool any = out->cors || out->fault || out->rate_limit || out->rbac ||
                   out->jwt.get() != nullptr || out->ext_authz != nullptr ||
                   out->compression.get() != nullptr || out->no_ext_authz || out->no_jwt ||
                   out->no_rbac || out->no_compression;
  if (!any) return std::shared_ptr<const Policies>();
  return std::shared_ptr<const Policies>(std::move(out));
}

Result<std::shared_ptr<const Policies>> Policies::make(const model::HttpChain& chain,
                                                       const Policies* previous) {
  model::RoutePolicies spec;
  spec.cors = chain.cors;
  spec.fault = chain.fault;
  spec.rate_limit = chain.rate_limit;
  spec.rbac = chain.rbac;
  spec.ext_authz = chain.ext_authz;
  spec.compression = chain.compression;
  return make(spec, {}, previous);
}

std::optional<uint64_t> request_hash(const std::vector<model::HashPolicy>& policies,
                                     const Head& request, const Facts& facts,
                                     std::string* set_cookie) {
  using Kind = model::HashPolicy::Kind;
  std::optional<uint64_t> out;
  for (const auto& policy : policies) {
    std::optional<uint64_t> one;
    std::string_view value;
    switch (policy.kind) {
      case Kind::kHeader:
        if (field_value(request, policy.name, &value)) one = hash64(value);
        break;
      case Kind::kSourceIp: one = hash64(facts.client); break;
      case Kind::kQuery:
        if (find_query(query_of(request.path), policy.name, &value)) one = hash64(value);
        break;
      case Kind::kCookie:
        if (find_cookie(request, policy.name, &value)) {
          one = hash64(value);
        } else if (policy.cookie_ttl && set_cookie != nullptr) {
          const std::string made = fmt::format("{:016x}", mix64(facts.random));
          one = hash64(made);
          *set_cookie = fmt::format("{}=\"{}\"", policy.name, made);
          if (*policy.cookie_ttl > Duration::zero())
            *set_cookie += fmt::format(
                "; Max-Age={}",
                std::chrono::duration_cast<std::chrono::seconds>(*policy.cookie_ttl).count());
          if (!policy.cookie_path.empty()) *set_cookie += "; Path=" + policy.cookie_path;
          *set_cookie += "; HttpOnly";
        }
        break;
    }
    if (!one) continue;
    out = out ? mix64(*out) ^ *one : *one;
    if (policy.terminal) break;
  }
  return out;
}

}  // namespace edgemesh::proxy
