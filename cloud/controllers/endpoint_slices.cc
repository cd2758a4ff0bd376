#include "cloud/controllers/endpoint_slices.h"

#include <nlohmann/json.hpp>

#include "cloud/controllers/batch.h"
#include "cloud/controllers/pods.h"
#include "core/base/net_addr.h"
#include "kube/json_util.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxParallel = 8;

const Json* labels_of(const ClusterObject& object) {
  return kube::find(object.json(), "metadata", "labels");
}

const Json* selector_of(const ClusterObject& service) {
  return kube::find(service.json(), "spec", "selector");
}

// The pair of its selector by which a service and its pods are looked up; empty: it has none.
Json index_pair(const ClusterObject& service) {
  const Json* selector = selector_of(service);
  if (selector == nullptr || !selector->is_object() || selector->empty() ||
      !selector->begin()->is_string())
    return Json::object();
  return {{selector->begin().key(), selector->begin().value()}};
}

bool takes(const ClusterObject& service, const ClusterObject& pod) {
  const Json* selector = selector_of(service);
  const Json* labels = labels_of(pod);
  if (selector == nullptr || !selector->is_object() || selector->empty()) return false;
  for (const auto& [key, value] : selector->items()) {
    const Json* have = labels == nullptr ? nullptr : kube::find(*labels, key);
    if (have == nullptr || *have != value) return false;
  }
  return true;
}

// The number that a service's port has in a pod; 0: the pod has no port of that name.
int64_t target_port(const Json& port, const ClusterObject& pod) {
  const Json* target = kube::find(port, "targetPort");
  if (target == nullptr) return int_at(port, {"port"}, 0);
  if (target->is_number_integer())
    return target->get<int64_t>() != 0 ? target->get<int64_t>() : int_at(port, {"port"}, 0);
  const std::string protocol = kube::text_at(port, "protocol");
  const Json* containers = kube::find(pod.json(), "spec", "containers");
  for (size_t i = 0; containers != nullptr && i < containers->size(); ++i) {
    const Json* ports = kube::find((*containers)[i], "ports");
    for (size_t k = 0; ports != nullptr && k < ports->size(); ++k) {
      const Json& one = (*ports)[k];
      const std::string spoken = kube::text_at(one, "protocol");
      const bool same = (spoken.empty() ? "TCP" : spoken) == (protocol.empty() ? "TCP" : protocol);
      if (same && kube::find(one, "name") != nullptr && one["name"] == *target)
        return int_at(one, {"containerPort"}, 0);
    }
  }
  return 0;
}

Json ports_of(const ClusterObject& service, const ClusterObject& pod) {
  Json out = Json::array();
  const Json* ports = kube::find(service.json(), "spec", "ports");
  for (size_t i = 0; ports != nullptr && i < ports->size(); ++i) {
    const Json& port = (*ports)[i];
    const int64_t number = target_port(port, pod);
    if (number == 0) continue;
    const std::string protocol = kube::text_at(port, "protocol");
    Json one{{"name", kube::text_at(port, "name")},
             {"port", number},
             {"protocol", protocol.empty() ? "TCP" : protocol}};
    if (const Json* app = kube::find(port, "appProtocol")) one["appProtocol"] = *app;
    out.push_back(std::move(one));
  }
  return out;
}

std::vector<std::string> addresses_of(const ClusterObject& pod) {
  std::vector<std::string> out;
  const Json* ips = kube::find(pod.json(), "status", "podIPs");
  for (size_t i = 0; ips != nullptr && ips->is_array() && i < ips->size(); ++i) {
    if (std::string ip = kube::text_at((*ips)[i], "ip"); !ip.empty()) out.push_back(std::move(ip));
  }
  const std::string single = kube::text_at(pod.json(), "status", "podIP");
  if (out.empty() && !single.empty()) out.push_back(single);
  return out;
}

// What decides about endpoints: anything else of a pod does not wake its services.
Json essence(const SharedObject& pod) {
  if (pod == nullptr) return Json();
  const Json* labels = labels_of(*pod);
  return {labels == nullptr ? Json() : *labels,
          addresses_of(*pod),
          pod_is_ready(*pod),
          pod->deleting(),
          pod_is_active(*pod),
          kube::text_at(pod->json(), "spec", "nodeName")};
}

bool same_slice(const Json& wanted, const ClusterObject& have) {
  for (const char* part : {"addressType", "endpoints", "ports"}) {
    const Json* value = kube::find(have.json(), part);
    const bool empty = wanted[part].empty() && wanted[part].is_array();
    if (value == nullptr ? !empty : *value != wanted[part]) return false;
  }
  return true;
}

}  // namespace

EndpointSliceController::EndpointSliceController(Cluster& cluster)
    : cluster_(cluster),
      queue_(cluster.loop(), "endpointslice", kMaxParallel,
             [this](const std::string& key, WorkQueue::Done done) {
               reconcile(key, std::move(done));
             }) {
  cluster.on_change(kube::kServices, [this](const SharedObject& before, const SharedObject& after) {
    on_service(before, after);
  });
  cluster.on_change(kube::kPods, [this](const SharedObject& before, const SharedObject& after) {
    on_pod(before, after);
  });
  cluster.on_change(
      kube::kEndpointSlices,
      [this](const SharedObject& before, const SharedObject& after) { on_slice(before, after); });
}

void EndpointSliceController::on_service(const SharedObject& before, const SharedObject& after) {
  if (before != nullptr) {
    const Json pair = index_pair(*before);
    services_.remove(before->ns, &pair, before->key());
  }
  if (after != nullptr) {
    const Json pair = index_pair(*after);
    services_.add(after->ns, &pair, after->key());
  }
  queue_.add((after != nullptr ? after : before)->key());
}

void EndpointSliceController::on_pod(const SharedObject& before, const SharedObject& after) {
  const Json* old_labels = before == nullptr ? nullptr : labels_of(*before);
  const Json* labels = after == nullptr ? nullptr : labels_of(*after);
  if (old_labels == nullptr || labels == nullptr || *old_labels != *labels) {
    if (before != nullptr) pods_.remove(before->ns, old_labels, before->key());
    if (after != nullptr) pods_.add(after->ns, labels, after->key());
  }
  if (essence(before) == essence(after)) return;
  if (before != nullptr) wake_services_of(*before);
  if (after != nullptr) wake_services_of(*after);
}

void EndpointSliceController::on_slice(const SharedObject& before, const SharedObject& after) {
  if (before != nullptr) slices_.remove(before->ns, labels_of(*before), before->key());
  if (after != nullptr) slices_.add(after->ns, labels_of(*after), after->key());
  const SharedObject& slice = after != nullptr ? after : before;
  const std::string service = kube::text_at(slice->json(), "metadata", "labels", kServiceLabel);
  if (!service.empty()) queue_.add(kube::object_key(slice->ns, service));
}

void EndpointSliceController::wake_services_of(const ClusterObject& pod) {
  const Json* labels = labels_of(pod);
  if (labels == nullptr || !labels->is_object()) return;
  for (const auto& [label, value] : labels->items()) {
    if (!value.is_string()) continue;
    services_.each(pod.ns, label, value.get_ref<const std::string&>(), [&](const std::string& key) {
      const SharedObject service = cluster_.find(kube::kServices, key);
      if (service != nullptr && takes(*service, pod)) queue_.add(key);
    });
  }
}

Json EndpointSliceController::endpoint_of(const SharedObject& service, const SharedObject& pod,
                                          const std::string& address) const {
  const bool serving = pod_is_ready(*pod);
  const Json* publish = kube::find(service->json(), "spec", "publishNotReadyAddresses");
  const bool always = publish != nullptr && *publish == true;
  Json out{{"addresses", {address}},
           {"conditions",
            {{"ready", always || (serving && !pod->deleting())},
             {"serving", serving},
             {"terminating", pod->deleting()}}},
           {"targetRef",
            {{"kind", "Pod"}, {"namespace", pod->ns}, {"name", pod->name}, {"uid", pod->uid}}}};
  const std::string node = kube::text_at(pod->json(), "spec", "nodeName");
  if (node.empty()) return out;
  out["nodeName"] = node;
  const SharedObject object = cluster_.find(kube::kNodes, "", node);
  const std::string zone = object == nullptr ? ""
                                             : kube::text_at(object->json(), "metadata", "labels",
                                                             "topology.kubernetes.io/zone");
  if (!zone.empty()) out["zone"] = zone;
  return out;
}

std::vector<Json> EndpointSliceController::wanted(const SharedObject& service) const {
  // By address type and ports: pods may resolve a named port differently.
  std::map<std::pair<std::string, std::string>, Json> groups;
  const Json pair = index_pair(*service);
  if (pair.empty()) return {};
  const auto& value = pair.begin().value().get_ref<const std::string&>();
  pods_.each(service->ns, pair.begin().key(), value, [&](const std::string& key) {
    const SharedObject pod = cluster_.find(kube::kPods, key);
    if (pod == nullptr || !takes(*service, *pod)) return;
    const std::string phase = kube::text_at(pod->json(), "status", "phase");
    if (phase == "Succeeded" || phase == "Failed") return;
    const Json ports = ports_of(*service, *pod);
    for (const std::string& address : addresses_of(*pod)) {
      const auto ip = IpAddr::parse(address);
      if (!ip) continue;
      Json& endpoints = groups[{ip->is_v6() ? "IPv6" : "IPv4", kube::to_text(ports)}];
      endpoints.push_back(endpoint_of(service, pod, address));
    }
  });
  std::vector<Json> out;
  for (const auto& [kind, endpoints] : groups) {
    for (size_t from = 0; from < endpoints.size(); from += kMaxEndpoints) {
      Json some = Json::array();
      for (size_t i = from; i < std::min(endpoints.size(), from + kMaxEndpoints); ++i)
        some.push_back(endpoints[i]);
      out.push_back({{"addressType", kind.first},
                     {"ports", Json::parse(kind.second, nullptr, false)},
                     {"endpoints", some}});
    }
  }
  return out;
}

void EndpointSliceController::reconcile(const std::string& key, WorkQueue::Done done) {
  const SharedObject service = cluster_.find(kube::kServices, key);
  std::vector<SharedObject> mine;
  const size_t slash = key.find('/');
  slices_.each(key.substr(0, slash), kServiceLabel, key.substr(slash + 1),
               [&](const std::string& name) {
                 const SharedObject slice = cluster_.find(kube::kEndpointSlices, name);
                 if (slice != nullptr && !slice->deleting() &&
                     kube::text_at(slice->json(), "metadata", "labels", kManagedLabel) == kManager)
                   mine.push_back(slice);
               });
  std::vector<Json> want;
  // Without a selector someone else says who the endpoints are.
  const bool selects_pods =
      service != nullptr && !service->deleting() && selector_of(*service) != nullptr;
  if (selects_pods) want = wanted(service);
  const size_t steps = std::max(want.size(), mine.size());
  auto batch = Batch::make(steps, std::move(done));
  for (size_t i = 0; i < steps; ++i) {
    if (i >= want.size()) {
      cluster_.remove(mine[i], batch->part());
    } else if (i < mine.size() &&
               mine[i]->json().value("addressType", "") == want[i]["addressType"]) {
      if (same_slice(want[i], *mine[i]))
        batch->part()(SharedObject());
      else
        cluster_.patch(mine[i], want[i], batch->part());
    } else {
      if (i < mine.size()) cluster_.remove(mine[i], [](Result<SharedObject>) {});  // another family
      Json slice = want[i];
      slice["apiVersion"] = "discovery.k8s.io/v1";
      slice["kind"] = "EndpointSlice";
      slice["metadata"] = {{"generateName", service->name + "-"},
                           {"namespace", service->ns},
                           {"labels", {{kServiceLabel, service->name}, {kManagedLabel, kManager}}},
                           {"ownerReferences", Json::array({controller_reference(*service)})}};
      cluster_.create(kube::kEndpointSlices, service->ns, slice, batch->part());
    }
  }
}

}  // namespace edgemesh::cloud::controllers
