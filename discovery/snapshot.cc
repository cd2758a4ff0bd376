#include "discovery/snapshot.h"

#include <algorithm>
#include <functional>
#include <tuple>

namespace edgemesh::discovery {

size_t Snapshot::name_shard(std::string_view ns, std::string_view name) {
  return (std::hash<std::string_view>()(ns) * 31 + std::hash<std::string_view>()(name)) % kShards;
}

std::optional<Snapshot::Target> Snapshot::find(const IpAddr& vip, uint16_t port,
                                               std::string_view protocol) const {
  const auto& shard = shards_[ip_shard(vip)];
  if (!shard) return std::nullopt;
  const auto& rows = shard->vips;
  auto it = std::lower_bound(rows.begin(), rows.end(), std::tie(vip, port),
                             [](const VipRow& row, const auto& key) {
                               return std::tie(row.ip, row.port) < key;
                             });
  for (; it != rows.end() && it->ip == vip && it->port == port; ++it) {
    const Port& found = it->service->ports[it->index];
    if (found.protocol == protocol) return Target{it->service.get(), &found};
  }
  return std::nullopt;
}

const ServiceEntry* Snapshot::by_name(std::string_view ns, std::string_view name) const {
  const auto& shard = shards_[name_shard(ns, name)];
  if (!shard) return nullptr;
  const auto& names = shard->names;
  auto key = std::tie(ns, name);
  auto it = std::lower_bound(names.begin(), names.end(), key, [](const EntryPtr& e, const auto& k) {
    return std::make_tuple(std::string_view(e->ns), std::string_view(e->name)) < k;
  });
  if (it == names.end() || (*it)->ns != ns || (*it)->name != name) return nullptr;
  return it->get();
}

const ServiceEntry* Snapshot::by_vip(const IpAddr& vip) const {
  const auto& shard = shards_[ip_shard(vip)];
  if (!shard) return nullptr;
  const auto& rows = shard->vips;
  auto it = std::lower_bound(rows.begin(), rows.end(), vip,
                             [](const VipRow& row, const IpAddr& ip) { return row.ip < ip; });
  return it != rows.end() && it->ip == vip ? it->service.get() : nullptr;
}

bool Snapshot::has_namespace(std::string_view ns) const {
  return namespaces_ && std::binary_search(namespaces_->begin(), namespaces_->end(), ns, std::less<>());
}

const Endpoint* Snapshot::endpoint(const SockAddr& addr) const {
  const auto& shard = shards_[ip_shard(addr.ip)];
  if (!shard) return nullptr;
  const auto& rows = shard->endpoints;
  auto it = std::lower_bound(rows.begin(), rows.end(), addr,
                             [](const EndpointRow& row, const SockAddr& key) { return row.addr < key; });
  return it != rows.end() && it->addr == addr ? it->endpoint : nullptr;
}

const Endpoint* Snapshot::endpoint_on(const SockAddr& addr, std::string_view node) const {
  const auto& shard = shards_[ip_shard(addr.ip)];
  if (!shard) return nullptr;
  const auto& rows = shard->endpoints;
  auto it = std::lower_bound(rows.begin(), rows.end(), addr,
                             [](const EndpointRow& row, const SockAddr& key) { return row.addr < key; });
  for (; it != rows.end() && it->addr == addr; ++it)
    if (it->endpoint->node == node) return it->endpoint;
  return nullptr;
}

const Endpoint* Snapshot::endpoint_on(const SockAddr& addr, std::string_view node,
                                      std::string_view protocol) const {
  const auto& shard = shards_[ip_shard(addr.ip)];
  if (!shard) return nullptr;
  const auto& rows = shard->endpoints;
  auto it = std::lower_bound(rows.begin(), rows.end(), addr,
                             [](const EndpointRow& row, const SockAddr& key) { return row.addr < key; });
  // A row stands for all ports of its service.
  for (; it != rows.end() && it->addr == addr; ++it)
    for (const Port& port : it->service->ports) {
      if (port.protocol != protocol) continue;
      for (const Endpoint& e : port.endpoints)
        if (e.addr == addr && e.node == node) return &e;
    }
  return nullptr;
}

std::optional<Snapshot::Reverse> Snapshot::by_endpoint_ip(const IpAddr& ip) const {
  const auto& shard = shards_[ip_shard(ip)];
  if (!shard) return std::nullopt;
  const auto& rows = shard->endpoints;
  auto it = std::lower_bound(rows.begin(), rows.end(), ip,
                             [](const EndpointRow& row, const IpAddr& key) { return row.addr.ip < key; });
  for (; it != rows.end() && it->addr.ip == ip; ++it)
    if (it->service->headless) return Reverse{it->service.get(), it->endpoint};
  return std::nullopt;
}

void Snapshot::for_each(const std::function<void(const ServiceEntry&)>& visit) const {
  for (const auto& shard : shards_)
    if (shard)
      for (const auto& entry : shard->names) visit(*entry);
}

}  // namespace edgemesh::discovery
