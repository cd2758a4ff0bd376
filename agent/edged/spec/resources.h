// What a pod's requests and limits mean on this node, by kubelet's rules: its class of service, its
// cgroup, each container's CPU and memory settings and its chance to be killed when memory is out.
// Pure.
#pragma once

#include <cstdint>
#include <string>

#include "agent/edged/spec/pod_spec.h"
#include "proto/cri.pb.h"

namespace edgemesh::edged {

namespace pb = ::runtime::v1;

enum class Qos { kGuaranteed, kBurstable, kBestEffort };

Qos qos_of(const Pod& pod);
const char* to_string(Qos qos);  // as status.qosClass has it

// "<root>/burstable/pod<uid>", "<root>/besteffort/pod<uid>", "<root>/pod<uid>".
std::string cgroup_of(const Pod& pod, const std::string& root);

int64_t shares_of(int64_t milli_cpu);
// -997 (guaranteed) to 1000 (best effort); `memory` is the node's, in bytes.
int oom_score(const Pod& pod, const Container& container, int64_t memory);

pb::LinuxContainerResources resources_of(const Pod& pod, const Container& container,
                                         int64_t memory);

}  // namespace edgemesh::edged
