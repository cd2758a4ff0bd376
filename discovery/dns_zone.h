// Zone: the names of the cluster, answered from a snapshot. Names as in Kubernetes' DNS specification
// 1.1.0: services (A, AAAA, SRV), headless services and their pods, ExternalName (CNAME), reverse names
// of cluster IPs and of headless endpoints. No I/O; a look-up allocates nothing.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "discovery/dns_wire.h"
#include "discovery/snapshot.h"

namespace edgemesh::discovery::dns {

class Zone {
 public:
  // `servers`: addresses of the name server itself (ns.dns.<domain>).
  Zone(const Name& domain, uint32_t ttl_s, std::vector<IpAddr> servers);

  void set_service_cidrs(std::vector<Cidr> cidrs) { cidrs_ = std::move(cidrs); }

  enum class Outcome {
    kAnswered,
    kForward,  // not ours: ask upstream
    kChase,    // the answer so far is an alias: the addresses of `chase` are to be added
  };
  // `snapshot` null: nothing is known yet, SERVFAIL.
  Outcome answer(const Query& query, const Snapshot* snapshot, Writer& out, Name& chase);

 private:
  enum class Found { kName, kNoName, kAlias };
  struct Lookup {
    const Snapshot& snapshot;
    const Name& name;
    uint16_t type;
    Writer& out;
    uint16_t owner;
  };

  Found find(const Lookup& l, Name& alias, uint16_t& alias_at);
  Found find_apex(const Lookup& l);
  Found find_service(const Lookup& l, size_t below, Name& alias, uint16_t& alias_at);
  Found find_below_service(const Lookup& l, const ServiceEntry& service, size_t below);
  Found find_srv(const Lookup& l, const ServiceEntry& service, std::string_view port,
                 std::string_view protocol);
  Found find_pod(const Lookup& l, const ServiceEntry& service, std::string_view label);
  void add_addresses(const Lookup& l, const ServiceEntry& service);
  void add_srv(const Lookup& l, const ServiceEntry& service, const Port& port);
  Outcome reverse(const Query& query, const IpAddr& ip, const Snapshot* snapshot, Writer& out);
  std::optional<Name> name_of(const ServiceEntry& service, const Endpoint* endpoint) const;

  Name domain_;
  Name reverse_v4_, reverse_v6_;
  uint32_t ttl_;
  std::vector<IpAddr> servers_;
  std::vector<Cidr> cidrs_;
  uint32_t turn_ = 0;  // answers with many addresses begin with another one each time
};

// The address of a name under in-addr.arpa or ip6.arpa; nullopt: it is no whole address.
std::optional<IpAddr> reverse_address(const Name& name);

}  // namespace edgemesh::discovery::dns
