// What a pod can be told about itself (the downward API), for variables and files: its fields and
// its containers' requests and limits. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "agent/edged/spec/pod_spec.h"

namespace edgemesh::edged {

struct FieldContext {
  std::string node, host_ip;
  std::vector<std::string> pod_ips;         // none before the pod has a sandbox
  int64_t cpu_milli = 0, memory_bytes = 0;  // of the node: the limit of who has none
  int64_t disk_bytes = 0;
};

// `path` as in fieldRef.fieldPath. Whole maps ("metadata.labels") are lines of key="value".
Result<std::string> field_value(const Pod& pod, const std::string& path,
                                const FieldContext& context);

// `ref` is a resourceFieldRef; `self` the container that asks, null in volumes.
Result<std::string> resource_value(const Pod& pod, const nlohmann::json& ref, const Container* self,
                                   const FieldContext& context);

}  // namespace edgemesh::edged
