#include "cloud/controllers/scheduler.h"

#include <nlohmann/json.hpp>

#include "cloud/controllers/pods.h"
#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

// One at a time: each choice sees the one before it.
constexpr size_t kParallel = 1;

std::string node_of(const ClusterObject& pod) {
  return kube::text_at(pod.json(), "spec", "nodeName");
}

bool is_ours(const ClusterObject& pod) {
  const std::string scheduler = kube::text_at(pod.json(), "spec", "schedulerName");
  return node_of(pod).empty() && pod_is_active(pod) &&
         (scheduler.empty() || scheduler == "default-scheduler");
}

}  // namespace

Scheduler::Scheduler(Cluster& cluster)
    : cluster_(cluster),
      queue_(cluster.loop(), "scheduler", kParallel,
             [this](const std::string& key, WorkQueue::Done done) {
               reconcile(key, std::move(done));
             }) {
  cluster.on_change(kube::kPods, [this](const SharedObject& before, const SharedObject& after) {
    on_pod(before, after);
  });
  cluster.on_change(kube::kNodes, [this](const SharedObject& before, const SharedObject& after) {
    // Reports of a node come every few seconds; only what decides about pods counts.
    auto matters = [](const SharedObject& node) {
      const Json* spec = kube::find(node->json(), "spec");
      const Json* labels = kube::find(node->json(), "metadata", "labels");
      const Json* resources = kube::find(node->json(), "status", "allocatable");
      return std::tuple(spec == nullptr ? Json() : *spec, labels == nullptr ? Json() : *labels,
                        resources == nullptr ? Json() : *resources,
                        condition(node->json(), "Ready"));
    };
    if (after != nullptr && (before == nullptr || matters(before) != matters(after))) try_waiting();
  });
}

void Scheduler::on_pod(const SharedObject& before, const SharedObject& after) {
  if (before != nullptr && !node_of(*before).empty() && pod_is_active(*before)) account(before, -1);
  const bool was_active = before != nullptr && pod_is_active(*before);
  if (after != nullptr && !node_of(*after).empty() && pod_is_active(*after)) account(after, 1);
  if (after != nullptr && is_ours(*after)) {
    // What this scheduler wrote about a waiting pod is no reason to look at it again.
    if (before == nullptr || !waiting_.contains(after->key())) queue_.add(after->key());
  } else if (before != nullptr) {
    waiting_.erase(before->key());
  }
  const bool gone = after == nullptr || !pod_is_active(*after);
  if (was_active && gone) try_waiting();
}

void Scheduler::account(const SharedObject& pod, int sign) {
  Load& load = loads_[node_of(*pod)];
  const Resources asked = pod_requests(pod->json());
  if (sign > 0) {
    load.asked += asked;
    for (const std::string& port : host_ports(pod->json())) load.ports.insert(port);
  } else {
    load.asked -= asked;
    for (const std::string& port : host_ports(pod->json())) {
      if (const auto it = load.ports.find(port); it != load.ports.end()) load.ports.erase(it);
    }
  }
  if (pod->controller.empty()) return;
  if ((load.by_owner[pod->controller] += sign) <= 0) load.by_owner.erase(pod->controller);
}

void Scheduler::try_waiting() {
  for (const std::string& key : std::exchange(waiting_, {})) queue_.add(key);
}

std::string Scheduler::refusal(const ClusterObject& pod, const ClusterObject& node) const {
  const Json* unschedulable = kube::find(node.json(), "spec", "unschedulable");
  if (unschedulable != nullptr && unschedulable->is_boolean() && unschedulable->get<bool>()) {
    return "node(s) were unschedulable";
  }
  if (!affinity_allows(pod.json(), node))
    return "node(s) didn't match Pod's node affinity/selector";
  const std::string taint = untolerated_taint(pod.json(), node.json());
  if (!taint.empty()) return fmt::format("node(s) had untolerated taint {{{}: }}", taint);
  if (condition(node.json(), "Ready") != "True") return "node(s) were not ready";
  if (node_allocatable(node.json()).pods == 0) return "node(s) run no pods";
  const auto at = loads_.find(node.name);
  const Load none;
  const Load& load = at == loads_.end() ? none : at->second;
  const Resources room = node_allocatable(node.json());
  const Resources asked = pod_requests(pod.json());
  if (load.asked.pods + 1 > room.pods) return "Too many pods";
  if (load.asked.milli_cpu + asked.milli_cpu > room.milli_cpu) return "Insufficient cpu";
  if (load.asked.memory + asked.memory > room.memory) return "Insufficient memory";
  for (const std::string& port : host_ports(pod.json())) {
    if (load.ports.contains(port))
      return "node(s) didn't have free ports for the requested pod ports";
  }
  return "";
}

Scheduler::Choice Scheduler::choose(const ClusterObject& pod) const {
  Choice choice;
  std::tuple<int, int64_t, int64_t> best{};
  cluster_.each(kube::kNodes, "", [&](const SharedObject& node) {
    ++choice.nodes;
    if (const std::string why = refusal(pod, *node); !why.empty()) {
      ++choice.refusals[why];
      return;
    }
    const auto at = loads_.find(node->name);
    std::tuple<int, int64_t, int64_t> cost{};
    if (at != loads_.end()) {
      const auto same = at->second.by_owner.find(pod.controller);
      cost = {same == at->second.by_owner.end() ? 0 : same->second, at->second.asked.milli_cpu,
              at->second.asked.pods};
    }
    if (choice.node != nullptr && cost >= best) return;
    choice.node = node;
    best = cost;
  });
  return choice;
}

void Scheduler::reconcile(const std::string& key, WorkQueue::Done done) {
  const SharedObject pod = cluster_.find(kube::kPods, key);
  if (pod == nullptr || !is_ours(*pod)) return done({});
  const Choice choice = choose(*pod);
  if (choice.node != nullptr) return bind(pod, choice.node, std::move(done));
  waiting_.insert(key);
  say_unschedulable(pod, choice, std::move(done));
}

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
    if (result) assume(pod, node->name);
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
  for (const auto& [why, count] : choice.refusals) {
    message += fmt::format("{}{} {}", separator, count, why);
    separator = ", ";
  }
  message += choice.nodes == 0 ? ": no node has joined." : ".";
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
