// WorkerClusters: the clusters of one worker, by name. Threads: the worker's loop.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>

#include "core/base/clock.h"
#include "proxy/upstream/cluster_manager.h"
#include "proxy/upstream/load_balancer.h"

namespace edgemesh::proxy {

class WorkerClusters {
 public:
  explicit WorkerClusters(int worker, Clock& clock = system_clock())
      : worker_(worker), clock_(clock) {}
  ~WorkerClusters() { clear(); }
  WorkerClusters(const WorkerClusters&) = delete;
  WorkerClusters& operator=(const WorkerClusters&) = delete;

  void apply(const ClusterUpdates& updates);
  // Null: no such cluster. A ClusterRef keeps it; it is retired when it was removed meanwhile.
  ClusterState* find(std::string_view name) const {
    auto it = clusters_.find(name);
    return it != clusters_.end() ? it->second.get() : nullptr;
  }
  size_t size() const { return clusters_.size(); }
  void clear();

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view name) const { return hash64(name); }
  };
  int worker_;
  Clock& clock_;
  std::unordered_map<std::string, ClusterRef, Hash, std::equal_to<>> clusters_;
};

}  // namespace edgemesh::proxy
