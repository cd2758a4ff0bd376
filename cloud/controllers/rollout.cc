#include "cloud/controllers/rollout.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <numeric>

#include "kube/json_util.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

int64_t amount(const Json* value, int64_t replicas, bool round_up, int64_t otherwise) {
  if (value == nullptr) return otherwise;
  if (value->is_number_integer()) return std::max<int64_t>(0, value->get<int64_t>());
  if (!value->is_string()) return otherwise;
  const std::string text = value->get<std::string>();
  int64_t percent = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), percent);
  if (error != std::errc() || percent < 0) return otherwise;
  if (end == text.data() + text.size()) return percent;  // "3"
  const int64_t scaled = percent * replicas;
  return round_up ? (scaled + 99) / 100 : scaled / 100;
}

int64_t sum(const std::vector<SetSize>& sets, int64_t SetSize::*field) {
  return std::accumulate(sets.begin(), sets.end(), int64_t{0},
                         [&](int64_t total, const SetSize& set) { return total + set.*field; });
}

}  // namespace

RolloutLimits rollout_limits(const Json* rolling_update, int64_t replicas) {
  const Json none = Json::object();
  const Json& given = rolling_update == nullptr ? none : *rolling_update;
  const Json quarter = "25%";
  const Json* surge = kube::find(given, "maxSurge");
  const Json* unavailable = kube::find(given, "maxUnavailable");
  RolloutLimits out;
  out.surge = amount(surge == nullptr ? &quarter : surge, replicas, true, 0);
  out.unavailable = amount(unavailable == nullptr ? &quarter : unavailable, replicas, false, 0);
  // Else nothing could ever move.
  if (out.surge == 0 && out.unavailable == 0) out.unavailable = 1;
  out.unavailable = std::min(out.unavailable, replicas);
  return out;
}

RolloutLimits daemon_limits(const Json* rolling_update, int64_t desired) {
  const Json none = Json::object();
  const Json& given = rolling_update == nullptr ? none : *rolling_update;
  RolloutLimits out;
  out.surge = amount(kube::find(given, "maxSurge"), desired, true, 0);
  out.unavailable = amount(kube::find(given, "maxUnavailable"), desired, true, 1);
  if (out.surge == 0 && out.unavailable == 0) out.unavailable = 1;
  return out;
}

RolloutStep rolling_step(int64_t wanted, RolloutLimits limits, SetSize fresh,
                         const std::vector<SetSize>& old) {
  RolloutStep step;
  step.fresh = fresh.replicas;
  for (const SetSize& set : old) step.old.push_back(set.replicas);
  const int64_t all = fresh.replicas + sum(old, &SetSize::replicas);
  if (fresh.replicas > wanted) {
    step.fresh = wanted;
  } else {
    const int64_t room = std::max<int64_t>(0, wanted + limits.surge - all);
    step.fresh = std::min(wanted, fresh.replicas + room);
  }
  // What may go: pods of old sets that are not available cost nothing, the others only as far as
  // enough stay.
  const int64_t lacking = std::max<int64_t>(0, fresh.replicas - fresh.available);
  int64_t may_go = std::max<int64_t>(0, all - (wanted - limits.unavailable) - lacking);
  for (size_t i = 0; i < old.size(); ++i) {
    const int64_t broken =
        std::max<int64_t>(0, std::min(old[i].replicas - old[i].available, may_go));
    step.old[i] -= broken;
    may_go -= broken;
  }
  int64_t available = fresh.available + sum(old, &SetSize::available);
  // The status of a set lags behind what was asked of it; may_go does not.
  int64_t spare = std::min(may_go, std::max<int64_t>(0, available - (wanted - limits.unavailable)));
  for (size_t i = 0; i < old.size(); ++i) {
    const int64_t go = std::min(step.old[i], spare);
    step.old[i] -= go;
    spare -= go;
  }
  return step;
}

RolloutStep recreate_step(int64_t wanted, SetSize fresh, const std::vector<SetSize>& old,
                          bool old_pods_left) {
  RolloutStep step;
  step.fresh = old_pods_left || sum(old, &SetSize::replicas) > 0 ? fresh.replicas : wanted;
  if (fresh.replicas > wanted) step.fresh = wanted;
  step.old.assign(old.size(), 0);
  return step;
}

}  // namespace edgemesh::cloud::controllers
