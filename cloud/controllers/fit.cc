#include "cloud/controllers/fit.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "kube/json_util.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

double suffix_factor(std::string_view suffix) {
  struct Suffix {
    std::string_view text;
    double factor;
  };
  constexpr Suffix kSuffixes[] = {{"", 1},
                                  {"m", 1e-3},
                                  {"k", 1e3},
                                  {"M", 1e6},
                                  {"G", 1e9},
                                  {"T", 1e12},
                                  {"P", 1e15},
                                  {"Ki", 1024.0},
                                  {"Mi", 1048576.0},
                                  {"Gi", 1073741824.0},
                                  {"Ti", 1099511627776.0},
                                  {"Pi", 1125899906842624.0},
                                  {"u", 1e-6},
                                  {"n", 1e-9}};
  for (const Suffix& known : kSuffixes) {
    if (known.text == suffix) return known.factor;
  }
  return -1;
}

Resources container_requests(const Json& container) {
  const Json* requests = kube::find(container, "resources", "requests");
  const Json* limits = kube::find(container, "resources", "limits");
  auto value = [&](const char* name) -> int64_t {
    const Json* at = requests == nullptr ? nullptr : kube::find(*requests, name);
    if (at == nullptr && limits != nullptr) at = kube::find(*limits, name);
    return std::max<int64_t>(0, at == nullptr ? 0 : parse_quantity(at));
  };
  return {value("cpu"), value("memory") / 1000, 0};
}

const Json& list_at(const Json& object, const char* parent, const char* name) {
  static const Json kEmpty = Json::array();
  const Json* list = kube::find(object, parent, name);
  return list != nullptr && list->is_array() ? *list : kEmpty;
}

bool term_matches(const Json& requirement, const Json* value) {
  const std::string op = kube::text_at(requirement, "operator");
  const Json* values = kube::find(requirement, "values");
  const bool listed = value != nullptr && values != nullptr && values->is_array() &&
                      std::find(values->begin(), values->end(), *value) != values->end();
  if (op == "In") return listed;
  if (op == "NotIn") return !listed;
  if (op == "Exists") return value != nullptr;
  if (op == "DoesNotExist") return value == nullptr;
  if ((op != "Gt" && op != "Lt") || value == nullptr || !value->is_string() || values == nullptr ||
      values->size() != 1 || !values->front().is_string()) {
    return false;
  }
  const long long have = std::atoll(value->get_ref<const std::string&>().c_str());
  const long long bound = std::atoll(values->front().get_ref<const std::string&>().c_str());
  return op == "Gt" ? have > bound : have < bound;
}

bool selector_term_matches(const Json& term, const ClusterObject& node) {
  const Json* expressions = kube::find(term, "matchExpressions");
  const Json* fields = kube::find(term, "matchFields");
  if (expressions == nullptr && fields == nullptr) return false;
  const Json* labels = kube::find(node.json(), "metadata", "labels");
  for (size_t i = 0; expressions != nullptr && i < expressions->size(); ++i) {
    const Json& one = (*expressions)[i];
    const std::string key = kube::text_at(one, "key");
    if (!term_matches(one, labels == nullptr ? nullptr : kube::find(*labels, key))) return false;
  }
  for (size_t i = 0; fields != nullptr && i < fields->size(); ++i) {
    const Json name = node.name;
    if (kube::text_at((*fields)[i], "key") != "metadata.name" || !term_matches((*fields)[i], &name))
      return false;
  }
  return true;
}

}  // namespace

Resources& Resources::operator+=(const Resources& other) {
  milli_cpu += other.milli_cpu;
  memory += other.memory;
  pods += other.pods;
  return *this;
}

Resources& Resources::operator-=(const Resources& other) {
  milli_cpu -= other.milli_cpu;
  memory -= other.memory;
  pods -= other.pods;
  return *this;
}

int64_t parse_quantity(const Json* quantity) {
  if (quantity == nullptr) return -1;
  if (quantity->is_number())
    return static_cast<int64_t>(std::llround(quantity->get<double>() * 1000));
  if (!quantity->is_string()) return -1;
  const std::string& text = quantity->get_ref<const std::string&>();
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || !std::isfinite(value)) return -1;
  const double factor = suffix_factor(end);
  const double thousandths = std::ceil(value * factor * 1000);
  if (factor < 0 || std::abs(thousandths) > 9e18) return -1;
  return static_cast<int64_t>(thousandths);
}

Resources pod_requests(const Json& pod) {
  Resources sum, sidecars, most;
  for (const Json& container : list_at(pod, "spec", "containers"))
    sum += container_requests(container);
  for (const Json& container : list_at(pod, "spec", "initContainers")) {
    Resources one = container_requests(container);
    one += sidecars;
    if (kube::text_at(container, "restartPolicy") == "Always") sidecars = one;
    most.milli_cpu = std::max(most.milli_cpu, one.milli_cpu);
    most.memory = std::max(most.memory, one.memory);
  }
  sum += sidecars;
  sum.milli_cpu = std::max(sum.milli_cpu, most.milli_cpu);
  sum.memory = std::max(sum.memory, most.memory);
  if (const Json* overhead = kube::find(pod, "spec", "overhead")) {
    sum.milli_cpu += std::max<int64_t>(0, parse_quantity(kube::find(*overhead, "cpu")));
    sum.memory += std::max<int64_t>(0, parse_quantity(kube::find(*overhead, "memory"))) / 1000;
  }
  sum.pods = 1;
  return sum;
}

Resources node_allocatable(const Json& node) {
  const Json* from = kube::find(node, "status", "allocatable");
  if (from == nullptr) from = kube::find(node, "status", "capacity");
  if (from == nullptr) return {};
  auto value = [&](const char* name, int64_t scale) {
    const int64_t thousandths = parse_quantity(kube::find(*from, name));
    return thousandths < 0 ? INT64_MAX / 2 : thousandths / scale;
  };
  return {value("cpu", 1), value("memory", 1000), value("pods", 1000)};
}

std::set<std::string> host_ports(const Json& pod) {
  std::set<std::string> out;
  const Json* host = kube::find(pod, "spec", "hostNetwork");
  const bool on_host = host != nullptr && host->is_boolean() && host->get<bool>();
  for (const Json& container : list_at(pod, "spec", "containers")) {
    const Json* ports = kube::find(container, "ports");
    for (size_t i = 0; ports != nullptr && ports->is_array() && i < ports->size(); ++i) {
      const Json& port = (*ports)[i];
      const int64_t number =
          int_at(port, {"hostPort"}, on_host ? int_at(port, {"containerPort"}, 0) : 0);
      const std::string protocol = kube::text_at(port, "protocol");
      if (number != 0)
        out.insert(fmt::format("{}/{}", protocol.empty() ? "TCP" : protocol, number));
    }
  }
  return out;
}

bool affinity_allows(const Json& pod, const ClusterObject& node) {
  const Json* labels = kube::find(node.json(), "metadata", "labels");
  if (const Json* selector = kube::find(pod, "spec", "nodeSelector");
      selector != nullptr && selector->is_object()) {
    for (const auto& [key, value] : selector->items()) {
      const Json* have = labels == nullptr ? nullptr : kube::find(*labels, key);
      if (have == nullptr || *have != value) return false;
    }
  }
  const Json* required = kube::find(pod, "spec", "affinity", "nodeAffinity",
                                    "requiredDuringSchedulingIgnoredDuringExecution");
  if (required == nullptr) return true;
  const Json* terms = kube::find(*required, "nodeSelectorTerms");
  if (terms == nullptr || !terms->is_array()) return false;
  return std::any_of(terms->begin(), terms->end(),
                     [&](const Json& term) { return selector_term_matches(term, node); });
}

bool tolerates(const Json& pod, const Json& taint) {
  for (const Json& toleration : list_at(pod, "spec", "tolerations")) {
    const std::string effect = kube::text_at(toleration, "effect");
    const std::string key = kube::text_at(toleration, "key");
    if (!effect.empty() && effect != kube::text_at(taint, "effect")) continue;
    const bool exists = kube::text_at(toleration, "operator") == "Exists";
    if (key.empty() ? !exists : key != kube::text_at(taint, "key")) continue;
    if (exists || kube::text_at(toleration, "value") == kube::text_at(taint, "value")) return true;
  }
  return false;
}

const Json* find_untolerated(const Json& pod, const Json& node,
                             std::initializer_list<std::string_view> effects) {
  for (const Json& taint : list_at(node, "spec", "taints")) {
    const std::string effect = kube::text_at(taint, "effect");
    const bool asked = std::find(effects.begin(), effects.end(), effect) != effects.end();
    if (asked && !tolerates(pod, taint)) return &taint;
  }
  return nullptr;
}

int64_t avoided_taints(const Json& pod, const Json& node) {
  int64_t count = 0;
  for (const Json& taint : list_at(node, "spec", "taints")) {
    if (kube::text_at(taint, "effect") == "PreferNoSchedule" && !tolerates(pod, taint)) ++count;
  }
  return count;
}

int64_t preferred_weight(const Json& pod, const ClusterObject& node) {
  const Json* terms = kube::find(pod, "spec", "affinity", "nodeAffinity",
                                 "preferredDuringSchedulingIgnoredDuringExecution");
  int64_t sum = 0;
  for (size_t i = 0; terms != nullptr && terms->is_array() && i < terms->size(); ++i) {
    const Json* preference = kube::find((*terms)[i], "preference");
    if (preference != nullptr && selector_term_matches(*preference, node))
      sum += int_at((*terms)[i], {"weight"}, 1);
  }
  return sum;
}

std::string untolerated_taint(const Json& pod, const Json& node) {
  const Json* taint = find_untolerated(pod, node, {"NoSchedule", "NoExecute"});
  return taint == nullptr ? std::string() : kube::text_at(*taint, "key");
}

}  // namespace edgemesh::cloud::controllers
