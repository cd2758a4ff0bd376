// Discovery documents (which groups, versions and resources there are) and OpenAPI, built from the
// resource registry. I/O-free; all functions return JSON text.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "cloud/api/resource.h"

namespace edgemesh::cloud {

// The Kubernetes release whose API this is: clients choose their requests by it.
inline constexpr std::string_view kApiMajor = "1";
inline constexpr std::string_view kApiMinor = "31";

struct DiscoveryAnswer {
  std::string content_type;
  std::string body;
};

// For "/api", "/apis", "/api/v1", "/apis/<group>", "/apis/<group>/<version>", "/version",
// "/openapi/v3" and below, "/openapi/v2". nullopt: no such path.
std::optional<DiscoveryAnswer> discovery(const ResourceRegistry& registry, std::string_view path,
                                         std::string_view accept);

// One OpenAPI v3 document, of a group and version.
std::string openapi_v3(const ResourceRegistry& registry, std::string_view group,
                       std::string_view version);

}  // namespace edgemesh::cloud
