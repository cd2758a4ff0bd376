#include "cloud/api/rbac.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud {

using kube::text_at;
using nlohmann::json;

namespace {

std::string key_of(const RoleRef& ref) {
  return ref.kind + "/" + ref.ns + "/" + ref.name;
}

std::string lower(std::string_view text) {
  std::string out;
  for (char c : text) out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return out;
}

std::string subject_text(bool group, const std::string& name) {
  if (group) return fmt::format("Group \"{}\"", name);
  auto account = service_account_of(name);
  if (account) return fmt::format("ServiceAccount \"{}/{}\"", account->second, account->first);
  return fmt::format("User \"{}\"", name);
}

}  // namespace

RoleRef role_ref(const json& binding) {
  RoleRef out{text_at(binding, "roleRef", "kind"), {}, text_at(binding, "roleRef", "name")};
  if (out.kind == "Role") out.ns = text_at(binding, "metadata", "namespace");
  return out;
}

Rbac::Rbac(ApiStore& store, const ResourceRegistry& registry)
    : store_(store),
      roles_info_(registry.find_storage("roles.rbac.authorization.k8s.io")),
      cluster_roles_info_(registry.find_storage("clusterroles.rbac.authorization.k8s.io")),
      bindings_info_(registry.find_storage("rolebindings.rbac.authorization.k8s.io")),
      cluster_bindings_info_(
          registry.find_storage("clusterrolebindings.rbac.authorization.k8s.io")) {
  for (const ResourceInfo* info :
       {roles_info_, cluster_roles_info_, bindings_info_, cluster_bindings_info_}) {
    load(info);
  }
  store_.add_observer([this, alive = alive_](const ResourceInfo& resource, const Change& change) {
    if (*alive) on_change(resource, change);
  });
}

Rbac::~Rbac() {
  *alive_ = false;
}

void Rbac::load(const ResourceInfo* resource) {
  auto all = store_.list(*resource, {});
  if (!all) return;
  for (const ObjectPtr& object : all->items) {
    Change change;
    change.object = object;
    on_change(*resource, change);
  }
}

void Rbac::on_change(const ResourceInfo& resource, const Change& change) {
  bool gone = change.type == kube::EventType::kDeleted;
  if (&resource == roles_info_ || &resource == cluster_roles_info_) {
    set_role(*change.object, &resource == cluster_roles_info_, gone);
  } else if (&resource == bindings_info_ || &resource == cluster_bindings_info_) {
    set_binding(*change.object, gone);
  }
}

std::shared_ptr<Rbac::Role>& Rbac::role(const RoleRef& ref) {
  auto& slot = roles_[key_of(ref)];
  if (slot == nullptr) slot = std::make_shared<Role>(Role{ref, std::nullopt});
  return slot;
}

void Rbac::drop_unused(const RoleRef& ref) {
  auto it = roles_.find(key_of(ref));
  if (it != roles_.end() && !it->second->rules && it->second.use_count() == 1) roles_.erase(it);
}

void Rbac::set_role(const StoredObject& object, bool cluster, bool gone) {
  RoleRef ref{cluster ? "ClusterRole" : "Role", object.ns, object.name};
  auto parsed = kube::parse_json(object.text);
  if (gone || !parsed) {
    role(ref)->rules.reset();
    return drop_unused(ref);
  }
  role(ref)->rules = parse_rules(*parsed);
}

void Rbac::set_binding(const StoredObject& object, bool gone) {
  std::string key = kube::object_key(object.ns, object.name);
  if (auto it = bindings_.find(key); it != bindings_.end()) {
    index(*it->second, false);
    RoleRef ref = it->second->role->ref;
    bindings_.erase(it);
    drop_unused(ref);
  }
  auto parsed = kube::parse_json(object.text);
  if (gone || !parsed) return;
  auto binding = std::make_unique<Binding>();
  binding->ns = object.ns;
  binding->name = object.name;
  binding->role = role(role_ref(*parsed));
  const json* subjects = kube::find(*parsed, "subjects");
  for (const json& subject : subjects != nullptr && subjects->is_array() ? *subjects : json()) {
    std::string kind = text_at(subject, "kind"), name = text_at(subject, "name");
    if (kind == "ServiceAccount") {
      std::string ns = text_at(subject, "namespace");
      name = service_account_user(ns.empty() ? object.ns : ns, name);
    }
    std::pair<bool, std::string> entry{kind == "Group", std::move(name)};
    auto& list = binding->subjects;
    if (std::find(list.begin(), list.end(), entry) == list.end()) list.push_back(std::move(entry));
  }
  index(*binding, true);
  bindings_[std::move(key)] = std::move(binding);
}

void Rbac::index(const Binding& binding, bool add) {
  for (const auto& [group, name] : binding.subjects) {
    Map<Grants>& subjects = group ? groups_ : users_;
    Grants& grants = subjects[name];
    Bindings& list = binding.ns.empty() ? grants.everywhere : grants.in[binding.ns];
    if (add) {
      list.push_back(&binding);
      continue;
    }
    list.erase(std::remove(list.begin(), list.end(), &binding), list.end());
    if (list.empty() && !binding.ns.empty()) grants.in.erase(binding.ns);
    if (grants.everywhere.empty() && grants.in.empty()) subjects.erase(name);
  }
}

template <class Visit>
bool Rbac::visit(const ApiUser& user, std::string_view ns, Visit visit) const {
  const auto look = [&](bool group, const std::string& name, bool everywhere) {
    const Map<Grants>& subjects = group ? groups_ : users_;
    auto it = subjects.find(std::string_view(name));
    if (it == subjects.end()) return false;
    const Bindings* list = &it->second.everywhere;
    if (!everywhere) {
      auto in = it->second.in.find(ns);
      if (in == it->second.in.end()) return false;
      list = &in->second;
    }
    return std::any_of(list->begin(), list->end(),
                       [&](const Binding* binding) { return visit(group, name, *binding); });
  };
  for (bool everywhere : {true, false}) {
    if (!everywhere && ns.empty()) break;
    if (look(false, user.name, everywhere)) return true;
    for (const std::string& group : user.groups) {
      if (look(true, group, everywhere)) return true;
    }
  }
  return false;
}

bool Rbac::allows(const ApiUser& user, const ApiAttributes& what, std::string* reason) const {
  std::string_view ns = what.resource.empty() ? std::string_view() : std::string_view(what.ns);
  bool yes = visit(user, ns, [&](bool group, const std::string& subject, const Binding& binding) {
    if (!binding.role->rules) return false;
    const RbacRules& rules = *binding.role->rules;
    bool fits = std::any_of(rules.begin(), rules.end(),
                            [&](const RbacRule& rule) { return rule_allows(rule, what); });
    if (fits && reason != nullptr) {
      const RoleRef& ref = binding.role->ref;
      *reason = fmt::format("RBAC: allowed by {} \"{}{}\" of {} \"{}\" to {}",
                            binding.ns.empty() ? "ClusterRoleBinding" : "RoleBinding", binding.name,
                            binding.ns.empty() ? "" : "/" + binding.ns, ref.kind, ref.name,
                            subject_text(group, subject));
    }
    return fits;
  });
  if (!yes && reason != nullptr) *reason = problem_of(user, ns);
  return yes;
}

std::vector<const RbacRule*> Rbac::rules_of(const ApiUser& user, std::string_view ns,
                                            std::string* problem) const {
  std::vector<const RbacRule*> out;
  visit(user, ns, [&](bool, const std::string&, const Binding& binding) {
    if (!binding.role->rules) return false;
    for (const RbacRule& rule : *binding.role->rules) out.push_back(&rule);
    return false;
  });
  if (problem != nullptr) *problem = problem_of(user, ns);
  return out;
}

void Rbac::add_rules(const ApiUser& user, std::string_view ns, RbacRules* rules,
                     std::string* problem) const {
  for (const RbacRule* rule : rules_of(user, ns, problem)) rules->push_back(*rule);
}

const RbacRules* Rbac::rules_of_role(const RoleRef& ref) const {
  auto it = roles_.find(key_of(ref));
  return it != roles_.end() && it->second->rules ? &*it->second->rules : nullptr;
}

std::string Rbac::problem_of(const ApiUser& user, std::string_view ns) const {
  std::vector<std::string> found;
  visit(user, ns, [&](bool, const std::string&, const Binding& binding) {
    if (binding.role->rules) return false;
    const RoleRef& ref = binding.role->ref;
    std::string text = fmt::format("{}.{} \"{}\" not found", lower(ref.kind), kRbacGroup, ref.name);
    if (std::find(found.begin(), found.end(), text) == found.end()) found.push_back(text);
    return false;
  });
  if (found.empty()) return {};
  if (found.size() == 1) return "RBAC: " + found.front();
  return fmt::format("RBAC: [{}]", fmt::join(found, ", "));
}

}  // namespace edgemesh::cloud
