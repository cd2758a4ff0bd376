// LabelIndex: keys of objects by namespace and label, so that who matches a selector is found
// without looking at every object. A selector of equalities needs one look-up, by any one of its
// pairs; the caller checks the others. Threads: one.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>

namespace edgemesh::cloud::controllers {

class LabelIndex {
 public:
  // `key` is "namespace/name". `labels` null or no object: nothing is done.
  void add(std::string_view ns, const nlohmann::json* labels, const std::string& key);
  // With the same labels as it was added with.
  void remove(std::string_view ns, const nlohmann::json* labels, const std::string& key);
  // In the order of the keys. `fn` must not change the index.
  void each(std::string_view ns, std::string_view label, std::string_view value,
            const std::function<void(const std::string& key)>& fn) const;
  // Entries, for tests.
  size_t size() const { return keys_.size(); }

 private:
  std::unordered_map<std::string, std::set<std::string>> keys_;
};

}  // namespace edgemesh::cloud::controllers
