#include "cloud/edge/pod_view.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kube/json_util.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 32;

struct Place {
  std::string_view parent, field;
  const kube::ResourceType* type;
};

const Place kPlaces[] = {{"configMap", "name", &kube::kConfigMaps},
                         {"configMapRef", "name", &kube::kConfigMaps},
                         {"configMapKeyRef", "name", &kube::kConfigMaps},
                         {"secret", "secretName", &kube::kSecrets},
                         {"secret", "name", &kube::kSecrets},
                         {"secretRef", "name", &kube::kSecrets},
                         {"secretKeyRef", "name", &kube::kSecrets},
                         {"imagePullSecrets", "name", &kube::kSecrets}};

void collect_one(const Place& place, const Json& item, std::vector<PodReference>* out) {
  if (std::string name = kube::text_at(item, place.field); !name.empty()) {
    out->push_back({place.type, std::move(name)});
  }
}

void collect(const Json& value, int depth, std::vector<PodReference>* out) {
  if (depth > kMaxDepth) return;
  if (value.is_array()) {
    for (const Json& item : value) collect(item, depth + 1, out);
    return;
  }
  if (!value.is_object()) return;
  for (const auto& [key, item] : value.items()) {
    for (const Place& place : kPlaces) {
      if (key != place.parent) continue;
      if (!item.is_array()) collect_one(place, item, out);
      for (size_t i = 0; item.is_array() && i < item.size(); ++i) collect_one(place, item[i], out);
    }
    collect(item, depth + 1, out);
  }
}

uint64_t digest(const Json& value) {
  return std::hash<std::string>()(kube::to_text(value));
}

Json copy(const Json& object, std::initializer_list<const char*> keys) {
  Json out = Json::object();
  for (const char* key : keys) {
    if (const Json* value = kube::find(object, key)) out[key] = *value;
  }
  return out;
}

}  // namespace

std::vector<PodReference> pod_references(const Json& pod) {
  std::vector<PodReference> out;
  if (const Json* spec = kube::find(pod, "spec")) collect(*spec, 0, &out);
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

uint64_t pod_meaning(const Json& pod) {
  const Json* meta = kube::find(pod, "metadata");
  Json kept = copy(pod, {"spec"});
  kept["metadata"] = copy(meta == nullptr ? Json() : *meta,
                          {"uid", "labels", "annotations", "deletionTimestamp",
                           "deletionGracePeriodSeconds", "finalizers", "ownerReferences"});
  return digest(kept);
}

uint64_t node_meaning(const Json& node) {
  const Json* meta = kube::find(node, "metadata");
  Json kept = copy(node, {"spec"});
  kept["metadata"] = copy(meta == nullptr ? Json() : *meta, {"uid", "labels", "deletionTimestamp"});
  return digest(kept);
}

}  // namespace edgemesh::cloud
