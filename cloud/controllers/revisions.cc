#include "cloud/controllers/revisions.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/controllers/batch.h"
#include "cloud/controllers/pods.h"
#include "cloud/controllers/types.h"
#include "kube/json_util.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

int64_t number_of(const ClusterObject& revision) {
  return int_at(revision.json(), {"revision"}, 0);
}

Json data_of(const ClusterObject& owner) {
  const Json* pod_template = kube::find(owner.json(), "spec", "template");
  Json copy = pod_template == nullptr ? Json::object() : *pod_template;
  copy["$patch"] = "replace";
  return {{"spec", {{"template", std::move(copy)}}}};
}

Json revision_object(const ClusterObject& owner, Json data, int64_t number) {
  const std::string hash = template_hash(data);
  const Json* labels = kube::find(owner.json(), "spec", "template", "metadata", "labels");
  Json out{{"apiVersion", "apps/v1"},
           {"kind", "ControllerRevision"},
           {"metadata",
            {{"name", owner.name + "-" + hash},
             {"namespace", owner.ns},
             {"labels", labels == nullptr ? Json::object() : *labels},
             {"ownerReferences", Json::array({controller_reference(owner)})}}},
           {"data", std::move(data)},
           {"revision", number}};
  out["metadata"]["labels"][kRevisionHash] = hash;
  if (const Json* cause =
          kube::find(owner.json(), "metadata", "annotations", "kubernetes.io/change-cause")) {
    out["metadata"]["annotations"]["kubernetes.io/change-cause"] = *cause;
  }
  return out;
}

}  // namespace

std::string Revisions::hash() const {
  return current == nullptr ? std::string()
                            : kube::text_at(current->json(), "metadata", "labels", kRevisionHash);
}

Revisions look_at_revisions(const Cluster& cluster, const ClusterObject& owner) {
  Revisions out;
  const Json data = data_of(owner);
  for (const SharedObject& one : cluster.controlled_by(owner.uid, kControllerRevisions)) {
    if (one->deleting()) continue;
    out.in_order.push_back(one);
    const Json* held = kube::find(one->json(), "data");
    if (held != nullptr && *held == data &&
        (out.current == nullptr || number_of(*one) > number_of(*out.current)))
      out.current = one;
  }
  std::sort(out.in_order.begin(), out.in_order.end(),
            [](const SharedObject& a, const SharedObject& b) {
              return std::pair(number_of(*a), a->name) < std::pair(number_of(*b), b->name);
            });
  return out;
}

void settle_revisions(Cluster& cluster, const SharedObject& owner, const Revisions& revisions,
                      WorkQueue::Done done) {
  const int64_t next = revisions.in_order.empty() ? 1 : number_of(*revisions.in_order.back()) + 1;
  auto batch = Batch::make(1, std::move(done));
  if (revisions.current != nullptr) {
    cluster.patch(revisions.current, {{"revision", next}}, batch->part());
    return;
  }
  cluster.create(kControllerRevisions, owner->ns, revision_object(*owner, data_of(*owner), next),
                 batch->part());
}

std::vector<SharedObject> surplus_revisions(const ClusterObject& owner, const Revisions& revisions,
                                            const std::unordered_set<std::string>& live) {
  std::vector<SharedObject> spare;
  for (const SharedObject& one : revisions.in_order) {
    const std::string hash = kube::text_at(one->json(), "metadata", "labels", kRevisionHash);
    if (one != revisions.current && !live.contains(hash)) spare.push_back(one);
  }
  const auto keep = static_cast<size_t>(
      std::max<int64_t>(0, int_at(owner.json(), {"spec", "revisionHistoryLimit"}, 10)));
  spare.resize(spare.size() > keep ? spare.size() - keep : 0);
  return spare;
}

const Json* template_of_revision(const ClusterObject& revision) {
  return kube::find(revision.json(), "data", "spec", "template");
}

}  // namespace edgemesh::cloud::controllers
