#include "cloud/controllers/endpoints_mirror.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "cloud/controllers/batch.h"
#include "cloud/controllers/endpoint_slices.h"
#include "core/base/net_addr.h"
#include "kube/json_util.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxParallel = 8;
constexpr const char* kMirrors = "endpointslicemirroring-controller.k8s.io";
constexpr const char* kSkip = "endpointslice.kubernetes.io/skip-mirror";
constexpr const char* kElection = "control-plane.alpha.kubernetes.io/leader";

const Json* labels_of(const ClusterObject& object) {
  return kube::find(object.json(), "metadata", "labels");
}

Json ports_of(const Json& subset) {
  Json out = Json::array();
  const Json* ports = kube::find(subset, "ports");
  for (size_t i = 0; ports != nullptr && ports->is_array() && i < ports->size(); ++i) {
    Json one = (*ports)[i];
    if (!one.contains("name")) one["name"] = "";
    if (!one.contains("protocol")) one["protocol"] = "TCP";
    out.push_back(std::move(one));
  }
  return out;
}

// By address type and ports.
using Slices = std::map<std::pair<std::string, std::string>, Json>;

void add_addresses(const Json& subset, const char* part, bool ready, Slices* out) {
  const Json* addresses = kube::find(subset, part);
  for (size_t i = 0; addresses != nullptr && addresses->is_array() && i < addresses->size(); ++i) {
    const Json& address = (*addresses)[i];
    const auto ip = IpAddr::parse(kube::text_at(address, "ip"));
    if (!ip) continue;
    Json& slice = (*out)[{ip->is_v6() ? "IPv6" : "IPv4", kube::to_text(ports_of(subset))}];
    if (slice.size() >= EndpointsMirror::kMaxEndpoints) continue;
    Json endpoint{{"addresses", {ip->to_string()}}, {"conditions", {{"ready", ready}}}};
    for (const char* more : {"hostname", "nodeName", "targetRef"})
      if (const Json* value = kube::find(address, more)) endpoint[more] = *value;
    slice.push_back(std::move(endpoint));
  }
}

std::vector<Json> wanted(const ClusterObject& endpoints) {
  Slices slices;
  const Json* subsets = kube::find(endpoints.json(), "subsets");
  for (size_t i = 0; subsets != nullptr && subsets->is_array() && i < subsets->size(); ++i) {
    add_addresses((*subsets)[i], "addresses", true, &slices);
    add_addresses((*subsets)[i], "notReadyAddresses", false, &slices);
  }
  std::vector<Json> out;
  for (const auto& [kind, list] : slices)
    out.push_back({{"addressType", kind.first},
                   {"ports", Json::parse(kind.second, nullptr, false)},
                   {"endpoints", list}});
  return out;
}

bool same_slice(const Json& wanted, const ClusterObject& have) {
  for (const auto& [part, value] : wanted.items()) {
    const Json* before = kube::find(have.json(), part);
    if (before == nullptr ? !value.empty() : *before != value) return false;
  }
  return true;
}

}  // namespace

EndpointsMirror::EndpointsMirror(Cluster& cluster)
    : cluster_(cluster),
      queue_(cluster.loop(), "endpointslicemirroring", kMaxParallel,
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

void EndpointsMirror::on_slice(const SharedObject& before, const SharedObject& after) {
  if (before != nullptr) slices_.remove(before->ns, labels_of(*before), before->key());
  if (after != nullptr) slices_.add(after->ns, labels_of(*after), after->key());
  const SharedObject& slice = after != nullptr ? after : before;
  if (kube::text_at(slice->json(), "metadata", "labels", kManagedLabel) != kMirrors) return;
  const std::string service = kube::text_at(slice->json(), "metadata", "labels", kServiceLabel);
  if (!service.empty()) queue_.add(kube::object_key(slice->ns, service));
}

bool EndpointsMirror::mirrors(const std::string& key) const {
  const SharedObject endpoints = cluster_.find(kube::kEndpoints, key);
  const SharedObject service = cluster_.find(kube::kServices, key);
  if (endpoints == nullptr || endpoints->deleting() || service == nullptr || service->deleting())
    return false;
  const Json* selector = kube::find(service->json(), "spec", "selector");
  if (selector != nullptr && selector->is_object() && !selector->empty()) return false;
  return kube::text_at(endpoints->json(), "metadata", "labels", kSkip) != "true" &&
         kube::find(endpoints->json(), "metadata", "annotations", kElection) == nullptr;
}

std::vector<SharedObject> EndpointsMirror::mine(const std::string& key) const {
  std::vector<SharedObject> out;
  const size_t slash = key.find('/');
  slices_.each(key.substr(0, slash), kServiceLabel, key.substr(slash + 1),
               [&](const std::string& name) {
                 const SharedObject slice = cluster_.find(kube::kEndpointSlices, name);
                 if (slice != nullptr && !slice->deleting() &&
                     kube::text_at(slice->json(), "metadata", "labels", kManagedLabel) == kMirrors)
                   out.push_back(slice);
               });
  return out;
}

void EndpointsMirror::reconcile(const std::string& key, WorkQueue::Done done) {
  std::vector<SharedObject> have = mine(key);
  std::vector<Json> want;
  const SharedObject endpoints = cluster_.find(kube::kEndpoints, key);
  if (mirrors(key)) want = wanted(*endpoints);
  std::vector<const Json*> make;
  std::vector<std::pair<SharedObject, const Json*>> change;
  for (const Json& slice : want) {
    const auto it = std::find_if(have.begin(), have.end(), [&](const SharedObject& one) {
      return kube::text_at(one->json(), "addressType") == slice["addressType"];
    });
    if (it == have.end()) {
      make.push_back(&slice);
      continue;
    }
    if (!same_slice(slice, **it)) change.emplace_back(*it, &slice);
    have.erase(it);
  }
  auto batch = Batch::make(make.size() + change.size() + have.size(), std::move(done));
  for (const SharedObject& one : have) cluster_.remove(one, batch->part());
  for (const auto& [one, slice] : change) cluster_.patch(one, *slice, batch->part());
  for (const Json* one : make) {
    Json slice = *one;
    slice["apiVersion"] = "discovery.k8s.io/v1";
    slice["kind"] = "EndpointSlice";
    slice["metadata"] = {{"generateName", endpoints->name + "-"},
                         {"namespace", endpoints->ns},
                         {"labels", {{kServiceLabel, endpoints->name}, {kManagedLabel, kMirrors}}},
                         {"ownerReferences", Json::array({controller_reference(*endpoints)})}};
    cluster_.create(kube::kEndpointSlices, endpoints->ns, slice, batch->part());
  }
}

}  // namespace edgemesh::cloud::controllers
