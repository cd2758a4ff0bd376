// Tables: what `kubectl get` prints, made by the server (meta.k8s.io/v1 Table). I/O-free.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "cloud/api/store.h"

namespace edgemesh::cloud {

enum class IncludeObject { kNone, kMetadata, kObject };

// True when the Accept header asks for a Table before anything else that we can answer.
bool wants_table(std::string_view accept);
IncludeObject parse_include_object(std::string_view text);

struct TableParams {
  uint64_t version = 0;
  std::string continue_token;
  int64_t remaining = -1;
  IncludeObject include = IncludeObject::kMetadata;
  std::chrono::system_clock::time_point now;
};
std::string table_text(const ResourceInfo& resource, const std::vector<ObjectPtr>& objects,
                       const TableParams& params);

// "5s", "3m2s", "4d", as kubectl words ages.
std::string short_duration(std::chrono::seconds age);

}  // namespace edgemesh::cloud
