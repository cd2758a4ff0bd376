#include "cloud/api/admission.h"

#include <nlohmann/json.hpp>

#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using nlohmann::json;

namespace {

const kube::ResourceType kPriorities{"scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass",
                                     false};
const kube::ResourceType kStorageClasses{"storage.k8s.io", "v1", "storageclasses", "StorageClass",
                                         false};

bool tolerates(const json& list, std::string_view key) {
  for (const json& one : list) {
    std::string effect = text_at(one, "effect"), own = text_at(one, "key");
    bool effect_fits = effect.empty() || effect == "NoExecute";
    if (effect_fits && (own == key || (own.empty() && text_at(one, "operator") == "Exists")))
      return true;
  }
  return false;
}

// A pod stays on a node that does not answer for five minutes, unless it says otherwise.
void add_tolerations(json* spec) {
  json& list = (*spec)["tolerations"];
  if (!list.is_array()) list = json::array();
  for (const char* key : {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}) {
    if (tolerates(list, key)) continue;
    list.push_back({{"key", key},
                    {"operator", "Exists"},
                    {"effect", "NoExecute"},
                    {"tolerationSeconds", 300}});
  }
}

ApiResult<void> set_priority(const ApiStore& store, const ResourceRegistry& registry,
                             const ResourceInfo& resource, const std::string& pod, json* spec) {
  std::string name = text_at(*spec, "priorityClassName");
  const ResourceInfo& classes = *registry.find(kPriorities);
  int64_t value = 0;
  std::string preemption = "PreemptLowerPriority";
  if (name == "system-cluster-critical") {
    value = 2'000'000'000;
  } else if (name == "system-node-critical") {
    value = 2'000'001'000;
  } else {
    auto all = store.list(classes, {});
    bool found = name.empty();
    for (const ObjectPtr& stored : all ? all->items : std::vector<ObjectPtr>()) {
      auto one = kube::parse_json(stored->text);
      if (!one) continue;
      const json* global = find(*one, "globalDefault");
      bool wanted =
          name.empty() ? global != nullptr && *global == json(true) : stored->name == name;
      if (!wanted) continue;
      found = true;
      (*spec)["priorityClassName"] = stored->name;
      if (const json* number = find(*one, "value"); number && number->is_number_integer()) {
        value = number->get<int64_t>();
      }
      if (auto policy = text_at(*one, "preemptionPolicy"); !policy.empty()) preemption = policy;
      break;
    }
    if (!found) {
      return refuse(ApiError::forbidden(
          resource, pod, fmt::format("no PriorityClass with name {} was found", name)));
    }
  }
  (*spec)["priority"] = value;
  if (find(*spec, "preemptionPolicy") == nullptr) (*spec)["preemptionPolicy"] = preemption;
  return {};
}

void set_storage_class(const ApiStore& store, const ResourceRegistry& registry, json* object) {
  if (!(*object)["spec"].is_object() || (*object)["spec"].contains("storageClassName")) return;
  auto all = store.list(*registry.find(kStorageClasses), {});
  for (const ObjectPtr& stored : all ? all->items : std::vector<ObjectPtr>()) {
    auto one = kube::parse_json(stored->text);
    if (!one || text_at(*one, "metadata", "annotations",
                        "storageclass.kubernetes.io/is-default-class") != "true") {
      continue;
    }
    (*object)["spec"]["storageClassName"] = stored->name;
    return;
  }
}

}  // namespace

ApiResult<void> admit_new(const ApiStore& store, const ResourceRegistry& registry,
                          const ResourceInfo& resource, json* object) {
  if (resource.custom) return {};
  if (resource.type.kind == "PersistentVolumeClaim") set_storage_class(store, registry, object);
  if (resource.type.kind != "Pod") return {};
  json& spec = (*object)["spec"];
  bool is_static =
      find(*object, "metadata", "annotations", "kubernetes.io/config.mirror") != nullptr;
  if (!is_static) {
    if (text_at(spec, "serviceAccountName").empty()) spec["serviceAccountName"] = "default";
    spec["serviceAccount"] = spec["serviceAccountName"];
  }
  add_tolerations(&spec);
  return set_priority(store, registry, resource, text_at(*object, "metadata", "name"), &spec);
}

}  // namespace edgemesh::cloud
