#include "proxy/upstream/worker_clusters.h"

namespace edgemesh::proxy {

ClusterState* WorkerClusters::make(Entry& entry) {
  entry.state = ClusterState::create(std::exchange(entry.set, nullptr), worker_, clock_);
  return entry.state.get();
}

void WorkerClusters::apply(const ClusterUpdates& updates) {
  for (const auto& update : *updates) {
    auto it = clusters_.find(std::string_view(update.name));
    ClusterRef gone;
    if (update.set == nullptr) {
      if (it == clusters_.end()) continue;
      gone = std::move(it->second.state);
      clusters_.erase(it);
    } else if (it == clusters_.end()) {
      clusters_.emplace(update.name, Entry{update.set, {}});
    } else if (!it->second.state) {
      it->second.set = update.set;
    } else if (&it->second.state->shared() == update.set->shared().get()) {
      it->second.state->update(update.set);
    } else {
      // It was removed and came back between two updates: another cluster.
      gone = std::move(it->second.state);
      it->second = {update.set, {}};
    }
    if (gone) gone->retire();
  }
}

void WorkerClusters::clear() {
  auto clusters = std::move(clusters_);
  clusters_.clear();
  for (auto& [name, entry] : clusters)
    if (entry.state) entry.state->retire();
}

}  // namespace edgemesh::proxy
