#include <algorithm>

#include "proxy/route/jwt.h"
#include "proxy/route/policies.h"

namespace edgemesh::proxy {

namespace {
constexpr int kMaxDepth = 16;  // of a rule's tree
using Kind = model::RbacRule::Kind;
}  // namespace

Result<RbacEngine::Node> RbacEngine::compile(const model::RbacRule& rule, int depth) {
  if (depth > kMaxDepth)
    return fail(ErrorCode::kInvalidArgument, "RBAC rules nest deeper than {}", kMaxDepth);
  if (rule.kind == Kind::kNot && rule.rules.size() != 1)
    return fail(ErrorCode::kInvalidArgument, "an RBAC 'not' needs one rule");
  Node node;
  node.spec = &rule;
  EM_TRY(node.rules, compile(rule.rules, depth + 1));
  EM_TRY(node.text, TextMatcher::make(rule.text));
  EM_TRY(node.field, FieldMatcher::make(rule.field));
  return node;
}

Result<std::vector<RbacEngine::Node>> RbacEngine::compile(const std::vector<model::RbacRule>& rules,
                                                          int depth) {
  std::vector<Node> out;
  for (const auto& rule : rules) {
    EM_TRY(Node node, compile(rule, depth));
    out.push_back(std::move(node));
  }
  return out;
}

Result<std::vector<RbacEngine::Set>> RbacEngine::compile(
    const std::vector<model::RbacRules>& sets) {
  std::vector<Set> out;
  for (const auto& rules : sets) {
    Set& set = out.emplace_back();
    set.action = rules.action;
    for (const auto& spec : rules.policies) {
      Policy& policy = set.policies.emplace_back();
      policy.spec = &spec;
      EM_TRY(policy.permissions, compile(spec.permissions, 0));
      EM_TRY(policy.principals, compile(spec.principals, 0));
    }
  }
  return out;
}

Result<std::shared_ptr<const RbacEngine>> RbacEngine::make(model::Part<model::Rbac> spec) {
  auto out = std::make_shared<RbacEngine>();
  EM_TRY(out->rules_, compile(spec->rules));
  EM_TRY(out->shadow_, compile(spec->shadow));
  out->spec_ = std::move(spec);
  return std::shared_ptr<const RbacEngine>(std::move(out));
}

bool RbacEngine::matches_request(const Node& node, const Head& head) {
  switch (node.spec->kind) {
    case Kind::kHeader: return !head.method.empty() && node.field.matches(head);
    case Kind::kPath: return !head.path.empty() && node.text.matches(path_of(head.path));
    case Kind::kMethod: return !head.method.empty() && node.text.matches(head.method);
    default: return false;
  }
}

bool RbacEngine::matches_peer(const Node& node, const Facts& facts) {
  const model::RbacRule& spec = *node.spec;
  switch (spec.kind) {
    case Kind::kPrincipal: {
      const tls::PeerIdentity* id = facts.identity;
      if (id == nullptr) return false;
      if (spec.authenticated_any) return true;
      const auto fits = [&](const std::string& name) { return node.text.matches(name); };
      if (!id->uri_sans.empty()) return std::any_of(id->uri_sans.begin(), id->uri_sans.end(), fits);
      if (!id->dns_sans.empty()) return std::any_of(id->dns_sans.begin(), id->dns_sans.end(), fits);
      return fits(id->common_name);
    }
    case Kind::kDestinationIp: return spec.cidr.contains(facts.local.ip);
    case Kind::kDestinationPort:
      return facts.local.port >= spec.first_port && facts.local.port <= spec.last_port;
    case Kind::kSni: return node.text.matches(facts.server_name);
    case Kind::kDirectSourceIp: return spec.cidr.contains(facts.peer.ip);
    case Kind::kSourceIp: return spec.cidr.contains(facts.client);
    case Kind::kJwtClaim:
      return facts.claims != nullptr &&
             facts.claims->any(spec.jwt_provider, spec.claim,
                               [&](std::string_view value) { return node.text.matches(value); });
    case Kind::kLabel:
      return facts.source_labels != nullptr && !spec.claim.empty() &&
             std::any_of(facts.source_labels->begin(), facts.source_labels->end(),
                         [&](const model::Label& label) {
                           return label.key == spec.claim[0] && node.text.matches(label.value);
                         });
    default: return false;
  }
}

bool RbacEngine::matches(const Node& node, const Head& head, const Facts& facts) {
  switch (node.spec->kind) {
    case Kind::kAny: return true;
    case Kind::kAnd:
      return std::all_of(node.rules.begin(), node.rules.end(),
                         [&](const Node& child) { return matches(child, head, facts); });
    case Kind::kOr: return any(node.rules, head, facts);
    case Kind::kNot: return !matches(node.rules[0], head, facts);
    case Kind::kHeader:
    case Kind::kPath:
    case Kind::kMethod: return matches_request(node, head);
    default: return matches_peer(node, facts);
  }
}

bool RbacEngine::any(const std::vector<Node>& nodes, const Head& head, const Facts& facts) {
  return std::any_of(nodes.begin(), nodes.end(),
                     [&](const Node& node) { return matches(node, head, facts); });
}

bool RbacEngine::allows(const std::vector<Set>& sets, const Head& head, const Facts& facts,
                        std::string_view* policy) {
  using Action = model::RbacRules::Action;
  for (const Set& set : sets) {
    if (set.action == Action::kLog) continue;
    const auto found = std::find_if(set.policies.begin(), set.policies.end(), [&](const Policy& p) {
      return any(p.permissions, head, facts) && any(p.principals, head, facts);
    });
    const bool matched = found != set.policies.end();
    if (matched) *policy = found->spec->name;
    if (matched == (set.action == Action::kDeny)) return false;
  }
  return true;
}

RbacEngine::Verdict RbacEngine::check(const Head& request, const Facts& facts) const {
  Verdict out;
  out.allowed = allows(rules_, request, facts, &out.policy);
  if (!shadow_.empty()) out.shadow_allowed = allows(shadow_, request, facts, &out.shadow_policy);
  return out;
}

RbacEngine::Verdict RbacEngine::check(const Facts& facts) const {
  static const Head none;
  return check(none, facts);
}

}  // namespace edgemesh::proxy
