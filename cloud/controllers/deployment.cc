#include "cloud/controllers/deployment.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/controllers/batch.h"
#include "cloud/controllers/pods.h"
#include "cloud/controllers/types.h"
#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxParallel = 8;
constexpr const char* kHashLabel = "pod-template-hash";
constexpr const char* kRevision = "deployment.kubernetes.io/revision";

// The template without the label that names it.
Json bare_template(const ClusterObject& object) {
  const Json* pod_template = kube::find(object.json(), "spec", "template");
  Json out = pod_template == nullptr ? Json::object() : *pod_template;
  if (kube::find(out, "metadata", "labels") != nullptr) out["metadata"]["labels"].erase(kHashLabel);
  if (kube::find(out, "metadata") != nullptr) out["metadata"].erase("creationTimestamp");
  return out;
}

int64_t revision_of(const ClusterObject& object) {
  const std::string text = kube::text_at(object.json(), "metadata", "annotations", kRevision);
  return text.empty() ? 0 : std::atoll(text.c_str());
}

int64_t replicas_of(const ClusterObject& set) {
  return int_at(set.json(), {"spec", "replicas"}, 1);
}

SetSize size_of(const SharedObject& set) {
  if (set == nullptr) return {};
  return {replicas_of(*set), int_at(set->json(), {"status", "availableReplicas"}, 0)};
}

std::vector<SetSize> sizes_of(const std::vector<SharedObject>& sets) {
  std::vector<SetSize> out;
  for (const SharedObject& set : sets) out.push_back(size_of(set));
  return out;
}

bool recreates(const ClusterObject& deployment) {
  return kube::text_at(deployment.json(), "spec", "strategy", "type") == "Recreate";
}

}  // namespace

DeploymentController::DeploymentController(Cluster& cluster)
    : cluster_(cluster),
      queue_(cluster.loop(), "deployment", kMaxParallel,
             [this](const std::string& key, WorkQueue::Done done) {
               reconcile(key, std::move(done));
             }) {
  cluster.on_change(kDeployments, [this](const SharedObject&, const SharedObject& after) {
    if (after != nullptr) queue_.add(after->key());
  });
  cluster.on_change(kReplicaSets, [this](const SharedObject& before, const SharedObject& after) {
    for (const SharedObject& set : {before, after}) {
      if (set == nullptr || set->controller.empty()) continue;
      const SharedObject owner = cluster_.by_uid(set->controller);
      if (owner != nullptr && *owner->type == kDeployments) queue_.add(owner->key());
    }
  });
  // The last pod of an old set lets a Recreate go on.
  cluster.on_change(kube::kPods, [this](const SharedObject& before, const SharedObject& after) {
    if (after != nullptr || before->controller.empty()) return;
    const SharedObject set = cluster_.by_uid(before->controller);
    const SharedObject owner = set == nullptr ? nullptr : cluster_.by_uid(set->controller);
    if (owner != nullptr && *owner->type == kDeployments) queue_.add(owner->key());
  });
}

DeploymentController::View DeploymentController::look(const SharedObject& deployment) const {
  View view;
  view.deployment = deployment;
  view.wanted = int_at(deployment->json(), {"spec", "replicas"}, 1);
  const Json wanted = bare_template(*deployment);
  for (const SharedObject& set : cluster_.controlled_by(deployment->uid, kReplicaSets)) {
    if (set->deleting()) continue;
    view.revision = std::max(view.revision, revision_of(*set));
    const bool same = bare_template(*set) == wanted;
    // Two of the same template (made by someone else): the older one is it.
    if (same && (view.fresh == nullptr || revision_of(*set) > revision_of(*view.fresh))) {
      if (view.fresh != nullptr) view.old.push_back(view.fresh);
      view.fresh = set;
    } else {
      view.old.push_back(set);
    }
  }
  std::sort(view.old.begin(), view.old.end(), [](const SharedObject& a, const SharedObject& b) {
    return revision_of(*a) < revision_of(*b);
  });
  return view;
}

void DeploymentController::reconcile(const std::string& key, WorkQueue::Done done) {
  const SharedObject deployment = cluster_.find(kDeployments, key);
  if (deployment == nullptr || deployment->deleting()) return done({});
  const View view = look(deployment);
  const Json* paused = kube::find(deployment->json(), "spec", "paused");
  const bool is_paused = paused != nullptr && paused->is_boolean() && paused->get<bool>();
  auto then = [this, key, done](Result<> result) {
    if (!result) return done(std::move(result));
    finish(key, done);
  };
  const bool newest =
      view.fresh != nullptr && revision_of(*view.fresh) == view.revision && view.revision > 0;
  if (!newest && !is_paused) return make_set(view, std::move(then));
  if (is_paused && view.fresh == nullptr) return then({});
  scale(view, std::move(then));
}

// Makes the set of the template, or gives the one that is there the next revision.
void DeploymentController::make_set(const View& view, WorkQueue::Done done) {
  const std::string revision = std::to_string(view.revision + 1);
  auto batch =
      Batch::make(1, [this, key = view.deployment->key(), done = std::move(done)](Result<> result) {
        queue_.add(key);
        const bool there = !result && result.error().code == ErrorCode::kAlreadyExists;
        done(there ? Result<>() : std::move(result));
      });
  if (view.fresh != nullptr) {
    cluster_.patch(view.fresh, {{"metadata", {{"annotations", {{kRevision, revision}}}}}},
                   batch->part());
    return;
  }
  const ClusterObject& deployment = *view.deployment;
  Json pod_template = bare_template(deployment);
  const std::string hash = template_hash(pod_template);
  pod_template["metadata"]["labels"][kHashLabel] = hash;
  const Json* selector = kube::find(deployment.json(), "spec", "selector");
  Json chosen = selector == nullptr ? Json::object() : *selector;
  chosen["matchLabels"][kHashLabel] = hash;
  const RolloutStep step =
      recreates(deployment)
          ? recreate_step(view.wanted, {}, sizes_of(view.old), old_pods_left(view))
          : rolling_step(
                view.wanted,
                rollout_limits(kube::find(deployment.json(), "spec", "strategy", "rollingUpdate"),
                               view.wanted),
                {}, sizes_of(view.old));
  Json set{{"apiVersion", "apps/v1"},
           {"kind", "ReplicaSet"},
           {"metadata",
            {{"name", deployment.name + "-" + hash},
             {"namespace", deployment.ns},
             {"labels", pod_template["metadata"]["labels"]},
             {"annotations", {{kRevision, revision}}},
             {"ownerReferences", Json::array({controller_reference(deployment)})}}},
           {"spec",
            {{"replicas", step.fresh},
             {"minReadySeconds", int_at(deployment.json(), {"spec", "minReadySeconds"}, 0)},
             {"selector", chosen},
             {"template", pod_template}}}};
  const Json* annotations = kube::find(deployment.json(), "metadata", "annotations");
  if (annotations != nullptr) {
    for (const auto& [name, value] : annotations->items()) {
      if (name == "kubernetes.io/change-cause") set["metadata"]["annotations"][name] = value;
    }
  }
  cluster_.create(kReplicaSets, deployment.ns, set, batch->part());
}

bool DeploymentController::old_pods_left(const View& view) const {
  for (const SharedObject& set : view.old) {
    for (const SharedObject& pod : cluster_.controlled_by(set->uid, kube::kPods)) {
      const std::string phase = kube::text_at(pod->json(), "status", "phase");
      if (phase != "Succeeded" && phase != "Failed") return true;
    }
  }
  return false;
}

void DeploymentController::scale(const View& view, WorkQueue::Done done) {
  const ClusterObject& deployment = *view.deployment;
  const Json* paused = kube::find(deployment.json(), "spec", "paused");
  RolloutStep step;
  if (recreates(deployment)) {
    step = recreate_step(view.wanted, size_of(view.fresh), sizes_of(view.old), old_pods_left(view));
  } else {
    const RolloutLimits limits = rollout_limits(
        kube::find(deployment.json(), "spec", "strategy", "rollingUpdate"), view.wanted);
    step = rolling_step(view.wanted, limits, size_of(view.fresh), sizes_of(view.old));
  }
  const bool is_paused = paused != nullptr && paused->is_boolean() && paused->get<bool>();
  std::vector<std::pair<SharedObject, int64_t>> changes;
  if (replicas_of(*view.fresh) != step.fresh) changes.emplace_back(view.fresh, step.fresh);
  for (size_t i = 0; i < view.old.size() && !is_paused; ++i) {
    if (replicas_of(*view.old[i]) != step.old[i]) changes.emplace_back(view.old[i], step.old[i]);
  }
  auto batch = Batch::make(changes.size(), std::move(done));
  for (const auto& [set, replicas] : changes) {
    cluster_.patch(set, {{"spec", {{"replicas", replicas}}}}, batch->part());
  }
}

Json DeploymentController::status_of(const View& view) const {
  const std::string now = kube::rfc3339(cluster_.loop().clock().wall_now());
  int64_t replicas = 0, ready = 0, available = 0;
  std::vector<SharedObject> all = view.old;
  if (view.fresh != nullptr) all.push_back(view.fresh);
  for (const SharedObject& set : all) {
    replicas += int_at(set->json(), {"status", "replicas"}, 0);
    ready += int_at(set->json(), {"status", "readyReplicas"}, 0);
    available += int_at(set->json(), {"status", "availableReplicas"}, 0);
  }
  const int64_t updated =
      view.fresh == nullptr ? 0 : int_at(view.fresh->json(), {"status", "replicas"}, 0);
  const ClusterObject& deployment = *view.deployment;
  const Json* old = kube::find(deployment.json(), "status", "conditions");
  Json conditions = old == nullptr ? Json::array() : *old;
  const RolloutLimits limits = rollout_limits(
      kube::find(deployment.json(), "spec", "strategy", "rollingUpdate"), view.wanted);
  const bool enough = available >= view.wanted - (recreates(deployment) ? 0 : limits.unavailable);
  set_condition(conditions, "Available", enough ? "True" : "False",
                enough ? "MinimumReplicasAvailable" : "MinimumReplicasUnavailable",
                enough ? "Deployment has minimum availability."
                       : "Deployment does not have minimum availability.",
                now);
  const bool complete = view.fresh != nullptr && updated == view.wanted &&
                        replicas == view.wanted && available == view.wanted;
  const std::string set_name = view.fresh == nullptr ? deployment.name : view.fresh->name;
  set_condition(conditions, "Progressing", "True",
                complete ? "NewReplicaSetAvailable" : "ReplicaSetUpdated",
                fmt::format("ReplicaSet \"{}\" {}.", set_name,
                            complete ? "has successfully progressed" : "is progressing"),
                now);
  return {{"observedGeneration", int_at(deployment.json(), {"metadata", "generation"}, 0)},
          {"replicas", replicas},
          {"updatedReplicas", updated},
          {"readyReplicas", ready},
          {"availableReplicas", available},
          {"unavailableReplicas", std::max<int64_t>(0, view.wanted - available)},
          {"conditions", conditions}};
}

// Status, the revision, and old sets beyond the history's limit.
void DeploymentController::finish(const std::string& key, WorkQueue::Done done) {
  const SharedObject deployment = cluster_.find(kDeployments, key);
  if (deployment == nullptr || deployment->deleting()) return done({});
  const View view = look(deployment);
  std::vector<SharedObject> surplus;
  const auto limit =
      static_cast<size_t>(int_at(deployment->json(), {"spec", "revisionHistoryLimit"}, 10));
  for (size_t i = 0; i + limit < view.old.size(); ++i) {
    const ClusterObject& set = *view.old[i];
    if (replicas_of(set) == 0 && int_at(set.json(), {"status", "replicas"}, 0) == 0)
      surplus.push_back(view.old[i]);
  }
  const Json status = status_of(view);
  bool same = true;
  for (const auto& [name, value] : status.items()) {
    const Json* old = kube::find(deployment->json(), "status", name);
    same = same && (old == nullptr ? value == 0 : *old == value);
  }
  const std::string revision = std::to_string(view.revision);
  const bool named = view.revision == 0 || revision_of(*deployment) == view.revision;
  auto batch = Batch::make(surplus.size() + (same ? 0 : 1) + (named ? 0 : 1), std::move(done));
  for (const SharedObject& set : surplus) cluster_.remove(set, batch->part());
  if (!named) {
    cluster_.patch(deployment, {{"metadata", {{"annotations", {{kRevision, revision}}}}}},
                   batch->part());
  }
  if (!same) cluster_.patch(deployment, {{"status", status}}, batch->part(), "status");
}

}  // namespace edgemesh::cloud::controllers
