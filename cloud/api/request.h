// A request to the API taken apart: which resource, which verb, which options. I/O-free.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cloud/api/auth.h"
#include "cloud/api/error.h"
#include "cloud/api/resource.h"
#include "core/http/message.h"
#include "kube/client.h"

namespace edgemesh::cloud {

struct ResourcePath {
  std::string group, version, resource, ns, name, subresource;
};
// nullopt: no path of a resource ("/version", "/api", "/apis/apps/v1").
std::optional<ResourcePath> parse_resource_path(std::string_view path);

// "get", "list", "watch", ...; empty when the method does not fit.
std::string verb_of(const http::Request& request, const ResourcePath& path);

bool query_flag(const http::Request& request, std::string_view name);  // "true" or "1"
kube::WriteOptions write_options(const http::Request& request, const ResourcePath& path);

// The body as JSON, from JSON, YAML or protobuf by its Content-Type; an empty body gives null.
ApiResult<nlohmann::json> parse_body(const http::Request& request);
// Names that stand twice in one object of a JSON body (the last one counts); at most ten.
std::vector<std::string> duplicate_fields(const http::Request& request);
ApiResult<kube::PatchKind> patch_kind(const http::Request& request);

// A resource version of the query; 0 when it is absent.
ApiResult<uint64_t> version_option(const http::Request& request);

}  // namespace edgemesh::cloud
