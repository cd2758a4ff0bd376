// make_plan: what has to be done next for a pod, from its spec and what the runtime has of it.
// Pure: same input, same plan; whoever carries it out calls again when anything changed. The rules
// are kubelet's: order of init containers, sidecars (init containers with restartPolicy Always),
// restart policies with back-off, a new sandbox when the old one died.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "agent/edged/backoff.h"
#include "agent/edged/runtime_view.h"
#include "agent/edged/spec/pod_spec.h"

namespace edgemesh::edged {

// What probes say of a running container; without probes: started, ready, healthy.
struct ProbeVerdict {
  bool started = true, ready = true, healthy = true;
  std::string message;  // why it is not healthy
};

struct PlanInput {
  const Pod& pod;
  const PodView& view;
  const Backoff& backoff;  // keys: backoff_key()
  TimePoint now;
  int64_t wall_ns = 0;         // the same moment, as the runtime counts
  bool terminating = false;    // it was deleted, evicted or has had its time: stop all
  bool sandbox_busy = false;   // a sandbox is being made or stopped
  std::set<std::string> busy;  // containers that are being made, by name
  // Containers that could not be made: when they may be tried again.
  std::map<std::string, TimePoint> refused;
  std::function<ProbeVerdict(const ContainerView&)> probes;  // empty: all is well
};

struct Plan {
  enum class Sandbox { kKeep, kMake, kStop };
  struct Stop {
    std::string id, name;
    std::string why;  // for the log and the event
  };
  struct Start {
    const Container* container;
    uint32_t attempt;
    bool init;
  };

  Sandbox sandbox = Sandbox::kKeep;
  uint32_t sandbox_attempt = 0;             // for kMake
  std::vector<std::string> stop_sandboxes;  // old ones, or the last one
  std::vector<Stop> stop;
  std::vector<Start> start;
  std::vector<std::string> remove_containers, remove_sandboxes;  // what is dead and of no use
  std::map<std::string, std::string> waiting;  // container -> message of its CrashLoopBackOff
  TimePoint look_again = TimePoint::max();     // even if nothing changes
  bool initialized = false;                    // init containers are through
  bool ended = false;                          // nothing runs, and nothing of it will run again
};

Plan make_plan(const PlanInput& in);

std::string backoff_key(const Pod& pod, const Container& container);
// Does an ended container run again, by the pod's policy?
bool runs_again(const Pod& pod, const Container& container, bool init, const ContainerView& ended);

}  // namespace edgemesh::edged
