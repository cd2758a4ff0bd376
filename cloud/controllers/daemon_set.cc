#include "cloud/controllers/daemon_set.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/controllers/batch.h"
#include "cloud/controllers/daemon_pod.h"
#include "cloud/controllers/pods.h"
#include "cloud/controllers/rollout.h"
#include "cloud/controllers/types.h"
#include "kube/json_util.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxParallel = 8;
constexpr size_t kBatch = 250;  // pods made in one go; the rest in the next round
constexpr int kMaxFailures = 10;
constexpr Duration kFirstAgain = std::chrono::seconds(1);
constexpr Duration kLastAgain = std::chrono::minutes(15);

bool older(const SharedObject& a, const SharedObject& b) {
  const std::string x = kube::text_at(a->json(), "metadata", "creationTimestamp");
  const std::string y = kube::text_at(b->json(), "metadata", "creationTimestamp");
  return x != y ? x < y : a->name < b->name;
}

std::string hash_of(const ClusterObject& pod) {
  return kube::text_at(pod.json(), "metadata", "labels", kRevisionHash);
}

// What of a node decides about daemon pods.
Json essence(const SharedObject& node) {
  if (node == nullptr) return Json();
  const Json* labels = kube::find(node->json(), "metadata", "labels");
  const Json* taints = kube::find(node->json(), "spec", "taints");
  return {labels == nullptr ? Json() : *labels, taints == nullptr ? Json() : *taints,
          node_is_away(*node)};
}

int64_t min_ready_of(const ClusterObject& set) {
  return int_at(set.json(), {"spec", "minReadySeconds"}, 0);
}

RolloutLimits limits_of(const ClusterObject& set, int64_t desired) {
  return daemon_limits(kube::find(set.json(), "spec", "updateStrategy", "rollingUpdate"), desired);
}

bool rolls(const ClusterObject& set) {
  return kube::text_at(set.json(), "spec", "updateStrategy", "type") != "OnDelete";
}

}  // namespace

void DaemonSetController::Counts::add(const Counts& other, int sign) {
  desired += sign * other.desired;
  current += sign * other.current;
  misscheduled += sign * other.misscheduled;
  ready += sign * other.ready;
  available += sign * other.available;
  updated += sign * other.updated;
  unavailable += sign * other.unavailable;
  surged += sign * other.surged;
}

DaemonSetController::DaemonSetController(Cluster& cluster)
    : cluster_(cluster),
      queue_(cluster.loop(), "daemonset", kMaxParallel,
             [this](const std::string& key, WorkQueue::Done done) {
               reconcile(key, std::move(done));
             }),
      events_(cluster, "daemonset-controller") {
  cluster.on_change(kDaemonSets, [this](const SharedObject& before, const SharedObject& after) {
    if (after == nullptr)
      states_.erase(before->uid);
    else
      queue_.add(after->key());
  });
  cluster.on_change(
      kControllerRevisions, [this](const SharedObject& before, const SharedObject& after) {
        const SharedObject owner = cluster_.by_uid((after != nullptr ? after : before)->controller);
        if (owner != nullptr && *owner->type == kDaemonSets) queue_.add(owner->key());
      });
  cluster.on_change(kube::kPods, [this](const SharedObject& before, const SharedObject& after) {
    on_pod(before, after);
  });
  cluster.on_change(kube::kNodes, [this](const SharedObject& before, const SharedObject& after) {
    on_node(before, after);
  });
}

void DaemonSetController::on_pod(const SharedObject& before, const SharedObject& after) {
  for (const SharedObject& pod : {before, after}) {
    if (pod == nullptr || pod->controller.empty()) continue;
    const auto it = states_.find(pod->controller);
    if (it == states_.end()) {
      const SharedObject owner = cluster_.by_uid(pod->controller);
      if (owner != nullptr && *owner->type == kDaemonSets) queue_.add(owner->key());
      continue;
    }
    State& state = it->second;
    const std::string node = target_node(pod->json());
    if (pod == before) {
      const auto at = state.pods.find(node);
      if (at != state.pods.end() && at->second.erase(pod->key()) > 0 && at->second.empty())
        state.pods.erase(at);
    } else {
      state.pods[node].insert(pod->key());
    }
    state.dirty.insert(node);
    queue_.add(state.key);
  }
}

void DaemonSetController::on_node(const SharedObject& before, const SharedObject& after) {
  if (before != nullptr && after != nullptr && essence(before) == essence(after)) return;
  for (auto& [uid, state] : states_) {
    state.dirty.insert((after != nullptr ? after : before)->name);
    queue_.add(state.key);
  }
}

void DaemonSetController::mark_all(State& state) {
  cluster_.each(kube::kNodes, "",
                [&](const SharedObject& node) { state.dirty.insert(node->name); });
  for (const auto& [node, keys] : state.pods) state.dirty.insert(node);
  for (const auto& [node, counts] : state.counts) state.dirty.insert(node);
}

DaemonSetController::State& DaemonSetController::state_of(const SharedObject& set) {
  const auto [it, fresh] = states_.try_emplace(set->uid);
  if (!fresh) return it->second;
  it->second.key = set->key();
  for (const SharedObject& pod : cluster_.controlled_by(set->uid, kube::kPods))
    it->second.pods[target_node(pod->json())].insert(pod->key());
  return it->second;
}

void DaemonSetController::reconcile(const std::string& key, WorkQueue::Done done) {
  const SharedObject set = cluster_.find(kDaemonSets, key);
  if (set == nullptr || set->deleting()) return done({});
  const Revisions revisions = look_at_revisions(cluster_, *set);
  if (!revisions.settled()) return settle_revisions(cluster_, set, revisions, std::move(done));
  State& state = state_of(set);
  const int64_t generation = int_at(set->json(), {"metadata", "generation"}, 0);
  if (state.generation != generation || state.hash != revisions.hash()) {
    state.generation = generation;
    state.hash = revisions.hash();
    mark_all(state);
  }
  state.dirty.merge(state.maturing);
  state.maturing.clear();
  Plan plan;
  for (const std::string& node : std::exchange(state.dirty, {})) examine(set, state, node, &plan);
  if (rolls(*set)) roll(set, state, &plan);
  std::unordered_set<std::string> live;
  const auto limit = static_cast<size_t>(int_at(set->json(), {"spec", "revisionHistoryLimit"}, 10));
  if (revisions.in_order.size() > limit + 1) {
    for (const SharedObject& pod : cluster_.controlled_by(set->uid, kube::kPods))
      live.insert(hash_of(*pod));
    for (SharedObject& spare : surplus_revisions(*set, revisions, live))
      plan.remove.push_back(std::move(spare));
  }
  carry_out(set, state, std::move(plan), std::move(done));
}

bool DaemonSetController::available(const ClusterObject& set, const SharedObject& pod,
                                    Duration* wait) const {
  return pod != nullptr &&
         pod_is_available(*pod, min_ready_of(set), cluster_.loop().clock().wall_now(), wait);
}

// The pods on a node, by kind. Ended ones go: at once the first time, later and later then.
DaemonSetController::OnNode DaemonSetController::look(State& state, const std::string& node,
                                                      Plan* plan) {
  OnNode out;
  const auto keys = state.pods.find(node);
  if (keys == state.pods.end()) return out;
  for (const std::string& key : keys->second) {
    const SharedObject pod = cluster_.find(kube::kPods, key);
    if (pod == nullptr) continue;
    if (out.oldest == nullptr || older(pod, out.oldest)) out.oldest = pod;
    if (pod->deleting()) {
      ++out.going;
    } else if (!pod_is_active(*pod)) {
      ++out.ended;
      Failures& failures = state.failures[node];
      const TimePoint now = cluster_.loop().now();
      if (now < failures.until) {
        state.maturing.insert(node);
        plan->wait(failures.until - now);
        continue;
      }
      failures.until = now + std::min(kFirstAgain * (1 << failures.count), kLastAgain);
      failures.count = std::min(failures.count + 1, kMaxFailures);
      events_.warning(*cluster_.by_uid(pod->controller), "FailedDaemonPod",
                      fmt::format("Found failed daemon pod {} on node {}, will try to kill it",
                                  pod->key(), node));
      plan->remove.push_back(pod);
    } else {
      (hash_of(*pod) == state.hash ? out.fresh : out.old).push_back(pod);
    }
  }
  std::sort(out.fresh.begin(), out.fresh.end(), older);
  std::sort(out.old.begin(), out.old.end(), older);
  return out;
}

// More than one pod on a node: the oldest stays; while an update surges, a new one next to it.
void DaemonSetController::prune(const SharedObject& set, const OnNode& here, bool surges,
                                Plan* plan) {
  auto drop = [&](const std::vector<SharedObject>& pods, size_t keep) {
    for (size_t i = keep; i < pods.size(); ++i) plan->remove.push_back(pods[i]);
  };
  if (surges) {
    drop(here.fresh, 1);
    drop(here.old, 1);
    if (here.fresh.empty() || here.old.empty()) return;
    Duration wait{};
    if (!pod_is_ready(*here.old[0]) || available(*set, here.fresh[0], &wait))
      plan->remove.push_back(here.old[0]);
    return;
  }
  if (here.fresh.size() + here.old.size() < 2) return;
  const bool keep_fresh =
      here.old.empty() || (!here.fresh.empty() && older(here.fresh[0], here.old[0]));
  drop(here.fresh, keep_fresh ? 1 : 0);
  drop(here.old, keep_fresh ? 0 : 1);
}

void DaemonSetController::examine(const SharedObject& set, State& state, const std::string& name,
                                  Plan* plan) {
  Counts& counts = state.counts[name];
  state.sum.add(counts, -1);
  state.old.erase(name);
  state.old_broken.erase(name);
  counts = {};
  const SharedObject node = cluster_.find(kube::kNodes, "", name);
  const OnNode here = look(state, name, plan);
  std::vector<SharedObject> active = here.fresh;
  active.insert(active.end(), here.old.begin(), here.old.end());
  if (node == nullptr || node->deleting()) {
    // Bound ones are for the collector of orphaned pods: it waits a while.
    for (const SharedObject& pod : active) {
      if (kube::text_at(pod->json(), "spec", "nodeName").empty()) plan->remove.push_back(pod);
    }
    state.counts.erase(name);
    state.failures.erase(name);
    return;
  }
  const DaemonFit fit = daemon_fit(*set, *node);
  if (!fit.runs) {
    counts.misscheduled = here.oldest != nullptr ? 1 : 0;
    if (!fit.stays) plan->remove.insert(plan->remove.end(), active.begin(), active.end());
  } else {
    count(set, state, name, here, node_is_away(*node), plan);
  }
  state.sum.add(counts, 1);
}

// Of a node where a pod belongs.
void DaemonSetController::count(const SharedObject& set, State& state, const std::string& node,
                                const OnNode& here, bool away, Plan* plan) {
  Counts& counts = state.counts[node];
  Duration wait{};
  const SharedObject fresh = here.fresh.empty() ? nullptr : here.fresh[0];
  const SharedObject old = here.old.empty() ? nullptr : here.old[0];
  const bool fresh_serves = available(*set, fresh, &wait), old_serves = available(*set, old, &wait);
  counts.desired = 1;
  counts.current = here.oldest != nullptr ? 1 : 0;
  counts.ready =
      (fresh != nullptr && pod_is_ready(*fresh)) || (old != nullptr && pod_is_ready(*old)) ? 1 : 0;
  counts.available = fresh_serves || old_serves ? 1 : 0;
  counts.updated = fresh != nullptr && old == nullptr ? 1 : 0;
  if (counts.ready > 0) state.failures.erase(node);
  if (wait > Duration{}) {
    state.maturing.insert(node);
    plan->wait(wait);
  }
  if (away) return;
  prune(set, here, rolls(*set) && limits_of(*set, state.sum.desired + 1).surge > 0, plan);
  counts.unavailable = 1 - counts.available;
  counts.surged = fresh != nullptr && old != nullptr ? 1 : 0;
  if (old != nullptr && fresh == nullptr) (old_serves ? state.old : state.old_broken)[node] = old;
  if (here.oldest == nullptr) plan->create.push_back(node);
}

// Old pods that serve nobody are replaced at once, the others as far as the limits allow.
void DaemonSetController::roll(const SharedObject& set, State& state, Plan* plan) {
  if (state.old.empty() && state.old_broken.empty()) return;
  const RolloutLimits limits = limits_of(*set, state.sum.desired);
  const bool surges = limits.surge > 0;
  int64_t room =
      surges ? limits.surge - state.sum.surged : limits.unavailable - state.sum.unavailable;
  auto replace = [&](const std::string& node, const SharedObject& pod) {
    if (surges)
      plan->create.push_back(node);
    else
      plan->remove.push_back(pod);
  };
  for (const auto& [node, pod] : state.old_broken) replace(node, pod);
  for (auto it = state.old.begin(); it != state.old.end() && room > 0; ++it, --room)
    replace(it->first, it->second);
}

void DaemonSetController::carry_out(const SharedObject& set, State& state, Plan plan,
                                    WorkQueue::Done done) {
  if (plan.again > Duration{}) queue_.add_after(set->key(), plan.again);
  if (plan.create.size() > kBatch) {
    for (size_t i = kBatch; i < plan.create.size(); ++i) state.dirty.insert(plan.create[i]);
    plan.create.resize(kBatch);
    queue_.add(set->key());
  }
  // What fails is looked at again.
  std::vector<std::string> nodes = plan.create;
  for (const SharedObject& object : plan.remove) nodes.push_back(target_node(object->json()));
  auto batch = Batch::make(plan.create.size() + plan.remove.size(),
                           [this, uid = set->uid, acted = !nodes.empty(), nodes = std::move(nodes),
                            done = std::move(done)](Result<> result) {
                             const auto it = states_.find(uid);
                             const SharedObject now = cluster_.by_uid(uid);
                             if (it == states_.end() || now == nullptr) return done({});
                             if (!result) {
                               it->second.dirty.insert(nodes.begin(), nodes.end());
                               return done(std::move(result));
                             }
                             // What was done just now is counted in the next round.
                             if (acted && !it->second.dirty.empty()) return done({});
                             write_status(now, it->second, done);
                           });
  for (const std::string& node : plan.create) {
    cluster_.create(kube::kPods, set->ns, daemon_pod(*set, node, state.hash),
                    [this, set, part = batch->part()](Result<SharedObject> pod) mutable {
                      if (pod && *pod != nullptr)
                        events_.normal(*set, "SuccessfulCreate", "Created pod: " + (*pod)->name);
                      else if (!pod)
                        events_.warning(*set, "FailedCreate",
                                        "Error creating: " + pod.error().message);
                      part(std::move(pod));
                    });
  }
  for (const SharedObject& object : plan.remove) {
    if (*object->type == kube::kPods)
      events_.normal(*set, "SuccessfulDelete", "Deleted pod: " + object->name);
    cluster_.remove(object, batch->part());
  }
}

void DaemonSetController::write_status(const SharedObject& set, const State& state,
                                       WorkQueue::Done done) {
  const Counts& sum = state.sum;
  const Json status{
      {"currentNumberScheduled", sum.current}, {"numberMisscheduled", sum.misscheduled},
      {"desiredNumberScheduled", sum.desired}, {"numberReady", sum.ready},
      {"numberAvailable", sum.available},      {"numberUnavailable", sum.desired - sum.available},
      {"updatedNumberScheduled", sum.updated}, {"observedGeneration", state.generation}};
  bool same = true;
  for (const auto& [name, value] : status.items())
    same = same && int_at(set->json(), {"status", name.c_str()}, 0) == value;
  if (same) return done({});
  auto batch = Batch::make(1, std::move(done));
  cluster_.patch(set, {{"status", status}}, batch->part(), "status");
}

}  // namespace edgemesh::cloud::controllers
