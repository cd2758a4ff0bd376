// Columns of storage, batch, networking, policy, RBAC and other kinds.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "cloud/api/table_columns.h"
#include "kube/json_util.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using nlohmann::json;
using Now = std::chrono::system_clock::time_point;

namespace {

constexpr const char* kNone = "<none>";
constexpr const char* kUnset = "<unset>";

std::string name_of(const json& o) {
  return text_at(o, "metadata", "name");
}
std::string created(const json& o) {
  return text_at(o, "metadata", "creationTimestamp");
}
std::string age(const json& o, Now now) {
  return age_of(created(o), now);
}
std::string or_else(std::string text, const char* otherwise = kNone) {
  return text.empty() ? otherwise : text;
}
// A number, a string or a boolean as text.
std::string shown(const json* value, const char* otherwise) {
  if (value == nullptr) return otherwise;
  return value->is_string() ? value->get<std::string>() : kube::to_text(*value);
}
int64_t number(const json* value) {
  return value != nullptr && value->is_number_integer() ? value->get<int64_t>() : 0;
}
const json& list_of(const json* value) {
  static const json kEmpty = json::array();
  return value != nullptr && value->is_array() ? *value : kEmpty;
}
bool is_true(const json* value) {
  return value != nullptr && *value == json(true);
}
std::string joined(const json& list, const char* field = nullptr) {
  std::string out;
  for (const json& item : list) {
    std::string text = field != nullptr ? text_at(item, field) : shown(&item, "");
    if (!text.empty()) out += (out.empty() ? "" : ",") + text;
  }
  return out;
}
std::string pairs(const json* map) {
  std::string out;
  if (map == nullptr || !map->is_object()) return kNone;
  for (const auto& [key, value] : map->items()) {
    out += (out.empty() ? "" : ",") + key + "=" + shown(&value, "");
  }
  return or_else(out);
}

std::string access_modes(const json& list) {
  std::string out;
  constexpr std::pair<const char*, const char*> kShort[] = {{"ReadWriteOnce", "RWO"},
                                                            {"ReadOnlyMany", "ROX"},
                                                            {"ReadWriteMany", "RWX"},
                                                            {"ReadWriteOncePod", "RWOP"}};
  for (const auto& [mode, shown_as] : kShort) {
    if (std::find(list.begin(), list.end(), json(mode)) == list.end()) continue;
    out += (out.empty() ? "" : ",") + std::string(shown_as);
  }
  return out;
}

json claim_cells(const json& o, Now now) {
  std::string phase = text_at(o, "status", "phase");
  if (find(o, "metadata", "deletionTimestamp") != nullptr) phase = "Terminating";
  bool bound = !text_at(o, "spec", "volumeName").empty();
  return {name_of(o),
          phase,
          text_at(o, "spec", "volumeName"),
          bound ? shown(find(o, "status", "capacity", "storage"), "") : "",
          bound ? access_modes(list_of(find(o, "status", "accessModes"))) : "",
          text_at(o, "spec", "storageClassName"),
          shown(find(o, "spec", "volumeAttributesClassName"), kUnset),
          age(o, now),
          shown(find(o, "spec", "volumeMode"), kUnset)};
}

json volume_cells(const json& o, Now now) {
  std::string phase = text_at(o, "status", "phase");
  if (find(o, "metadata", "deletionTimestamp") != nullptr) phase = "Terminating";
  std::string claim = text_at(o, "spec", "claimRef", "name");
  if (!claim.empty()) claim = text_at(o, "spec", "claimRef", "namespace") + "/" + claim;
  return {name_of(o),
          shown(find(o, "spec", "capacity", "storage"), ""),
          access_modes(list_of(find(o, "spec", "accessModes"))),
          text_at(o, "spec", "persistentVolumeReclaimPolicy"),
          phase,
          claim,
          text_at(o, "spec", "storageClassName"),
          shown(find(o, "spec", "volumeAttributesClassName"), kUnset),
          text_at(o, "status", "reason"),
          age(o, now),
          shown(find(o, "spec", "volumeMode"), kUnset)};
}

json storage_class_cells(const json& o, Now now) {
  bool standard = text_at(o, "metadata", "annotations",
                          "storageclass.kubernetes.io/is-default-class") == "true";
  return {
      name_of(o) + (standard ? " (default)" : ""), text_at(o, "provisioner"),
      shown(find(o, "reclaimPolicy"), "Delete"),   shown(find(o, "volumeBindingMode"), "Immediate"),
      is_true(find(o, "allowVolumeExpansion")),    age(o, now)};
}

std::string job_status(const json& o) {
  for (const json& condition : list_of(find(o, "status", "conditions"))) {
    if (text_at(condition, "status") != "True") continue;
    std::string type = text_at(condition, "type");
    if (type == "Complete" || type == "Failed" || type == "Suspended") return type;
  }
  if (find(o, "metadata", "deletionTimestamp") != nullptr) return "Terminating";
  return is_true(find(o, "spec", "suspend")) ? "Suspended" : "Running";
}

json job_cells(const json& o, Now now) {
  std::string done = std::to_string(number(find(o, "status", "succeeded")));
  const json* wanted = find(o, "spec", "completions");
  int64_t parallel = number(find(o, "spec", "parallelism"));
  if (wanted != nullptr) {
    done += "/" + shown(wanted, "");
  } else {
    done += parallel > 1 ? fmt::format("/1 of {}", parallel) : "/1";
  }
  std::string started = text_at(o, "status", "startTime");
  std::string ended = text_at(o, "status", "completionTime");
  std::string duration;
  if (!started.empty()) duration = ended.empty() ? age_of(started, now) : between(started, ended);
  const json& containers = list_of(find(o, "spec", "template", "spec", "containers"));
  return {name_of(o),
          job_status(o),
          done,
          duration,
          age(o, now),
          joined(containers, "name"),
          joined(containers, "image"),
          pairs(find(o, "spec", "selector", "matchLabels"))};
}

json cron_job_cells(const json& o, Now now) {
  std::string last = text_at(o, "status", "lastScheduleTime");
  const json& containers =
      list_of(find(o, "spec", "jobTemplate", "spec", "template", "spec", "containers"));
  return {name_of(o),
          text_at(o, "spec", "schedule"),
          or_else(text_at(o, "spec", "timeZone")),
          is_true(find(o, "spec", "suspend")) ? "True" : "False",
          list_of(find(o, "status", "active")).size(),
          last.empty() ? kNone : age_of(last, now),
          age(o, now),
          joined(containers, "name"),
          joined(containers, "image"),
          kNone};
}

json ingress_cells(const json& o, Now now) {
  std::string hosts = joined(list_of(find(o, "spec", "rules")), "host");
  std::string address;
  for (const json& at : list_of(find(o, "status", "loadBalancer", "ingress"))) {
    std::string one = text_at(at, "ip");
    if (one.empty()) one = text_at(at, "hostname");
    if (!one.empty()) address += (address.empty() ? "" : ",") + one;
  }
  bool tls = !list_of(find(o, "spec", "tls")).empty();
  return {name_of(o),
          or_else(text_at(o, "spec", "ingressClassName")),
          or_else(hosts, "*"),
          address,
          tls ? "80, 443" : "80",
          age(o, now)};
}

json policy_cells(const json& o, Now now) {
  return {name_of(o), pairs(find(o, "spec", "podSelector", "matchLabels")), age(o, now)};
}

json budget_cells(const json& o, Now now) {
  return {name_of(o), shown(find(o, "spec", "minAvailable"), "N/A"),
          shown(find(o, "spec", "maxUnavailable"), "N/A"),
          number(find(o, "status", "disruptionsAllowed")), age(o, now)};
}

json autoscaler_cells(const json& o, Now now) {
  std::string target = shown(find(o, "spec", "targetCPUUtilizationPercentage"), "");
  std::string current = shown(find(o, "status", "currentCPUUtilizationPercentage"), "<unknown>");
  return {name_of(o),
          text_at(o, "spec", "scaleTargetRef", "kind") + "/" +
              text_at(o, "spec", "scaleTargetRef", "name"),
          target.empty() ? kNone : fmt::format("cpu: {}/{}%", current, target),
          shown(find(o, "spec", "minReplicas"), kUnset),
          number(find(o, "spec", "maxReplicas")),
          number(find(o, "status", "currentReplicas")),
          age(o, now)};
}

json priority_cells(const json& o, Now now) {
  return {name_of(o), number(find(o, "value")), is_true(find(o, "globalDefault")), age(o, now),
          shown(find(o, "preemptionPolicy"), "PreemptLowerPriority")};
}

json created_cells(const json& o, Now) {
  return {name_of(o), created(o)};
}

json binding_cells(const json& o, Now now) {
  std::string users, groups, accounts;
  for (const json& subject : list_of(find(o, "subjects"))) {
    std::string kind = text_at(subject, "kind"), name = text_at(subject, "name");
    if (kind == "ServiceAccount") name = text_at(subject, "namespace") + "/" + name;
    std::string& into = kind == "User" ? users : kind == "Group" ? groups : accounts;
    into += (into.empty() ? "" : ", ") + name;
  }
  return {name_of(o),  text_at(o, "roleRef", "kind") + "/" + text_at(o, "roleRef", "name"),
          age(o, now), users,
          groups,      accounts};
}

json request_cells(const json& o, Now now) {
  std::string state;
  for (const json& condition : list_of(find(o, "status", "conditions"))) {
    state += (state.empty() ? "" : ",") + text_at(condition, "type");
  }
  if (state.empty()) state = "Pending";
  if (find(o, "status", "certificate") != nullptr) state += ",Issued";
  const json* seconds = find(o, "spec", "expirationSeconds");
  return {name_of(o),
          age(o, now),
          text_at(o, "spec", "signerName"),
          text_at(o, "spec", "username"),
          seconds != nullptr ? shown(seconds, "") + "s" : kNone,
          state};
}

json attachment_cells(const json& o, Now now) {
  return {name_of(o),
          text_at(o, "spec", "attacher"),
          text_at(o, "spec", "source", "persistentVolumeName"),
          text_at(o, "spec", "nodeName"),
          is_true(find(o, "status", "attached")),
          age(o, now)};
}
json csi_node_cells(const json& o, Now now) {
  return {name_of(o), list_of(find(o, "spec", "drivers")).size(), age(o, now)};
}
json csi_driver_cells(const json& o, Now now) {
  auto flag = [&o](const char* name) { return is_true(find(o, "spec", name)); };
  return {name_of(o),
          flag("attachRequired"),
          flag("podInfoOnMount"),
          flag("storageCapacity"),
          kUnset,
          flag("requiresRepublish"),
          or_else(joined(list_of(find(o, "spec", "volumeLifecycleModes")))),
          age(o, now)};
}
json revision_cells(const json& o, Now now) {
  std::string owner;
  for (const json& ref : list_of(find(o, "metadata", "ownerReferences"))) {
    if (!is_true(find(ref, "controller"))) continue;
    owner = text_at(ref, "kind") + "/" + text_at(ref, "name");
    std::string api_version = text_at(ref, "apiVersion");
    std::string group = api_version.substr(0, api_version.find('/'));
    for (char& c : owner) {
      if (c == '/') break;
      c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    }
    owner.insert(owner.find('/'), "." + group);
  }
  return {name_of(o), or_else(owner), number(find(o, "revision")), age(o, now)};
}
json ingress_class_cells(const json& o, Now now) {
  std::string parameters = text_at(o, "spec", "parameters", "name");
  return {name_of(o), text_at(o, "spec", "controller"), or_else(parameters), age(o, now)};
}
json runtime_class_cells(const json& o, Now now) {
  return {name_of(o), text_at(o, "handler"), age(o, now)};
}
json quota_cells(const json& o, Now now) {
  std::string requests, limits;
  const json* hard = find(o, "spec", "hard");
  static const json kNothing = json::object();
  for (const auto& [name, most] : (hard != nullptr ? *hard : kNothing).items()) {
    std::string& into = name.starts_with("limits.") ? limits : requests;
    std::string used = shown(find(o, "status", "used", name), "0");
    into += fmt::format("{}{}: {}/{}", into.empty() ? "" : ", ", name, used, shown(&most, ""));
  }
  return {name_of(o), requests, limits, age(o, now)};
}
json hooks_cells(const json& o, Now now) {
  return {name_of(o), list_of(find(o, "webhooks")).size(), age(o, now)};
}

constexpr bool kWide = true;

}  // namespace

const std::vector<TableKind>& more_kinds() {
  static const std::vector<TableKind> kAll = {
      {"PersistentVolumeClaim",
       {{"Name"},
        {"Status"},
        {"Volume"},
        {"Capacity"},
        {"Access Modes"},
        {"StorageClass"},
        {"VolumeAttributesClass"},
        {"Age"},
        {"VolumeMode", "string", kWide}},
       claim_cells},
      {"PersistentVolume",
       {{"Name"},
        {"Capacity"},
        {"Access Modes"},
        {"Reclaim Policy"},
        {"Status"},
        {"Claim"},
        {"StorageClass"},
        {"VolumeAttributesClass"},
        {"Reason"},
        {"Age"},
        {"VolumeMode", "string", kWide}},
       volume_cells},
      {"StorageClass",
       {{"Name"},
        {"Provisioner"},
        {"ReclaimPolicy"},
        {"VolumeBindingMode"},
        {"AllowVolumeExpansion", "boolean"},
        {"Age"}},
       storage_class_cells},
      {"Job",
       {{"Name"},
        {"Status"},
        {"Completions"},
        {"Duration"},
        {"Age"},
        {"Containers", "string", kWide},
        {"Images", "string", kWide},
        {"Selector", "string", kWide}},
       job_cells},
      {"CronJob",
       {{"Name"},
        {"Schedule"},
        {"Timezone"},
        {"Suspend"},
        {"Active", "integer"},
        {"Last Schedule"},
        {"Age"},
        {"Containers", "string", kWide},
        {"Images", "string", kWide},
        {"Selector", "string", kWide}},
       cron_job_cells},
      {"Ingress", {{"Name"}, {"Class"}, {"Hosts"}, {"Address"}, {"Ports"}, {"Age"}}, ingress_cells},
      {"NetworkPolicy", {{"Name"}, {"Pod-Selector"}, {"Age"}}, policy_cells},
      {"PodDisruptionBudget",
       {{"Name"},
        {"Min Available"},
        {"Max Unavailable"},
        {"Allowed Disruptions", "integer"},
        {"Age"}},
       budget_cells},
      {"HorizontalPodAutoscaler",
       {{"Name"},
        {"Reference"},
        {"Targets"},
        {"MinPods"},
        {"MaxPods"},
        {"Replicas", "integer"},
        {"Age"}},
       autoscaler_cells},
      {"PriorityClass",
       {{"Name"},
        {"Value", "integer"},
        {"Global-Default", "boolean"},
        {"Age"},
        {"PreemptionPolicy"}},
       priority_cells},
      {"Role", {{"Name"}, {"Created At", "date"}}, created_cells},
      {"ClusterRole", {{"Name"}, {"Created At", "date"}}, created_cells},
      {"CustomResourceDefinition", {{"Name"}, {"Created At", "date"}}, created_cells},
      {"LimitRange", {{"Name"}, {"Created At", "date"}}, created_cells},
      {"RoleBinding",
       {{"Name"},
        {"Role"},
        {"Age"},
        {"Users", "string", kWide},
        {"Groups", "string", kWide},
        {"ServiceAccounts", "string", kWide}},
       binding_cells},
      {"ClusterRoleBinding",
       {{"Name"},
        {"Role"},
        {"Age"},
        {"Users", "string", kWide},
        {"Groups", "string", kWide},
        {"ServiceAccounts", "string", kWide}},
       binding_cells},
      {"CertificateSigningRequest",
       {{"Name"}, {"Age"}, {"SignerName"}, {"Requestor"}, {"RequestedDuration"}, {"Condition"}},
       request_cells},
      {"VolumeAttachment",
       {{"Name"}, {"Attacher"}, {"PV"}, {"Node"}, {"Attached", "boolean"}, {"Age"}},
       attachment_cells},
      {"CSINode", {{"Name"}, {"Drivers", "integer"}, {"Age"}}, csi_node_cells},
      {"CSIDriver",
       {{"Name"},
        {"AttachRequired", "boolean"},
        {"PodInfoOnMount", "boolean"},
        {"StorageCapacity", "boolean"},
        {"TokenRequests"},
        {"RequiresRepublish", "boolean"},
        {"Modes"},
        {"Age"}},
       csi_driver_cells},
      {"ControllerRevision",
       {{"Name"}, {"Controller"}, {"Revision", "integer"}, {"Age"}},
       revision_cells},
      {"IngressClass", {{"Name"}, {"Controller"}, {"Parameters"}, {"Age"}}, ingress_class_cells},
      {"RuntimeClass", {{"Name"}, {"Handler"}, {"Age"}}, runtime_class_cells},
      {"ResourceQuota", {{"Name"}, {"Request"}, {"Limit"}, {"Age"}}, quota_cells},
      {"MutatingWebhookConfiguration", {{"Name"}, {"Webhooks", "integer"}, {"Age"}}, hooks_cells},
      {"ValidatingWebhookConfiguration", {{"Name"}, {"Webhooks", "integer"}, {"Age"}}, hooks_cells},
  };
  return kAll;
}

}  // namespace edgemesh::cloud
