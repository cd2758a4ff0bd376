// Times as Kubernetes writes them: RFC 3339 in UTC, metav1.Time to the second, MicroTime with six
// digits. Pure functions, thread-safe.
#pragma once

#include <chrono>
#include <optional>
#include <string>

namespace edgemesh::kube {

// "2026-11-23T05:00:00Z"; with `micros` "2026-11-23T05:00:00.000000Z".
std::string rfc3339(std::chrono::system_clock::time_point time, bool micros = false);

// To the second: fractions are passed over. Without a zone: UTC. None: not such a time.
std::optional<std::chrono::system_clock::time_point> parse_rfc3339(const std::string& text);

}  // namespace edgemesh::kube
