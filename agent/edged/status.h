// The status of a pod as the API shows it (v1.PodStatus): phase, conditions, container statuses
// with the words that kubelet writes. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>

#include "agent/edged/plan.h"

namespace edgemesh::edged {

struct WaitReason {
  std::string reason, message;  // "ImagePullBackOff", "Back-off pulling image ..."
};

struct StatusInput {
  const Pod& pod;
  const PodView& view;
  std::map<std::string, WaitReason> waiting;  // container -> why it does not run
  std::set<std::string> busy;  // are being made: not running yet, whatever the runtime says
  std::function<ProbeVerdict(const ContainerView&)> probes;
  std::function<std::string(const ContainerView&)> last_words;  // termination message
  bool initialized = false;
  bool over = false;  // nothing of it will run any more
  std::string fail_reason,
      fail_message;  // "DeadlineExceeded": it failed, whatever its containers say
  std::string host_ip;
  int64_t start_time_s = 0;
  int64_t now_s = 0;
  const nlohmann::json* previous = nullptr;  // the status before: times of conditions that hold on
};

nlohmann::json make_status(const StatusInput& in);

}  // namespace edgemesh::edged
