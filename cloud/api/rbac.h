// Rbac: the authorizer on the Role, ClusterRole, RoleBinding and ClusterRoleBinding objects of the
// store, as Kubernetes' RBAC. It keeps them in memory, by subject: a check looks only at the
// bindings of the user and of the user's groups, whatever else is in the store. Threads: the
// store's loop.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cloud/api/auth.h"
#include "cloud/api/rbac_rules.h"
#include "cloud/api/store.h"

namespace edgemesh::cloud {

inline constexpr std::string_view kRbacGroup = "rbac.authorization.k8s.io";

// What a binding gives: a Role of its namespace, or a ClusterRole.
struct RoleRef {
  std::string kind, ns, name;  // ns empty for a ClusterRole
};
RoleRef role_ref(const nlohmann::json& binding);

class Rbac final : public Authorizer {
 public:
  // Reads what the store has, and follows it.
  Rbac(ApiStore& store, const ResourceRegistry& registry);
  ~Rbac() override;
  Rbac(const Rbac&) = delete;
  Rbac& operator=(const Rbac&) = delete;

  using Authorizer::allows;
  bool allows(const ApiUser& user, const ApiAttributes& what, std::string* reason) const override;

  void add_rules(const ApiUser& user, std::string_view ns, RbacRules* rules,
                 std::string* problem) const override;
  // All rules that the user has in the namespace (those that hold everywhere too), and what is
  // wrong with its bindings. Valid until the next change.
  std::vector<const RbacRule*> rules_of(const ApiUser& user, std::string_view ns,
                                        std::string* problem = nullptr) const;
  // Null: there is no such role.
  const RbacRules* rules_of_role(const RoleRef& ref) const;

 private:
  struct Role {
    RoleRef ref;
    std::optional<RbacRules> rules;  // nullopt: bindings name it, but it does not exist
  };
  struct Binding {
    std::string ns, name;  // ns empty: everywhere
    std::shared_ptr<Role> role;
    std::vector<std::pair<bool, std::string>> subjects;  // a group, or a user's name
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  template <class T>
  using Map = std::unordered_map<std::string, T, Hash, std::equal_to<>>;
  using Bindings = std::vector<const Binding*>;
  struct Grants {
    Bindings everywhere;
    Map<Bindings> in;  // by namespace
  };
  class Visitor;

  void load(const ResourceInfo* resource);
  void on_change(const ResourceInfo& resource, const Change& change);
  void set_role(const StoredObject& object, bool cluster, bool gone);
  void set_binding(const StoredObject& object, bool gone);
  void index(const Binding& binding, bool add);
  std::shared_ptr<Role>& role(const RoleRef& ref);
  void drop_unused(const RoleRef& ref);
  // Calls visit(subject is a group, subject, binding) until it gives true.
  template <class Visit>
  bool visit(const ApiUser& user, std::string_view ns, Visit visit) const;
  std::string problem_of(const ApiUser& user, std::string_view ns) const;

  ApiStore& store_;
  const ResourceInfo *roles_info_, *cluster_roles_info_, *bindings_info_, *cluster_bindings_info_;
  Map<std::shared_ptr<Role>> roles_;
  Map<std::unique_ptr<Binding>> bindings_;
  Map<Grants> users_, groups_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
