// What the container runtime has of each pod: its sandboxes and containers. Values; the parts that
// read CRI messages are pure. The labels and annotations are those that kubelet writes, so that
// what one run of the agent started is adopted by the next, and crictl shows names.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "proto/cri.pb.h"

namespace edgemesh::edged {

namespace pb = ::runtime::v1;

// Times are Unix nanoseconds, 0 when there is none.
struct ContainerView {
  enum class State { kCreated, kRunning, kExited, kUnknown };
  std::string id, sandbox, name;
  State state = State::kUnknown;
  uint32_t attempt = 0;  // how often it was restarted before
  int64_t created = 0, started = 0, finished = 0;
  int exit_code = 0;
  std::string reason, message;  // of the runtime, after the end
  std::string image, image_ref;
  std::string hash;  // of the container's spec when it was made
  std::string log_path;
  bool detailed = false;  // times, exit code and log path are known

  bool running() const { return state == State::kRunning; }
  bool ended() const { return state == State::kExited || state == State::kUnknown; }
};

struct SandboxView {
  std::string id;
  uint32_t attempt = 0;
  bool ready = false;
  int64_t created = 0;
  std::vector<std::string> ips;
  bool host_network = false;
  bool detailed = false;  // the addresses are known
};

struct PodView {
  std::string uid, ns, name;
  std::vector<SandboxView> sandboxes;     // the newest first
  std::vector<ContainerView> containers;  // the newest first

  const SandboxView* newest_sandbox() const {
    return sandboxes.empty() ? nullptr : &sandboxes.front();
  }
  const ContainerView* newest(std::string_view container) const;
  // The newest but one: what `lastState` tells about.
  const ContainerView* before_newest(std::string_view container) const;
  const ContainerView* by_id(std::string_view id) const;
  bool any_running() const;

  // Replaces what has the same id, else adds; the order is kept.
  void put(ContainerView container);
  void put(SandboxView sandbox);
  void erase_container(std::string_view id);
  void erase_sandbox(std::string_view id);  // and its containers
  void sort();
};

// By the pod's uid. What has no such label is somebody else's.
using PodViews = std::map<std::string, PodView>;
PodViews read_views(const pb::ListPodSandboxResponse& sandboxes,
                    const pb::ListContainersResponse& containers);
// A container that no list has shown yet; without its sandbox.
ContainerView read_new(const pb::ContainerStatus& status);
// Fills in what only the status calls tell.
void read_status(const pb::ContainerStatus& status, ContainerView& out);
void read_status(const pb::PodSandboxStatus& status, SandboxView& out);

}  // namespace edgemesh::edged
