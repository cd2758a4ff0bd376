// PodWorker: brings one pod to what its spec says, and ends it. Each turn it asks make_plan() what
// is to be done and starts it; an object (sandbox, container) has one call in work at a time, and a
// pod in its end is not held up by a start that hangs. What calls answer goes into the view at
// once, so that the next step does not wait for the runtime to be asked for everything. Threads:
// the loop given.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>

#include "agent/cri/runtime_client.h"
#include "agent/edged/handler_runner.h"
#include "agent/edged/images.h"
#include "agent/edged/plan.h"
#include "agent/edged/prober.h"
#include "agent/edged/status.h"

namespace edgemesh::edged {

// What the node gives a pod: volumes, configuration, logins. Blocking only for local files.
class PodParts {
 public:
  virtual ~PodParts() = default;
  // Volumes and folders are there afterwards. kNotFound: something that it names is missing (yet);
  // kUnavailable: what is missing was asked for.
  virtual Result<> prepare(const Pod& pod) = 0;
  virtual Result<pb::PodSandboxConfig> sandbox(const Pod& pod, uint32_t attempt) = 0;
  virtual Result<pb::ContainerConfig> container(const Pod& pod, const Container& container,
                                                uint32_t attempt, const PodView& view) = 0;
  virtual std::vector<pb::AuthConfig> logins(const Pod& pod, const std::string& image) = 0;
  virtual std::string last_words(const Pod& pod, const ContainerView& container) = 0;
  // Nothing of the pod is left on disk afterwards.
  virtual void tear_down(const Pod& pod) = 0;
};

struct PodEvent {
  bool warning = false;
  std::string reason, message;
  std::string container;  // empty: of the pod
};

// Of all workers of a node; outlives them.
struct WorkerShared {
  io::Loop& loop;
  cri::RuntimeClient& runtime;
  PodParts& parts;
  Images& images;
  Prober& prober;
  HandlerRunner& handlers;
  Backoff& backoff;
  std::string host_ip;
  int64_t started_ns = 0;  // of this run of the agent: what ran before is adopted
  // The worker's pod: its status changed, or it has ended.
  std::function<void(const std::string& uid)> on_change;
  std::function<void(const Pod& pod, const PodEvent& event)> on_event;
  std::function<void()> on_work;  // something was done at the runtime
};

class PodWorker {
 public:
  enum class Stage {
    kRunning,
    kEnding,   // everything is being stopped
    kEnded,    // nothing runs; what is left is being removed
    kRemoved,  // nothing is left, neither at the runtime nor on disk
  };

  PodWorker(WorkerShared& shared, Pod pod, int64_t start_time_s);
  ~PodWorker();
  PodWorker(const PodWorker&) = delete;
  PodWorker& operator=(const PodWorker&) = delete;

  // A newer version of the same pod; one with a deletion time ends it.
  void set_pod(Pod pod);
  // What the runtime was asked at `asked`; older than what this did since: passed over.
  void set_view(PodView view, TimePoint asked);
  // Once; a later call can only shorten the time. With a reason the pod fails and its object stays.
  void end(Duration grace, const std::string& fail_reason = "", const std::string& message = "");
  // Looks again in this turn of the loop: a probe or an image changed.
  void look();
  // A config map or secret came: what was missing may be there.
  void retry();

  const Pod& pod() const { return pod_; }
  const PodView& view() const { return view_; }
  Stage stage() const { return stage_; }
  // Removes what is left of an ended pod, kEnded to kRemoved: its object is gone, or is to go.
  void remove();
  const nlohmann::json& status() const;
  // Something is in work or about to change without being told.
  bool busy() const;

 private:
  struct Stopping {
    TimePoint deadline;
    bool hook = false;  // the stop hook runs
  };

  void work();
  PlanInput plan_input();
  void carry_out(const Plan& plan);
  void collect(const Plan& plan);
  void check_deadline();
  bool prepare();

  void make_sandbox(uint32_t attempt);
  void on_sandbox(Result<std::string> made);
  void stop_sandbox(const std::string& id);
  void start_container(const Plan::Start& start);
  void on_created(const Container& container, Result<std::string> made);
  void on_started(const Container& container, const std::string& id, Result<> started);
  void after_start(const Container& container, const std::string& id);
  void refuse(const std::string& name, const char* reason, const std::string& message);
  void made(const std::string& name);
  void wake_at(TimePoint when);

  void stop_container(const std::string& id, const std::string& name, Duration grace,
                      const std::string& why);
  void stop_now(const std::string& id, Duration grace);
  void read_container(const std::string& id, UniqueFunction<void()> then);
  void watch_probes();
  void update_status(const Plan& plan);
  void event(bool warning, const char* reason, std::string message, std::string container = "");
  void changed();
  const Container* find(const std::string& name, bool* init = nullptr) const;
  Duration grace_now() const;

  WorkerShared& shared_;
  Pod pod_;
  PodView view_;
  bool seen_ = false;  // the runtime was asked at least once
  Stage stage_ = Stage::kRunning;
  std::optional<TimePoint> end_by_;
  std::string fail_reason_, fail_message_;
  bool prepared_ = false;
  bool sandbox_busy_ = false;
  bool removing_ = false;
  bool torn_down_ = false;
  bool work_pending_ = false;
  TimePoint touched_{};
  std::set<std::string> making_;              // containers, by name
  std::map<std::string, Stopping> stopping_;  // by container id
  std::set<std::string> stopping_sandboxes_, removing_ids_;
  std::map<std::string, TimePoint> refused_;   // by container name; "": the sandbox
  std::map<std::string, WaitReason> reasons_;  // of what was refused
  std::map<std::string, WaitReason> image_waits_;
  int64_t start_time_s_;
  std::unique_ptr<nlohmann::json> status_;
  io::Timer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::edged
