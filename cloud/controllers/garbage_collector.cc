#include "cloud/controllers/garbage_collector.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/controllers/batch.h"
#include "kube/json_util.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxParallel = 16;
constexpr const char* kForeground = "foregroundDeletion";
constexpr const char* kOrphan = "orphan";

bool has_finalizer(const ClusterObject& object, const char* name) {
  const Json* list = kube::find(object.json(), "metadata", "finalizers");
  return list != nullptr && list->is_array() &&
         std::find(list->begin(), list->end(), name) != list->end();
}

}  // namespace

GarbageCollector::GarbageCollector(Cluster& cluster,
                                   const std::vector<const kube::ResourceType*>& types)
    : cluster_(cluster),
      queue_(cluster.loop(), "garbage", kMaxParallel,
             [this](const std::string& uid, WorkQueue::Done done) {
               reconcile(uid, std::move(done));
             }) {
  for (const kube::ResourceType* type : types) {
    cluster.on_change(
        *type,
        [this](const SharedObject& before, const SharedObject& after) { on_change(before, after); },
        Cluster::Keep::kMetadata);
  }
}

void GarbageCollector::on_change(const SharedObject& before, const SharedObject& after) {
  if (after != nullptr) {
    if (!after->owners.empty() || after->deleting()) queue_.add(after->uid);
    return;
  }
  for (const SharedObject& dependent : cluster_.owned_by(before->uid)) queue_.add(dependent->uid);
  // Owners that wait for their dependents.
  for (const std::string& owner : before->owners) queue_.add(owner);
}

// An owner of a kind that is not followed is believed to be there.
bool GarbageCollector::owners_gone(const ClusterObject& object) const {
  const Json* owners = kube::find(object.json(), "metadata", "ownerReferences");
  if (owners == nullptr || owners->empty()) return false;
  for (const Json& owner : *owners) {
    if (cluster_.by_uid(kube::text_at(owner, "uid")) != nullptr) return false;
    if (!cluster_.follows(kube::text_at(owner, "apiVersion"), kube::text_at(owner, "kind")))
      return false;
  }
  return true;
}

void GarbageCollector::reconcile(const std::string& uid, WorkQueue::Done done) {
  const SharedObject object = cluster_.by_uid(uid);
  if (object == nullptr) return done({});
  if (object->deleting()) {
    if (has_finalizer(*object, kForeground)) return end_foreground(object, std::move(done));
    if (has_finalizer(*object, kOrphan)) return orphan(object, std::move(done));
    return done({});
  }
  if (!owners_gone(*object)) return done({});
  auto batch = Batch::make(1, std::move(done));
  cluster_.remove(object, batch->part());
}

void GarbageCollector::end_foreground(const SharedObject& owner, WorkQueue::Done done) {
  const std::vector<SharedObject> dependents = cluster_.owned_by(owner->uid);
  if (dependents.empty()) return drop_finalizer(owner, kForeground, std::move(done));
  auto batch = Batch::make(dependents.size(), std::move(done));
  kube::DeleteOptions options;
  options.propagation = "Foreground";
  for (const SharedObject& dependent : dependents) {
    if (dependent->deleting())
      batch->part()(SharedObject());
    else
      cluster_.remove(dependent, batch->part(), options);
  }
}

void GarbageCollector::orphan(const SharedObject& owner, WorkQueue::Done done) {
  const std::vector<SharedObject> dependents = cluster_.owned_by(owner->uid);
  if (dependents.empty()) return drop_finalizer(owner, kOrphan, std::move(done));
  auto batch = Batch::make(dependents.size(),
                           [this, uid = owner->uid, done = std::move(done)](Result<> result) {
                             queue_.add(uid);
                             done(std::move(result));
                           });
  for (const SharedObject& dependent : dependents) {
    Json kept = Json::array();
    for (const Json& reference : *kube::find(dependent->json(), "metadata", "ownerReferences")) {
      if (kube::text_at(reference, "uid") != owner->uid) kept.push_back(reference);
    }
    cluster_.patch(dependent, {{"metadata", {{"ownerReferences", kept}}}}, batch->part());
  }
}

void GarbageCollector::drop_finalizer(const SharedObject& owner, const char* name,
                                      WorkQueue::Done done) {
  Json kept = Json::array();
  for (const Json& finalizer : *kube::find(owner->json(), "metadata", "finalizers")) {
    if (finalizer != name) kept.push_back(finalizer);
  }
  auto batch = Batch::make(1, std::move(done));
  cluster_.patch(owner, {{"metadata", {{"finalizers", kept}}}}, batch->part());
}

}  // namespace edgemesh::cloud::controllers
