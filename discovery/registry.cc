#include "discovery/registry.h"

#include <algorithm>
#include <tuple>
#include <unordered_map>

namespace edgemesh::discovery {

// An EndpointSlice, without what nobody asks for.
struct Registry::Slice {
  struct Row {
    IpAddr ip;
    bool ready;
    bool ending;  // terminating, and serving still
    Text node, zone, hostname;
  };
  struct SlicePort {
    Text name, protocol;
    uint16_t port;
  };
  const std::string* key;  // lives in slice_record_
  std::vector<SlicePort> ports;
  std::vector<Row> rows;
};

struct Registry::Record {
  const std::string* key = nullptr;  // lives in records_
  // The service as it came last, without endpoints; null once it is part of `entry`.
  std::unique_ptr<ServiceEntry> head;
  bool has_service = false;
  bool dirty = false;
  std::vector<std::unique_ptr<Slice>> slices;  // by key
  Snapshot::EntryPtr entry;                    // null: no service
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

std::string key_of(const std::string& ns, const std::string& name) { return ns + "/" + name; }

// Below this many endpoints a look through the list is cheaper than a set.
constexpr size_t kSmallList = 32;

// Endpoints in the order in which they come, each once.
class EndpointList {
 public:
  void add(const SockAddr& addr, const Text& node, const Text& zone, const Text& hostname, bool ready) {
    bool same_ip = false;
    if (list.size() < kSmallList) {
      for (const Endpoint& e : list)
        if (!compare(e, addr, node, same_ip)) return;
    } else {
      if (by_ip_.empty())
        for (const Endpoint& e : list) by_ip_.emplace(e.addr.ip, by_ip_.size());
      auto [from, to] = by_ip_.equal_range(addr.ip);
      for (; from != to; ++from)
        if (!compare(list[from->second], addr, node, same_ip)) return;
      by_ip_.emplace(addr.ip, list.size());
    }
    list.push_back({addr, node, zone, hostname, ready, same_ip});
  }
  std::vector<Endpoint> list;

 private:
  // False: `known` is the same endpoint.
  static bool compare(const Endpoint& known, const SockAddr& addr, const Text& node, bool& same_ip) {
    if (known.addr.ip != addr.ip) return true;
    if (known.node != node)
      same_ip = true;
    else if (known.addr.port == addr.port)
      return false;
    return true;
  }

  std::unordered_multimap<IpAddr, size_t> by_ip_;  // places in the list, once it is long
};

// The endpoints of all slices that pass `wanted`, at the number that belongs to `port`; null: at 0.
template <class Slices, class Wanted>
std::vector<Endpoint> collect(const Slices& slices, const Port* port, Wanted wanted) {
  EndpointList out;
  auto add_all = [&](const auto& rows, uint16_t number) {
    for (const auto& row : rows)
      if (wanted(row)) out.add({row.ip, number}, row.node, row.zone, row.hostname, row.ready);
  };
  for (const auto& slice : slices) {
    if (port == nullptr) {
      add_all(slice->rows, 0);
      continue;
    }
    for (const auto& p : slice->ports)
      if (p.name == port->name && p.protocol == port->protocol) add_all(slice->rows, p.port);
  }
  return std::move(out.list);
}

template <class Slices>
std::vector<Endpoint> usable(const Slices& slices, const Port* port) {
  auto out = collect(slices, port, [](const auto& row) { return row.ready; });
  if (out.empty()) out = collect(slices, port, [](const auto& row) { return row.ending; });
  out.shrink_to_fit();
  return out;
}

std::unique_ptr<ServiceEntry> make_head(const kube::Service& service) {
  auto entry = std::make_unique<ServiceEntry>();
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
  entry->ports.reserve(service.ports.size());
  for (const auto& from : service.ports)
    entry->ports.push_back({from.name, from.protocol, from.app_protocol, from.port,
                            static_cast<uint16_t>(entry->ports.size()), {}});
  return entry;
}

// The service of `from`, without its endpoints.
std::unique_ptr<ServiceEntry> copy_head(const ServiceEntry& from) {
  auto entry = std::make_unique<ServiceEntry>();
  entry->ns = from.ns;
  entry->name = from.name;
  entry->headless = from.headless;
  entry->external_name = from.external_name;
  entry->client_ip_affinity = from.client_ip_affinity;
  entry->affinity_timeout_s = from.affinity_timeout_s;
  entry->policy = from.policy;
  entry->vips = from.vips;
  entry->ports.reserve(from.ports.size());
  for (const Port& p : from.ports)
    entry->ports.push_back({p.name, p.protocol, p.app_protocol, p.port, p.index, {}});
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

Registry::Record& Registry::record(const std::string& ns, const std::string& name) {
  auto [it, fresh] = records_.try_emplace(key_of(ns, name));
  if (fresh) {
    it->second = std::make_unique<Record>();
    it->second->key = &it->first;
  }
  return *it->second;
}

void Registry::upsert_service(const kube::Service& service) {
  loop_.assert_on_thread();
  Record& r = record(service.ns, service.name);
  r.head = make_head(service);
  r.has_service = true;
  changed(r);
}

void Registry::remove_service(const std::string& ns, const std::string& name) {
  loop_.assert_on_thread();
  auto it = records_.find(key_of(ns, name));
  if (it == records_.end()) return;
  it->second->has_service = false;
  it->second->head.reset();
  changed(*it->second);
}

std::unique_ptr<Registry::Slice> Registry::compact(const kube::EndpointSlice& slice) {
  auto out = std::make_unique<Slice>();
  out->ports.reserve(slice.ports.size());
  for (const auto& p : slice.ports) out->ports.push_back({texts_.get(p.name), texts_.get(p.protocol), p.port});
  out->rows.reserve(slice.endpoints.size());
  for (const auto& e : slice.endpoints) {
    bool ending = e.serving && e.terminating;
    if (!e.ready && !ending) continue;
    for (const auto& text : e.addresses)
      if (auto ip = IpAddr::parse(text))  // else address type FQDN
        out->rows.push_back({*ip, e.ready, ending, texts_.get(e.node_name), texts_.get(e.zone),
                             texts_.get(e.hostname)});
  }
  return out;
}

void Registry::upsert_slice(const kube::EndpointSlice& slice) {
  loop_.assert_on_thread();
  std::string key = key_of(slice.ns, slice.name);
  Record* owner = slice.service_name.empty() ? nullptr : &record(slice.ns, slice.service_name);
  auto known = slice_record_.find(key);
  // Its label moved it to another service.
  if (known != slice_record_.end() && known->second != owner) remove_slice(slice.ns, slice.name);
  if (owner == nullptr) return;
  auto it = slice_record_.try_emplace(std::move(key), owner).first;
  auto made = compact(slice);
  made->key = &it->first;
  auto& slices = owner->slices;
  auto place = std::lower_bound(slices.begin(), slices.end(), it->first,
                                [](const auto& s, const std::string& k) { return *s->key < k; });
  if (place != slices.end() && (*place)->key == made->key)
    *place = std::move(made);
  else
    slices.insert(place, std::move(made));
  changed(*owner);
}

void Registry::remove_slice(const std::string& ns, const std::string& name) {
  loop_.assert_on_thread();
  auto known = slice_record_.find(key_of(ns, name));
  if (known == slice_record_.end()) return;
  Record& r = *known->second;
  std::erase_if(r.slices, [&](const auto& s) { return s->key == &known->first; });
  slice_record_.erase(known);
  changed(r);
}

void Registry::changed(Record& r) {
  if (!r.dirty) dirty_.push_back(&r);
  r.dirty = true;
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

void Registry::rebuild(Record& r) {
  r.dirty = false;
  auto old = std::move(r.entry);
  r.entry.reset();
  if (old) remove(old);
  if (!r.has_service) {
    r.id = 0;  // a service that comes back is another one
    if (r.slices.empty()) records_.erase(std::string(*r.key));  // a copy: the key goes with the record
    return;
  }
  if (r.id == 0) r.id = next_id_++;
  std::shared_ptr<ServiceEntry> entry = r.head ? std::move(r.head) : copy_head(*old);
  entry->id = r.id;
  for (Port& port : entry->ports) port.endpoints = usable(r.slices, &port);
  if (entry->ports.empty()) entry->portless_endpoints = usable(r.slices, nullptr);
  r.entry = std::move(entry);
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
  for (Record* r : dirty) rebuild(*r);
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
