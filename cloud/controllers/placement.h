// Placement: where pods are, for the rules by which a pod looks at others: required affinity and
// anti-affinity, spread over the values of a label of nodes. An index of labels finds the others,
// so a pod without such rules costs nothing, and one with them what it selects. Threads: the
// cluster's loop.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/label_index.h"

namespace edgemesh::cloud::controllers {

// What the others mean for one pod, on every node. Valid until a pod or a node changes.
struct PlacementRules {
  struct Values {
    std::string label;  // of nodes
    std::set<std::string> values;
  };
  struct Spread {
    std::string label;
    int64_t max_skew = 1;
    bool required = true;
    bool self = true;  // the pod itself counts
    std::map<std::string, int64_t> counts;
    int64_t least = 0;
  };
  std::vector<Values> near, away;  // one of the values; none of them
  std::vector<Values> others_away;
  std::vector<Spread> spread;

  // Empty: the node is good.
  std::string refusal(const ClusterObject& node) const;
  // More is worse: of spread that is only wished for.
  int64_t crowd(const ClusterObject& node) const;
};

class Placement {
 public:
  explicit Placement(const Cluster& cluster) : cluster_(cluster) {}
  // A pod that is bound and counts.
  void add(const ClusterObject& pod);
  void remove(const ClusterObject& pod);
  // `fits`: the nodes that count as places to spread over.
  PlacementRules rules_for(const ClusterObject& pod,
                           const std::function<bool(const ClusterObject&)>& fits) const;

 private:
  using OnPod = std::function<void(const ClusterObject&)>;
  void each_selected(const ClusterObject& pod, const nlohmann::json& term, const OnPod& fn) const;
  void each_in(const std::string& ns, const nlohmann::json& selector, const OnPod& fn) const;
  PlacementRules::Values values_of(const ClusterObject& pod, const nlohmann::json& term,
                                   size_t* found) const;
  void add_others(const ClusterObject& pod, PlacementRules* out) const;
  void add_spread(const ClusterObject& pod, const std::function<bool(const ClusterObject&)>& fits,
                  PlacementRules* out) const;
  // Of the node that a pod is on; null: it has no such label.
  const std::string* value_at(const ClusterObject& pod, const std::string& label) const;

  const Cluster& cluster_;
  LabelIndex labels_;
  std::set<std::string> repelling_;  // keys of pods with an anti-affinity
};

}  // namespace edgemesh::cloud::controllers
