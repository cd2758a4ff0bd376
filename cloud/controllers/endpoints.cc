#include "cloud/controllers/endpoints.h"

#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "cloud/controllers/batch.h"
#include "cloud/controllers/endpoint_slices.h"
#include "kube/json_util.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxParallel = 8;
constexpr const char* kHeadless = "service.kubernetes.io/headless";
constexpr const char* kOverCapacity = "endpoints.kubernetes.io/over-capacity";

const Json* labels_of(const ClusterObject& object) {
  return kube::find(object.json(), "metadata", "labels");
}

bool selects_pods(const SharedObject& service) {
  const Json* selector =
      service == nullptr ? nullptr : kube::find(service->json(), "spec", "selector");
  return selector != nullptr && selector->is_object() && !selector->empty();
}

std::string family_of(const ClusterObject& service) {
  const Json* families = kube::find(service.json(), "spec", "ipFamilies");
  const bool first = families != nullptr && families->is_array() && !families->empty();
  return first && families->front() == "IPv6" ? "IPv6" : "IPv4";
}

bool flag(const Json& endpoint, const char* name) {
  const Json* value = kube::find(endpoint, "conditions", name);
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

// Of a slice's ports; there an empty name is said, here it is left out.
Json ports_of(const Json& slice) {
  Json out = Json::array();
  const Json* ports = kube::find(slice, "ports");
  for (size_t i = 0; ports != nullptr && ports->is_array() && i < ports->size(); ++i) {
    Json one = (*ports)[i];
    if (one.value("name", "").empty()) one.erase("name");
    out.push_back(std::move(one));
  }
  return out;
}

Json address_of(const Json& endpoint) {
  Json out{{"ip", endpoint["addresses"].front()}};
  for (const char* part : {"nodeName", "targetRef"})
    if (const Json* value = kube::find(endpoint, part)) out[part] = *value;
  return out;
}

}  // namespace

EndpointsController::EndpointsController(Cluster& cluster)
    : cluster_(cluster),
      queue_(cluster.loop(), "endpoints", kMaxParallel,
             [this](const std::string& key, WorkQueue::Done done) {
               reconcile(key, std::move(done));
             }) {
  const auto by_name = [this](const SharedObject& before, const SharedObject& after) {
    queue_.add((after != nullptr ? after : before)->key());
  };
  cluster.on_change(kube::kServices, by_name);
  cluster.on_change(kube::kEndpoints, by_name);
  cluster.on_change(
      kube::kEndpointSlices,
      [this](const SharedObject& before, const SharedObject& after) { on_slice(before, after); });
}

void EndpointsController::on_slice(const SharedObject& before, const SharedObject& after) {
  if (before != nullptr) slices_.remove(before->ns, labels_of(*before), before->key());
  if (after != nullptr) slices_.add(after->ns, labels_of(*after), after->key());
  const SharedObject& slice = after != nullptr ? after : before;
  const std::string service = kube::text_at(slice->json(), "metadata", "labels", kServiceLabel);
  if (!service.empty()) queue_.add(kube::object_key(slice->ns, service));
}

Json EndpointsController::wanted(const SharedObject& service) const {
  struct Subset {
    std::map<std::string, Json> ready, not_ready;  // by address: always in the same order
  };
  std::map<std::string, Subset> subsets;  // by their ports
  size_t count = 0;
  bool over = false;
  const std::string family = family_of(*service);
  slices_.each(service->ns, kServiceLabel, service->name, [&](const std::string& key) {
    const SharedObject slice = cluster_.find(kube::kEndpointSlices, key);
    if (slice == nullptr || slice->deleting()) return;
    const Json& value = slice->json();
    if (kube::text_at(value, "metadata", "labels", kManagedLabel) != kManager ||
        kube::text_at(value, "addressType") != family)
      return;
    Subset& subset = subsets[kube::to_text(ports_of(value))];
    const Json* endpoints = kube::find(value, "endpoints");
    for (size_t i = 0; endpoints != nullptr && i < endpoints->size(); ++i) {
      const Json& endpoint = (*endpoints)[i];
      const bool ready = flag(endpoint, "ready");
      if (flag(endpoint, "terminating") && !ready) continue;
      over = over || count >= kMaxAddresses;
      if (over) break;
      ++count;
      (ready ? subset.ready : subset.not_ready)
          .emplace(endpoint["addresses"].front().get<std::string>(), address_of(endpoint));
    }
  });
  Json out = Json::array();
  for (const auto& [ports, subset] : subsets) {
    Json one = Json::object();
    for (const auto& [ip, address] : subset.ready) one["addresses"].push_back(address);
    for (const auto& [ip, address] : subset.not_ready) one["notReadyAddresses"].push_back(address);
    if (one.empty()) continue;
    if (Json list = Json::parse(ports, nullptr, false); !list.empty()) one["ports"] = list;
    out.push_back(std::move(one));
  }
  Json labels = Json::object();
  if (const Json* own = labels_of(*service)) labels = *own;
  const bool headless = kube::text_at(service->json(), "spec", "clusterIP") == "None";
  labels[kHeadless] = headless ? Json("") : Json();  // null takes it out of an object that has it
  return {
      {"metadata",
       {{"labels", labels}, {"annotations", {{kOverCapacity, over ? Json("truncated") : Json()}}}}},
      {"subsets", out}};
}

void EndpointsController::reconcile(const std::string& key, WorkQueue::Done done) {
  const SharedObject service = cluster_.find(kube::kServices, key);
  const SharedObject have = cluster_.find(kube::kEndpoints, key);
  auto batch = Batch::make(1, std::move(done));
  if (service == nullptr || service->deleting()) {
    // Endpoints whose service went; those that never had one are somebody's own.
    const bool ours = have != nullptr && !have->controller.empty();
    return ours ? cluster_.remove(have, batch->part()) : batch->part()(SharedObject());
  }
  if (!selects_pods(service)) return batch->part()(SharedObject());
  Json want = wanted(service);
  if (have == nullptr) {
    want["apiVersion"] = "v1";
    want["kind"] = "Endpoints";
    Json& meta = want["metadata"];
    for (const char* part : {"labels", "annotations"})
      for (auto it = meta[part].begin(); it != meta[part].end();)
        it = it->is_null() ? meta[part].erase(it) : std::next(it);
    meta["name"] = service->name;
    meta["namespace"] = service->ns;
    meta["ownerReferences"] = Json::array({controller_reference(*service)});
    return cluster_.create(kube::kEndpoints, service->ns, want, batch->part());
  }
  Json changed = have->json();
  changed.merge_patch(want);
  const Json* before = kube::find(have->json(), "subsets");
  const bool none_before = before == nullptr && want["subsets"].empty();
  if (none_before) changed.erase("subsets");
  // An empty map that the patch makes is none.
  for (const char* part : {"labels", "annotations"})
    if (Json& meta = changed["metadata"];
        meta[part].empty() && !have->json()["metadata"].contains(part))
      meta.erase(part);
  if (changed == have->json()) return batch->part()(SharedObject());
  cluster_.patch(have, want, batch->part());
}

}  // namespace edgemesh::cloud::controllers
