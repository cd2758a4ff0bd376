#include "kube/pod_references.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kube/json_util.h"

namespace edgemesh::kube {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 32;

struct Place {
  std::string_view parent, field;
  const ResourceType* type;
};

const Place kPlaces[] = {{"configMap", "name", &kConfigMaps},
                         {"configMapRef", "name", &kConfigMaps},
                         {"configMapKeyRef", "name", &kConfigMaps},
                         {"secret", "secretName", &kSecrets},
                         {"secret", "name", &kSecrets},
                         {"secretRef", "name", &kSecrets},
                         {"secretKeyRef", "name", &kSecrets},
                         {"nodePublishSecretRef", "name", &kSecrets},
                         {"imagePullSecrets", "name", &kSecrets}};

void collect_one(const Place& place, const Json& item, std::vector<PodReference>* out) {
  if (std::string name = text_at(item, place.field); !name.empty()) {
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

}  // namespace

std::vector<PodReference> pod_references(const Json& pod) {
  std::vector<PodReference> out;
  if (const Json* spec = find(pod, "spec")) collect(*spec, 0, &out);
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

}  // namespace edgemesh::kube
