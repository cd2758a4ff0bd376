#include "agent/edged/spec/resources.h"

#include <algorithm>

#include "agent/edged/spec/quantity.h"
#include "kube/json_util.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;

constexpr int64_t kPeriodUs = 100'000;
constexpr int64_t kLeastQuotaUs = 1000;
constexpr int64_t kLeastShares = 2, kMostShares = 262'144;
constexpr int kGuaranteedScore = -997, kBestEffortScore = 1000;

bool critical(const Pod& pod) {
  const Json* priority = kube::find(*pod.json, "spec", "priority");
  constexpr int64_t kSystemCritical = 2'000'000'000;
  return priority != nullptr && priority->is_number_integer() &&
         priority->get<int64_t>() >= kSystemCritical;
}

}  // namespace

Qos qos_of(const Pod& pod) {
  bool any = false, guaranteed = true;
  for (const auto* list : {&pod.init_containers, &pod.containers}) {
    for (const Container& c : *list) {
      const int64_t cpu[] = {cpu_milli(*c.json, "requests"), cpu_milli(*c.json, "limits")};
      const int64_t memory[] = {bytes_of(*c.json, "requests", "memory"),
                                bytes_of(*c.json, "limits", "memory")};
      if (cpu[0] > 0 || cpu[1] > 0 || memory[0] > 0 || memory[1] > 0) any = true;
      if (cpu[1] == 0 || memory[1] == 0 || cpu[0] != cpu[1] || memory[0] != memory[1])
        guaranteed = false;
    }
  }
  if (!any) return Qos::kBestEffort;
  return guaranteed ? Qos::kGuaranteed : Qos::kBurstable;
}

const char* to_string(Qos qos) {
  switch (qos) {
    case Qos::kGuaranteed: return "Guaranteed";
    case Qos::kBurstable: return "Burstable";
    case Qos::kBestEffort: break;
  }
  return "BestEffort";
}

std::string cgroup_of(const Pod& pod, const std::string& root) {
  switch (qos_of(pod)) {
    case Qos::kGuaranteed: return fmt::format("{}/pod{}", root, pod.uid);
    case Qos::kBurstable: return fmt::format("{}/burstable/pod{}", root, pod.uid);
    case Qos::kBestEffort: break;
  }
  return fmt::format("{}/besteffort/pod{}", root, pod.uid);
}

int64_t shares_of(int64_t milli_cpu) {
  if (milli_cpu >= kMostShares) return kMostShares;
  return std::clamp(milli_cpu * 1024 / 1000, kLeastShares, kMostShares);
}

int oom_score(const Pod& pod, const Container& container, int64_t memory) {
  if (critical(pod)) return kGuaranteedScore;
  const Qos qos = qos_of(pod);
  if (qos == Qos::kGuaranteed) return kGuaranteedScore;
  if (qos == Qos::kBestEffort || memory <= 0) return kBestEffortScore;
  // The more of the node's memory it asked for, the safer it is; always after those who asked for
  // nothing, always before those who are sure of theirs.
  const auto request = static_cast<double>(bytes_of(*container.json, "requests", "memory"));
  const int score =
      1000 - static_cast<int>(std::min(1000 * request / static_cast<double>(memory), 1000.0));
  return std::clamp(score, 1000 + kGuaranteedScore, kBestEffortScore - 1);
}

pb::LinuxContainerResources resources_of(const Pod& pod, const Container& container,
                                         int64_t memory) {
  pb::LinuxContainerResources out;
  out.set_cpu_shares(shares_of(cpu_milli(*container.json, "requests")));
  out.set_cpu_period(kPeriodUs);
  if (const int64_t limit = cpu_milli(*container.json, "limits"); limit > 0) {
    constexpr int64_t kMostMilli = 100'000'000;
    out.set_cpu_quota(std::max(std::min(limit, kMostMilli) * kPeriodUs / 1000, kLeastQuotaUs));
  }
  out.set_memory_limit_in_bytes(bytes_of(*container.json, "limits", "memory"));
  out.set_oom_score_adj(oom_score(pod, container, memory));
  return out;
}

}  // namespace edgemesh::edged
