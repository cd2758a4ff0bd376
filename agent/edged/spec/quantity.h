// Quantities of the Kubernetes API ("500m", "1.5Gi", "1e3"). Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string_view>

namespace edgemesh::edged {

// In thousandths, rounded up; what is too big becomes the biggest. None: not a quantity.
std::optional<int64_t> parse_milli(std::string_view text);
// Whole units, rounded up.
std::optional<int64_t> parse_units(std::string_view text);

// spec.containers[].resources: `list` is "requests" or "limits". 0: it says nothing. A request that
// is not given is the limit, as the API's defaults have it.
int64_t cpu_milli(const nlohmann::json& container, const char* list);
int64_t bytes_of(const nlohmann::json& container, const char* list, const char* resource);

}  // namespace edgemesh::edged
