// Which lists and maps of the built-in kinds merge, and how: the patchMergeKey and patchStrategy
// marks of the Kubernetes API types, as a table. I/O-free, immutable.
#pragma once

#include <string_view>

namespace edgemesh::kube {

struct FieldRule {
  std::string_view type;  // the type that has the field
  std::string_view field;
  std::string_view child;      // type of the field, or of the list's elements; empty: plain
  std::string_view merge_key;  // of a list of objects; empty: not merged by key
  bool set = false;            // a list of scalars that is merged as a set
};

// Type at the root of objects of this kind; empty when the kind is not known.
std::string_view root_type(std::string_view kind);
// Null when there is no rule: a map merges by its names, a list is replaced.
const FieldRule* find_rule(std::string_view type, std::string_view field);

}  // namespace edgemesh::kube
