#include "cloud/api/resource.h"

namespace edgemesh::cloud {

namespace {

using List = std::vector<std::string>;

void add(std::vector<std::unique_ptr<ResourceInfo>>* all, kube::ResourceType type, List short_names,
         List categories, bool has_status, List fields) {
  auto info = std::make_unique<ResourceInfo>();
  for (char c : type.kind) info->singular += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  info->type = std::move(type);
  info->short_names = std::move(short_names);
  info->categories = std::move(categories);
  info->has_status = has_status;
  info->fields = std::move(fields);
  all->push_back(std::move(info));
}

void add_core(std::vector<std::unique_ptr<ResourceInfo>>* all) {
  add(all, kube::kConfigMaps, {"cm"}, {}, false, {});
  add(all, kube::kEndpoints, {"ep"}, {}, false, {});
  add(all, kube::kEvents, {"ev"}, {}, false,
      {"involvedObject.apiVersion", "involvedObject.fieldPath", "involvedObject.kind",
       "involvedObject.name", "involvedObject.namespace", "involvedObject.resourceVersion",
       "involvedObject.uid", "reason", "reportingComponent", "source.component", "type"});
  add(all, kube::kNamespaces, {"ns"}, {}, true, {"status.phase"});
  add(all, kube::kNodes, {"no"}, {}, true, {"spec.unschedulable"});
  add(all, {"", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true}, {"pvc"}, {}, true,
      {});
  add(all, {"", "v1", "persistentvolumes", "PersistentVolume", false}, {"pv"}, {}, true, {});
  add(all, kube::kPods, {"po"}, {"all"}, true,
      {"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
       "status.phase", "status.podIP"});
  add(all, kube::kSecrets, {}, {}, false, {"type"});
  add(all, kube::kServiceAccounts, {"sa"}, {}, false, {});
  add(all, kube::kServices, {"svc"}, {"all"}, true, {"spec.clusterIP", "spec.type"});
}

}  // namespace

ResourceRegistry::ResourceRegistry() {
  add_core(&all_);
  add(&all_, {"apps", "v1", "daemonsets", "DaemonSet", true}, {"ds"}, {"all"}, true, {});
  add(&all_, {"apps", "v1", "deployments", "Deployment", true}, {"deploy"}, {"all"}, true, {});
  add(&all_, {"apps", "v1", "replicasets", "ReplicaSet", true}, {"rs"}, {"all"}, true, {});
  add(&all_, {"apps", "v1", "statefulsets", "StatefulSet", true}, {"sts"}, {"all"}, true, {});
  add(&all_, {"batch", "v1", "jobs", "Job", true}, {}, {"all"}, true, {});
  add(&all_, kube::kLeases, {}, {}, false, {});
  add(&all_, kube::kEndpointSlices, {}, {}, false, {});
}

const ResourceInfo* ResourceRegistry::find(std::string_view group, std::string_view version,
                                           std::string_view plural) const {
  for (const auto& info : all_) {
    if (info->type.plural == plural && info->type.group == group && info->type.version == version) {
      return info.get();
    }
  }
  return nullptr;
}

const ResourceInfo* ResourceRegistry::find_storage(std::string_view storage) const {
  for (const auto& info : all_) {
    if (info->storage() == storage) return info.get();
  }
  return nullptr;
}

bool ResourceRegistry::has_group_version(std::string_view group, std::string_view version) const {
  for (const auto& info : all_) {
    if (info->type.group == group && info->type.version == version) return true;
  }
  return false;
}

}  // namespace edgemesh::cloud
