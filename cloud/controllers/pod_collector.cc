#include "cloud/controllers/pod_collector.h"

#include <nlohmann/json.hpp>

#include "cloud/controllers/batch.h"
#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxParallel = 16;

std::string node_of(const ClusterObject& pod) {
  return kube::text_at(pod.json(), "spec", "nodeName");
}

bool has_ended(const ClusterObject& pod) {
  const std::string phase = kube::text_at(pod.json(), "status", "phase");
  return phase == "Succeeded" || phase == "Failed";
}

std::pair<std::string, std::string> age_of(const ClusterObject& pod) {
  return {kube::text_at(pod.json(), "metadata", "creationTimestamp"), pod.key()};
}

}  // namespace

PodCollector::PodCollector(Cluster& cluster, Options options)
    : cluster_(cluster),
      options_(options),
      queue_(cluster.loop(), "podgc", kMaxParallel,
             [this](const std::string& key, WorkQueue::Done done) {
               reconcile(key, std::move(done));
             }) {
  cluster.on_change(kube::kPods, [this](const SharedObject& before, const SharedObject& after) {
    on_pod(before, after);
  });
  cluster.on_change(kube::kNodes, [this](const SharedObject& before, const SharedObject& after) {
    on_node(before, after);
  });
}

void PodCollector::on_pod(const SharedObject& before, const SharedObject& after) {
  if (before != nullptr) {
    const auto it = by_node_.find(node_of(*before));
    if (it != by_node_.end() && it->second.erase(before->key()) > 0 && it->second.empty())
      by_node_.erase(it);
    ended_.erase(age_of(*before));
  }
  if (after == nullptr) return;
  const std::string node = node_of(*after);
  if (!node.empty()) by_node_[node].insert(after->key());
  if (has_ended(*after) && !after->deleting()) ended_.insert(age_of(*after));
  if (ended_.size() > options_.max_ended) trim_ended();
  const bool lost =
      node.empty() ? after->deleting() : cluster_.find(kube::kNodes, "", node) == nullptr;
  if (lost) queue_.add(after->key());
}

void PodCollector::on_node(const SharedObject& before, const SharedObject& after) {
  if (after != nullptr) {
    missing_.erase(after->name);
    return;
  }
  const auto pods = by_node_.find(before->name);
  if (pods == by_node_.end()) return;
  for (const std::string& key : pods->second) queue_.add(key);
}

void PodCollector::trim_ended() {
  size_t over = ended_.size() - options_.max_ended;
  for (auto it = ended_.begin(); over > 0; ++it, --over) queue_.add(it->second);
}

void PodCollector::reconcile(const std::string& key, WorkQueue::Done done) {
  const SharedObject pod = cluster_.find(kube::kPods, key);
  if (pod == nullptr) return done({});
  const std::string node = node_of(*pod);
  if (node.empty()) return pod->deleting() ? remove_now(pod, std::move(done)) : done({});
  if (cluster_.find(kube::kNodes, "", node) != nullptr) {
    const bool oldest = ended_.size() > options_.max_ended && ended_.contains(age_of(*pod));
    return oldest ? remove_now(pod, std::move(done)) : done({});
  }
  // A node that is removed by mistake, or joins anew, keeps them.
  const auto [since, fresh] = missing_.try_emplace(node, cluster_.loop().now());
  const Duration left = since->second + options_.node_gone_for - cluster_.loop().now();
  if (left > Duration{}) {
    queue_.add_after(key, left);
    return done({});
  }
  remove_now(pod, std::move(done));
}

// Nobody will confirm its end.
void PodCollector::remove_now(const SharedObject& pod, WorkQueue::Done done) {
  auto remove = [this, pod, done](Result<> result) {
    if (!result) return done(std::move(result));
    kube::DeleteOptions options;
    options.grace_s = 0;
    auto batch = Batch::make(1, done);
    cluster_.remove(pod, batch->part(), options);
  };
  if (has_ended(*pod)) return remove({});
  Json conditions = Json::array();
  if (const Json* have = kube::find(pod->json(), "status", "conditions")) conditions = *have;
  set_condition(conditions, "DisruptionTarget", "True", "DeletionByPodGC",
                "PodGC: node no longer exists", kube::rfc3339(cluster_.loop().clock().wall_now()));
  auto batch = Batch::make(1, std::move(remove));
  cluster_.patch(pod, {{"status", {{"phase", "Failed"}, {"conditions", conditions}}}},
                 batch->part(), "status");
}

}  // namespace edgemesh::cloud::controllers
