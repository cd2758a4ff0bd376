// Private to api_table: the columns of each kind.
#pragma once

#include <chrono>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace edgemesh::cloud {

struct Column {
  const char* name;
  const char* type = "string";
  bool wide = false;  // only with -o wide
};

struct TableKind {
  std::string_view kind;
  std::vector<Column> columns;
  nlohmann::json (*cells)(const nlohmann::json& object, std::chrono::system_clock::time_point now);
};

// Name and age for kinds that have no columns of their own.
const TableKind& table_kind(std::string_view kind);

// Private to table_columns.cc.
const std::vector<TableKind>& more_kinds();

// Time since an RFC 3339 stamp; "<unknown>" when it is none.
std::string age_of(const std::string& stamp, std::chrono::system_clock::time_point now);
// Time from one stamp to another.
std::string between(const std::string& from, const std::string& to);

}  // namespace edgemesh::cloud
