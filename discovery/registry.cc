#include "discovery/registry.h"

#include <algorithm>
#include <optional>
#include <tuple>

namespace edgemesh::discovery {

struct Registry::Record {
  std::optional<kube::Service> service;
  std::map<std::string, kube::EndpointSlice> slices;  // by name
  Snapshot::EntryPtr entry;                           // null: no service
  uint64_t id = 0;
};

namespace {

LbPolicy policy_of(const kube::Service& service) {
  auto it = service.annotations.find(kLbAnnotation);
  if (it == service.annotations.end()) return LbPolicy::kRoundRobin;
  if (it->second == "random") return LbPolicy::kRandom;
  if (it->second == "least_request") return LbPolicy::kLeastRequest;
  return LbPolicy::kRoundRobin;
}

// What the registry needs of an object stays, the rest of its memory goes.
kube::Service slim(const kube::Service& service) {
  kube::Service out = service;
  out.labels.clear();
  out.selector.clear();
  out.uid.clear();
  std::erase_if(out.annotations, [](const auto& item) { return item.first != kLbAnnotation; });
  return out;
}

kube::EndpointSlice slim(const kube::EndpointSlice& slice) {
  kube::EndpointSlice out = slice;
  out.labels.clear();
  out.annotations.clear();
  out.uid.clear();
  return out;
}

using SliceMap = std::map<std::string, kube::EndpointSlice>;

// Adds the endpoints of one slice that pass `wanted`, at `port`.
template <class Wanted>
void add_endpoints(const kube::EndpointSlice& slice, uint16_t port, Wanted wanted,
                   std::vector<Endpoint>& out) {
  for (const auto& from : slice.endpoints) {
    if (!wanted(from)) continue;
    for (const auto& text : from.addresses) {
      auto ip = IpAddr::parse(text);
      if (!ip) continue;  // address type FQDN
      SockAddr addr{*ip, port};
      bool twice = std::any_of(out.begin(), out.end(), [&](const Endpoint& e) { return e.addr == addr; });
      if (!twice) out.push_back({addr, from.node_name, from.zone, from.hostname, from.ready});
    }
  }
}

template <class Wanted>
std::vector<Endpoint> collect(const SliceMap& slices, const Port* port, Wanted wanted) {
  std::vector<Endpoint> out;
  for (const auto& [name, slice] : slices) {
    if (port == nullptr) {
      add_endpoints(slice, 0, wanted, out);
      continue;
    }
    for (const auto& p : slice.ports)
      if (p.name == port->name && p.protocol == port->protocol) add_endpoints(slice, p.port, wanted, out);
  }
  return out;
}

std::vector<Endpoint> usable(const SliceMap& slices, const Port* port) {
  auto out = collect(slices, port, [](const kube::SliceEndpoint& e) { return e.ready; });
  if (out.empty())
    out = collect(slices, port, [](const kube::SliceEndpoint& e) { return e.serving && e.terminating; });
  out.shrink_to_fit();
  return out;
}

std::shared_ptr<ServiceEntry> make_entry(const kube::Service& service, const SliceMap& slices,
                                         uint64_t id) {
  auto entry = std::make_shared<ServiceEntry>();
  entry->id = id;
  entry->ns = service.ns;
  entry->name = service.name;
  entry->headless = service.headless();
  entry->external_name = service.type == "ExternalName" ? service.external_name : "";
  entry->client_ip_affinity = service.session_affinity == "ClientIP";
  entry->affinity_timeout_s = service.affinity_timeout_s;
  entry->policy = policy_of(service);
  auto vips = service.cluster_ips;
  if (vips.empty() && !service.cluster_ip.empty()) vips.push_back(service.cluster_ip);
  for (const auto& text : vips)
    if (auto ip = IpAddr::parse(text)) entry->vips.push_back(*ip);
  for (const auto& from : service.ports) {
    Port port{from.name, from.protocol, from.app_protocol, from.port,
              static_cast<uint16_t>(entry->ports.size()), {}};
    port.endpoints = usable(slices, &port);
    entry->ports.push_back(std::move(port));
  }
  if (service.ports.empty()) entry->portless_endpoints = usable(slices, nullptr);
  return entry;
}

}  // namespace

Registry::Registry(io::Loop& loop) : loop_(loop) {
  auto empty = std::make_shared<const Snapshot::Shard>();
  next_.shards_.fill(empty);
  next_.namespaces_ = std::make_shared<const std::vector<std::string>>();
  current_ = std::make_shared<const Snapshot>(next_);
}

Registry::~Registry() { *alive_ = false; }

Registry::Record& Registry::record(const Key& key) {
  auto& slot = records_[key];
  if (!slot) slot = std::make_unique<Record>();
  return *slot;
}

void Registry::upsert_service(const kube::Service& service) {
  loop_.assert_on_thread();
  Key key{service.ns, service.name};
  record(key).service = slim(service);
  changed(key);
}

void Registry::remove_service(const std::string& ns, const std::string& name) {
  Key key{ns, name};
  auto it = records_.find(key);
  if (it == records_.end()) return;
  it->second->service.reset();
  changed(key);
}

void Registry::upsert_slice(const kube::EndpointSlice& slice) {
  loop_.assert_on_thread();
  Key slice_key{slice.ns, slice.name};
  auto known = slice_service_.find(slice_key);
  if (known != slice_service_.end() && known->second != slice.service_name)
    remove_slice(slice.ns, slice.name);  // its label moved it to another service
  if (slice.service_name.empty()) return;
  slice_service_[slice_key] = slice.service_name;
  Key key{slice.ns, slice.service_name};
  record(key).slices[slice.name] = slim(slice);
  changed(key);
}

void Registry::remove_slice(const std::string& ns, const std::string& name) {
  auto known = slice_service_.find({ns, name});
  if (known == slice_service_.end()) return;
  Key key{ns, known->second};
  slice_service_.erase(known);
  record(key).slices.erase(name);
  changed(key);
}

void Registry::changed(const Key& key) {
  dirty_.insert(key);
  if (publish_waits_) return;
  publish_waits_ = true;
  loop_.defer([this, alive = alive_] {
    if (!*alive || !publish_waits_) return;
    publish();
  });
}

Snapshot::Shard& Registry::writable(size_t index) {
  auto& slot = next_.shards_[index];
  if (slot->epoch != epoch_) {
    auto copy = std::make_shared<Snapshot::Shard>(*slot);
    copy->epoch = epoch_;
    slot = std::move(copy);
  }
  return const_cast<Snapshot::Shard&>(*slot);  // made above, in this epoch, by us
}

void Registry::insert(const Snapshot::EntryPtr& entry) {
  auto& names = writable(Snapshot::name_shard(entry->ns, entry->name)).names;
  names.insert(std::upper_bound(names.begin(), names.end(), entry,
                                [](const auto& a, const auto& b) {
                                  return std::tie(a->ns, a->name) < std::tie(b->ns, b->name);
                                }),
               entry);
  for (const auto& vip : entry->vips) {
    auto& rows = writable(Snapshot::ip_shard(vip)).vips;
    for (const auto& port : entry->ports) {
      Snapshot::VipRow row{vip, port.port, port.index, entry};
      rows.insert(std::upper_bound(rows.begin(), rows.end(), row,
                                   [](const auto& a, const auto& b) {
                                     return std::tie(a.ip, a.port) < std::tie(b.ip, b.port);
                                   }),
                  row);
    }
  }
  auto add = [&](const Endpoint& endpoint) {
    auto& rows = writable(Snapshot::ip_shard(endpoint.addr.ip)).endpoints;
    Snapshot::EndpointRow row{endpoint.addr, &endpoint, entry};
    rows.insert(std::upper_bound(rows.begin(), rows.end(), row,
                                 [](const auto& a, const auto& b) { return a.addr < b.addr; }),
                row);
    ++next_.endpoints_;
  };
  for (const auto& port : entry->ports)
    for (const auto& endpoint : port.endpoints) add(endpoint);
  for (const auto& endpoint : entry->portless_endpoints) add(endpoint);
  ++next_.services_;
  count_namespace(entry->ns, 1);
}

void Registry::remove(const Snapshot::EntryPtr& entry) {
  auto drop = [&](auto& rows) {
    std::erase_if(rows, [&](const auto& row) { return row.service == entry; });
  };
  std::erase(writable(Snapshot::name_shard(entry->ns, entry->name)).names, entry);
  for (const auto& vip : entry->vips) drop(writable(Snapshot::ip_shard(vip)).vips);
  auto drop_endpoint = [&](const Endpoint& endpoint) {
    drop(writable(Snapshot::ip_shard(endpoint.addr.ip)).endpoints);
    --next_.endpoints_;
  };
  for (const auto& port : entry->ports)
    for (const auto& endpoint : port.endpoints) drop_endpoint(endpoint);
  for (const auto& endpoint : entry->portless_endpoints) drop_endpoint(endpoint);
  --next_.services_;
  count_namespace(entry->ns, -1);
}

void Registry::count_namespace(const std::string& ns, int by) {
  int& count = namespaces_[ns];
  if (count == 0 || count + by == 0) namespaces_changed_ = true;
  count += by;
  if (count == 0) namespaces_.erase(ns);
}

void Registry::rebuild(const Key& key) {
  auto it = records_.find(key);
  if (it == records_.end()) return;
  Record& r = *it->second;
  if (r.entry) remove(r.entry);
  r.entry.reset();
  if (!r.service) {
    r.id = 0;  // a service that comes back is another one
    if (r.slices.empty()) records_.erase(it);
    return;
  }
  if (r.id == 0) r.id = next_id_++;
  r.entry = make_entry(*r.service, r.slices, r.id);
  insert(r.entry);
}

std::shared_ptr<const Snapshot> Registry::snapshot() {
  if (!dirty_.empty()) publish();
  return current_;
}

void Registry::subscribe(std::function<void(std::shared_ptr<const Snapshot>)> on_change) {
  subscribers_.push_back(std::move(on_change));
}

void Registry::publish() {
  publish_waits_ = false;
  if (dirty_.empty()) return;
  auto dirty = std::move(dirty_);
  dirty_.clear();
  for (const auto& key : dirty) rebuild(key);
  if (namespaces_changed_) {
    auto names = std::make_shared<std::vector<std::string>>();
    for (const auto& [ns, count] : namespaces_) names->push_back(ns);
    next_.namespaces_ = std::move(names);
    namespaces_changed_ = false;
  }
  ++next_.version_;
  current_ = std::make_shared<const Snapshot>(next_);
  ++epoch_;  // the shards are shared from here on
  for (const auto& subscriber : subscribers_) subscriber(current_);
}

}  // namespace edgemesh::discovery
