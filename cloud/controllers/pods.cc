#include "cloud/controllers/pods.h"

#include <nlohmann/json.hpp>

#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

const Json* ready_condition(const ClusterObject& pod) {
  const Json* conditions = kube::find(pod.json(), "status", "conditions");
  if (conditions == nullptr || !conditions->is_array()) return nullptr;
  for (const Json& one : *conditions) {
    if (kube::text_at(one, "type") == "Ready") return &one;
  }
  return nullptr;
}

}  // namespace

bool pod_is_active(const ClusterObject& pod) {
  const std::string phase = kube::text_at(pod.json(), "status", "phase");
  return phase != "Succeeded" && phase != "Failed" && !pod.deleting();
}

bool pod_is_ready(const ClusterObject& pod) {
  const Json* ready = ready_condition(pod);
  return ready != nullptr && kube::text_at(*ready, "status") == "True";
}

bool pod_is_available(const ClusterObject& pod, int64_t min_ready_s,
                      std::chrono::system_clock::time_point now, Duration* wait) {
  if (!pod_is_ready(pod)) return false;
  if (min_ready_s <= 0) return true;
  const auto since =
      kube::parse_rfc3339(kube::text_at(*ready_condition(pod), "lastTransitionTime"));
  const auto until = since.value_or(now) + std::chrono::seconds(min_ready_s);
  if (now >= until) return true;
  *wait = std::chrono::duration_cast<Duration>(until - now);
  return false;
}

Json pod_of_template(const ClusterObject& owner, const Json& pod_template) {
  Json pod{{"apiVersion", "v1"}, {"kind", "Pod"}, {"metadata", Json::object()}};
  if (const Json* meta = kube::find(pod_template, "metadata")) {
    for (const char* part : {"labels", "annotations", "finalizers"}) {
      if (const Json* value = kube::find(*meta, part)) pod["metadata"][part] = *value;
    }
  }
  pod["metadata"]["generateName"] = owner.name + "-";
  pod["metadata"]["namespace"] = owner.ns;
  pod["metadata"]["ownerReferences"] = Json::array({controller_reference(owner)});
  if (const Json* spec = kube::find(pod_template, "spec")) pod["spec"] = *spec;
  return pod;
}

std::string template_hash(const Json& pod_template) {
  uint64_t hash = 1469598103934665603ULL;  // FNV-1a: stable over versions of this program
  for (const char c : kube::to_text(pod_template)) {
    hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211ULL;
  }
  constexpr std::string_view kLetters = "bcdfghjklmnpqrstvwxz2456789";
  std::string out;
  for (int i = 0; i < 10; ++i, hash /= kLetters.size()) out += kLetters[hash % kLetters.size()];
  return out;
}

}  // namespace edgemesh::cloud::controllers
