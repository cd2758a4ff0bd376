// The three patch forms of the Kubernetes API, on JSON values. I/O-free.
// After an error `target` is in an unspecified (but valid) state: patch a copy.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "core/base/result.h"

namespace edgemesh::kube {

// RFC 7386.
Result<> apply_merge_patch(nlohmann::json& target, const nlohmann::json& patch);

// RFC 6902. A failed "test" is kConflict; other errors kInvalidArgument. At most 10,000 operations,
// and copies may not make the document larger than 8 MiB.
Result<> apply_json_patch(nlohmann::json& target, const nlohmann::json& patch);

// Strategic merge patch: like a merge patch, but lists of the known kinds are merged by their key
// (containers by name, ...), with the directives $patch (merge, replace, delete), $retainKeys,
// $setElementOrder/F and $deleteFromPrimitiveList/F. `kind` is the object's kind; lists of kinds
// and fields that are not known are replaced whole.
Result<> apply_strategic_patch(nlohmann::json& target, const nlohmann::json& patch,
                               std::string_view kind);

}  // namespace edgemesh::kube
