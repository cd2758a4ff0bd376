#include "cloud/api/admission.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/api/meta.h"
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

bool is_mirror(const json& pod) {
  return find(pod, "metadata", "annotations", "kubernetes.io/config.mirror") != nullptr;
}

// {"automountServiceAccountToken": false} of the pod or, if the pod says nothing, of its account.
bool wants_token(const json& account, const json& spec) {
  const json* own = find(spec, "automountServiceAccountToken");
  if (own == nullptr) own = find(account, "automountServiceAccountToken");
  return own == nullptr || *own != json(false);
}

// Mounts `volume` where the token is looked for, unless something is there. True: somewhere.
bool mount_token(const std::string& volume, json* containers) {
  constexpr const char* kPath = "/var/run/secrets/kubernetes.io/serviceaccount";
  bool mounted = false;
  for (json& container : *containers) {
    json& mounts = container["volumeMounts"];
    if (!mounts.is_array()) mounts = json::array();
    const bool taken = std::any_of(mounts.begin(), mounts.end(), [&](const json& mount) {
      return text_at(mount, "mountPath") == kPath;
    });
    if (!taken) mounts.push_back({{"name", volume}, {"readOnly", true}, {"mountPath", kPath}});
    if (mounts.empty()) container.erase("volumeMounts");
    mounted |= !taken;
  }
  return mounted;
}

void add_token(json* spec) {
  const std::string volume = "kube-api-access-" + random_suffix();
  bool used = false;
  for (const char* list : {"initContainers", "containers"}) {
    if (find(*spec, list) != nullptr && (*spec)[list].is_array())
      used |= mount_token(volume, &(*spec)[list]);
  }
  if (!used) return;
  // An hour and a little: kubelets know by this number that it is the usual token.
  constexpr int kSeconds = 3607;
  const json sources = {
      {{"serviceAccountToken", {{"expirationSeconds", kSeconds}, {"path", "token"}}}},
      {{"configMap",
        {{"name", "kube-root-ca.crt"}, {"items", {{{"key", "ca.crt"}, {"path", "ca.crt"}}}}}}},
      {{"downwardAPI",
        {{"items",
          {{{"path", "namespace"},
            {"fieldRef", {{"apiVersion", "v1"}, {"fieldPath", "metadata.namespace"}}}}}}}}}};
  json& volumes = (*spec)["volumes"];
  if (!volumes.is_array()) volumes = json::array();
  volumes.push_back(
      {{"name", volume}, {"projected", {{"defaultMode", 0644}, {"sources", sources}}}});
}

ApiResult<void> set_account(const ApiStore& store, const ResourceRegistry& registry,
                            const ResourceInfo& resource, bool mount_tokens, json* pod) {
  json& spec = (*pod)["spec"];
  std::string name = text_at(spec, "serviceAccountName");
  if (name.empty()) name = "default";
  spec["serviceAccountName"] = spec["serviceAccount"] = name;
  if (!mount_tokens) return {};
  const std::string ns = text_at(*pod, "metadata", "namespace");
  const ResourceInfo& accounts = *registry.find(kube::kServiceAccounts);
  ObjectPtr stored = store.latest(accounts, ns, name);
  if (stored == nullptr && name != "default") {
    return refuse(ApiError::forbidden(
        resource, text_at(*pod, "metadata", "name"),
        fmt::format("error looking up service account {}/{}: serviceaccount \"{}\" not found", ns,
                    name, name)));
  }
  // The default account of a namespace that was just made may still be on its way.
  auto parsed = stored != nullptr ? kube::parse_json(stored->text) : Result<json>(json::object());
  const json account = parsed ? std::move(*parsed) : json::object();
  const json* secrets = find(account, "imagePullSecrets");
  const json* own = find(spec, "imagePullSecrets");
  if (secrets != nullptr && (own == nullptr || own->empty())) spec["imagePullSecrets"] = *secrets;
  if (wants_token(account, spec)) add_token(&spec);
  return {};
}

}  // namespace

ApiResult<void> admit_new(const ApiStore& store, const ResourceRegistry& registry,
                          const ResourceInfo& resource, bool mount_tokens, json* object) {
  if (resource.custom) return {};
  if (resource.type.kind == "PersistentVolumeClaim") set_storage_class(store, registry, object);
  if (resource.type.kind != "Pod") return {};
  if (!is_mirror(*object)) {
    if (auto good = set_account(store, registry, resource, mount_tokens, object); !good)
      return good;
  }
  json& spec = (*object)["spec"];
  add_tolerations(&spec);
  return set_priority(store, registry, resource, text_at(*object, "metadata", "name"), &spec);
}

}  // namespace edgemesh::cloud
