#include "cloud/api/rbac_defaults.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "cloud/api/rbac.h"
#include "cloud/api/scale.h"
#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"
#include "kube/selector.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using nlohmann::json;

namespace {

constexpr const char* kAutoUpdate = "rbac.authorization.kubernetes.io/autoupdate";

// A line without a blank in front is a role: its name, the roles whose rules it becomes part of,
// and after "<" where its own rules come from. The lines below are its rules: verbs, groups ("core"
// for the one without a name) and resources, or "url" and paths; four blanks continue a line. READ
// and WRITE stand for the verbs of that kind.
constexpr std::string_view kRoles = R"(
cluster-admin
  * * *
  * url *
admin <aggregate-to-admin
edit aggregate-to-admin <aggregate-to-edit
view aggregate-to-edit <aggregate-to-view
system:aggregate-to-admin aggregate-to-admin
  create authorization.k8s.io localsubjectaccessreviews
  READ,WRITE rbac.authorization.k8s.io rolebindings,roles
system:aggregate-to-edit aggregate-to-edit
  READ core pods/attach,pods/exec,pods/portforward,pods/proxy,secrets,services/proxy
  impersonate core serviceaccounts
  WRITE core pods,pods/attach,pods/exec,pods/portforward,pods/proxy
  create core pods/eviction
  WRITE core configmaps,events,persistentvolumeclaims,replicationcontrollers,
    replicationcontrollers/scale,secrets,serviceaccounts,services,services/proxy
  create core serviceaccounts/token
  WRITE apps daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,
    replicasets/scale,statefulsets,statefulsets/scale
  WRITE autoscaling horizontalpodautoscalers
  WRITE batch cronjobs,jobs
  WRITE policy poddisruptionbudgets
  WRITE networking.k8s.io ingresses,networkpolicies
  READ,WRITE coordination.k8s.io leases
system:aggregate-to-view aggregate-to-view
  READ core configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,
    replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status
  READ core bindings,events,limitranges,namespaces/status,pods/log,pods/status,
    replicationcontrollers/status,resourcequotas,resourcequotas/status
  READ core namespaces
  READ discovery.k8s.io endpointslices
  READ apps controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,
    deployments/status,replicasets,replicasets/scale,replicasets/status,statefulsets,
    statefulsets/scale,statefulsets/status
  READ autoscaling horizontalpodautoscalers,horizontalpodautoscalers/status
  READ batch cronjobs,cronjobs/status,jobs,jobs/status
  READ policy poddisruptionbudgets,poddisruptionbudgets/status
  READ networking.k8s.io ingresses,ingresses/status,networkpolicies
system:aggregated-metrics-reader aggregate-to-view
  READ metrics.k8s.io nodes,pods
system:auth-delegator
  create authentication.k8s.io tokenreviews
  create authorization.k8s.io subjectaccessreviews
system:basic-user
  create authorization.k8s.io selfsubjectaccessreviews,selfsubjectrulesreviews
  create authentication.k8s.io selfsubjectreviews
system:discovery
  get url /api,/api/*,/apis,/apis/*,/healthz,/livez,/openapi,/openapi/*,/readyz,/version,/version/
system:kube-dns
  list,watch core endpoints,services
system:kubelet-api-admin
  READ core nodes
  proxy core nodes
  * core nodes/log,nodes/metrics,nodes/proxy,nodes/stats
  * core nodes/configz,nodes/healthz,nodes/pods
system:monitoring
  get url /healthz,/healthz/*,/livez,/livez/*,/metrics,/metrics/slis,/readyz,/readyz/*
  get core nodes/metrics
system:node
  create authentication.k8s.io tokenreviews
  create authorization.k8s.io localsubjectaccessreviews,subjectaccessreviews
  READ core services
  create,get,list,watch core nodes
  patch,update core nodes/status
  patch,update core nodes
  create,patch,update core events
  READ core pods
  create,delete core pods
  patch,update core pods/status
  create core pods/eviction
  READ core configmaps,secrets
  get core persistentvolumeclaims,persistentvolumes
  get core endpoints
  create,get,list,watch certificates.k8s.io certificatesigningrequests
  create,delete,get,patch,update coordination.k8s.io leases
  get storage.k8s.io volumeattachments
  create core serviceaccounts/token
  get,patch,update core persistentvolumeclaims/status
  READ storage.k8s.io csidrivers
  create,delete,get,patch,update storage.k8s.io csinodes
  READ node.k8s.io runtimeclasses
  get core serviceaccounts
system:node-bootstrapper
  create,get,list,watch certificates.k8s.io certificatesigningrequests
system:node-problem-detector
  get core nodes
  patch core nodes/status
  create,patch,update core,events.k8s.io events
system:node-proxier
  list,watch core endpoints,services
  READ core nodes
  create,patch,update core,events.k8s.io events
  list,watch networking.k8s.io servicecidrs
  list,watch discovery.k8s.io endpointslices
system:persistent-volume-provisioner
  create,delete,get,list,watch core persistentvolumes
  get,list,update,watch core persistentvolumeclaims
  READ storage.k8s.io storageclasses
  watch core events
  create,patch,update core,events.k8s.io events
system:public-info-viewer
  get url /healthz,/livez,/readyz,/version,/version/
system:service-account-issuer-discovery
  get url /.well-known/openid-configuration,/.well-known/openid-configuration/,/openid/v1/jwks,
    /openid/v1/jwks/
)";

// The binding has the name of its role; the letter tells the kind of the subject: Group, User,
// ServiceAccount (namespace/name).
constexpr std::array<std::array<std::string_view, 2>, 10> kBindings = {{
    {"cluster-admin", "G system:masters"},
    {"system:basic-user", "G system:authenticated"},
    {"system:discovery", "G system:authenticated"},
    {"system:kube-dns", "S kube-system/kube-dns"},
    {"system:monitoring", "G system:monitoring"},
    {"system:node", ""},  // nodes have rules of their own
    {"system:node-proxier", "U system:kube-proxy"},
    {"system:public-info-viewer", "G system:authenticated"},
    {"system:public-info-viewer", "G system:unauthenticated"},
    {"system:service-account-issuer-discovery", "G system:serviceaccounts"},
}};

std::vector<std::string> split(std::string_view text, char at) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const size_t end = std::min(text.find(at), text.size());
    if (end > 0) out.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

json default_meta(const std::string& name) {
  return {{"name", name},
          {"labels", {{"kubernetes.io/bootstrapping", "rbac-defaults"}}},
          {"annotations", {{kAutoUpdate, "true"}}}};
}

json rule_of(std::string_view line) {
  const auto words = split(line, ' ');
  RbacRule rule;
  for (const std::string& verb : split(words[0], ',')) {
    std::vector<std::string> meant{verb};
    if (verb == "READ") meant = {"get", "list", "watch"};
    if (verb == "WRITE") meant = {"create", "delete", "deletecollection", "patch", "update"};
    rule.verbs.insert(rule.verbs.end(), meant.begin(), meant.end());
  }
  if (words[1] == "url") {
    rule.urls = split(words[2], ',');
  } else {
    rule.groups = split(words[1], ',');
    std::replace(rule.groups.begin(), rule.groups.end(), std::string("core"), std::string());
    rule.resources = split(words[2], ',');
  }
  return rule_json(rule);
}

json role_of(std::string_view line) {
  const auto words = split(line, ' ');
  json role = {{"metadata", default_meta(words[0])}, {"rules", json::array()}};
  for (size_t i = 1; i < words.size(); ++i) {
    const bool from = words[i].starts_with('<');
    const std::string label = fmt::format("{}/{}", kRbacGroup, words[i].substr(from ? 1 : 0));
    if (from) {
      role["aggregationRule"]["clusterRoleSelectors"] = {{{"matchLabels", {{label, "true"}}}}};
    } else {
      role["metadata"]["labels"][label] = "true";
    }
  }
  return role;
}

// Adds to `have` the elements of `wanted` that it lacks. True: there were some.
bool add_missing(const json& wanted, json* have) {
  if (!have->is_array()) *have = json::array();
  bool changed = false;
  for (const json& item : wanted) {
    if (std::find(have->begin(), have->end(), item) != have->end()) continue;
    have->push_back(item);
    changed = true;
  }
  return changed;
}

kube::WriteOptions as_server() {
  kube::WriteOptions out;
  out.field_manager = "edgemesh-rbac";
  return out;
}

void log_failure(const std::string& what, const ApiResult<ApiCore::Written>& done) {
  // Someone else changed it at the same time: the next change of it brings us here again.
  if (!done && done.error().code != 409)
    EM_LOG(kError, "api", "{}: {}", what, done.error().message);
}

}  // namespace

std::vector<json> default_cluster_roles() {
  std::string text(kRoles);
  for (size_t at; (at = text.find("\n    ")) != std::string::npos;) text.erase(at, 5);
  std::vector<json> out;
  for (const std::string& line : split(text, '\n')) {
    if (line.starts_with(' ')) {
      out.back()["rules"].push_back(rule_of(line));
    } else {
      out.push_back(role_of(line));
    }
  }
  return out;
}

std::vector<json> default_cluster_role_bindings() {
  std::vector<json> out;
  for (const auto& [role, subject] : kBindings) {
    if (out.empty() || text_at(out.back(), "metadata", "name") != role) {
      out.push_back(
          {{"metadata", default_meta(std::string(role))},
           {"roleRef", {{"apiGroup", kRbacGroup}, {"kind", "ClusterRole"}, {"name", role}}},
           {"subjects", json::array()}});
    }
    if (subject.empty()) continue;
    std::string name(subject.substr(2));
    json made;
    if (subject[0] == 'S') {
      const size_t slash = name.find('/');
      made = {{"kind", "ServiceAccount"},
              {"namespace", name.substr(0, slash)},
              {"name", name.substr(slash + 1)}};
    } else {
      made = {
          {"apiGroup", kRbacGroup}, {"kind", subject[0] == 'G' ? "Group" : "User"}, {"name", name}};
    }
    out.back()["subjects"].push_back(std::move(made));
  }
  return out;
}

RbacDefaults::RbacDefaults(ApiCore& core)
    : core_(core),
      roles_(*core.registry().find(kRbacGroup, "v1", "clusterroles")),
      bindings_(*core.registry().find(kRbacGroup, "v1", "clusterrolebindings")) {
  core_.store().add_observer([this, alive = alive_](const ResourceInfo& resource, const Change&) {
    if (*alive && &resource == &roles_) aggregate_soon();
  });
}

RbacDefaults::~RbacDefaults() {
  *alive_ = false;
}

void RbacDefaults::start() {
  for (json& role : default_cluster_roles()) keep(roles_, std::move(role), "rules");
  for (json& binding : default_cluster_role_bindings()) {
    keep(bindings_, std::move(binding), "subjects");
  }
  aggregate_soon();
}

void RbacDefaults::keep(const ResourceInfo& resource, json wanted, const char* list) {
  const std::string name = text_at(wanted, "metadata", "name");
  const auto done = [name](ApiResult<ApiCore::Written> written) { log_failure(name, written); };
  ObjectPtr stored = core_.store().latest(resource, "", name);
  if (stored == nullptr) return core_.create(resource, "", std::move(wanted), as_server(), done);
  auto object = kube::parse_json(stored->text);
  if (!object || text_at(*object, "metadata", "annotations", kAutoUpdate) == "false") return;
  if (find(*object, "aggregationRule") != nullptr) return;
  if (!add_missing(wanted[list], &(*object)[list])) return;
  core_.update(resource, "", name, std::move(*object), as_server(), done);
}

void RbacDefaults::aggregate_soon() {
  if (std::exchange(scheduled_, true)) return;
  core_.loop().post([this, alive = alive_] {
    if (*alive) aggregate_all();
  });
}

void RbacDefaults::aggregate_all() {
  scheduled_ = false;
  auto all = core_.store().list(roles_, {});
  if (!all) return;
  for (const ObjectPtr& object : all->items) {
    if (object->text.find("\"aggregationRule\"") != std::string::npos) aggregate(*object);
  }
}

void RbacDefaults::aggregate(const StoredObject& object) {
  auto role = kube::parse_json(object.text);
  if (!role) return;
  const json* selectors = find(*role, "aggregationRule", "clusterRoleSelectors");
  if (selectors == nullptr || !selectors->is_array()) return;
  json rules = json::array();
  for (const json& selector : *selectors) {
    auto labels = kube::LabelSelector::parse(selector_text(selector));
    if (!labels) continue;
    Filter filter;
    filter.labels = std::move(*labels);
    auto parts = core_.store().list(roles_, filter);
    for (const ObjectPtr& part : parts ? parts->items : std::vector<ObjectPtr>()) {
      auto parsed = part->name == object.name ? Result<json>(json()) : kube::parse_json(part->text);
      if (!parsed || find(*parsed, "rules") == nullptr) continue;
      add_missing((*parsed)["rules"], &rules);
    }
  }
  const json* have = find(*role, "rules");
  if (have != nullptr ? *have == rules : rules.empty()) return;
  (*role)["rules"] = std::move(rules);
  core_.update(roles_, "", object.name, std::move(*role), as_server(),
               [name = object.name](ApiResult<ApiCore::Written> done) { log_failure(name, done); });
}

}  // namespace edgemesh::cloud
