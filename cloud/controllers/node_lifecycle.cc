#include "cloud/controllers/node_lifecycle.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "cloud/controllers/batch.h"
#include "cloud/controllers/daemon_pod.h"
#include "cloud/controllers/fit.h"
#include "cloud/controllers/pods.h"
#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxParallel = 8;
constexpr const char* kLeaseNamespace = "kube-node-lease";
constexpr const char* kNotReadyReason = "NodeNotReady";
constexpr const char* kNotReady = "node.kubernetes.io/not-ready";
constexpr const char* kUnreachable = "node.kubernetes.io/unreachable";
constexpr const char* kUnschedulable = "node.kubernetes.io/unschedulable";

struct Trouble {
  const char* condition;
  const char* status;
  const char* taint;
};
constexpr Trouble kTroubles[] = {
    {"Ready", "False", kNotReady},
    {"Ready", "Unknown", kUnreachable},
    {"MemoryPressure", "True", "node.kubernetes.io/memory-pressure"},
    {"DiskPressure", "True", "node.kubernetes.io/disk-pressure"},
    {"PIDPressure", "True", "node.kubernetes.io/pid-pressure"},
    {"NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"}};

Json array_at(const Json& object, const char* parent, const char* name) {
  const Json* list = kube::find(object, parent, name);
  return list != nullptr && list->is_array() ? *list : Json::array();
}

bool is_true(const Json* value) {
  return value != nullptr && *value == Json(true);
}

bool has_taint(const Json& taints, const std::string& key, const std::string& effect) {
  return std::any_of(taints.begin(), taints.end(), [&](const Json& taint) {
    return kube::text_at(taint, "key") == key && kube::text_at(taint, "effect") == effect;
  });
}

bool is_ours(const Json& taint) {
  const std::string key = kube::text_at(taint, "key"), effect = kube::text_at(taint, "effect");
  if (effect == "NoExecute") return key == kUnreachable;
  if (effect != "NoSchedule") return false;
  return key == kUnschedulable ||
         std::any_of(std::begin(kTroubles), std::end(kTroubles),
                     [&](const Trouble& trouble) { return key == trouble.taint; });
}

// Reports of a node come all the time; this is what others go by.
Json essence(const SharedObject& node) {
  if (node == nullptr) return Json();
  Json out{array_at(node->json(), "spec", "taints"),
           is_true(kube::find(node->json(), "spec", "unschedulable"))};
  for (const Trouble& trouble : kTroubles)
    out.push_back(condition(node->json(), trouble.condition));
  return out;
}

// A change of what was read, and of nothing newer.
Json with_version(const ClusterObject& object, Json patch) {
  patch["metadata"]["resourceVersion"] = object.version;
  return patch;
}

}  // namespace

NodeLifecycle::NodeLifecycle(Cluster& cluster, Options options)
    : cluster_(cluster),
      options_(options),
      queue_(cluster.loop(), "nodes", kMaxParallel,
             [this](const std::string& node, WorkQueue::Done done) {
               reconcile(node, std::move(done));
             }),
      events_(cluster, "node-controller") {
  cluster.on_change(kube::kNodes, [this](const SharedObject& before, const SharedObject& after) {
    on_node(before, after);
  });
  cluster.on_change(kube::kPods, [this](const SharedObject& before, const SharedObject& after) {
    on_pod(before, after);
  });
  cluster.on_change(kube::kLeases, [this](const SharedObject& before, const SharedObject& after) {
    on_lease(before, after);
  });
}

void NodeLifecycle::on_node(const SharedObject& before, const SharedObject& after) {
  if (after == nullptr) {
    renewed_.erase(before->name);
    return;
  }
  if (before == nullptr || essence(before) != essence(after)) queue_.add(after->name);
}

void NodeLifecycle::on_pod(const SharedObject& before, const SharedObject& after) {
  if (before != nullptr) {
    const auto it = pods_.find(kube::text_at(before->json(), "spec", "nodeName"));
    if (it != pods_.end() && it->second.erase(before->key()) > 0 && it->second.empty())
      pods_.erase(it);
  }
  if (after == nullptr || !pod_is_active(*after)) return;
  const std::string name = kube::text_at(after->json(), "spec", "nodeName");
  if (name.empty()) return;
  pods_[name].insert(after->key());
  const SharedObject node = cluster_.find(kube::kNodes, "", name);
  if (node == nullptr) return;
  // On a node in order there is nothing to do for it.
  const Json taints = array_at(node->json(), "spec", "taints");
  const bool evicts = std::any_of(taints.begin(), taints.end(), [](const Json& taint) {
    return kube::text_at(taint, "effect") == "NoExecute";
  });
  if (evicts || !ready_patch(*after, node_is_away(*node)).is_null()) queue_.add(name);
}

void NodeLifecycle::on_lease(const SharedObject& before, const SharedObject& after) {
  const SharedObject& lease = after != nullptr ? after : before;
  if (lease->ns != kLeaseNamespace) return;
  if (after == nullptr) {
    renewed_.erase(before->name);
    return;
  }
  const auto time = [](const SharedObject& of) {
    return kube::text_at(of->json(), "spec", "renewTime");
  };
  if (before != nullptr && time(before) == time(after)) return;
  renewed_[lease->name] = cluster_.loop().now();
  queue_.add_after(lease->name, options_.grace);
}

bool NodeLifecycle::lapsed(const SharedObject& node) {
  const auto it = renewed_.find(node->name);
  if (it == renewed_.end() || node_is_away(*node)) return false;
  const Duration left = it->second + options_.grace - cluster_.loop().now();
  if (left <= Duration{}) return true;
  queue_.add_after(node->name, left);
  return false;
}

void NodeLifecycle::say_unknown(const SharedObject& node, WorkQueue::Done done) {
  Json conditions = array_at(node->json(), "status", "conditions");
  const std::string now = kube::rfc3339(cluster_.loop().clock().wall_now());
  for (const char* type : {"Ready", "MemoryPressure", "DiskPressure", "PIDPressure"})
    set_condition(conditions, type, "Unknown", "NodeStatusUnknown",
                  "Kubelet stopped posting node status.", now);
  for (Json& one : conditions) one.erase("lastUpdateTime");
  auto batch = Batch::make(1, std::move(done));
  cluster_.patch(node, with_version(*node, {{"status", {{"conditions", conditions}}}}),
                 batch->part(), "status");
}

Json NodeLifecycle::wanted_taints(const ClusterObject& node) const {
  const Json have = array_at(node.json(), "spec", "taints");
  const std::string now = kube::rfc3339(cluster_.loop().clock().wall_now());
  Json out = Json::array();
  auto want = [&](const char* key, const char* effect) {
    for (const Json& taint : have) {
      if (kube::text_at(taint, "key") == key && kube::text_at(taint, "effect") == effect) {
        out.push_back(taint);
        return;
      }
    }
    out.push_back({{"key", key}, {"effect", effect}, {"timeAdded", now}});
  };
  for (const Json& taint : have) {
    if (!is_ours(taint)) out.push_back(taint);
  }
  for (const Trouble& trouble : kTroubles) {
    if (condition(node.json(), trouble.condition) == trouble.status)
      want(trouble.taint, "NoSchedule");
  }
  if (is_true(kube::find(node.json(), "spec", "unschedulable"))) want(kUnschedulable, "NoSchedule");
  if (options_.evicts && node_is_away(node)) want(kUnreachable, "NoExecute");
  return out;
}

void NodeLifecycle::reconcile(const std::string& name, WorkQueue::Done done) {
  const SharedObject node = cluster_.find(kube::kNodes, "", name);
  if (node == nullptr || node->deleting()) return done({});
  if (lapsed(node)) return say_unknown(node, std::move(done));
  const Json have = array_at(node->json(), "spec", "taints"), wanted = wanted_taints(*node);
  const bool same =
      have.size() == wanted.size() && std::all_of(wanted.begin(), wanted.end(), [&](const Json& t) {
        return has_taint(have, kube::text_at(t, "key"), kube::text_at(t, "effect"));
      });
  if (same) return settle_pods(node, std::move(done));
  const bool was_away = has_taint(have, kUnreachable, "NoSchedule");
  const bool away = node_is_away(*node);
  if (was_away != away) {
    events_.normal(
        *node, away ? "NodeNotReady" : "NodeReady",
        fmt::format("Node {} status is now: {}", name, away ? "NodeNotReady" : "NodeReady"));
  }
  auto batch = Batch::make(1, [this, name, done = std::move(done)](Result<> result) {
    const SharedObject now = cluster_.find(kube::kNodes, "", name);
    if (!result || now == nullptr) return done(std::move(result));
    settle_pods(now, done);
  });
  cluster_.patch(node, with_version(*node, {{"spec", {{"taints", wanted}}}}), batch->part());
}

Json NodeLifecycle::ready_patch(const ClusterObject& pod, bool away) const {
  Json conditions = array_at(pod.json(), "status", "conditions");
  const std::string now = kube::rfc3339(cluster_.loop().clock().wall_now());
  for (Json& one : conditions) {
    if (kube::text_at(one, "type") != "Ready") continue;
    const bool marked = kube::text_at(one, "reason") == kNotReadyReason;
    if (away && kube::text_at(one, "status") == "True") {
      one["status"] = "False";
      one["reason"] = kNotReadyReason;
      one["message"] = "The node does not answer.";
      one["lastTransitionTime"] = now;
      return {{"status", {{"conditions", conditions}}}};
    }
    if (!away && marked && condition(pod.json(), "ContainersReady") != "False") {
      one["status"] = "True";
      one.erase("reason");
      one.erase("message");
      one["lastTransitionTime"] = now;
      return {{"status", {{"conditions", conditions}}}};
    }
  }
  return nullptr;
}

Duration NodeLifecycle::may_stay(const ClusterObject& pod, const ClusterObject& node) const {
  const auto now = cluster_.loop().clock().wall_now();
  Duration shortest{};
  for (const Json& taint : array_at(node.json(), "spec", "taints")) {
    if (kube::text_at(taint, "effect") != "NoExecute") continue;
    const auto added = kube::parse_rfc3339(kube::text_at(taint, "timeAdded")).value_or(now);
    bool tolerated = false;
    for (const Json& toleration : array_at(pod.json(), "spec", "tolerations")) {
      const Json alone{{"spec", {{"tolerations", Json::array({toleration})}}}};
      if (!tolerates(alone, taint)) continue;
      tolerated = true;
      const int64_t seconds = int_at(toleration, {"tolerationSeconds"}, -1);
      if (seconds < 0) continue;
      const auto left =
          std::chrono::duration_cast<Duration>(added + std::chrono::seconds(seconds) - now);
      const Duration until = left <= Duration{} ? Duration(-1) : left;
      shortest = shortest == Duration{} ? until : std::min(shortest, until);
    }
    if (!tolerated) return Duration(-1);
  }
  return shortest;
}

void NodeLifecycle::settle_pods(const SharedObject& node, WorkQueue::Done done) {
  std::vector<std::pair<SharedObject, Json>> marks;
  std::vector<SharedObject> evicted;
  const auto keys = pods_.find(node->name);
  const bool away = node_is_away(*node);
  for (const std::string& key : keys == pods_.end() ? std::set<std::string>() : keys->second) {
    const SharedObject pod = cluster_.find(kube::kPods, key);
    if (pod == nullptr || pod->deleting()) continue;
    const Duration left = may_stay(*pod, *node);
    if (left < Duration{}) {
      evicted.push_back(pod);
      continue;
    }
    if (left > Duration{}) queue_.add_after(node->name, left);
    if (Json patch = ready_patch(*pod, away); !patch.is_null())
      marks.emplace_back(pod, std::move(patch));
  }
  auto batch = Batch::make(marks.size() + evicted.size(), std::move(done));
  for (auto& [pod, patch] : marks)
    cluster_.patch(pod, with_version(*pod, std::move(patch)), batch->part(), "status");
  for (const SharedObject& pod : evicted) {
    events_.normal(*pod, "TaintManagerEviction", "Marking for deletion Pod " + pod->key());
    cluster_.remove(pod, batch->part());
  }
}

}  // namespace edgemesh::cloud::controllers
