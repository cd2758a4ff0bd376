// Rules of Role and ClusterRole objects (rbac.authorization.k8s.io/v1): what they allow, and
// whether some rules give all that another one gives. I/O-free.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cloud/api/auth.h"

namespace edgemesh::cloud {

// Either about resources or about other paths. "*" stands for everything in verbs, groups and
// resources ("*/scale" for that subresource of every resource), and at the end of a path.
struct RbacRule {
  std::vector<std::string> verbs, groups, resources;
  std::vector<std::string> names;  // empty: every object
  std::vector<std::string> urls;
  friend bool operator==(const RbacRule&, const RbacRule&) = default;
};
using RbacRules = std::vector<RbacRule>;

// The member "rules" of a role; what has the wrong form is left out.
RbacRules parse_rules(const nlohmann::json& role);
nlohmann::json rule_json(const RbacRule& rule);

// No allocation.
bool rule_allows(const RbacRule& rule, const ApiAttributes& what);

// The parts of `wanted` that no rule of `held` gives, each about one resource or path and sorted as
// Kubernetes shows them; empty: all of it is held.
RbacRules rules_not_held(const std::vector<const RbacRule*>& held, const RbacRules& wanted);
// {APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}
std::string rule_text(const RbacRule& rule);

}  // namespace edgemesh::cloud
