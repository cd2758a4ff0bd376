// ClusterDirectory: a listener of the configuration sends its datagrams to one cluster, whatever
// their destination. Load balancing, health and outlier detection are the cluster's; so are the
// limits of connections and requests, which do not hold here: a listener limits its flows.
// Threads: the worker's loop.
#pragma once

#include <string>

#include "proxy/udp/route.h"
#include "proxy/upstream/worker_clusters.h"

namespace edgemesh::proxy {

class ClusterDirectory final : public UdpDirectory {
 public:
  // `clusters` outlives the directory and its routes. The cluster may come later and go.
  ClusterDirectory(WorkerClusters& clusters, std::string cluster, std::string node)
      : clusters_(clusters), cluster_(std::move(cluster)), node_(std::move(node)) {}
  std::unique_ptr<UdpRoute> find(const SockAddr& client, const SockAddr& destination) override;

 private:
  WorkerClusters& clusters_;
  std::string cluster_;
  std::string node_;
};

}  // namespace edgemesh::proxy
