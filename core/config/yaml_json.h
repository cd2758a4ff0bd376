// YAML as JSON text: for kubeconfig files and for Kubernetes manifests in YAML. One document; plain
// scalars get the type that YAML 1.2's core schema gives them (so "yes" stays a string). Aliases
// are expanded up to a limit; nesting is limited.
#pragma once

#include <string>
#include <string_view>

#include "core/base/result.h"

namespace edgemesh::config {

// Errors name line and column. kResourceExhausted when the result would pass `max_bytes`.
Result<std::string> yaml_to_json(std::string_view yaml, size_t max_bytes = 8 << 20);

}  // namespace edgemesh::config
