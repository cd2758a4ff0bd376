// What the controllers of workloads know of pods. Pure functions, thread-safe.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cloud/controllers/cluster.h"
#include "core/base/clock.h"

namespace edgemesh::cloud::controllers {

// It counts for its owner: neither finished nor on its way out.
bool pod_is_active(const ClusterObject& pod);
bool pod_is_ready(const ClusterObject& pod);
// Ready for `min_ready_s` seconds. When that is still to come, `*wait` is set to how long it takes.
bool pod_is_available(const ClusterObject& pod, int64_t min_ready_s,
                      std::chrono::system_clock::time_point now, Duration* wait);

// A pod of a template (PodTemplateSpec), owned by `owner`; its name is completed by the server.
nlohmann::json pod_of_template(const ClusterObject& owner, const nlohmann::json& pod_template);

// Names the content of a template: letters and digits that make no words, the same for equal
// templates.
std::string template_hash(const nlohmann::json& pod_template);

}  // namespace edgemesh::cloud::controllers
