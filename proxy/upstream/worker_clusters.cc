#include "proxy/upstream/worker_clusters.h"

namespace edgemesh::proxy {

void WorkerClusters::apply(const ClusterUpdates& updates) {
  for (const auto& update : *updates) {
    auto it = clusters_.find(std::string_view(update.name));
    if (update.set == nullptr) {
      if (it == clusters_.end()) continue;
      ClusterRef gone = std::move(it->second);
      clusters_.erase(it);
      gone->retire();
      continue;
    }
    // One that was removed and came back between two updates is another cluster.
    if (it != clusters_.end() && &it->second->shared() == update.set->shared().get()) {
      it->second->update(update.set);
      continue;
    }
    auto made = ClusterState::create(update.set, worker_, clock_);
    if (it == clusters_.end()) {
      clusters_.emplace(update.name, std::move(made));
      continue;
    }
    ClusterRef gone = std::exchange(it->second, std::move(made));
    gone->retire();
  }
}

void WorkerClusters::clear() {
  auto clusters = std::move(clusters_);
  clusters_.clear();
  for (auto& [name, cluster] : clusters) cluster->retire();
}

}  // namespace edgemesh::proxy
