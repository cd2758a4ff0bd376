// Shared by the HTTP server and the in-process client: filters from selectors, List objects as
// text.
#pragma once

#include <string>
#include <string_view>

#include "cloud/api/store.h"

namespace edgemesh::cloud {

Result<Filter> make_filter(std::string_view ns, std::string_view label_selector,
                           std::string_view field_selector);
// The List object; its items are the stored texts, not parsed again.
std::string list_text(const ResourceInfo& resource, const ListResult& list);

}  // namespace edgemesh::cloud
