// DnsServer: the mesh's DNS, for pods and the node. Answers the names of the cluster domain from the
// snapshot and forwards every other name to the upstream servers.
//
// Standards: RFC 1034, 1035, 2308 (negative answers), 2782 (SRV), 6891 (EDNS), 7766 (TCP), 8482 (ANY);
// names as in Kubernetes' DNS specification 1.1.0. Names with few labels ("hello", "hello.default")
// are left to the client's search list, as in Kubernetes.
// Limits: every table and queue is bounded by DnsOptions.
// Threads: one loop. The caller brings each new snapshot by update().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/base/net_addr.h"
#include "core/io/loop.h"
#include "core/obs/metrics.h"
#include "discovery/snapshot.h"

namespace edgemesh::discovery {

struct DnsOptions {
  // UDP and TCP on each. A wildcard address answers only on hosts with one address of the family:
  // replies would leave with the wrong source.
  std::vector<SockAddr> listen;
  std::string cluster_domain = "cluster.local";
  // Addresses of the mesh: reverse names in them are never asked upstream.
  std::vector<Cidr> service_cidrs;
  uint32_t ttl_s = 5;  // of the mesh's own names, negative answers too
  // Addresses of this server itself are dropped from the list; empty: other names get SERVFAIL.
  std::vector<SockAddr> upstreams;
  Duration upstream_timeout = std::chrono::seconds(2);  // of one try
  int upstream_tries = 2;                               // rounds over all upstreams
  uint32_t mark = 0;                                    // SO_MARK of upstream sockets
  size_t max_in_flight = 1024;                          // clients that wait for an upstream answer
  size_t cache_entries = 4096;
  size_t cache_bytes = 2 << 20;
  uint32_t cache_max_ttl_s = 3600;
  uint32_t cache_max_negative_ttl_s = 300;
  size_t max_tcp_connections = 128;
  Duration tcp_idle_timeout = std::chrono::seconds(10);
};

class DnsServer {
 public:
  // The error names the address that could not be bound. With port 0 all addresses get free ports; UDP
  // and TCP of one address get the same.
  static Result<std::unique_ptr<DnsServer>> create(io::Loop& loop, DnsOptions options,
                                                   obs::Registry& metrics);
  ~DnsServer();
  DnsServer(const DnsServer&) = delete;
  DnsServer& operator=(const DnsServer&) = delete;

  // Until the first call names of the cluster are answered SERVFAIL, so that nobody remembers that
  // they do not exist.
  void update(std::shared_ptr<const Snapshot> snapshot);
  // Replaces the upstreams (the host's resolver configuration changed). Empties the cache.
  void set_upstreams(const std::vector<SockAddr>& upstreams);
  void set_service_cidrs(std::vector<Cidr> cidrs);

  // As bound, in the order of DnsOptions::listen.
  std::vector<SockAddr> local_addrs() const;

  struct Impl;

 private:
  explicit DnsServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace edgemesh::discovery
