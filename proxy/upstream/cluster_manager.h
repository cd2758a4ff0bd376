// ClusterManager: all clusters of the process. It takes the configuration, the snapshots of
// discovery and the answers of DNS, builds a HostSet whenever a cluster changed, and gives it to
// whoever uses it (the workers, the health checker) by one callback. Only what changed is built: a
// change to one of 10,000 services costs 10,000 comparisons of pointers and one build. Threads: the
// main loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/io/loop.h"
#include "discovery/snapshot.h"
#include "proxy/upstream/dns_cluster.h"
#include "proxy/upstream/host_set.h"

namespace edgemesh::proxy {

struct ClusterUpdate {
  std::string name;
  std::shared_ptr<const HostSet> set;  // null: the cluster was removed
};
using ClusterUpdates = std::shared_ptr<const std::vector<ClusterUpdate>>;

struct ClusterManagerOptions {
  io::Loop& loop;
  int workers = 1;
  Place place;
  DnsLookup lookup;  // empty: DNS clusters stay without endpoints
  // Told of all changes of one call together. Hand the pointer to WorkerClusters::apply() on each
  // worker's loop and the sets to the health checker on its own.
  std::function<void(ClusterUpdates)> publish;
  uint64_t seed = 1;
};

class ClusterManager {
 public:
  explicit ClusterManager(ClusterManagerOptions options);
  ~ClusterManager();
  ClusterManager(const ClusterManager&) = delete;
  ClusterManager& operator=(const ClusterManager&) = delete;

  // These clusters and no others. All or nothing: the error names the cluster and the part that is
  // wrong (TLS files), or a name that is there twice.
  Result<> apply(const std::vector<std::shared_ptr<const model::Cluster>>& clusters);
  // These clusters instead of those of the same names or beside them; the named ones are removed.
  // Work for what is given only.
  Result<> update(const std::vector<std::shared_ptr<const model::Cluster>>& clusters,
                  const std::vector<std::string>& removed = {});
  void set_snapshot(std::shared_ptr<const discovery::Snapshot> snapshot);

  std::shared_ptr<const HostSet> find(const std::string& name) const;
  size_t size() const { return clusters_.size(); }
  // By name: for reports (cluster_report.h).
  std::vector<std::shared_ptr<const HostSet>> sets() const;

 private:
  struct Cluster;
  using ContextPtr = std::shared_ptr<tls::Context>;

  Result<> change(const std::vector<std::shared_ptr<const model::Cluster>>& clusters,
                  const std::function<void()>& remove);
  Result<ContextPtr> context_for(const model::Cluster& config);
  void configure(Cluster& cluster);
  void start_sweep(Cluster& cluster, Duration interval);
  void build(Cluster& cluster, std::vector<model::Endpoint> endpoints);
  void build_static(Cluster& cluster);
  // True when the service changed since the last look.
  bool refresh_service(Cluster& cluster);
  void flush();

  ClusterManagerOptions options_;
  std::shared_ptr<const discovery::Snapshot> snapshot_;
  std::unordered_map<std::string, std::unique_ptr<Cluster>> clusters_;
  std::map<std::string, std::weak_ptr<tls::Context>> contexts_;  // by all that they are made from
  std::vector<ClusterUpdate> changes_;
};

}  // namespace edgemesh::proxy
