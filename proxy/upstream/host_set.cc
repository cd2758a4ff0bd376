#include "proxy/upstream/host_set.h"

#include <algorithm>
#include <map>
#include <set>

#include "proxy/upstream/hash.h"

namespace edgemesh::proxy {

namespace {

// How far an endpoint is: 0 the same node, 1 the same zone, 2 the same region, 3 elsewhere.
uint32_t distance(const Place& here, const model::Endpoint& to) {
  if (!to.node.empty() && to.node == here.node) return 0;
  const auto& a = here.locality;
  const auto& b = to.locality;
  const bool same_region = a.region == b.region;
  if (same_region && !a.zone.empty() && a.zone == b.zone) return 1;
  if (same_region && !a.region.empty()) return 2;
  return 3;
}

std::vector<LabelView> views(const std::vector<model::Label>& labels) {
  std::vector<LabelView> out;
  out.reserve(labels.size());
  for (const auto& label : labels) out.push_back({label.key, label.value});
  return out;
}

// The endpoint's labels of these keys; false when it lacks one.
bool select(const model::Labels& from, const std::vector<std::string>& keys, model::Labels* out) {
  out->clear();
  for (const auto& key : keys) {
    auto it = std::lower_bound(
        from.begin(), from.end(), key,
        [](const model::Label& label, const std::string& k) { return label.key < k; });
    if (it == from.end() || it->key != key) return false;
    out->push_back(*it);
  }
  return true;
}

bool has_all(const model::Labels& labels, const model::Labels& wanted) {
  return std::includes(labels.begin(), labels.end(), wanted.begin(), wanted.end());
}

}  // namespace

uint64_t HostSet::hash_labels(std::span<const LabelView> labels) {
  uint64_t hash = labels.size();
  for (const auto& label : labels) hash = hash64(label.value, hash64(label.key, hash));
  return hash;
}

std::shared_ptr<const HostSet> HostSet::build(std::shared_ptr<const model::Cluster> cluster,
                                              std::vector<model::Endpoint> endpoints,
                                              const Options& options, const HostSet* before) {
  auto made = std::shared_ptr<HostSet>(new HostSet());
  made->cluster_ = std::move(cluster);
  made->endpoints_ = std::move(endpoints);
  for (auto& endpoint : made->endpoints_) std::sort(endpoint.labels.begin(), endpoint.labels.end());
  const auto& list = made->endpoints_;
  return finish(std::move(made), list, options, before);
}

std::shared_ptr<const HostSet> HostSet::build(std::shared_ptr<const model::Cluster> cluster,
                                              const Options& options, const HostSet* before) {
  auto made = std::shared_ptr<HostSet>(new HostSet());
  made->cluster_ = std::move(cluster);
  const auto& list = made->cluster_->endpoints;
  return finish(std::move(made), list, options, before);
}

std::shared_ptr<const HostSet> HostSet::finish(std::shared_ptr<HostSet> made,
                                               const std::vector<model::Endpoint>& endpoints,
                                               const Options& options, const HostSet* before) {
  made->shared_ = before != nullptr
                      ? before->shared_
                      : std::make_shared<SharedCluster>(made->cluster_->name, options.workers);
  made->tls_ = options.tls;
  made->take_endpoints(endpoints, options, before);
  made->assign_levels(options.place);
  made->make_subsets();
  return made;
}

void HostSet::take_endpoints(const std::vector<model::Endpoint>& endpoints, const Options& options,
                             const HostSet* before) {
  std::vector<const model::Endpoint*> sorted;
  sorted.reserve(endpoints.size());
  for (const auto& endpoint : endpoints) sorted.push_back(&endpoint);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto* a, const auto* b) { return model::before(*a, *b); });
  sorted.erase(std::unique(sorted.begin(), sorted.end(),
                           [](const auto* a, const auto* b) { return model::same(*a, *b); }),
               sorted.end());
  const bool checked = !cluster_->health_checks.empty();
  entries_.reserve(sorted.size());
  for (const auto* from : sorted) {
    const model::Endpoint& endpoint = *from;
    std::shared_ptr<SharedHost> shared;
    if (before != nullptr) {
      auto it = std::lower_bound(
          before->entries_.begin(), before->entries_.end(), endpoint,
          [](const Entry& a, const model::Endpoint& b) { return model::before(a.endpoint, b); });
      if (it != before->entries_.end() && model::same(it->endpoint, endpoint)) shared = it->shared;
    }
    if (shared == nullptr) {
      shared = std::make_shared<SharedHost>(endpoint.addr, options.workers);
      if (checked) shared->set(SharedHost::kCheckFailed, true);
      // Where all start together, none has to start slowly.
      if (before != nullptr && !before->entries_.empty())
        shared->fresh_since = options.now.time_since_epoch().count();
    } else if (!checked) {
      shared->set(SharedHost::kCheckFailed, false);
    }
    entries_.push_back({endpoint, std::move(shared), 0});
  }
}

void HostSet::assign_levels(const Place& place) {
  const bool nearest = cluster_->lb.locality == model::LocalityMode::kNearest;
  std::set<uint32_t> used;
  for (auto& entry : entries_) {
    entry.level = entry.endpoint.priority * 4 + (nearest ? distance(place, entry.endpoint) : 0);
    used.insert(entry.level);
  }
  const std::vector<uint32_t> order(used.begin(), used.end());
  for (auto& entry : entries_)
    entry.level = static_cast<uint32_t>(std::lower_bound(order.begin(), order.end(), entry.level) -
                                        order.begin());
  levels_ = static_cast<uint32_t>(order.size());
}

void HostSet::make_subsets() {
  std::vector<uint32_t> all(entries_.size());
  for (uint32_t i = 0; i < all.size(); ++i) all[i] = i;
  subsets_.push_back(make_subset({}, all));

  const auto& options = cluster_->lb.subsets;
  std::map<model::Labels, std::vector<uint32_t>> found;
  model::Labels labels;
  for (const auto& keys : options.selectors)
    for (uint32_t i = 0; i < entries_.size(); ++i)
      if (select(entries_[i].endpoint.labels, keys, &labels)) {
        auto& hosts = found[labels];
        if (hosts.empty() || hosts.back() != i) hosts.push_back(i);
      }
  for (auto& [subset_labels, hosts] : found) subsets_.push_back(make_subset(subset_labels, hosts));
  if (options.enabled() && options.fallback == model::SubsetFallback::kDefault &&
      !found.contains(options.default_labels)) {
    std::vector<uint32_t> hosts;
    for (uint32_t i = 0; i < entries_.size(); ++i)
      if (has_all(entries_[i].endpoint.labels, options.default_labels)) hosts.push_back(i);
    if (!hosts.empty()) subsets_.push_back(make_subset(options.default_labels, hosts));
  }
  std::sort(subsets_.begin() + 1, subsets_.end(),
            [](const Subset& a, const Subset& b) { return a.hash < b.hash; });
  if (options.enabled() && options.fallback == model::SubsetFallback::kDefault)
    default_subset_ = find_subset(views(options.default_labels));
}

HostSet::Subset HostSet::make_subset(std::vector<model::Label> labels,
                                     const std::vector<uint32_t>& hosts) const {
  Subset subset;
  subset.hash = hash_labels(views(labels));
  subset.labels = std::move(labels);
  subset.levels.resize(levels_);
  for (uint32_t host : hosts) subset.levels[entries_[host].level].hosts.push_back(host);
  for (Group& group : subset.levels) {
    if (cluster_->lb.locality == model::LocalityMode::kWeighted) weigh_localities(group);
    make_table(group);
  }
  return subset;
}

void HostSet::weigh_localities(Group& group) const {
  std::map<model::Locality, std::vector<uint32_t>> by_locality;
  for (uint32_t host : group.hosts) by_locality[entries_[host].endpoint.locality].push_back(host);
  for (auto& [locality, hosts] : by_locality) {
    LocalityGroup made{locality, 1, std::move(hosts)};
    const uint32_t priority = entries_[made.hosts.front()].endpoint.priority;
    for (const auto& weight : cluster_->lb.locality_weights)
      if (weight.locality == locality && weight.priority == priority) made.weight = weight.weight;
    group.localities.push_back(std::move(made));
  }
}

void HostSet::make_table(Group& group) const {
  const auto policy = cluster_->lb.policy;
  const bool ring = policy == model::LbPolicy::kRingHash;
  if ((!ring && policy != model::LbPolicy::kMaglev) || group.hosts.empty()) return;
  std::vector<HashedHost> hosts;
  hosts.reserve(group.hosts.size());
  for (uint32_t i : group.hosts) {
    const auto& endpoint = entries_[i].endpoint;
    const uint64_t node = endpoint.node.empty() ? 0 : mix64(hash64(endpoint.node));
    hosts.push_back({hash64(endpoint.addr) ^ node, static_cast<double>(endpoint.weight)});
  }
  // A locality's weight is shared by its hosts in proportion to their own.
  for (const auto& locality : group.localities) {
    double sum = 0;
    for (uint32_t i : locality.hosts) sum += entries_[i].endpoint.weight;
    for (size_t at = 0; at < group.hosts.size(); ++at)
      if (entries_[group.hosts[at]].endpoint.locality == locality.locality)
        hosts[at].weight *= locality.weight / sum;
  }
  group.table = std::make_shared<HashTable>(
      ring ? HashTable::ring(hosts, cluster_->lb.ring_min, cluster_->lb.ring_max)
           : HashTable::maglev(hosts, cluster_->lb.maglev_size));
}

int HostSet::find_subset(std::span<const LabelView> labels) const {
  const uint64_t hash = hash_labels(labels);
  auto it = std::lower_bound(subsets_.begin() + 1, subsets_.end(), hash,
                             [](const Subset& subset, uint64_t h) { return subset.hash < h; });
  for (; it != subsets_.end() && it->hash == hash; ++it)
    if (std::equal(labels.begin(), labels.end(), it->labels.begin(), it->labels.end(),
                   [](const LabelView& a, const model::Label& b) {
                     return a.key == b.key && a.value == b.value;
                   }))
      return static_cast<int>(it - subsets_.begin());
  return -1;
}

}  // namespace edgemesh::proxy
