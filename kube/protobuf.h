// Bodies in Kubernetes' protobuf form (application/vnd.kubernetes.protobuf) as JSON: kubectl 1.32
// and newer and every typed client of client-go 0.32 and newer write so. Generic over the type
// table; the result is what the same object would be in JSON: zero values of optional fields are
// left out, pointers stay. I/O-free; input is not trusted.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "core/base/result.h"

namespace edgemesh::kube {

inline constexpr std::string_view kProtobufMedia = "application/vnd.kubernetes.protobuf";

// kInvalidArgument: malformed, or a kind that is not known.
Result<nlohmann::json> decode_protobuf(std::string_view body);

}  // namespace edgemesh::kube
