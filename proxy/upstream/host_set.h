// HostSet: the endpoints of a cluster at one time, sorted into subsets, priorities and localities,
// with the hash tables over them. Immutable; built on the main loop (or off it, by offload()) and
// shared by the workers, each of which keeps its own turns and lists beside it (load_balancer.h).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tls/context.h"
#include "proxy/model/cluster.h"
#include "proxy/upstream/hash_table.h"
#include "proxy/upstream/shared.h"

namespace edgemesh::proxy {

// Where this agent is: what is near.
struct Place {
  std::string node;
  model::Locality locality;
};

struct LabelView {
  std::string_view key, value;
};

class HostSet {
 public:
  struct Entry {
    const model::Endpoint& endpoint;  // the cluster's own, or one of endpoints_
    std::shared_ptr<SharedHost> shared;
    uint32_t level = 0;  // the priority after LocalityMode::kNearest, without gaps
  };
  struct LocalityGroup {
    model::Locality locality;
    double weight = 1;
    std::vector<uint32_t> hosts;  // indices of entries
  };
  // One priority of one subset.
  struct Group {
    std::vector<uint32_t> hosts;
    std::vector<LocalityGroup> localities;   // with LocalityMode::kWeighted only
    std::shared_ptr<const HashTable> table;  // over `hosts`; with a hash policy only
  };
  struct Subset {
    uint64_t hash = 0;
    std::vector<model::Label> labels;  // sorted by key
    std::vector<Group> levels;
  };

  struct Options {
    Place place;
    int workers = 1;
    TimePoint now{};                    // when new endpoints joined
    std::shared_ptr<tls::Context> tls;  // for clusters with TLS origination: client_context()
  };
  // `before` is the set that this one follows, null for the first: endpoints that stay keep what is
  // known of them. Twice the same address on the same node: the first counts.
  static std::shared_ptr<const HostSet> build(std::shared_ptr<const model::Cluster> cluster,
                                              std::vector<model::Endpoint> endpoints,
                                              const Options& options,
                                              const HostSet* before = nullptr);
  // With the cluster's own endpoints, which are not copied.
  static std::shared_ptr<const HostSet> build(std::shared_ptr<const model::Cluster> cluster,
                                              const Options& options,
                                              const HostSet* before = nullptr);

  const model::Cluster& cluster() const { return *cluster_; }
  const std::shared_ptr<const model::Cluster>& cluster_ptr() const { return cluster_; }
  const std::shared_ptr<SharedCluster>& shared() const { return shared_; }
  const std::shared_ptr<tls::Context>& tls() const { return tls_; }
  const std::vector<Entry>& entries() const { return entries_; }
  // The first is all endpoints; the others are sorted by hash.
  const std::vector<Subset>& subsets() const { return subsets_; }
  uint32_t levels() const { return levels_; }
  // Index of the subset with exactly these labels (sorted by key); -1: there is none.
  int find_subset(std::span<const LabelView> labels) const;
  int default_subset() const { return default_subset_; }  // -1: none
  static uint64_t hash_labels(std::span<const LabelView> labels);

 private:
  HostSet() = default;
  static std::shared_ptr<const HostSet> finish(std::shared_ptr<HostSet> made,
                                               const std::vector<model::Endpoint>& endpoints,
                                               const Options& options, const HostSet* before);
  void take_endpoints(const std::vector<model::Endpoint>& endpoints, const Options& options,
                      const HostSet* before);
  void assign_levels(const Place& place);
  void make_subsets();
  Subset make_subset(std::vector<model::Label> labels, const std::vector<uint32_t>& hosts) const;
  void weigh_localities(Group& group) const;
  void make_table(Group& group) const;

  std::shared_ptr<const model::Cluster> cluster_;
  std::shared_ptr<SharedCluster> shared_;
  std::shared_ptr<tls::Context> tls_;
  std::vector<model::Endpoint> endpoints_;
  std::vector<Entry> entries_;  // sorted by address and node
  std::vector<Subset> subsets_;
  uint32_t levels_ = 0;
  int default_subset_ = -1;
};

}  // namespace edgemesh::proxy
