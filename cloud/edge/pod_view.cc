#include "cloud/edge/pod_view.h"

#include <nlohmann/json.hpp>

#include "kube/json_util.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

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
