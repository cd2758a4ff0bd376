#include "agent/edged/plan.h"

#include <algorithm>

namespace edgemesh::edged {
namespace {

std::string text_of(Duration d) {
  const auto s = std::chrono::duration_cast<std::chrono::seconds>(d).count();
  return s < 60 ? fmt::format("{}s", s) : fmt::format("{}m{}s", s / 60, s % 60);
}

class Planner {
 public:
  explicit Planner(const PlanInput& in) : in_(in), sandbox_(in.view.newest_sandbox()) {}

  Plan run() {
    collect_garbage();
    if (in_.terminating) {
      end_all();
      return std::move(plan_);
    }
    if (sandbox_ == nullptr || !sandbox_->ready) {
      renew_sandbox();
      return std::move(plan_);
    }
    for (size_t i = 1; i < in_.view.sandboxes.size(); ++i) {
      if (in_.view.sandboxes[i].ready) plan_.stop_sandboxes.push_back(in_.view.sandboxes[i].id);
    }
    if (init_containers()) app_containers();
    return std::move(plan_);
  }

 private:
  bool busy(const Container& c) const { return in_.busy.contains(c.name); }
  // Of the sandbox that is now: what ran in an earlier one has to be done again.
  const ContainerView* current(const Container& c) const {
    const ContainerView* newest = in_.view.newest(c.name);
    return newest != nullptr && sandbox_ != nullptr && newest->sandbox == sandbox_->id ? newest
                                                                                       : nullptr;
  }
  uint32_t next_attempt(const Container& c) const {
    const ContainerView* newest = in_.view.newest(c.name);
    return newest == nullptr ? 0 : newest->attempt + 1;
  }
  ProbeVerdict verdict(const ContainerView& c) const {
    return in_.probes ? in_.probes(c) : ProbeVerdict();
  }
  void look_at(TimePoint when) { plan_.look_again = std::min(plan_.look_again, when); }
  TimePoint moment_of(int64_t wall_ns) const { return in_.now - Duration(in_.wall_ns - wall_ns); }

  void start(const Container& c, bool init) {
    if (const auto it = in_.refused.find(c.name); it != in_.refused.end() && it->second > in_.now) {
      return look_at(it->second);
    }
    const ContainerView* have = in_.view.newest(c.name);
    if (have != nullptr && have->state == ContainerView::State::kCreated) {
      // Made by a run of the agent that ended before it was started.
      plan_.remove_containers.push_back(have->id);
      plan_.start.push_back({&c, have->attempt, init});
      return;
    }
    plan_.start.push_back({&c, next_attempt(c), init});
  }

  // After its back-off.
  void restart(const Container& c, bool init, const ContainerView& ended) {
    const std::string key = backoff_key(in_.pod, c);
    const TimePoint at = in_.backoff.ready_at(key, moment_of(ended.finished));
    if (at <= in_.now) return start(c, init);
    plan_.waiting[c.name] = fmt::format("back-off {} restarting failed container={} pod={}_{}({})",
                                        text_of(in_.backoff.wait_of(key)), c.name, in_.pod.name,
                                        in_.pod.ns, in_.pod.uid);
    look_at(at);
  }

  // True: it runs and shall run on.
  bool keep_running(const Container& c, const ContainerView& have) {
    if (!c.hash.empty() && !have.hash.empty() && c.hash != have.hash) {
      plan_.stop.push_back({have.id, c.name, "its definition changed"});
      return false;
    }
    const ProbeVerdict probes = verdict(have);
    if (probes.healthy) return true;
    plan_.stop.push_back({have.id, c.name, probes.message});
    return false;
  }

  bool any_app_container() const {
    return std::any_of(in_.pod.containers.begin(), in_.pod.containers.end(),
                       [&](const Container& c) { return busy(c) || current(c) != nullptr; });
  }

  // True: the app containers' turn has come.
  bool init_containers() {
    const bool apps = any_app_container();
    plan_.initialized = apps;
    if (apps && apps_are_through()) return true;  // sidecars end there
    for (const Container& c : in_.pod.init_containers) {
      if (c.restart_always ? !sidecar(c, apps) : !apps && !init_container(c)) return false;
    }
    plan_.initialized = true;
    return true;
  }

  // False: what follows has to wait for it.
  bool sidecar(const Container& c, bool apps) {
    const ContainerView* have = current(c);
    if (busy(c)) return apps;
    if (have == nullptr || have->state == ContainerView::State::kCreated) {
      start(c, true);
      return apps;
    }
    if (have->ended()) {
      restart(c, true, *have);
      return apps;
    }
    return (keep_running(c, *have) && verdict(*have).started) || apps;
  }

  bool init_container(const Container& c) {
    const ContainerView* have = current(c);
    if (busy(c)) return false;
    if (have == nullptr || have->state == ContainerView::State::kCreated) {
      start(c, true);
      return false;
    }
    if (have->running()) return false;
    if (have->exit_code == 0 && have->state == ContainerView::State::kExited) return true;
    if (in_.pod.restart_policy != RestartPolicy::kNever) {
      restart(c, true, *have);
      return false;
    }
    end_sidecars();
    stop_last_sandbox();
    return false;
  }

  bool apps_are_through() const {
    return std::all_of(in_.pod.containers.begin(), in_.pod.containers.end(),
                       [&](const Container& c) { return through(c); });
  }

  // It has ended, maybe in an earlier sandbox, and does not run again.
  bool through(const Container& c) const {
    const ContainerView* have = in_.view.newest(c.name);
    return !busy(c) && have != nullptr && have->ended() && !runs_again(in_.pod, c, false, *have);
  }

  void app_containers() {
    if (apps_are_through()) {
      end_sidecars();
      stop_last_sandbox();
      return;
    }
    for (const Container& c : in_.pod.containers) {
      if (busy(c) || through(c)) continue;
      const ContainerView* have = current(c);
      if (have == nullptr || have->state == ContainerView::State::kCreated) {
        start(c, false);
      } else if (have->running()) {
        keep_running(c, *have);
      } else {
        restart(c, false, *have);
      }
    }
  }

  // In the reverse of their order, one after the other.
  void end_sidecars() {
    for (auto c = in_.pod.init_containers.rbegin(); c != in_.pod.init_containers.rend(); ++c) {
      const ContainerView* have = in_.view.newest(c->name);
      if (have == nullptr || !have->running()) continue;
      plan_.stop.push_back({have->id, c->name, "the pod's containers have ended"});
      return;
    }
  }

  void stop_last_sandbox() {
    if (in_.view.any_running() || !in_.busy.empty()) return;
    plan_.ended = true;
    for (const SandboxView& s : in_.view.sandboxes) {
      if (s.ready) plan_.stop_sandboxes.push_back(s.id);
    }
  }

  void end_all() {
    std::set<std::string> sidecars;
    for (const Container& c : in_.pod.init_containers) {
      if (c.restart_always) sidecars.insert(c.name);
    }
    for (const ContainerView& c : in_.view.containers) {
      if (c.running() && !sidecars.contains(c.name))
        plan_.stop.push_back({c.id, c.name, "the pod ends"});
    }
    if (plan_.stop.empty()) end_sidecars();
    if (plan_.stop.empty() && !in_.sandbox_busy) stop_last_sandbox();
    if (!plan_.stop_sandboxes.empty()) plan_.ended = false;
  }

  void renew_sandbox() {
    const bool first = sandbox_ == nullptr;
    plan_.sandbox_attempt = first ? 0 : sandbox_->attempt + 1;
    // What still runs in it cannot be reached any more.
    for (const ContainerView& c : in_.view.containers) {
      if (c.running()) plan_.stop.push_back({c.id, c.name, "its sandbox is gone"});
    }
    for (const SandboxView& s : in_.view.sandboxes) {
      if (s.ready) plan_.stop_sandboxes.push_back(s.id);
    }
    if (!in_.view.containers.empty() && !wants_sandbox()) {
      plan_.ended = plan_.stop.empty();
      plan_.initialized = any_app_ever();
      return;
    }
    if (in_.sandbox_busy || !plan_.stop.empty()) return;
    if (const auto it = in_.refused.find(""); it != in_.refused.end() && it->second > in_.now) {
      return look_at(it->second);
    }
    plan_.sandbox = Plan::Sandbox::kMake;
  }

  bool any_app_ever() const {
    return std::any_of(in_.pod.containers.begin(), in_.pod.containers.end(),
                       [&](const Container& c) { return in_.view.newest(c.name) != nullptr; });
  }

  // Is there anything left to run in a new one?
  bool wants_sandbox() const {
    if (in_.pod.restart_policy == RestartPolicy::kNever) return false;
    return !apps_are_through();
  }

  // Of each container the newest stays, and the one before it when that tells how the last run
  // ended.
  void collect_garbage() {
    std::map<std::string, int> kept;
    std::set<std::string> used;
    for (const ContainerView& c : in_.view.containers) {
      const int nth = kept[c.name]++;
      const ContainerView* newest = in_.view.newest(c.name);
      const bool keep = nth == 0 || !c.ended() || (nth == 1 && !newest->ended());
      if (keep || in_.busy.contains(c.name))
        used.insert(c.sandbox);
      else
        plan_.remove_containers.push_back(c.id);
    }
    for (size_t i = 1; i < in_.view.sandboxes.size(); ++i) {
      const SandboxView& s = in_.view.sandboxes[i];
      if (!s.ready && !used.contains(s.id)) plan_.remove_sandboxes.push_back(s.id);
    }
  }

  const PlanInput& in_;
  const SandboxView* sandbox_;
  Plan plan_;
};

}  // namespace

Plan make_plan(const PlanInput& in) {
  return Planner(in).run();
}

std::string backoff_key(const Pod& pod, const Container& container) {
  return fmt::format("{}/{}/{}", pod.uid, container.name, container.hash);
}

bool runs_again(const Pod& pod, const Container& container, bool init, const ContainerView& ended) {
  if (init && container.restart_always) return true;
  const bool failed = ended.exit_code != 0 || ended.state == ContainerView::State::kUnknown;
  switch (pod.restart_policy) {
    case RestartPolicy::kAlways: return !init || failed;
    case RestartPolicy::kOnFailure: return failed;
    case RestartPolicy::kNever: return false;
  }
  return false;
}

}  // namespace edgemesh::edged
