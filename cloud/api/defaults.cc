#include "cloud/api/defaults.h"

#include <map>
#include <nlohmann/json.hpp>

#include "kube/json_util.h"
#include "kube/type_table.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using kube::TypeField;
using kube::TypeInfo;
using nlohmann::json;

namespace {

struct Rule {
  std::string_view type, field, value;  // the value as JSON
};

constexpr Rule kRules[] = {
    {"PodSpec", "restartPolicy", R"("Always")"},
    {"PodSpec", "dnsPolicy", R"("ClusterFirst")"},
    {"PodSpec", "schedulerName", R"("default-scheduler")"},
    {"PodSpec", "terminationGracePeriodSeconds", "30"},
    {"PodSpec", "securityContext", "{}"},
    {"Container", "terminationMessagePath", R"("/dev/termination-log")"},
    {"Container", "terminationMessagePolicy", R"("File")"},
    {"Container", "resources", "{}"},
    {"EphemeralContainer", "terminationMessagePath", R"("/dev/termination-log")"},
    {"EphemeralContainer", "terminationMessagePolicy", R"("File")"},
    {"EphemeralContainer", "resources", "{}"},
    {"ContainerPort", "protocol", R"("TCP")"},
    {"Probe", "timeoutSeconds", "1"},
    {"Probe", "periodSeconds", "10"},
    {"Probe", "successThreshold", "1"},
    {"Probe", "failureThreshold", "3"},
    {"HTTPGetAction", "path", R"("/")"},
    {"HTTPGetAction", "scheme", R"("HTTP")"},
    {"GRPCAction", "service", R"("")"},
    {"ObjectFieldSelector", "apiVersion", R"("v1")"},
    {"SecretVolumeSource", "defaultMode", "420"},
    {"ConfigMapVolumeSource", "defaultMode", "420"},
    {"DownwardAPIVolumeSource", "defaultMode", "420"},
    {"ProjectedVolumeSource", "defaultMode", "420"},
    {"ServiceAccountTokenProjection", "expirationSeconds", "3600"},
    {"HostPathVolumeSource", "type", R"("")"},
    {"PersistentVolumeClaimSpec", "volumeMode", R"("Filesystem")"},
    {"PersistentVolumeClaimStatus", "phase", R"("Pending")"},
    {"PersistentVolumeSpec", "volumeMode", R"("Filesystem")"},
    {"PersistentVolumeSpec", "persistentVolumeReclaimPolicy", R"("Retain")"},
    {"PersistentVolumeStatus", "phase", R"("Pending")"},
    {"EndpointPort", "protocol", R"("TCP")"},
    {"ReplicationControllerSpec", "replicas", "1"},
    {"ReplicationControllerStatus", "replicas", "0"},
    {"apps.ReplicaSetStatus", "replicas", "0"},
    {"apps.StatefulSetStatus", "replicas", "0"},
    {"apps.StatefulSetStatus", "availableReplicas", "0"},
    {"apps.DaemonSetStatus", "currentNumberScheduled", "0"},
    {"apps.DaemonSetStatus", "numberMisscheduled", "0"},
    {"apps.DaemonSetStatus", "desiredNumberScheduled", "0"},
    {"apps.DaemonSetStatus", "numberReady", "0"},
    {"policy.PodDisruptionBudgetStatus", "disruptionsAllowed", "0"},
    {"policy.PodDisruptionBudgetStatus", "currentHealthy", "0"},
    {"policy.PodDisruptionBudgetStatus", "desiredHealthy", "0"},
    {"policy.PodDisruptionBudgetStatus", "expectedPods", "0"},
    {"autoscaling.HorizontalPodAutoscalerSpec", "targetCPUUtilizationPercentage", "80"},
    {"autoscaling.HorizontalPodAutoscalerStatus", "currentReplicas", "0"},
    {"autoscaling.HorizontalPodAutoscalerStatus", "desiredReplicas", "0"},
    {"networking.IngressStatus", "loadBalancer", "{}"},
    {"apps.DeploymentSpec", "replicas", "1"},
    {"apps.DeploymentSpec", "revisionHistoryLimit", "10"},
    {"apps.DeploymentSpec", "progressDeadlineSeconds", "600"},
    {"apps.DeploymentSpec", "strategy", "{}"},
    {"apps.DeploymentStrategy", "type", R"("RollingUpdate")"},
    {"apps.RollingUpdateDeployment", "maxUnavailable", R"("25%")"},
    {"apps.RollingUpdateDeployment", "maxSurge", R"("25%")"},
    {"apps.ReplicaSetSpec", "replicas", "1"},
    {"apps.DaemonSetSpec", "revisionHistoryLimit", "10"},
    {"apps.DaemonSetSpec", "updateStrategy", "{}"},
    {"apps.DaemonSetUpdateStrategy", "type", R"("RollingUpdate")"},
    {"apps.RollingUpdateDaemonSet", "maxUnavailable", "1"},
    {"apps.RollingUpdateDaemonSet", "maxSurge", "0"},
    {"apps.StatefulSetSpec", "replicas", "1"},
    {"apps.StatefulSetSpec", "revisionHistoryLimit", "10"},
    {"apps.StatefulSetSpec", "podManagementPolicy", R"("OrderedReady")"},
    {"apps.StatefulSetSpec", "updateStrategy", "{}"},
    {"apps.StatefulSetSpec", "persistentVolumeClaimRetentionPolicy", "{}"},
    {"apps.StatefulSetPersistentVolumeClaimRetentionPolicy", "whenDeleted", R"("Retain")"},
    {"apps.StatefulSetPersistentVolumeClaimRetentionPolicy", "whenScaled", R"("Retain")"},
    {"apps.StatefulSetUpdateStrategy", "type", R"("RollingUpdate")"},
    {"apps.RollingUpdateStatefulSetStrategy", "partition", "0"},
    {"batch.CronJobSpec", "concurrencyPolicy", R"("Allow")"},
    {"batch.CronJobSpec", "suspend", "false"},
    {"batch.CronJobSpec", "successfulJobsHistoryLimit", "3"},
    {"batch.CronJobSpec", "failedJobsHistoryLimit", "1"},
    {"autoscaling.HorizontalPodAutoscalerSpec", "minReplicas", "1"},
    {"networking.NetworkPolicyPort", "protocol", R"("TCP")"},
    {"storage.StorageClass", "reclaimPolicy", R"("Delete")"},
    {"storage.StorageClass", "volumeBindingMode", R"("Immediate")"},
    {"storage.CSIDriverSpec", "attachRequired", "true"},
    {"storage.CSIDriverSpec", "podInfoOnMount", "false"},
    {"storage.CSIDriverSpec", "storageCapacity", "false"},
    {"storage.CSIDriverSpec", "fsGroupPolicy", R"("ReadWriteOnceWithFSType")"},
    {"storage.CSIDriverSpec", "volumeLifecycleModes", R"(["Persistent"])"},
    {"storage.CSIDriverSpec", "requiresRepublish", "false"},
    {"storage.CSIDriverSpec", "seLinuxMount", "false"},
    {"rbac.RoleRef", "apiGroup", R"("rbac.authorization.k8s.io")"},
    {"scheduling.PriorityClass", "preemptionPolicy", R"("PreemptLowerPriority")"},
    {"admissionregistration.MutatingWebhook", "failurePolicy", R"("Fail")"},
    {"admissionregistration.MutatingWebhook", "matchPolicy", R"("Equivalent")"},
    {"admissionregistration.MutatingWebhook", "namespaceSelector", "{}"},
    {"admissionregistration.MutatingWebhook", "objectSelector", "{}"},
    {"admissionregistration.MutatingWebhook", "timeoutSeconds", "10"},
    {"admissionregistration.MutatingWebhook", "reinvocationPolicy", R"("Never")"},
    {"admissionregistration.ValidatingWebhook", "failurePolicy", R"("Fail")"},
    {"admissionregistration.ValidatingWebhook", "matchPolicy", R"("Equivalent")"},
    {"admissionregistration.ValidatingWebhook", "namespaceSelector", "{}"},
    {"admissionregistration.ValidatingWebhook", "objectSelector", "{}"},
    {"admissionregistration.ValidatingWebhook", "timeoutSeconds", "10"},
    {"admissionregistration.Rule", "scope", R"("*")"},
    {"admissionregistration.ServiceReference", "port", "443"},
};

using Defaults = std::map<const TypeInfo*, std::vector<std::pair<std::string, json>>>;

const Defaults& defaults() {
  static const Defaults kAll = [] {
    Defaults out;
    for (const Rule& rule : kRules) {
      const TypeInfo* type = kube::find_type(rule.type);
      if (type == nullptr) continue;  // not reached: a test goes through the rules
      out[type].emplace_back(rule.field, json::parse(rule.value, nullptr, false));
    }
    return out;
  }();
  return kAll;
}

std::string default_pull_policy(const std::string& image) {
  if (image.find('@') != std::string::npos) return "IfNotPresent";
  size_t slash = image.rfind('/');
  size_t colon = image.rfind(':');
  bool tagged = colon != std::string::npos && (slash == std::string::npos || colon > slash);
  return !tagged || image.substr(colon + 1) == "latest" ? "Always" : "IfNotPresent";
}

void default_rolling(json* object, const char* settings) {
  if (text_at(*object, "type") != "RollingUpdate" || find(*object, settings) != nullptr) return;
  (*object)[settings] = json::object();
}

// What depends on other fields of the same value, before the rules for what is in it.
void default_special(std::string_view type, json* object) {
  if (type == "Container" || type == "EphemeralContainer") {
    if (find(*object, "imagePullPolicy") == nullptr) {
      (*object)["imagePullPolicy"] = default_pull_policy(text_at(*object, "image"));
    }
  } else if (type == "Volume") {
    if (object->size() == 1 && object->contains("name")) (*object)["emptyDir"] = json::object();
  } else if (type == "apps.StatefulSetSpec") {
    auto claims = object->find("volumeClaimTemplates");
    if (claims == object->end() || !claims->is_array()) return;
    for (json& claim : *claims) {
      claim["kind"] = "PersistentVolumeClaim";
      claim["apiVersion"] = "v1";
      if (find(claim, "status") == nullptr) claim["status"] = json::object();
    }
  } else if (type == "rbac.Subject") {
    std::string kind = text_at(*object, "kind");
    if (text_at(*object, "apiGroup").empty() && (kind == "User" || kind == "Group")) {
      (*object)["apiGroup"] = "rbac.authorization.k8s.io";
    }
  } else if (type == "apps.DeploymentStrategy" || type == "apps.DaemonSetUpdateStrategy" ||
             type == "apps.StatefulSetUpdateStrategy") {
    default_rolling(object, "rollingUpdate");
  } else if (type == "networking.NetworkPolicySpec" && find(*object, "policyTypes") == nullptr) {
    (*object)["policyTypes"] = json::array({"Ingress"});
    const json* egress = find(*object, "egress");
    if (egress != nullptr && !egress->empty()) (*object)["policyTypes"].push_back("Egress");
  } else if (type == "PodSpec") {
    // The older name of the field; both are kept.
    std::string account = text_at(*object, "serviceAccountName");
    if (account.empty()) account = text_at(*object, "serviceAccount");
    if (!account.empty()) (*object)["serviceAccountName"] = (*object)["serviceAccount"] = account;
    const json* host = find(*object, "hostNetwork");
    if (host == nullptr || *host != json(true)) return;
    for (const char* list : {"containers", "initContainers"}) {
      auto containers = object->find(list);
      if (containers == object->end()) continue;
      for (json& container : *containers) {
        auto ports = container.find("ports");
        if (ports == container.end()) continue;
        for (json& port : *ports) {
          if (find(port, "hostPort") == nullptr && port.contains("containerPort"))
            port["hostPort"] = port["containerPort"];
        }
      }
    }
  }
}

void walk(const TypeInfo& type, json* object) {
  if (!object->is_object()) return;
  auto own = defaults().find(&type);
  if (own != defaults().end()) {
    for (const auto& [field, value] : own->second) {
      if (find(*object, field) == nullptr) (*object)[field] = value;
    }
  }
  default_special(type.name, object);
  for (auto& [name, inner] : object->items()) {
    const TypeField* field = type.find(name);
    if (field == nullptr || field->type == nullptr) continue;
    if (field->shape == TypeField::Shape::kOne) {
      walk(*field->type, &inner);
    } else if (inner.is_structured()) {
      for (json& item : inner) walk(*field->type, &item);
    }
  }
}

void default_value(json* object, const char* name, json value) {
  if (find(*object, name) == nullptr) (*object)[name] = std::move(value);
}

// Labels by which a job finds its pods.
void default_job_selector(json* object, json* spec) {
  const json* manual = find(*spec, "manualSelector");
  if (manual != nullptr && *manual == json(true)) return;
  std::string uid = text_at(*object, "metadata", "uid");
  std::string name = text_at(*object, "metadata", "name");
  if (uid.empty() || name.empty() || find(*spec, "selector") != nullptr) return;
  if (!(*spec)["template"].is_object()) return;
  json& labels = (*spec)["template"]["metadata"]["labels"];
  for (const char* prefix : {"", "batch.kubernetes.io/"}) {
    labels[std::string(prefix) + "controller-uid"] = uid;
    labels[std::string(prefix) + "job-name"] = name;
  }
  (*spec)["selector"] = {{"matchLabels", {{"batch.kubernetes.io/controller-uid", uid}}}};
}

void default_job(json* object, json* spec) {
  if (find(*spec, "completions") == nullptr && find(*spec, "parallelism") == nullptr) {
    (*spec)["completions"] = 1;
  }
  default_value(spec, "parallelism", 1);
  default_value(spec, "backoffLimit",
                find(*spec, "backoffLimitPerIndex") != nullptr ? INT32_MAX : 6);
  default_value(spec, "completionMode", "NonIndexed");
  default_value(spec, "suspend", false);
  default_value(spec, "podReplacementPolicy",
                find(*spec, "podFailurePolicy") != nullptr ? "Failed" : "TerminatingOrFailed");
  default_value(spec, "manualSelector", false);
  default_job_selector(object, spec);
  const json* labels = find(*spec, "template", "metadata", "labels");
  if (find(*object, "metadata", "labels") == nullptr && labels != nullptr) {
    (*object)["metadata"]["labels"] = *labels;
  }
}

// Guaranteed: all containers have limits, and requests equal to them; BestEffort: none has any.
std::string quality_of_service(const json& spec) {
  bool any = false, all = true;
  for (const char* list : {"containers", "initContainers"}) {
    const json* containers = find(spec, list);
    if (containers == nullptr || !containers->is_array()) continue;
    for (const json& container : *containers) {
      for (const char* name : {"cpu", "memory"}) {
        const json* limit = find(container, "resources", "limits", name);
        const json* request = find(container, "resources", "requests", name);
        any = any || limit != nullptr || request != nullptr;
        all = all && limit != nullptr && (request == nullptr || *request == *limit);
      }
    }
  }
  if (!any) return "BestEffort";
  return all ? "Guaranteed" : "Burstable";
}

}  // namespace

void default_fields(const ResourceInfo& resource, json* object) {
  const TypeInfo* type =
      kube::type_of_kind(resource.type.group, resource.type.version, resource.type.kind);
  if (type == nullptr) return;
  for (const char* name : {"spec", "status"}) {
    bool has = name[1] == 'p' ? type->find("spec") != nullptr : resource.has_status;
    if (has && find(*object, name) == nullptr) (*object)[name] = json::object();
  }
  walk(*type, object);
}

void default_workload(json* object) {
  json& spec = (*object)["spec"];
  if (!spec.is_object()) spec = json::object();
  if (text_at(*object, "kind") == "Job") default_job(object, &spec);
}

void default_pod(json* object) {
  json& spec = (*object)["spec"];
  default_value(&spec, "enableServiceLinks", true);
  // What a container may have at most is what it asks for, unless it says so.
  for (const char* list : {"containers", "initContainers"}) {
    auto containers = spec.find(list);
    if (containers == spec.end() || !containers->is_array()) continue;
    for (json& container : *containers) {
      const json* limits = find(container, "resources", "limits");
      if (limits == nullptr) continue;
      json wanted = container["resources"].value("requests", json::object());
      for (const auto& [name, value] : limits->items()) {
        if (!wanted.contains(name)) wanted[name] = value;
      }
      container["resources"]["requests"] = std::move(wanted);
    }
  }
  json& status = (*object)["status"];
  default_value(&status, "phase", "Pending");
  if (find(status, "qosClass") == nullptr) status["qosClass"] = quality_of_service(spec);
}

}  // namespace edgemesh::cloud
