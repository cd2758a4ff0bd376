// Sets of fields in the form of metadata.managedFields (FieldsV1):
// {"f:spec":{"f:ports":{"k:{...}":{".":{}}}}}. How a field merges is told by the table of built-in
// types or by a custom resource's schema; where neither says anything, objects merge by their
// members and lists are one value. I/O-free.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cloud/api/resource.h"
#include "kube/type_table.h"

namespace edgemesh::cloud {

// What is known of a value.
struct Shape {
  const kube::TypeInfo* type = nullptr;
  const nlohmann::json* schema = nullptr;
};
struct Member {
  enum class List { kAtomic, kSet, kMap };
  Shape shape;  // of the member, or of the elements of a list
  List list = List::kAtomic;
  std::vector<std::string> keys;  // of kMap
  bool atomic = false;            // an object that is one value
};
Shape shape_of(const ResourceInfo& resource);
Member member_of(const Shape& shape, std::string_view name);

// Fields that are set in `value`.
nlohmann::json field_set(const nlohmann::json& value, const Shape& shape);
// Fields of an object without what only the server sets, kind and apiVersion.
nlohmann::json owned_fields(const nlohmann::json& object, const Shape& shape, bool with_status);
// `changed`: fields that `after` has and that are new or different; `removed`: that only `before`
// has.
void compare_fields(const nlohmann::json& before, const nlohmann::json& after, const Shape& shape,
                    nlohmann::json* changed, nlohmann::json* removed);
// Puts what `applied` sets into `live`.
void merge_fields(const nlohmann::json& applied, const Shape& shape, nlohmann::json* live);

bool is_leaf(const nlohmann::json& set);
void add_fields(nlohmann::json* set, const nlohmann::json& more);
void subtract_fields(nlohmann::json* set, const nlohmann::json& taken);
// The value that an element of a set stands for, inside `at`; null when there is none.
nlohmann::json* child_of(nlohmann::json* at, const std::string& element);
void erase_child(nlohmann::json* at, const std::string& element);

}  // namespace edgemesh::cloud
