// The built-in types of the Kubernetes API as a table: their fields with JSON names, protobuf
// numbers and wire forms, how lists merge (patchMergeKey, patchStrategy, listType) and which values
// are kept when they are zero. One table for protobuf bodies, strict field validation, OpenAPI,
// strategic merge patches and server-side apply. I/O-free, immutable, read from kube/types/*.inc at
// its first use.
//
// A line of a table is a type: its name ("Pod", "apps.Deployment"; "!" after it: owned as a whole
// in server-side apply) and its fields, NAME:NUMBER:FORM with
//   NAME  as in JSON; "~": the fields of that type stand in this object itself
//   FORM  [*][[]|{}]LETTER or <type>; "*": a zero value stays, []: a list, {}: a map of strings to
//   it /k=a,b keys of a list of objects for server-side apply, /s a set, /m[=key] merged by
//   patches, /a atomic
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace edgemesh::kube {

struct TypeInfo;

struct TypeField {
  enum class Shape : uint8_t { kOne, kList, kMap };
  std::string_view name;
  uint32_t number = 0;
  // s string, b bool, i int32, l int64, d double, y bytes, T time, M time with microseconds, D
  // duration, Q quantity, I number or string, R raw object, F fieldsV1, J any JSON, X list of
  // strings (in a map), A/B/S schema or schemas/bool/strings, <: `type`
  char form = 's';
  Shape shape = Shape::kOne;
  bool keeps_zero = false;
  bool inlined = false;
  bool set = false;     // listType=set
  bool merges = false;  // patchStrategy=merge
  bool atomic = false;
  std::string_view merge_key;              // of a patch; empty: by value
  std::vector<std::string_view> map_keys;  // of server-side apply
  const TypeInfo* type = nullptr;          // form '<'
  bool merges_by_key() const { return merges && !merge_key.empty(); }
};

struct TypeInfo {
  std::string_view name;
  bool atomic = false;
  std::vector<TypeField> fields;            // as in the table
  std::vector<const TypeField*> by_name;    // sorted, with the fields of inlined types
  std::vector<const TypeField*> by_number;  // sorted
  // Null: there is none.
  const TypeField* find(std::string_view field) const;
  const TypeField* find(uint32_t number) const;
};

// The text of the tables.
std::string_view type_tables();
// By the name in the table; null: none.
const TypeInfo* find_type(std::string_view name);
// Of a kind; only version v1 of each group is known. Null: none.
const TypeInfo* type_of_kind(std::string_view group, std::string_view version,
                             std::string_view kind);
// The same when only the kind is known: core first.
const TypeInfo* type_of_kind(std::string_view kind);

}  // namespace edgemesh::kube
