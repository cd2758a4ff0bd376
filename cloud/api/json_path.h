// The JSONPaths that CustomResourceDefinitions use: .a.b, ['a'], [0], [*], [?(@.a=="x")]. I/O-free.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

namespace edgemesh::cloud {

// What the path finds in `object`; empty for nothing and for a path that is not understood.
std::vector<const nlohmann::json*> json_path(const nlohmann::json& object, std::string_view path);

}  // namespace edgemesh::cloud
