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
  // Null: no such cluster. A ClusterRef keeps it; it is retired when it was removed meanwhile. The
  // state of a cluster is made when it is asked for first: most are never used by a worker.
  ClusterState* find(std::string_view name) {
    auto it = clusters_.find(name);
    if (it == clusters_.end()) return nullptr;
    return it->second.state ? it->second.state.get() : make(it->second);
  }
  size_t size() const { return clusters_.size(); }
  void clear();

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view name) const { return hash64(name); }
  };
  struct Entry {
    std::shared_ptr<const HostSet> set;  // while there is no state
    ClusterRef state;
  };
  ClusterState* make(Entry& entry);

  int worker_;
  Clock& clock_;
  std::unordered_map<std::string, Entry, Hash, std::equal_to<>> clusters_;
};

}  // namespace edgemesh::proxy
