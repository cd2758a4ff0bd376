// The security contexts of a pod and its containers as the runtime is told them. Pure.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "agent/edged/spec/pod_spec.h"
#include "proto/cri.pb.h"

namespace edgemesh::edged {

namespace pb = ::runtime::v1;

struct NodeContext;
struct ImageUser;

bool flag_of(const nlohmann::json* value);  // null: false

void set_sandbox_security(const Pod& pod, pb::LinuxPodSandboxConfig& out);

// kInvalidArgument: the pod forbids what it asks for (runAsNonRoot with user 0), or asks for a
// profile outside of the node's folder of profiles. kUnavailable: it must not run as root, and
// nobody knows yet whom its image runs as (`image` null).
Result<> set_container_security(const Pod& pod, const Container& container, const NodeContext& node,
                                const ImageUser* image, pb::LinuxContainerSecurityContext& out);

}  // namespace edgemesh::edged
