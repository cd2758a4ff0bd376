#include "agent/edged/pod_worker.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/log.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;
using std::chrono::seconds;

constexpr Duration kRetry = seconds(2);  // of calls that failed for a reason of the runtime's own
constexpr Duration kPrepareRetry = seconds(5);
constexpr const char* kVolumes = "/volumes";  // no name of a container

int64_t wall_ns(io::Loop& loop) {
  return std::chrono::nanoseconds(loop.clock().wall_now().time_since_epoch()).count();
}

}  // namespace

PodWorker::PodWorker(WorkerShared& shared, Pod pod, int64_t start_time_s)
    : shared_(shared),
      pod_(std::move(pod)),
      start_time_s_(start_time_s),
      status_(std::make_unique<Json>()),
      timer_(shared.loop, [this] { look(); }) {
  view_.uid = pod_.uid;
  view_.ns = pod_.ns;
  view_.name = pod_.name;
}

PodWorker::~PodWorker() {
  *alive_ = false;
  shared_.prober.forget_pod(pod_.uid);
  shared_.images.forget_pod(pod_.uid);
}

const Json& PodWorker::status() const {
  return *status_;
}

bool PodWorker::busy() const {
  if (stage_ == Stage::kEnding) return true;
  return sandbox_busy_ || !making_.empty() || !stopping_.empty() || !removing_ids_.empty() ||
         !seen_;
}

void PodWorker::changed() {
  touched_ = shared_.loop.now();
  shared_.on_work();
}

Duration PodWorker::grace_now() const {
  return end_by_ ? std::max(*end_by_ - shared_.loop.now(), Duration::zero()) : pod_.grace;
}

// --- what comes from outside ---

void PodWorker::set_pod(Pod pod) {
  pod_ = std::move(pod);
  if (pod_.deletion_grace) end(*pod_.deletion_grace);
  look();
}

void PodWorker::set_view(PodView view, TimePoint asked) {
  if (seen_ && touched_ >= asked) return;
  // An earlier run of the agent started it.
  if (!seen_) {
    for (const SandboxView& sandbox : view.sandboxes)
      start_time_s_ = std::min(start_time_s_, sandbox.created / 1'000'000'000);
  }
  seen_ = true;
  view_ = std::move(view);
  look();
}

void PodWorker::end(Duration grace, const std::string& fail_reason, const std::string& message) {
  const TimePoint by = shared_.loop.now() + grace;
  if (stage_ == Stage::kRunning) {
    stage_ = Stage::kEnding;
    end_by_ = by;
    fail_reason_ = fail_reason;
    fail_message_ = message;
    EM_LOG(kInfo, "edged", "pod {}/{} ends{}{}", pod_.ns, pod_.name,
           fail_reason.empty() ? "" : ": ", fail_reason);
  } else if (end_by_ && by < *end_by_) {
    end_by_ = by;
  }
  look();
}

void PodWorker::retry() {
  refused_.erase(kVolumes);
  look();
}

void PodWorker::wake_at(TimePoint when) {
  if (!timer_.active() || timer_.deadline() > when) timer_.start_at(when);
}

void PodWorker::look() {
  if (std::exchange(work_pending_, true)) return;
  shared_.loop.defer([this, alive = alive_] {
    if (!*alive) return;
    work_pending_ = false;
    work();
  });
}

// --- the turn ---

void PodWorker::work() {
  if (!seen_ || stage_ == Stage::kRemoved) return;
  if (stage_ == Stage::kEnded) return removing_ ? remove() : void();
  timer_.stop();
  check_deadline();
  watch_probes();
  const PlanInput input = plan_input();
  const Plan plan = make_plan(input);
  carry_out(plan);
  update_status(plan);
  if (plan.look_again != TimePoint::max()) wake_at(plan.look_again);
  if (stage_ == Stage::kEnding && plan.ended && making_.empty() && stopping_.empty()) {
    stage_ = Stage::kEnded;
    timer_.stop();
    shared_.on_change(pod_.uid);
  }
}

PlanInput PodWorker::plan_input() {
  PlanInput in{.pod = pod_, .view = view_, .backoff = shared_.backoff, .now = shared_.loop.now()};
  in.wall_ns = wall_ns(shared_.loop);
  in.terminating = stage_ != Stage::kRunning;
  in.sandbox_busy = sandbox_busy_ || !stopping_sandboxes_.empty();
  in.busy = making_;
  std::erase_if(refused_, [&](const auto& r) { return r.second <= in.now; });
  in.refused = refused_;
  in.probes = [this](const ContainerView& c) { return shared_.prober.verdict(c.id); };
  return in;
}

void PodWorker::carry_out(const Plan& plan) {
  for (const Plan::Stop& stop : plan.stop) {
    stop_container(stop.id, stop.name, grace_now(), stop.why);
  }
  for (const std::string& id : plan.stop_sandboxes) stop_sandbox(id);
  collect(plan);
  if (plan.sandbox == Plan::Sandbox::kMake && prepare()) make_sandbox(plan.sandbox_attempt);
  if (!plan.start.empty() && prepare()) {
    for (const Plan::Start& start : plan.start) start_container(start);
  }
}

void PodWorker::collect(const Plan& plan) {
  for (const std::string& id : plan.remove_containers) {
    if (!removing_ids_.insert(id).second) continue;
    shared_.runtime.remove_container(id, [this, alive = alive_, id](Result<> done) {
      if (!*alive) return;
      removing_ids_.erase(id);
      changed();
      if (done) view_.erase_container(id);
      look();
    });
  }
  for (const std::string& id : plan.remove_sandboxes) {
    if (!removing_ids_.insert(id).second) continue;
    shared_.runtime.remove_pod_sandbox(id, [this, alive = alive_, id](Result<> done) {
      if (!*alive) return;
      removing_ids_.erase(id);
      changed();
      if (done) view_.erase_sandbox(id);
    });
  }
}

void PodWorker::check_deadline() {
  if (stage_ != Stage::kRunning || !pod_.active_deadline || start_time_s_ == 0) return;
  const int64_t now_s = wall_ns(shared_.loop) / 1'000'000'000;
  const Duration left = seconds(start_time_s_ - now_s) + *pod_.active_deadline;
  if (left > Duration::zero()) {
    return wake_at(shared_.loop.now() + left);
  }
  // A pod that is through by itself keeps what it said.
  if (const auto* phase = status_->is_object() ? &(*status_)["phase"] : nullptr;
      phase != nullptr && (*phase == "Succeeded" || *phase == "Failed"))
    return;
  event(false, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline");
  end(pod_.grace, "DeadlineExceeded",
      "Pod was active on the node longer than the specified deadline");
}

bool PodWorker::prepare() {
  if (prepared_) return true;
  if (refused_.contains(kVolumes)) return false;
  auto done = shared_.parts.prepare(pod_);
  prepared_ = done.has_value();
  if (prepared_) return true;
  refused_[kVolumes] = shared_.loop.now() + kPrepareRetry;
  wake_at(refused_[kVolumes]);
  if (done.error().code != ErrorCode::kUnavailable)
    event(true, "FailedMount", done.error().message);
  return false;
}

// --- sandboxes ---

void PodWorker::make_sandbox(uint32_t attempt) {
  auto config = shared_.parts.sandbox(pod_, attempt);
  if (!config) {
    refuse("", "CreatePodSandboxError", config.error().message);
    return event(true, "FailedCreatePodSandBox", config.error().message);
  }
  sandbox_busy_ = true;
  pb::RunPodSandboxRequest request;
  *request.mutable_config() = std::move(*config);
  shared_.runtime.run_pod_sandbox(request, [this, alive = alive_](Result<std::string> made) {
    if (*alive) on_sandbox(std::move(made));
  });
}

void PodWorker::on_sandbox(Result<std::string> made) {
  changed();
  if (!made) {
    sandbox_busy_ = false;
    refuse("", "CreatePodSandboxError", made.error().message);
    event(true, "FailedCreatePodSandBox", "Failed to create pod sandbox: " + made.error().message);
    return look();
  }
  shared_.runtime.pod_sandbox_status(*made, false, [this, alive = alive_, id = *made](auto answer) {
    if (!*alive) return;
    changed();
    sandbox_busy_ = false;
    if (answer) {
      SandboxView sandbox;
      sandbox.id = id;
      sandbox.attempt = answer->status().metadata().attempt();
      sandbox.created = answer->status().created_at();
      read_status(answer->status(), sandbox);
      view_.put(std::move(sandbox));
      reasons_.erase("");
      shared_.backoff.forget(pod_.uid + "/");
    }
    look();
  });
}

void PodWorker::stop_sandbox(const std::string& id) {
  if (!stopping_sandboxes_.insert(id).second) return;
  shared_.runtime.stop_pod_sandbox(id, [this, alive = alive_, id](Result<> done) {
    if (!*alive) return;
    changed();
    stopping_sandboxes_.erase(id);
    if (!done) {
      EM_LOG(kWarn, "edged", "the sandbox of pod {}/{} cannot be stopped: {}", pod_.ns, pod_.name,
             done.error().message);
      return wake_at(shared_.loop.now() + kRetry);
    }
    for (SandboxView& s : view_.sandboxes) {
      if (s.id == id) s.ready = false;
    }
    look();
  });
}

// --- the end ---

void PodWorker::remove() {
  if (stage_ != Stage::kEnded) return;
  removing_ = true;
  bool open = false;
  for (const SandboxView& s : view_.sandboxes) {
    open = true;
    if (!removing_ids_.insert(s.id).second) continue;
    shared_.runtime.remove_pod_sandbox(s.id, [this, alive = alive_, id = s.id](Result<> done) {
      if (!*alive) return;
      changed();
      removing_ids_.erase(id);
      if (!done) return wake_at(shared_.loop.now() + kRetry);
      view_.erase_sandbox(id);
      look();
    });
  }
  for (const ContainerView& c : view_.containers) {
    open = true;
    if (!view_.sandboxes.empty() || !removing_ids_.insert(c.id).second) continue;
    shared_.runtime.remove_container(c.id, [this, alive = alive_, id = c.id](Result<> done) {
      if (!*alive) return;
      changed();
      removing_ids_.erase(id);
      if (!done) return wake_at(shared_.loop.now() + kRetry);
      view_.erase_container(id);
      look();
    });
  }
  if (open) return;
  stage_ = Stage::kRemoved;
  timer_.stop();
  shared_.parts.tear_down(pod_);
  shared_.on_change(pod_.uid);
}

// --- status ---

void PodWorker::watch_probes() {
  for (const ContainerView& c : view_.containers) {
    const Container* spec = find(c.name);
    const bool wanted = spec != nullptr && c.running() && stage_ == Stage::kRunning &&
                        !making_.contains(c.name) && !stopping_.contains(c.id) &&
                        view_.newest(c.name) == &c;
    const SandboxView* sandbox = view_.newest_sandbox();
    if (wanted) {
      const std::string ip = pod_.host_network                             ? shared_.host_ip
                             : sandbox != nullptr && !sandbox->ips.empty() ? sandbox->ips.front()
                                                                           : "";
      shared_.prober.watch(pod_, *spec, c, ip, c.started < shared_.started_ns);
    } else if (!c.running()) {
      shared_.prober.forget(c.id);
    }
  }
}

void PodWorker::update_status(const Plan& plan) {
  StatusInput in{.pod = pod_, .view = view_};
  for (const auto& [name, message] : plan.waiting) in.waiting[name] = {"CrashLoopBackOff", message};
  for (const auto& [name, why] : image_waits_) {
    if (!why.reason.empty()) in.waiting[name] = why;
  }
  for (const auto& [name, why] : reasons_) {
    if (!name.empty()) in.waiting[name] = why;
  }
  in.busy = making_;
  in.probes = [this](const ContainerView& c) { return shared_.prober.verdict(c.id); };
  in.last_words = [this](const ContainerView& c) { return shared_.parts.last_words(pod_, c); };
  in.initialized = plan.initialized;
  in.over = plan.ended;
  in.fail_reason = fail_reason_;
  in.fail_message = fail_message_;
  in.host_ip = shared_.host_ip;
  in.start_time_s = start_time_s_;
  in.now_s = wall_ns(shared_.loop) / 1'000'000'000;
  in.previous = status_.get();
  Json status = make_status(in);
  if (status == *status_) return;
  *status_ = std::move(status);
  shared_.on_change(pod_.uid);
}

void PodWorker::event(bool warning, const char* reason, std::string message,
                      std::string container) {
  EM_LOG(kDebug, "edged", "pod {}/{}: {}: {}", pod_.ns, pod_.name, reason, message);
  shared_.on_event(pod_, {warning, reason, std::move(message), std::move(container)});
}

const Container* PodWorker::find(const std::string& name, bool* init) const {
  for (const auto* list : {&pod_.init_containers, &pod_.containers}) {
    for (const Container& c : *list) {
      if (c.name != name) continue;
      if (init != nullptr) *init = list == &pod_.init_containers;
      return &c;
    }
  }
  return nullptr;
}

}  // namespace edgemesh::edged
