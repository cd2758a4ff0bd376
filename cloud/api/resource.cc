#include "cloud/api/resource.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace edgemesh::cloud {

namespace {

using List = std::vector<std::string>;
using All = std::vector<std::unique_ptr<ResourceInfo>>;

ResourceInfo& add(All* all, kube::ResourceType type, List short_names, List categories,
                  bool has_status, List fields) {
  auto info = std::make_unique<ResourceInfo>();
  for (char c : type.kind) info->singular += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  info->type = std::move(type);
  info->short_names = std::move(short_names);
  info->categories = std::move(categories);
  info->has_status = has_status;
  info->fields = std::move(fields);
  all->push_back(std::move(info));
  return *all->back();
}

void add_scale(ResourceInfo& info) {
  info.scale = std::make_shared<ScalePaths>(
      ScalePaths{".spec.replicas", ".status.replicas", ".spec.selector"});
  info.subresources.push_back({"scale", "autoscaling", "v1", "Scale", {"get", "patch", "update"}});
}

void add_pods(All* all) {
  ResourceInfo& pods =
      add(all, kube::kPods, {"po"}, {"all"}, true,
          {"spec.hostNetwork", "spec.nodeName", "spec.restartPolicy", "spec.schedulerName",
           "spec.serviceAccountName", "status.nominatedNodeName", "status.phase", "status.podIP"});
  pods.subresources = {
      {"attach", "", "v1", "PodAttachOptions", {"create", "get"}},
      {"binding", "", "v1", "Binding", {"create"}},
      {"ephemeralcontainers", "", "v1", "Pod", {"get", "patch", "update"}},
      {"eviction", "policy", "v1", "Eviction", {"create"}},
      {"exec", "", "v1", "PodExecOptions", {"create", "get"}},
      {"log", "", "v1", "Pod", {"get"}},
      {"portforward", "", "v1", "PodPortForwardOptions", {"create", "get"}},
  };
}

void add_core(All* all) {
  add(all, kube::kConfigMaps, {"cm"}, {}, false, {});
  add(all, kube::kEndpoints, {"ep"}, {}, false, {});
  add(all, kube::kEvents, {"ev"}, {}, false,
      {"involvedObject.apiVersion", "involvedObject.fieldPath", "involvedObject.kind",
       "involvedObject.name", "involvedObject.namespace", "involvedObject.resourceVersion",
       "involvedObject.uid", "reason", "reportingComponent", "source.component", "type"});
  add(all, {"", "v1", "limitranges", "LimitRange", true}, {"limits"}, {}, false, {});
  add(all, kube::kNamespaces, {"ns"}, {}, true, {"status.phase"})
      .subresources.push_back({"finalize", "", "v1", "Namespace", {"update"}});
  add(all, kube::kNodes, {"no"}, {}, true, {"spec.unschedulable"});
  add(all, {"", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true}, {"pvc"}, {}, true,
      {});
  add(all, {"", "v1", "persistentvolumes", "PersistentVolume", false}, {"pv"}, {}, true, {});
  add_pods(all);
  add(all, {"", "v1", "podtemplates", "PodTemplate", true}, {}, {}, false, {});
  add_scale(add(all, {"", "v1", "replicationcontrollers", "ReplicationController", true}, {"rc"},
                {"all"}, true, {"status.replicas"}));
  add(all, {"", "v1", "resourcequotas", "ResourceQuota", true}, {"quota"}, {}, true, {});
  add(all, kube::kSecrets, {}, {}, false, {"type"});
  add(all, kube::kServiceAccounts, {"sa"}, {}, false, {})
      .subresources.push_back({"token", "authentication.k8s.io", "v1", "TokenRequest", {"create"}});
  add(all, kube::kServices, {"svc"}, {"all"}, true, {"spec.clusterIP", "spec.type"});
}

void add_workloads(All* all) {
  add(all, {"apps", "v1", "controllerrevisions", "ControllerRevision", true}, {}, {}, false, {});
  add(all, {"apps", "v1", "daemonsets", "DaemonSet", true}, {"ds"}, {"all"}, true, {});
  add_scale(
      add(all, {"apps", "v1", "deployments", "Deployment", true}, {"deploy"}, {"all"}, true, {}));
  add_scale(add(all, {"apps", "v1", "replicasets", "ReplicaSet", true}, {"rs"}, {"all"}, true,
                {"status.replicas"}));
  add_scale(
      add(all, {"apps", "v1", "statefulsets", "StatefulSet", true}, {"sts"}, {"all"}, true, {}));
  add(all, {"autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler", true},
      {"hpa"}, {"all"}, true, {});
  add(all, {"batch", "v1", "cronjobs", "CronJob", true}, {"cj"}, {"all"}, true, {});
  add(all, {"batch", "v1", "jobs", "Job", true}, {}, {"all"}, true, {"status.successful"});
}

void add_cluster(All* all) {
  const std::string kHooks = "admissionregistration.k8s.io";
  add(all, {kHooks, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", false},
      {}, {"api-extensions"}, false, {});
  add(all,
      {kHooks, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", false},
      {}, {"api-extensions"}, false, {});
  add(all,
      {"apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition",
       false},
      {"crd", "crds"}, {"api-extensions"}, true, {});
  add(all,
      {"certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest",
       false},
      {"csr"}, {}, true, {"spec.signerName"})
      .subresources.push_back({"approval",
                               "certificates.k8s.io",
                               "v1",
                               "CertificateSigningRequest",
                               {"get", "patch", "update"}});
  add(all, kube::kLeases, {}, {}, false, {});
  add(all, kube::kEndpointSlices, {}, {}, false, {});
  // KubeEdge's: what nodes have confirmed (cloud/edge).
  add(all, {"reliablesyncs.kubeedge.io", "v1alpha1", "objectsyncs", "ObjectSync", true}, {}, {}, true, {});
  add(all, {"reliablesyncs.kubeedge.io", "v1alpha1", "clusterobjectsyncs", "ClusterObjectSync", false}, {},
      {}, true, {});
  const std::string kNetworking = "networking.k8s.io";
  add(all, {kNetworking, "v1", "ingressclasses", "IngressClass", false}, {}, {}, false, {});
  add(all, {kNetworking, "v1", "ingresses", "Ingress", true}, {"ing"}, {}, true, {});
  add(all, {kNetworking, "v1", "networkpolicies", "NetworkPolicy", true}, {"netpol"}, {}, false,
      {});
  add(all, {"node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", false}, {}, {}, false, {});
  add(all, {"policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true}, {"pdb"}, {}, true,
      {});
  const std::string kRbac = "rbac.authorization.k8s.io";
  add(all, {kRbac, "v1", "clusterrolebindings", "ClusterRoleBinding", false}, {}, {}, false, {});
  add(all, {kRbac, "v1", "clusterroles", "ClusterRole", false}, {}, {}, false, {});
  add(all, {kRbac, "v1", "rolebindings", "RoleBinding", true}, {}, {}, false, {});
  add(all, {kRbac, "v1", "roles", "Role", true}, {}, {}, false, {});
  add(all, {"scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", false}, {"pc"}, {},
      false, {});
  const std::string kStorage = "storage.k8s.io";
  add(all, {kStorage, "v1", "csidrivers", "CSIDriver", false}, {}, {}, false, {});
  add(all, {kStorage, "v1", "csinodes", "CSINode", false}, {}, {}, false, {});
  add(all, {kStorage, "v1", "csistoragecapacities", "CSIStorageCapacity", true}, {}, {}, false, {});
  add(all, {kStorage, "v1", "storageclasses", "StorageClass", false}, {"sc"}, {}, false, {});
  add(all, {kStorage, "v1", "volumeattachments", "VolumeAttachment", false}, {}, {}, true, {});
  for (auto [plural, kind] : {std::pair{"nodes", "NodeMetrics"}, std::pair{"pods", "PodMetrics"}}) {
    const bool namespaced = std::string_view(plural) == "pods";
    ResourceInfo& info =
        add(all, {"metrics.k8s.io", "v1beta1", plural, kind, namespaced}, {}, {}, false, {});
    info.singular.clear();
    info.computed = true;
  }
}

void add_reviews(All* all) {
  const auto add_review = [all](const char* group, const char* plural, const char* kind, bool namespaced) {
    add(all, {group, "v1", plural, kind, namespaced}, {}, {}, false, {}).review = true;
  };
  const char* kWho = "authentication.k8s.io";
  add_review(kWho, "selfsubjectreviews", "SelfSubjectReview", false);
  add_review(kWho, "tokenreviews", "TokenReview", false);
  const char* kMay = "authorization.k8s.io";
  add_review(kMay, "localsubjectaccessreviews", "LocalSubjectAccessReview", true);
  add_review(kMay, "selfsubjectaccessreviews", "SelfSubjectAccessReview", false);
  add_review(kMay, "selfsubjectrulesreviews", "SelfSubjectRulesReview", false);
  add_review(kMay, "subjectaccessreviews", "SubjectAccessReview", false);
}

}  // namespace

const Subresource* ResourceInfo::find_subresource(std::string_view name) const {
  for (const Subresource& sub : subresources) {
    if (sub.name == name) return &sub;
  }
  return nullptr;
}

ResourceRegistry::ResourceRegistry() {
  add_core(&all_);
  add_workloads(&all_);
  add_cluster(&all_);
  add_reviews(&all_);
  ResourceInfo& events =
      add(&all_, {"events.k8s.io", "v1", "events", "Event", true}, {"ev"}, {}, false, {});
  events.stored_as = find(kube::kEvents);
  events.fields = events.stored_as->fields;
}

ResourceRegistry::ResourceRegistry(const std::vector<kube::ResourceType>& served)
    : ResourceRegistry() {
  for (const auto& info : all_) {
    info->served = std::find(served.begin(), served.end(), info->type) != served.end();
  }
}

const ResourceInfo* ResourceRegistry::find(std::string_view group, std::string_view version,
                                           std::string_view plural) const {
  for (const auto& info : all_) {
    if (info->served && info->type.plural == plural && info->type.group == group &&
        info->type.version == version) {
      return info.get();
    }
  }
  return nullptr;
}

const ResourceInfo* ResourceRegistry::find_storage(std::string_view storage) const {
  for (const auto& info : all_) {
    if (info->stored_as == nullptr && info->storage() == storage) return info.get();
  }
  return nullptr;
}

bool ResourceRegistry::has_group_version(std::string_view group, std::string_view version) const {
  for (const auto& info : all_) {
    if (info->served && info->type.group == group && info->type.version == version) return true;
  }
  return false;
}

void ResourceRegistry::replace(const std::string& owner,
                               std::vector<std::unique_ptr<ResourceInfo>> infos) {
  for (auto it = owned_.begin(); it != owned_.end();) {
    if (it->first != owner) {
      ++it;
      continue;
    }
    auto at = std::find_if(all_.begin(), all_.end(),
                           [&](const auto& info) { return info.get() == it->second; });
    if (at != all_.end()) {
      retired_.push_back(std::move(*at));
      all_.erase(at);
    }
    it = owned_.erase(it);
  }
  for (auto& info : infos) {
    owned_.emplace_back(owner, info.get());
    all_.push_back(std::move(info));
  }
  ++revision_;
}

}  // namespace edgemesh::cloud
