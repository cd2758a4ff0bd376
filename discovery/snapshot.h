// Snapshot: what the proxy and the DNS server know about services, immutable and shared by all
// threads. Lookups take no lock and allocate nothing. A new snapshot shares with the one before it
// everything but the shards that a change touched, so that a change to one of 10,000 services costs
// work for one.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/net_addr.h"
#include "discovery/text.h"

namespace edgemesh::discovery {

struct Endpoint {
  SockAddr addr;
  Text node;      // node it runs on; empty: reachable from everywhere alike
  Text zone;
  Text hostname;  // of a headless service's pod, may be empty
  bool ready = true;     // false: terminating, used because nothing better is left
  // One before it in its list has the same IP, and is on another node.
  bool same_ip = false;
};

// What tells endpoints apart. An address alone does not: sites have private networks of their own,
// and two of them may use the same one.
struct EndpointKey {
  SockAddr addr;
  Text node;
  friend bool operator==(const EndpointKey&, const EndpointKey&) = default;
};
inline EndpointKey key_of(const Endpoint& endpoint) { return {endpoint.addr, endpoint.node}; }
inline bool has_key(const Endpoint& endpoint, const EndpointKey& key) {
  return endpoint.addr == key.addr && endpoint.node == key.node;
}
inline bool same_endpoint(const Endpoint& a, const Endpoint& b) {
  return a.addr == b.addr && a.node == b.node;
}

// Tables by EndpointKey can be asked with an Endpoint, without a copy of its node's name.
struct EndpointHash {
  using is_transparent = void;
  size_t operator()(const Endpoint& e) const noexcept { return mix(e.addr, e.node); }
  size_t operator()(const EndpointKey& k) const noexcept { return mix(k.addr, k.node); }

 private:
  static size_t mix(const SockAddr& addr, const Text& node) noexcept {
    return std::hash<SockAddr>()(addr) ^ node.hash() * 0x9e3779b97f4a7c15ULL;
  }
};
struct EndpointEqual {
  using is_transparent = void;
  bool operator()(const EndpointKey& a, const EndpointKey& b) const { return a == b; }
  bool operator()(const Endpoint& a, const EndpointKey& b) const { return has_key(a, b); }
  bool operator()(const EndpointKey& a, const Endpoint& b) const { return has_key(b, a); }
};

enum class LbPolicy { kRoundRobin, kRandom, kLeastRequest };

struct Port {
  std::string name;
  std::string protocol = "TCP";
  std::string app_protocol;
  uint16_t port = 0;
  uint16_t index = 0;  // position in ServiceEntry::ports
  std::vector<Endpoint> endpoints;  // that may be used: ready ones, else serving ones that terminate
};

// Always held by a shared_ptr: a connection keeps the entry it was made for, not the whole snapshot.
struct ServiceEntry : std::enable_shared_from_this<ServiceEntry> {
  uint64_t id = 0;  // stable while the service lives; never used again
  std::string ns, name;
  std::vector<IpAddr> vips;
  bool headless = false;
  std::string external_name;      // type ExternalName
  bool client_ip_affinity = false;
  int affinity_timeout_s = 10800;
  LbPolicy policy = LbPolicy::kRoundRobin;
  std::vector<Port> ports;
  // Addresses of a headless service that has no ports.
  std::vector<Endpoint> portless_endpoints;
};

class Snapshot {
 public:
  struct Target {
    const ServiceEntry* service = nullptr;
    const Port* port = nullptr;
  };

  // TCP (or other) service port at a cluster IP.
  std::optional<Target> find(const IpAddr& vip, uint16_t port, std::string_view protocol = "TCP") const;
  const ServiceEntry* by_name(std::string_view ns, std::string_view name) const;
  // Service that owns the cluster IP.
  const ServiceEntry* by_vip(const IpAddr& vip) const;
  bool has_namespace(std::string_view ns) const;

  // An endpoint at exactly this address, of any service, on any node; null: none. This is what keeps
  // an agent from being an open proxy.
  const Endpoint* endpoint(const SockAddr& addr) const;
  // One of those that is on this node; null: none.
  const Endpoint* endpoint_on(const SockAddr& addr, std::string_view node) const;
  // The same, of a service port of this protocol.
  const Endpoint* endpoint_on(const SockAddr& addr, std::string_view node,
                              std::string_view protocol) const;
  bool is_endpoint(const SockAddr& addr) const { return endpoint(addr) != nullptr; }
  // A headless service with an endpoint of that IP, for PTR.
  struct Reverse {
    const ServiceEntry* service = nullptr;
    const Endpoint* endpoint = nullptr;
  };
  std::optional<Reverse> by_endpoint_ip(const IpAddr& ip) const;

  uint64_t version() const { return version_; }
  size_t services() const { return services_; }
  size_t endpoints() const { return endpoints_; }
  // All services, in no order. For status reports.
  void for_each(const std::function<void(const ServiceEntry&)>& visit) const;

 private:
  friend class Registry;
  using EntryPtr = std::shared_ptr<const ServiceEntry>;
  static constexpr size_t kShards = 256;

  struct VipRow {  // one a (cluster IP, port, protocol)
    IpAddr ip;
    uint16_t port;
    uint16_t index;
    EntryPtr service;
  };
  struct EndpointRow {  // one a (address, node, service)
    SockAddr addr;
    const Endpoint* endpoint;
    EntryPtr service;
  };
  struct Shard {
    uint64_t epoch = 0;  // of the registry when it was made: older ones are shared and not written
    std::vector<EntryPtr> names;        // sorted by namespace, name
    std::vector<VipRow> vips;           // sorted by ip, port
    std::vector<EndpointRow> endpoints; // sorted by addr
  };
  static size_t name_shard(std::string_view ns, std::string_view name);
  static size_t ip_shard(const IpAddr& ip) { return std::hash<IpAddr>()(ip) % kShards; }

  std::array<std::shared_ptr<const Shard>, kShards> shards_;
  std::shared_ptr<const std::vector<std::string>> namespaces_;  // sorted
  uint64_t version_ = 0;
  size_t services_ = 0;
  size_t endpoints_ = 0;
};

}  // namespace edgemesh::discovery
