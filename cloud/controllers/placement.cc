#include "cloud/controllers/placement.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/controllers/fit.h"
#include "cloud/controllers/pods.h"
#include "kube/json_util.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

constexpr const char* kRequired = "requiredDuringSchedulingIgnoredDuringExecution";

const Json& array_or_empty(const Json* list) {
  static const Json kEmpty = Json::array();
  return list != nullptr && list->is_array() ? *list : kEmpty;
}

const Json& terms_of(const ClusterObject& pod, const char* kind) {
  return array_or_empty(kube::find(pod.json(), "spec", "affinity", kind, kRequired));
}

const Json* labels_of(const ClusterObject& object) {
  return kube::find(object.json(), "metadata", "labels");
}

const std::string* label_of(const ClusterObject& node, const std::string& label) {
  const Json* labels = labels_of(node);
  const Json* value = labels == nullptr ? nullptr : kube::find(*labels, label);
  return value == nullptr || !value->is_string() ? nullptr : &value->get_ref<const std::string&>();
}

// An empty selector of an affinity term or a constraint selects every pod, an absent one none.
bool term_selects(const Json* selector, const Json* labels) {
  if (selector == nullptr) return false;
  const Json* pairs = kube::find(*selector, "matchLabels");
  const Json* terms = kube::find(*selector, "matchExpressions");
  if ((pairs == nullptr || pairs->empty()) && (terms == nullptr || terms->empty())) return true;
  return selects(selector, labels);
}

// Does a term of `owner` mean pods of this namespace?
bool in_namespaces(const ClusterObject& owner, const Json& term, const std::string& ns) {
  if (kube::find(term, "namespaceSelector") != nullptr) return true;
  const Json& names = array_or_empty(kube::find(term, "namespaces"));
  if (names.empty()) return ns == owner.ns;
  return std::find(names.begin(), names.end(), Json(ns)) != names.end();
}

bool among(const std::vector<PlacementRules::Values>& all, const ClusterObject& node) {
  return std::any_of(all.begin(), all.end(), [&](const PlacementRules::Values& one) {
    const std::string* value = label_of(node, one.label);
    return value != nullptr && one.values.contains(*value);
  });
}

}  // namespace

std::string PlacementRules::refusal(const ClusterObject& node) const {
  for (const Values& one : near) {
    const std::string* value = label_of(node, one.label);
    if (value == nullptr || !one.values.contains(*value))
      return "node(s) didn't match pod affinity rules";
  }
  if (among(away, node)) return "node(s) didn't match pod anti-affinity rules";
  if (among(others_away, node)) return "node(s) didn't satisfy existing pods anti-affinity rules";
  for (const Spread& one : spread) {
    if (!one.required) continue;
    const std::string* value = label_of(node, one.label);
    if (value == nullptr)
      return "node(s) didn't match pod topology spread constraints (missing required label)";
    const auto at = one.counts.find(*value);
    const int64_t there = (at == one.counts.end() ? 0 : at->second) + (one.self ? 1 : 0);
    if (there - one.least > one.max_skew)
      return "node(s) didn't match pod topology spread constraints";
  }
  return "";
}

int64_t PlacementRules::crowd(const ClusterObject& node) const {
  int64_t sum = 0;
  for (const Spread& one : spread) {
    const std::string* value = label_of(node, one.label);
    const auto at = value == nullptr ? one.counts.end() : one.counts.find(*value);
    if (at != one.counts.end()) sum += at->second;
  }
  return sum;
}

void Placement::add(const ClusterObject& pod) {
  labels_.add(pod.ns, labels_of(pod), pod.key());
  if (!terms_of(pod, "podAntiAffinity").empty()) repelling_.insert(pod.key());
}

void Placement::remove(const ClusterObject& pod) {
  labels_.remove(pod.ns, labels_of(pod), pod.key());
  repelling_.erase(pod.key());
}

const std::string* Placement::value_at(const ClusterObject& pod, const std::string& label) const {
  const SharedObject node =
      cluster_.find(kube::kNodes, "", kube::text_at(pod.json(), "spec", "nodeName"));
  return node == nullptr ? nullptr : label_of(*node, label);
}

void Placement::each_in(const std::string& ns, const Json& selector, const OnPod& fn) const {
  auto look = [&](const SharedObject& pod) {
    if (pod == nullptr || !pod_is_active(*pod) || !term_selects(&selector, labels_of(*pod)) ||
        kube::text_at(pod->json(), "spec", "nodeName").empty())
      return;
    fn(*pod);
  };
  const Json* pairs = kube::find(selector, "matchLabels");
  if (!ns.empty() && pairs != nullptr && !pairs->empty() && pairs->begin()->is_string()) {
    labels_.each(ns, pairs->begin().key(), pairs->begin()->get_ref<const std::string&>(),
                 [&](const std::string& key) { look(cluster_.find(kube::kPods, key)); });
    return;
  }
  cluster_.each(kube::kPods, ns, look);
}

void Placement::each_selected(const ClusterObject& pod, const Json& term, const OnPod& fn) const {
  const Json* selector = kube::find(term, "labelSelector");
  if (selector == nullptr) return;
  if (kube::find(term, "namespaceSelector") != nullptr) return each_in("", *selector, fn);
  const Json& names = array_or_empty(kube::find(term, "namespaces"));
  if (names.empty()) return each_in(pod.ns, *selector, fn);
  for (const Json& name : names) {
    if (name.is_string()) each_in(name.get<std::string>(), *selector, fn);
  }
}

PlacementRules::Values Placement::values_of(const ClusterObject& pod, const Json& term,
                                            size_t* found) const {
  PlacementRules::Values out{kube::text_at(term, "topologyKey"), {}};
  each_selected(pod, term, [&](const ClusterObject& other) {
    ++*found;
    if (const std::string* value = value_at(other, out.label)) out.values.insert(*value);
  });
  return out;
}

PlacementRules Placement::rules_for(const ClusterObject& pod,
                                    const std::function<bool(const ClusterObject&)>& fits) const {
  PlacementRules out;
  size_t found = 0;
  for (const Json& term : terms_of(pod, "podAffinity")) {
    size_t here = 0;
    PlacementRules::Values values = values_of(pod, term, &here);
    // The first of a group that wants to be together may be anywhere.
    const bool first = here == 0 && in_namespaces(pod, term, pod.ns) &&
                       term_selects(kube::find(term, "labelSelector"), labels_of(pod));
    if (!first) out.near.push_back(std::move(values));
  }
  for (const Json& term : terms_of(pod, "podAntiAffinity"))
    out.away.push_back(values_of(pod, term, &found));
  add_others(pod, &out);
  add_spread(pod, fits, &out);
  return out;
}

// Pods that are there already and do not want this one near.
void Placement::add_others(const ClusterObject& pod, PlacementRules* out) const {
  for (const std::string& key : repelling_) {
    const SharedObject other = cluster_.find(kube::kPods, key);
    if (other == nullptr) continue;
    for (const Json& term : terms_of(*other, "podAntiAffinity")) {
      if (!in_namespaces(*other, term, pod.ns) ||
          !term_selects(kube::find(term, "labelSelector"), labels_of(pod)))
        continue;
      const std::string label = kube::text_at(term, "topologyKey");
      if (const std::string* value = value_at(*other, label))
        out->others_away.push_back({label, {*value}});
    }
  }
}

void Placement::add_spread(const ClusterObject& pod,
                           const std::function<bool(const ClusterObject&)>& fits,
                           PlacementRules* out) const {
  for (const Json& one :
       array_or_empty(kube::find(pod.json(), "spec", "topologySpreadConstraints"))) {
    PlacementRules::Spread spread;
    spread.label = kube::text_at(one, "topologyKey");
    spread.max_skew = int_at(one, {"maxSkew"}, 1);
    spread.required = kube::text_at(one, "whenUnsatisfiable") != "ScheduleAnyway";
    cluster_.each(kube::kNodes, "", [&](const SharedObject& node) {
      const std::string* value = label_of(*node, spread.label);
      if (value != nullptr && fits(*node)) spread.counts.try_emplace(*value, 0);
    });
    const Json* selector = kube::find(one, "labelSelector");
    spread.self = term_selects(selector, labels_of(pod));
    if (selector != nullptr) {
      each_in(pod.ns, *selector, [&](const ClusterObject& other) {
        const std::string* value = value_at(other, spread.label);
        const auto at = value == nullptr ? spread.counts.end() : spread.counts.find(*value);
        if (at != spread.counts.end()) ++at->second;
      });
    }
    const auto least =
        std::min_element(spread.counts.begin(), spread.counts.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    spread.least = least == spread.counts.end() ? 0 : least->second;
    if (static_cast<int64_t>(spread.counts.size()) < int_at(one, {"minDomains"}, 1))
      spread.least = 0;
    out->spread.push_back(std::move(spread));
  }
}

}  // namespace edgemesh::cloud::controllers
