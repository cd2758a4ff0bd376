#include "cloud/controllers/job_pod.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cloud/controllers/pods.h"
#include "kube/json_util.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

constexpr const char* kIndex = "batch.kubernetes.io/job-completion-index";
constexpr size_t kMaxHostName = 63;

const Json& list_at(const Json& object, const char* parent, const char* name) {
  static const Json kEmpty = Json::array();
  const Json* list = kube::find(object, parent, name);
  return list != nullptr && list->is_array() ? *list : kEmpty;
}

void tell_index(Json* spec) {
  for (const char* list : {"containers", "initContainers"}) {
    const auto containers = spec->find(list);
    if (containers == spec->end() || !containers->is_array()) continue;
    for (Json& container : *containers) {
      Json& env = container["env"];
      if (!env.is_array()) env = Json::array();
      const bool given = std::any_of(env.begin(), env.end(), [](const Json& one) {
        return kube::text_at(one, "name") == "JOB_COMPLETION_INDEX";
      });
      if (given) continue;
      env.push_back(
          {{"name", "JOB_COMPLETION_INDEX"},
           {"valueFrom",
            {{"fieldRef", {{"fieldPath", fmt::format("metadata.annotations['{}']", kIndex)}}}}}});
    }
  }
}

bool exit_code_matches(const Json& wanted, const Json& terminated, int64_t* code) {
  *code = int_at(terminated, {"exitCode"}, 0);
  if (*code == 0) return false;
  const Json* values = kube::find(wanted, "values");
  const bool listed = values != nullptr && values->is_array() &&
                      std::find(values->begin(), values->end(), Json(*code)) != values->end();
  return kube::text_at(wanted, "operator") == "NotIn" ? !listed : listed;
}

// Empty: no container's end matches.
std::string match_exit_codes(const Json& wanted, const ClusterObject& pod) {
  const std::string only = kube::text_at(wanted, "containerName");
  for (const char* list : {"containerStatuses", "initContainerStatuses"}) {
    for (const Json& status : list_at(pod.json(), "status", list)) {
      const std::string name = kube::text_at(status, "name");
      const Json* terminated = kube::find(status, "state", "terminated");
      int64_t code = 0;
      if (terminated == nullptr || (!only.empty() && only != name) ||
          !exit_code_matches(wanted, *terminated, &code))
        continue;
      return fmt::format("Container {} for pod {} failed with exit code {}", name, pod.key(), code);
    }
  }
  return "";
}

std::string match_conditions(const Json& patterns, const ClusterObject& pod) {
  for (const Json& pattern : patterns) {
    const std::string type = kube::text_at(pattern, "type");
    std::string status = kube::text_at(pattern, "status");
    if (status.empty()) status = "True";
    if (condition(pod.json(), type) == status)
      return fmt::format("Pod {} has condition {}", pod.key(), type);
  }
  return "";
}

}  // namespace

bool is_indexed(const ClusterObject& job) {
  return kube::text_at(job.json(), "spec", "completionMode") == "Indexed";
}

bool is_tracked(const ClusterObject& pod) {
  const Json& list = list_at(pod.json(), "metadata", "finalizers");
  return std::find(list.begin(), list.end(), Json(kJobTracking)) != list.end();
}

int64_t completion_index(const ClusterObject& pod) {
  const std::string text = kube::text_at(pod.json(), "metadata", "annotations", kIndex);
  if (text.empty() || text.size() > 10 || text.find_first_not_of("0123456789") != std::string::npos)
    return -1;
  return std::atoll(text.c_str());
}

Json job_pod(const ClusterObject& job, int64_t index) {
  const Json* pod_template = kube::find(job.json(), "spec", "template");
  Json pod = pod_of_template(job, pod_template == nullptr ? Json::object() : *pod_template);
  Json& meta = pod["metadata"];
  if (!meta["finalizers"].is_array()) meta["finalizers"] = Json::array();
  meta["finalizers"].push_back(kJobTracking);
  if (index < 0) return pod;
  const std::string number = std::to_string(index);
  meta["generateName"] = fmt::format("{}-{}-", job.name, number);
  meta["annotations"][kIndex] = number;
  meta["labels"][kIndex] = number;
  Json& spec = pod["spec"];
  std::string host = fmt::format("{}-{}", job.name, number);
  if (kube::find(spec, "hostname") == nullptr && host.size() <= kMaxHostName &&
      host.find('.') == std::string::npos)
    spec["hostname"] = std::move(host);
  tell_index(&spec);
  return pod;
}

Json without_tracking(const ClusterObject& pod) {
  Json kept = Json::array();
  for (const Json& one : list_at(pod.json(), "metadata", "finalizers")) {
    if (one != Json(kJobTracking)) kept.push_back(one);
  }
  return {{"metadata", {{"finalizers", std::move(kept)}}}};
}

PodEnd end_of_pod(const ClusterObject& job, const ClusterObject& pod) {
  const std::string phase = kube::text_at(pod.json(), "status", "phase");
  if (phase == "Succeeded") return PodEnd::kSucceeded;
  if (phase == "Failed") return PodEnd::kFailed;
  if (!pod.deleting()) return PodEnd::kNotYet;
  const bool waits = kube::text_at(job.json(), "spec", "podReplacementPolicy") == "Failed";
  return waits && phase != "Pending" ? PodEnd::kNotYet : PodEnd::kFailed;
}

FailureAction failure_action(const ClusterObject& job, const ClusterObject& pod) {
  const Json* rules = kube::find(job.json(), "spec", "podFailurePolicy", "rules");
  if (rules == nullptr || !rules->is_array()) return {};
  // Of a pod that is only being deleted nothing is known yet.
  if (kube::text_at(pod.json(), "status", "phase") != "Failed") return {};
  for (size_t i = 0; i < rules->size(); ++i) {
    const Json& rule = (*rules)[i];
    const Json* codes = kube::find(rule, "onExitCodes");
    const Json* conditions = kube::find(rule, "onPodConditions");
    std::string why;
    if (codes != nullptr)
      why = match_exit_codes(*codes, pod);
    else if (conditions != nullptr && conditions->is_array())
      why = match_conditions(*conditions, pod);
    if (why.empty()) continue;
    const std::string action = kube::text_at(rule, "action");
    if (action == "Ignore") return {FailureAction::Kind::kIgnore, ""};
    if (action == "FailJob")
      return {FailureAction::Kind::kFailJob,
              fmt::format("{} matching {} rule at index {}", why, action, i)};
    return {};
  }
  return {};
}

int64_t restarts_of(const ClusterObject& pod) {
  int64_t sum = 0;
  for (const char* list : {"containerStatuses", "initContainerStatuses"}) {
    for (const Json& status : list_at(pod.json(), "status", list))
      sum += std::max<int64_t>(0, int_at(status, {"restartCount"}, 0));
  }
  return sum;
}

}  // namespace edgemesh::cloud::controllers
