// Prober: runs the probes of running containers and keeps what they say. As kubelet: until the
// startup probe has passed, the others wait; a container with a readiness probe is not ready before
// it passed; thresholds count results in a row.
// A container that ran already when it is first watched (the agent was started again) counts as
// started and ready until its probes say otherwise: a new agent must not take it out of service.
// Threads: the loop given.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "agent/edged/handler_runner.h"
#include "agent/edged/plan.h"

namespace edgemesh::edged {

class Prober {
 public:
  using OnChange = std::function<void(const std::string& pod_uid)>;
  // A probe failed, or a container turned out to be unhealthy.
  using OnFailure = std::function<void(const std::string& pod_uid, const std::string& container,
                                       const std::string& kind, const std::string& message)>;
  Prober(io::Loop& loop, HandlerRunner& handlers, OnChange on_change, OnFailure on_failure);
  ~Prober();

  // Once for each container; later calls for the same do nothing. `adopted`: see above.
  void watch(const Pod& pod, const Container& spec, const ContainerView& container,
             const std::string& ip, bool adopted);
  void forget(const std::string& container_id) { entries_.erase(container_id); }
  void forget_pod(const std::string& pod_uid);

  ProbeVerdict verdict(const std::string& container_id) const;
  size_t size() const { return entries_.size(); }

 private:
  enum Kind { kStartup, kLiveness, kReadiness };
  struct Entry;
  void plan(Entry& entry, Kind kind, Duration after);
  void run(const std::string& id, Kind kind);
  void on_result(const std::string& id, Kind kind, const Result<>& result);

  io::Loop& loop_;
  HandlerRunner& handlers_;
  OnChange on_change_;
  OnFailure on_failure_;
  std::map<std::string, std::shared_ptr<Entry>> entries_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::edged
