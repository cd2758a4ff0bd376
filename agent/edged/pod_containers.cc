// PodWorker's containers: how one is started, and how it is stopped.
#include <algorithm>

#include "agent/edged/pod_worker.h"
#include "core/base/log.h"

namespace edgemesh::edged {
namespace {

using std::chrono::seconds;

constexpr Duration kRetry = seconds(2);
constexpr Duration kLeastAfterHook =
    seconds(2);  // for the process, when the hook took all the time

}  // namespace

// --- starting ---

void PodWorker::start_container(const Plan::Start& start) {
  const Container& container = *start.container;
  const std::string& name = container.name;
  ImageNeed need{pod_.uid, name, start.attempt, container.image, container.pull_policy, {}};
  need.auths = shared_.parts.logins(pod_, container.image);
  const ImageState image = shared_.images.need(need);
  if (image.kind != ImageState::Kind::kReady) {
    image_waits_[name] = {image.reason, image.message};
    if (image.kind == ImageState::Kind::kFailed) wake_at(image.retry_at);
    return;
  }
  const SandboxView* sandbox = view_.newest_sandbox();
  auto config = shared_.parts.container(pod_, container, start.attempt, view_);
  auto sandbox_config = shared_.parts.sandbox(pod_, sandbox->attempt);
  if (!config || !sandbox_config) {
    const Error& error = !config ? config.error() : sandbox_config.error();
    return refuse(name, "CreateContainerConfigError", error.message);
  }
  // The run before it ended in this sandbox: the next failure waits longer.
  const ContainerView* before = view_.newest(name);
  if (before != nullptr && before->ended() && before->sandbox == sandbox->id) {
    const TimePoint now = shared_.loop.now();
    const auto wall = std::chrono::nanoseconds(shared_.loop.clock().wall_now().time_since_epoch());
    shared_.backoff.next(backoff_key(pod_, container), now - (wall - Duration(before->finished)),
                         now);
  }
  image_waits_.erase(name);
  making_.insert(name);
  pb::CreateContainerRequest request;
  request.set_pod_sandbox_id(sandbox->id);
  *request.mutable_config() = std::move(*config);
  *request.mutable_sandbox_config() = std::move(*sandbox_config);
  shared_.runtime.create_container(request, [this, alive = alive_, name](Result<std::string> made) {
    if (!*alive) return;
    if (const Container* spec = find(name)) return on_created(*spec, std::move(made));
    this->made(name);
  });
}

void PodWorker::on_created(const Container& container, Result<std::string> made) {
  changed();
  const std::string name = container.name;
  shared_.images.done(pod_.uid, name);
  if (!made) {
    this->made(name);
    refuse(name, "CreateContainerError", made.error().message);
    return event(true, "Failed", "Error: " + made.error().message, name);
  }
  if (stage_ != Stage::kRunning) {
    // The pod came to its end meanwhile: it is not started any more, and goes with its sandbox.
    this->made(name);
    return;
  }
  shared_.runtime.start_container(*made,
                                  [this, alive = alive_, name, id = *made](Result<> started) {
                                    if (!*alive) return;
                                    if (const Container* spec = find(name))
                                      return on_started(*spec, id, std::move(started));
                                    this->made(name);
                                  });
}

void PodWorker::on_started(const Container& container, const std::string& id, Result<> started) {
  changed();
  const std::string name = container.name;
  if (!started) {
    refuse(name, "RunContainerError", started.error().message);
    event(true, "Failed", "Error: " + started.error().message, name);
    return read_container(id, [this, name] { made(name); });
  }
  reasons_.erase(name);
  shared_.backoff.forget(fmt::format("make/{}/{}", pod_.uid, name));
  read_container(id, [this, name, id] {
    const Container* spec = find(name);
    if (spec == nullptr || !spec->post_start) return made(name);
    const SandboxView* sandbox = view_.newest_sandbox();
    HandlerTarget target{
        id, sandbox != nullptr && !sandbox->ips.empty() ? sandbox->ips.front() : shared_.host_ip,
        spec};
    shared_.handlers.run(*spec->post_start, target, Duration::zero(),
                         [this, alive = alive_, name, id](Result<> done) {
                           if (!*alive) return;
                           made(name);
                           if (done) return;
                           event(true, "FailedPostStartHook", done.error().message, name);
                           stop_container(id, name, grace_now(), "its start hook failed");
                         });
  });
}

void PodWorker::made(const std::string& name) {
  changed();
  making_.erase(name);
  look();
}

// With a wait that grows, as for restarts.
void PodWorker::refuse(const std::string& name, const char* reason, const std::string& message) {
  const std::string key = fmt::format("make/{}/{}", pod_.uid, name);
  const TimePoint now = shared_.loop.now();
  shared_.backoff.next(key, now, now);
  refused_[name] = now + shared_.backoff.wait_of(key);
  EM_LOG(kWarn, "edged", "pod {}/{}{}{}: {}: {}", pod_.ns, pod_.name, name.empty() ? "" : " ", name,
         reason, message);
  const bool again = reasons_.contains(name) && reasons_[name].message == message;
  reasons_[name] = {reason, message};
  wake_at(refused_[name]);
  if (!again) look();
}

void PodWorker::read_container(const std::string& id, UniqueFunction<void()> then) {
  shared_.runtime.container_status(id, false,
                                   [this, alive = alive_, id, then = std::move(then)](auto answer) {
                                     if (!*alive) return;
                                     changed();
                                     if (answer) {
                                       const pb::ContainerStatus& status = answer->status();
                                       ContainerView view;
                                       if (const ContainerView* known = view_.by_id(id)) {
                                         view = *known;
                                       } else {
                                         view = read_new(status);
                                         const SandboxView* sandbox = view_.newest_sandbox();
                                         if (sandbox != nullptr) view.sandbox = sandbox->id;
                                       }
                                       read_status(status, view);
                                       view_.put(std::move(view));
                                     } else if (answer.error().code == ErrorCode::kNotFound) {
                                       view_.erase_container(id);
                                     }
                                     then();
                                   });
}

// --- stopping ---

void PodWorker::stop_container(const std::string& id, const std::string& name, Duration grace,
                               const std::string& why) {
  const TimePoint deadline = shared_.loop.now() + grace;
  auto [it, fresh] = stopping_.try_emplace(id, Stopping{deadline});
  if (!fresh) {
    // Only an earlier end is news.
    if (it->second.deadline <= deadline + seconds(1)) return;
    it->second.deadline = deadline;
    return stop_now(id, grace);
  }
  EM_LOG(kInfo, "edged", "pod {}/{}: container {} is stopped: {}", pod_.ns, pod_.name, name, why);
  event(false, "Killing", fmt::format("Stopping container {}", name), name);
  shared_.prober.forget(id);
  const Container* spec = find(name);
  const ContainerView* view = view_.by_id(id);
  if (spec == nullptr || !spec->pre_stop || grace <= Duration::zero() || view == nullptr ||
      !view->running())
    return stop_now(id, grace);
  it->second.hook = true;
  const SandboxView* sandbox = view_.newest_sandbox();
  HandlerTarget target{
      id, sandbox != nullptr && !sandbox->ips.empty() ? sandbox->ips.front() : shared_.host_ip,
      spec};
  shared_.handlers.run(
      *spec->pre_stop, target, grace, [this, alive = alive_, id, name](Result<> done) {
        if (!*alive) return;
        if (!done) event(true, "FailedPreStopHook", done.error().message, name);
        const auto entry = stopping_.find(id);
        if (entry == stopping_.end() || !std::exchange(entry->second.hook, false)) return;
        stop_now(id, std::max(entry->second.deadline - shared_.loop.now(), kLeastAfterHook));
      });
}

void PodWorker::stop_now(const std::string& id, Duration grace) {
  if (const auto it = stopping_.find(id); it != stopping_.end()) it->second.hook = false;
  shared_.runtime.stop_container(id, grace, [this, alive = alive_, id](Result<> done) {
    if (!*alive) return;
    changed();
    if (!done && done.error().code != ErrorCode::kNotFound) {
      EM_LOG(kWarn, "edged", "pod {}/{}: a container cannot be stopped: {}", pod_.ns, pod_.name,
             done.error().message);
      stopping_.erase(id);
      return wake_at(shared_.loop.now() + kRetry);
    }
    read_container(id, [this, id] {
      stopping_.erase(id);
      look();
    });
  });
}

}  // namespace edgemesh::edged
