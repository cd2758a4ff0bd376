// The options of list, watch and delete requests, with the rules of which fit together. I/O-free.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cloud/api/core.h"
#include "cloud/api/request.h"

namespace edgemesh::cloud {

ApiResult<Filter> filter_of(const http::Request& request, const ResourcePath& path,
                            const ResourceInfo& resource);

struct ListQuery {
  Filter filter;
  int64_t limit = 0;
  std::string token;
  uint64_t at = 0;  // 0: the newest
};
ApiResult<ListQuery> list_query(const http::Request& request, const ResourcePath& path,
                                const ResourceInfo& resource, uint64_t newest);

struct WatchQuery {
  Filter filter;
  uint64_t from = 0;  // 0: what exists comes first
  bool initial_events = false;
  bool bookmarks = false;
  int64_t timeout_s = 0;  // 0: not said
};
ApiResult<WatchQuery> watch_query(const http::Request& request, const ResourcePath& path,
                                  const ResourceInfo& resource, uint64_t newest);

ApiResult<ApiCore::Deletion> deletion_options(const http::Request& request);

}  // namespace edgemesh::cloud
