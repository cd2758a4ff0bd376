#include "kube/strategic_schema.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace edgemesh::kube {

namespace {

struct Kind {
  std::string_view kind;
  std::string_view type;
};

constexpr Kind kKinds[] = {
    {"CSINode", "CSINode"},
    {"CronJob", "CronJob"},
    {"DaemonSet", "Workload"},
    {"Deployment", "Workload"},
    {"Job", "Workload"},
    {"Namespace", "Conditioned"},
    {"Node", "Node"},
    {"PersistentVolumeClaim", "Conditioned"},
    {"Pod", "Pod"},
    {"ReplicaSet", "Workload"},
    {"ReplicationController", "Workload"},
    {"Service", "Service"},
    {"ServiceAccount", "ServiceAccount"},
    {"StatefulSet", "Workload"},
};

// Sorted by type, then field.
constexpr FieldRule kRules[] = {
    {"CSINode", "metadata", "Meta", ""},
    {"CSINode", "spec", "CSINodeSpec", ""},
    {"CSINodeSpec", "drivers", "", "name"},
    {"Conditioned", "metadata", "Meta", ""},
    {"Conditioned", "status", "Status", ""},
    {"Container", "env", "", "name"},
    {"Container", "ports", "", "containerPort"},
    {"Container", "volumeDevices", "", "devicePath"},
    {"Container", "volumeMounts", "", "mountPath"},
    {"CronJob", "metadata", "Meta", ""},
    {"CronJob", "spec", "CronJobSpec", ""},
    {"CronJobSpec", "jobTemplate", "Workload", ""},
    {"Meta", "finalizers", "", "", true},
    {"Meta", "ownerReferences", "", "uid"},
    {"Node", "metadata", "Meta", ""},
    {"Node", "spec", "NodeSpec", ""},
    {"Node", "status", "Status", ""},
    {"NodeSpec", "podCIDRs", "", "", true},
    {"Pod", "metadata", "Meta", ""},
    {"Pod", "spec", "PodSpec", ""},
    {"Pod", "status", "Status", ""},
    {"PodSpec", "containers", "Container", "name"},
    {"PodSpec", "ephemeralContainers", "Container", "name"},
    {"PodSpec", "hostAliases", "", "ip"},
    {"PodSpec", "imagePullSecrets", "", "name"},
    {"PodSpec", "initContainers", "Container", "name"},
    {"PodSpec", "resourceClaims", "", "name"},
    {"PodSpec", "schedulingGates", "", "name"},
    {"PodSpec", "topologySpreadConstraints", "", "topologyKey"},
    {"PodSpec", "volumes", "", "name"},
    {"Service", "metadata", "Meta", ""},
    {"Service", "spec", "ServiceSpec", ""},
    {"Service", "status", "Status", ""},
    {"ServiceAccount", "metadata", "Meta", ""},
    {"ServiceAccount", "secrets", "", "name"},
    {"ServiceSpec", "ports", "", "port"},
    {"Status", "addresses", "", "type"},
    {"Status", "conditions", "", "type"},
    {"Status", "hostIPs", "", "ip"},
    {"Status", "podIPs", "", "ip"},
    {"Workload", "metadata", "Meta", ""},
    {"Workload", "spec", "WorkloadSpec", ""},
    {"Workload", "status", "Status", ""},
    {"WorkloadSpec", "template", "Pod", ""},
};

constexpr bool before(const FieldRule& a, const FieldRule& b) {
  return a.type != b.type ? a.type < b.type : a.field < b.field;
}
static_assert(std::is_sorted(std::begin(kRules), std::end(kRules), before));

}  // namespace

std::string_view root_type(std::string_view kind) {
  for (const Kind& entry : kKinds) {
    if (entry.kind == kind) return entry.type;
  }
  return {};
}

const FieldRule* find_rule(std::string_view type, std::string_view field) {
  if (type.empty()) return nullptr;
  FieldRule wanted{type, field, {}, {}};
  const auto* it = std::lower_bound(std::begin(kRules), std::end(kRules), wanted, before);
  if (it == std::end(kRules) || it->type != type || it->field != field) return nullptr;
  return it;
}

}  // namespace edgemesh::kube
