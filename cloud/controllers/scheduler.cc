#include "cloud/controllers/scheduler.h"

#include <nlohmann/json.hpp>

#include "cloud/controllers/daemon_pod.h"
#include "cloud/controllers/pods.h"
#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

// One at a time: each choice sees the one before it.
constexpr size_t kParallel = 1;
// Many pods may come and go; those that wait are not tried again for each of them.
constexpr Duration kRetryEvery = std::chrono::milliseconds(500);

std::string node_of(const ClusterObject& pod) {
  return kube::text_at(pod.json(), "spec", "nodeName");
}

bool is_ours(const ClusterObject& pod) {
  const std::string scheduler = kube::text_at(pod.json(), "spec", "schedulerName");
  const Json* gates = kube::find(pod.json(), "spec", "schedulingGates");
  return node_of(pod).empty() && pod_is_active(pod) && (gates == nullptr || gates->empty()) &&
         (scheduler.empty() || scheduler == "default-scheduler");
}

bool same(const Json* a, const Json* b) {
  return a == nullptr || b == nullptr ? a == b : *a == *b;
}

// Reports of a node come every few seconds; this is what decides about pods.
bool same_for_pods(const ClusterObject& a, const ClusterObject& b) {
  auto equal = [&](auto... path) {
    return same(kube::find(a.json(), path...), kube::find(b.json(), path...));
  };
  return equal("spec", "unschedulable") && equal("spec", "taints") && equal("metadata", "labels") &&
         equal("status", "allocatable") &&
         condition(a.json(), "Ready") == condition(b.json(), "Ready");
}

bool is_cordoned(const ClusterObject& node) {
  const Json* value = kube::find(node.json(), "spec", "unschedulable");
  return value != nullptr && *value == Json(true);
}

bool tolerates_cordon(const ClusterObject& pod) {
  return tolerates(pod.json(),
                   {{"key", "node.kubernetes.io/unschedulable"}, {"effect", "NoSchedule"}});
}

}  // namespace

Scheduler::Scheduler(Cluster& cluster)
    : cluster_(cluster),
      queue_(cluster.loop(), "scheduler", kParallel,
             [this](const std::string&, WorkQueue::Done done) { schedule_next(std::move(done)); }),
      events_(cluster, "default-scheduler"),
      placement_(cluster),
      retry_timer_(cluster.loop(), [this] { try_waiting(""); }) {
  cluster.on_change(kube::kPods, [this](const SharedObject& before, const SharedObject& after) {
    on_pod(before, after);
  });
  cluster.on_change(kube::kNodes, [this](const SharedObject& before, const SharedObject& after) {
    on_node(before, after);
  });
}

void Scheduler::on_node(const SharedObject& before, const SharedObject& after) {
  if (after == nullptr) {
    rooms_.erase(before->name);
    return;
  }
  if (before != nullptr && same_for_pods(*before, *after)) return;
  rooms_[after->name] = node_allocatable(after->json());
  try_waiting(after->name);
}

void Scheduler::on_pod(const SharedObject& before, const SharedObject& after) {
  const bool counted = before != nullptr && !node_of(*before).empty() && pod_is_active(*before);
  const bool counts = after != nullptr && !node_of(*after).empty() && pod_is_active(*after);
  if (counted) account(before, -1);
  if (counts) account(after, 1);
  if (after != nullptr && is_ours(*after)) {
    // What this scheduler wrote about a waiting pod is no reason to look at it again.
    const std::string pinned = target_node(after->json());
    const auto waits = waiting_for_.find(pinned);
    const bool known = waiting_.contains(after->key()) ||
                       (waits != waiting_for_.end() && waits->second.contains(after->key()));
    if (before == nullptr || !known) enqueue(*after);
  } else if (before != nullptr) {
    forget(*before);
  }
  if (counted && !counts) try_waiting(node_of(*before));
}

void Scheduler::account(const SharedObject& pod, int sign) {
  Load& load = loads_[node_of(*pod)];
  const Resources asked = pod_requests(pod->json());
  if (sign > 0) {
    placement_.add(*pod);
    load.asked += asked;
    for (const std::string& port : host_ports(pod->json())) load.ports.insert(port);
  } else {
    placement_.remove(*pod);
    load.asked -= asked;
    for (const std::string& port : host_ports(pod->json())) {
      if (const auto it = load.ports.find(port); it != load.ports.end()) load.ports.erase(it);
    }
  }
  if (!pod->controller.empty() && (load.by_owner[pod->controller] += sign) <= 0)
    load.by_owner.erase(pod->controller);
  if (load.asked.pods == 0) loads_.erase(node_of(*pod));
}

// --- who is next ---

void Scheduler::enqueue(const ClusterObject& pod) {
  const int64_t rank = -int_at(pod.json(), {"spec", "priority"}, 0);
  const auto [it, fresh] = pending_at_.try_emplace(pod.key(), rank, ++order_);
  if (!fresh) return;
  pending_.emplace(rank, it->second.second, pod.key());
  queue_.add(pod.key());
}

std::string Scheduler::next() {
  if (pending_.empty()) return "";
  std::string key = std::get<2>(*pending_.begin());
  pending_.erase(pending_.begin());
  pending_at_.erase(key);
  return key;
}

void Scheduler::wait_for(const std::string& node, const std::string& pod) {
  if (node.empty())
    waiting_.insert(pod);
  else
    waiting_for_[node].insert(pod);
}

void Scheduler::forget(const ClusterObject& pod) {
  waiting_.erase(pod.key());
  const auto it = waiting_for_.find(target_node(pod.json()));
  if (it != waiting_for_.end() && it->second.erase(pod.key()) > 0 && it->second.empty())
    waiting_for_.erase(it);
}

void Scheduler::try_waiting(const std::string& node) {
  auto again = [this](const std::set<std::string>& keys) {
    for (const std::string& key : keys) {
      const SharedObject pod = cluster_.find(kube::kPods, key);
      if (pod != nullptr) enqueue(*pod);
    }
  };
  if (auto it = waiting_for_.find(node); it != waiting_for_.end()) {
    const std::set<std::string> pinned = std::move(it->second);
    waiting_for_.erase(it);
    again(pinned);
  }
  if (waiting_.empty()) return;
  const TimePoint now = cluster_.loop().now();
  if (tried_ != TimePoint{} && now - tried_ < kRetryEvery) {
    retry_timer_.start_at(tried_ + kRetryEvery);
    return;
  }
  tried_ = now;
  again(std::exchange(waiting_, {}));
}

void Scheduler::schedule_next(WorkQueue::Done done) {
  const std::string key = next();
  // A turn for each that is left, whosever turn this was.
  if (!pending_.empty()) queue_.add(std::get<2>(*pending_.begin()));
  const SharedObject pod = cluster_.find(kube::kPods, key);
  if (pod == nullptr || !is_ours(*pod)) return done({});
  const std::string pinned = target_node(pod->json());
  const Choice choice = choose(*pod, pinned);
  auto then = [this, key, done = std::move(done)](Result<> result) {
    const SharedObject now = cluster_.find(kube::kPods, key);
    if (!result && now != nullptr) wait_for("", key);  // tried again with the others
    done({});
    if (!result) retry_timer_.start(kRetryEvery);
  };
  if (choice.node != nullptr) return bind(pod, choice.node, std::move(then));
  wait_for(pinned, key);
  say_unschedulable(pod, choice, std::move(then));
}

// --- where ---

std::vector<std::string> Scheduler::refusals(const ClusterObject& pod, const Wish& wish,
                                             const ClusterObject& node) const {
  if (is_cordoned(node) && !tolerates_cordon(pod)) return {"node(s) were unschedulable"};
  if (!affinity_allows(pod.json(), node))
    return {"node(s) didn't match Pod's node affinity/selector"};
  if (const Json* taint = find_untolerated(pod.json(), node.json(), {"NoSchedule", "NoExecute"})) {
    return {fmt::format("node(s) had untolerated taint {{{}: {}}}", kube::text_at(*taint, "key"),
                        kube::text_at(*taint, "value"))};
  }
  if (condition(node.json(), "Ready") != "True") return {"node(s) were not ready"};
  const auto has = rooms_.find(node.name);
  const Resources room = has == rooms_.end() ? Resources{} : has->second;
  if (room.pods == 0) return {"node(s) run no pods"};
  const auto at = loads_.find(node.name);
  const Load none;
  const Load& load = at == loads_.end() ? none : at->second;
  for (const std::string& port : wish.ports) {
    if (load.ports.contains(port))
      return {"node(s) didn't have free ports for the requested pod ports"};
  }
  std::vector<std::string> out;
  if (load.asked.pods + 1 > room.pods) out.emplace_back("Too many pods");
  if (wish.asked.milli_cpu > 0 && load.asked.milli_cpu + wish.asked.milli_cpu > room.milli_cpu)
    out.emplace_back("Insufficient cpu");
  if (wish.asked.memory > 0 && load.asked.memory + wish.asked.memory > room.memory)
    out.emplace_back("Insufficient memory");
  if (!out.empty()) return out;
  if (std::string why = wish.rules.refusal(node); !why.empty()) out.push_back(std::move(why));
  return out;
}

Scheduler::Cost Scheduler::cost(const ClusterObject& pod, const Wish& wish,
                                const ClusterObject& node) const {
  const int64_t wanted = preferred_weight(pod.json(), node);
  const int64_t avoided = avoided_taints(pod.json(), node.json());
  const auto at = loads_.find(node.name);
  if (at == loads_.end()) return {avoided, -wanted, wish.rules.crowd(node), 0, 0, 0};
  const auto like = at->second.by_owner.find(pod.controller);
  return {avoided,
          -wanted,
          wish.rules.crowd(node),
          like == at->second.by_owner.end() ? 0 : like->second,
          at->second.asked.milli_cpu,
          at->second.asked.pods};
}

Scheduler::Choice Scheduler::choose(const ClusterObject& pod, const std::string& pinned) const {
  Choice choice;
  Wish wish{pod_requests(pod.json()), host_ports(pod.json()), {}};
  wish.rules = placement_.rules_for(pod, [&](const ClusterObject& node) {
    return affinity_allows(pod.json(), node) && untolerated_taint(pod.json(), node.json()).empty();
  });
  Cost best{};
  auto consider = [&](const SharedObject& node) {
    const auto why = refusals(pod, wish, *node);
    for (const std::string& reason : why) ++choice.refusals[reason];
    if (!why.empty()) return;
    const Cost now = cost(pod, wish, *node);
    if (choice.node != nullptr && now >= best) return;
    choice.node = node;
    best = now;
  };
  if (!pinned.empty()) {
    choice.nodes = static_cast<int>(rooms_.size());
    const SharedObject node = cluster_.find(kube::kNodes, "", pinned);
    if (node != nullptr) consider(node);
    const int others = choice.nodes - (node != nullptr ? 1 : 0);
    if (others > 0) choice.refusals["node(s) didn't satisfy plugin(s) [NodeAffinity]"] += others;
    return choice;
  }
  cluster_.each(kube::kNodes, "", [&](const SharedObject& node) {
    ++choice.nodes;
    consider(node);
  });
  return choice;
}

// --- and what becomes of it ---

void Scheduler::bind(const SharedObject& pod, const SharedObject& node, WorkQueue::Done done) {
  const Json binding{{"apiVersion", "v1"},
                     {"kind", "Binding"},
                     {"metadata", {{"name", pod->name}, {"namespace", pod->ns}, {"uid", pod->uid}}},
                     {"target", {{"apiVersion", "v1"}, {"kind", "Node"}, {"name", node->name}}}};
  auto then = [this, pod, node, done = std::move(done)](Result<SharedObject> result) {
    if (!result && result.error().code != ErrorCode::kNotFound &&
        result.error().code != ErrorCode::kConflict) {
      return done(fail(result.error()));
    }
    // The answer to a binding is no pod. Until the watch brings it, its share counts.
    if (result) {
      assume(pod, node->name);
      events_.normal(*pod, "Scheduled",
                     fmt::format("Successfully assigned {} to {}", pod->key(), node->name));
    }
    done({});
  };
  cluster_.create(kube::kPods, pod->ns, binding, std::move(then), "binding");
}

void Scheduler::assume(const SharedObject& pod, const std::string& node) {
  const SharedObject now = cluster_.find(kube::kPods, pod->key());
  if (now == nullptr || now->uid != pod->uid || !node_of(*now).empty()) return;
  Json bound = now->json();
  bound["spec"]["nodeName"] = node;
  cluster_.assume(now, std::move(bound));
}

void Scheduler::say_unschedulable(const SharedObject& pod, const Choice& choice,
                                  WorkQueue::Done done) {
  std::string message = fmt::format("0/{} nodes are available", choice.nodes);
  const char* separator = ": ";
  std::set<std::string> reasons;  // in the order of their text, as Kubernetes says them
  for (const auto& [why, count] : choice.refusals) reasons.insert(fmt::format("{} {}", count, why));
  for (const std::string& reason : reasons) {
    message += separator + reason;
    separator = ", ";
  }
  message += choice.nodes == 0 ? ": no node has joined." : ".";
  events_.warning(*pod, "FailedScheduling", message);
  const Json* old = kube::find(pod->json(), "status", "conditions");
  Json conditions = old == nullptr ? Json::array() : *old;
  const std::string now = kube::rfc3339(cluster_.loop().clock().wall_now());
  if (!set_condition(conditions, "PodScheduled", "False", "Unschedulable", message, now))
    return done({});
  cluster_.patch(
      pod, {{"status", {{"conditions", conditions}}}},
      [done = std::move(done)](Result<SharedObject> result) {
        const bool gone = !result && result.error().code == ErrorCode::kNotFound;
        done(result || gone ? Result<>() : Result<>(fail(result.error())));
      },
      "status");
}

}  // namespace edgemesh::cloud::controllers
