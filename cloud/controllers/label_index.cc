#include "cloud/controllers/label_index.h"

#include <nlohmann/json.hpp>

namespace edgemesh::cloud::controllers {
namespace {

// None of the three can have the separators in it: the API refuses such names, labels and values.
std::string slot(std::string_view ns, std::string_view label, std::string_view value) {
  std::string out;
  out.reserve(ns.size() + label.size() + value.size() + 2);
  return out.append(ns).append(1, '\n').append(label).append(1, '=').append(value);
}

}  // namespace

void LabelIndex::add(std::string_view ns, const nlohmann::json* labels, const std::string& key) {
  if (labels == nullptr || !labels->is_object()) return;
  for (const auto& [label, value] : labels->items()) {
    if (value.is_string()) keys_[slot(ns, label, value.get_ref<const std::string&>())].insert(key);
  }
}

void LabelIndex::remove(std::string_view ns, const nlohmann::json* labels, const std::string& key) {
  if (labels == nullptr || !labels->is_object()) return;
  for (const auto& [label, value] : labels->items()) {
    if (!value.is_string()) continue;
    const auto it = keys_.find(slot(ns, label, value.get_ref<const std::string&>()));
    if (it == keys_.end()) continue;
    it->second.erase(key);
    if (it->second.empty()) keys_.erase(it);
  }
}

void LabelIndex::each(std::string_view ns, std::string_view label, std::string_view value,
                      const std::function<void(const std::string& key)>& fn) const {
  const auto it = keys_.find(slot(ns, label, value));
  if (it == keys_.end()) return;
  for (const std::string& key : it->second) fn(key);
}

}  // namespace edgemesh::cloud::controllers
