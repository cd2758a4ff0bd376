#include "cloud/controllers/replica_set.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/controllers/batch.h"
#include "cloud/controllers/pods.h"
#include "cloud/controllers/types.h"
#include "kube/json_util.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxParallel = 8;
constexpr int64_t kBatch = 50;  // pods made in one go; the rest in the next round

// What goes first compares less.
auto order_of_removal(const ClusterObject& pod) {
  const bool bound = !kube::text_at(pod.json(), "spec", "nodeName").empty();
  const bool runs = kube::text_at(pod.json(), "status", "phase") == "Running";
  return std::tuple(bound, runs, pod_is_ready(pod));
}

bool goes_before(const SharedObject& a, const SharedObject& b) {
  const auto left = order_of_removal(*a), right = order_of_removal(*b);
  if (left != right) return left < right;
  // The youngest first; times are whole seconds, so the name decides between equals.
  const std::string x = kube::text_at(a->json(), "metadata", "creationTimestamp");
  const std::string y = kube::text_at(b->json(), "metadata", "creationTimestamp");
  return x != y ? x > y : a->name < b->name;
}

}  // namespace

ReplicaSetController::ReplicaSetController(Cluster& cluster)
    : cluster_(cluster),
      queue_(cluster.loop(), "replicaset", kMaxParallel,
             [this](const std::string& key, WorkQueue::Done done) {
               reconcile(key, std::move(done));
             }) {
  cluster.on_change(kReplicaSets, [this](const SharedObject&, const SharedObject& after) {
    if (after != nullptr) queue_.add(after->key());
  });
  cluster.on_change(kube::kPods, [this](const SharedObject& before, const SharedObject& after) {
    for (const SharedObject& pod : {before, after}) {
      if (pod == nullptr || pod->controller.empty()) continue;
      const SharedObject owner = cluster_.by_uid(pod->controller);
      if (owner != nullptr && *owner->type == kReplicaSets) queue_.add(owner->key());
    }
  });
}

void ReplicaSetController::reconcile(const std::string& key, WorkQueue::Done done) {
  const SharedObject set = cluster_.find(kReplicaSets, key);
  if (set == nullptr || set->deleting()) return done({});
  std::vector<SharedObject> active;
  for (SharedObject& pod : cluster_.controlled_by(set->uid, kube::kPods)) {
    if (pod_is_active(*pod)) active.push_back(std::move(pod));
  }
  const int64_t wanted = int_at(set->json(), {"spec", "replicas"}, 1);
  const auto have = static_cast<int64_t>(active.size());
  auto then = [this, key, done = std::move(done)](Result<> result) {
    if (!result) return done(std::move(result));
    const SharedObject now = cluster_.find(kReplicaSets, key);
    if (now == nullptr) return done({});
    write_status(now, done);
  };
  if (have < wanted) return create_pods(set, std::min(wanted - have, kBatch), std::move(then));
  if (have > wanted)
    return remove_pods(std::move(active), static_cast<size_t>(have - wanted), std::move(then));
  then({});
}

void ReplicaSetController::create_pods(const SharedObject& set, int64_t count,
                                       WorkQueue::Done done) {
  const Json* pod_template = kube::find(set->json(), "spec", "template");
  if (pod_template == nullptr) return done({});
  const Json pod = pod_of_template(*set, *pod_template);
  auto batch = Batch::make(static_cast<size_t>(count), std::move(done));
  for (int64_t i = 0; i < count; ++i) cluster_.create(kube::kPods, set->ns, pod, batch->part());
  queue_.add(set->key());  // the rest, and the status when they are there
}

void ReplicaSetController::remove_pods(std::vector<SharedObject> active, size_t count,
                                       WorkQueue::Done done) {
  std::sort(active.begin(), active.end(), goes_before);
  auto batch = Batch::make(count, std::move(done));
  for (size_t i = 0; i < count; ++i) cluster_.remove(active[i], batch->part());
}

void ReplicaSetController::write_status(const SharedObject& set, WorkQueue::Done done) {
  const auto now = cluster_.loop().clock().wall_now();
  const int64_t min_ready = int_at(set->json(), {"spec", "minReadySeconds"}, 0);
  const Json* labels = kube::find(set->json(), "spec", "template", "metadata", "labels");
  int64_t replicas = 0, labelled = 0, ready = 0, available = 0;
  Duration next{};
  for (const SharedObject& pod : cluster_.controlled_by(set->uid, kube::kPods)) {
    if (!pod_is_active(*pod)) continue;
    ++replicas;
    const Json selector{{"matchLabels", labels == nullptr ? Json::object() : *labels}};
    if (selects(&selector, kube::find(pod->json(), "metadata", "labels"))) ++labelled;
    if (pod_is_ready(*pod)) ++ready;
    Duration wait{};
    if (pod_is_available(*pod, min_ready, now, &wait))
      ++available;
    else if (wait > Duration{} && (next == Duration{} || wait < next))
      next = wait;
  }
  if (next > Duration{}) queue_.add_after(set->key(), next);
  const int64_t generation = int_at(set->json(), {"metadata", "generation"}, 0);
  const Json status{{"replicas", replicas},
                    {"fullyLabeledReplicas", labelled},
                    {"readyReplicas", ready},
                    {"availableReplicas", available},
                    {"observedGeneration", generation}};
  const Json* old = kube::find(set->json(), "status");
  bool same = old != nullptr;
  for (const auto& [name, value] : status.items())
    same = same && int_at(*old, {name.c_str()}, 0) == value;
  if (same) return done({});
  cluster_.patch(
      set, {{"status", status}},
      [done = std::move(done)](Result<SharedObject> result) {
        const bool gone = !result && result.error().code == ErrorCode::kNotFound;
        done(result || gone ? Result<>() : Result<>(fail(result.error())));
      },
      "status");
}

}  // namespace edgemesh::cloud::controllers
