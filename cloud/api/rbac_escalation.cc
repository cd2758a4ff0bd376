#include "cloud/api/rbac_escalation.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "kube/json_util.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using nlohmann::json;

namespace {

bool same_member(const json& a, const json* b, const char* name) {
  const json* left = find(a, name);
  const json* right = b != nullptr ? find(*b, name) : nullptr;
  static const json kNone;
  return (left != nullptr ? *left : kNone) == (right != nullptr ? *right : kNone);
}

bool may(const Authorizer& authorizer, const ApiUser& user, const char* verb, const RoleRef& role) {
  ApiAttributes what;
  what.verb = verb;
  what.group = kRbacGroup;
  what.version = "v1";
  what.resource = role.kind == "Role" ? "roles" : "clusterroles";
  what.name = role.name;
  what.ns = role.ns;
  return authorizer.allows(user, what);
}

std::string groups_text(const ApiUser& user) {
  std::string out;
  for (const std::string& group : user.groups) out += (out.empty() ? "" : " ") + json(group).dump();
  return out;
}

ApiResult<void> check_held(const Rbac& rbac, const ApiCore::Admission& write,
                           const RbacRules& wanted) {
  std::string problem;
  const auto held = rbac.rules_of(*write.user, write.ns, &problem);
  const RbacRules missing = rules_not_held(held, wanted);
  if (missing.empty()) return {};
  std::string text = fmt::format(
      "user {} (groups=[{}]) is attempting to grant RBAC permissions not currently held:",
      json(write.user->name).dump(), groups_text(*write.user));
  for (const RbacRule& rule : missing) text += "\n" + rule_text(rule);
  if (!problem.empty()) text += "; resolution errors: " + problem;
  return refuse(ApiError::forbidden(write.resource, write.name, text));
}

ApiResult<void> check_role(const Rbac& rbac, const Authorizer& authorizer,
                           const ApiCore::Admission& write) {
  const bool cluster = !write.resource.type.namespaced;
  const bool same_rules =
      write.before != nullptr && same_member(*write.after, write.before, "rules");
  const bool same_parts = same_member(*write.after, write.before, "aggregationRule");
  if (same_rules && same_parts) return {};
  const RoleRef role{cluster ? "ClusterRole" : "Role", std::string(write.ns),
                     std::string(write.name)};
  if (may(authorizer, *write.user, "escalate", role)) return {};
  if (auto good = check_held(rbac, write, parse_rules(*write.after)); !good) return good;
  if (same_parts) return {};
  // Its rules are whatever others will be labelled: only who has everything may say so.
  const RbacRule everything{{"*"}, {"*"}, {"*"}, {}, {}}, every_path{{"*"}, {}, {}, {}, {"*"}};
  if (rules_not_held(rbac.rules_of(*write.user, ""), {everything, every_path}).empty()) return {};
  return refuse(ApiError::forbidden(
      write.resource, write.name, "must have cluster-admin privileges to use the aggregationRule"));
}

ApiResult<void> check_binding(const Rbac& rbac, const Authorizer& authorizer,
                              const ApiCore::Admission& write) {
  if (write.before != nullptr && same_member(*write.after, write.before, "roleRef") &&
      same_member(*write.after, write.before, "subjects")) {
    return {};
  }
  const RoleRef role = role_ref(*write.after);
  // A ClusterRole that is bound in one namespace: the right to bind it there is enough.
  RoleRef asked = role;
  asked.ns = write.ns;
  if (may(authorizer, *write.user, "bind", asked)) return {};
  const RbacRules* rules = rbac.rules_of_role(role);
  if (rules == nullptr) {
    ApiError error = ApiError::simple(
        404, "NotFound",
        fmt::format("{}.{} \"{}\" not found", role.kind == "Role" ? "roles" : "clusterroles",
                    kRbacGroup, role.name));
    error.name = role.name;
    error.group = kRbacGroup;
    error.kind = role.kind == "Role" ? "roles" : "clusterroles";
    return refuse(error);
  }
  return check_held(rbac, write, *rules);
}

}  // namespace

ApiResult<void> check_escalation(const Rbac& rbac, const Authorizer& authorizer,
                                 const ApiCore::Admission& write) {
  const kube::ResourceType& type = write.resource.type;
  if (type.group != kRbacGroup || write.after == nullptr) return {};
  if (write.user == nullptr || write.user->in_group(kMastersGroup)) return {};
  if (type.kind == "Role" || type.kind == "ClusterRole") return check_role(rbac, authorizer, write);
  return check_binding(rbac, authorizer, write);
}

}  // namespace edgemesh::cloud
