#include "agent/edged/status.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;

std::string time_text(int64_t seconds) {
  return kube::rfc3339(std::chrono::system_clock::time_point(std::chrono::seconds(seconds)));
}

std::string time_of_ns(int64_t ns) {
  return time_text(ns / 1'000'000'000);
}

// metav1.Time of a moment that is unknown.
Json time_or_null(int64_t ns) {
  return ns > 0 ? Json(time_of_ns(ns)) : Json();
}

std::string join(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

class StatusMaker {
 public:
  explicit StatusMaker(const StatusInput& in) : in_(in) {}

  Json make() {
    Json init = Json::array(), app = Json::array();
    for (const Container& c : in_.pod.init_containers) init.push_back(container(c, true));
    for (const Container& c : in_.pod.containers) app.push_back(container(c, false));
    const std::string phase = phase_of();
    Json out{{"phase", phase}, {"conditions", conditions(phase)}};
    if (!in_.fail_reason.empty()) {
      out["reason"] = in_.fail_reason;
      out["message"] = in_.fail_message;
    }
    if (!in_.host_ip.empty()) {
      out["hostIP"] = in_.host_ip;
      out["hostIPs"] = Json::array({{{"ip", in_.host_ip}}});
    }
    add_addresses(out);
    if (in_.start_time_s > 0) out["startTime"] = time_text(in_.start_time_s);
    if (!init.empty()) out["initContainerStatuses"] = std::move(init);
    out["containerStatuses"] = std::move(app);
    return out;
  }

 private:
  struct Count {
    size_t all = 0, waiting = 0, running = 0, ended = 0, succeeded = 0;
  };

  Json ended_state(const ContainerView& c) const {
    const bool lost = c.state == ContainerView::State::kUnknown;
    std::string reason = lost ? "ContainerStatusUnknown" : c.reason;
    if (reason.empty()) reason = c.exit_code == 0 ? "Completed" : "Error";
    Json out{{"exitCode", lost ? 137 : c.exit_code},
             {"reason", reason},
             {"startedAt", time_or_null(c.started)},
             {"finishedAt", time_or_null(c.finished)},
             {"containerID", "containerd://" + c.id}};
    std::string message = c.message;
    if (in_.last_words) {
      if (std::string words = in_.last_words(c); !words.empty()) message = std::move(words);
    }
    if (!message.empty()) out["message"] = message;
    return Json{{"terminated", std::move(out)}};
  }

  Json waiting_state(const WaitReason& why) const {
    Json out{{"reason", why.reason}};
    if (!why.message.empty()) out["message"] = why.message;
    return Json{{"waiting", std::move(out)}};
  }

  // Why it does not run that never did.
  WaitReason not_yet(const Container& c, bool init) const {
    if (const auto it = in_.waiting.find(c.name); it != in_.waiting.end()) return it->second;
    const bool blocked =
        !in_.pod.init_containers.empty() && !in_.initialized && !in_.busy.contains(c.name);
    const bool first = init && c.name == in_.pod.init_containers.front().name;
    return {blocked && !first ? "PodInitializing" : "ContainerCreating", ""};
  }

  Json container(const Container& c, bool init) {
    const ContainerView* have = in_.view.newest(c.name);
    const ContainerView* before = in_.view.before_newest(c.name);
    Json out{{"name", c.name},
             {"image", c.image},
             {"imageID", ""},
             {"restartCount", 0},
             {"ready", false},
             {"started", false},
             {"lastState", Json::object()}};
    Count& count = init ? init_ : app_;
    if (!init || c.restart_always) ++count.all;
    const auto wait = in_.waiting.find(c.name);
    const bool made = have != nullptr && have->state != ContainerView::State::kCreated;
    if (made) {
      out["restartCount"] = have->attempt;
      out["containerID"] = "containerd://" + have->id;
      if (!have->image.empty()) out["image"] = have->image;
      out["imageID"] = have->image_ref;
    }
    if (made && have->running() && !in_.busy.contains(c.name)) {
      running(*have, out);
      if (before != nullptr && before->ended()) out["lastState"] = ended_state(*before);
      note_running(c, init, out);
    } else if (made && have->ended() && wait == in_.waiting.end()) {
      ended(c, init, *have, out);
    } else {
      const bool ran = made && have->ended();
      out["state"] = waiting_state(not_yet(c, init));
      if (ran)
        out["lastState"] = ended_state(*have);
      else if (before != nullptr && before->ended())
        out["lastState"] = ended_state(*before);
      // One that waits for its next run counts as one that stopped.
      ran ? ++count.ended : ++count.waiting;
      note_unready(c, init);
    }
    return out;
  }

  void running(const ContainerView& have, Json& out) const {
    const ProbeVerdict probes = in_.probes ? in_.probes(have) : ProbeVerdict();
    out["state"] = {{"running", {{"startedAt", time_or_null(have.started)}}}};
    out["started"] = probes.started;
    out["ready"] = probes.started && probes.ready;
  }

  void note_running(const Container& c, bool init, const Json& out) {
    if (init && !c.restart_always) return unready_init_.push_back(c.name);
    ++(init ? init_ : app_).running;
    if (init && !out["started"].get<bool>()) unready_init_.push_back(c.name);
    if (!out["ready"].get<bool>()) unready_.push_back(c.name);
  }

  void ended(const Container& c, bool init, const ContainerView& have, Json& out) {
    out["state"] = ended_state(have);
    const bool good = have.exit_code == 0 && have.state == ContainerView::State::kExited;
    out["ready"] = init && !c.restart_always && good;
    Count& count = init ? init_ : app_;
    ++count.ended;
    if (good) ++count.succeeded;
    if (!(init && good)) note_unready(c, init);
    if (init && !c.restart_always && !good && !runs_again(in_.pod, c, true, have))
      init_failed_ = true;
  }

  void note_unready(const Container& c, bool init) {
    if (init) unready_init_.push_back(c.name);
    if (!init || c.restart_always) unready_.push_back(c.name);
  }

  std::string phase_of() const {
    if (!in_.fail_reason.empty() || init_failed_) return "Failed";
    const bool always = in_.pod.restart_policy == RestartPolicy::kAlways;
    if (in_.over && app_.running == 0 && app_.ended > 0)
      return app_.ended == app_.succeeded && app_.waiting == 0 ? "Succeeded" : "Failed";
    if (app_.waiting > 0) return app_.running + app_.ended > 0 ? "Running" : "Pending";
    if (app_.running > 0 || always) return "Running";
    if (app_.ended == app_.succeeded) return "Succeeded";
    return in_.pod.restart_policy == RestartPolicy::kNever ? "Failed" : "Running";
  }

  Json conditions(const std::string& phase) const {
    Json out = Json::array();
    const bool completed = phase == "Succeeded";
    const bool failed = phase == "Failed";
    const SandboxView* sandbox = in_.view.newest_sandbox();
    const bool sandbox_ready = sandbox != nullptr && sandbox->ready;
    add(out, "PodReadyToStartContainers", sandbox_ready, "", "");
    const bool initialized = in_.initialized || in_.pod.init_containers.empty() || completed;
    add(out, "Initialized", initialized,
        initialized && !completed ? ""
        : completed               ? "PodCompleted"
                                  : "ContainersNotInitialized",
        initialized ? ""
                    : fmt::format("containers with incomplete status: [{}]", join(unready_init_)));
    std::string reason, message;
    if (completed) {
      reason = "PodCompleted";
    } else if (failed) {
      reason = "PodFailed";
    } else if (!unready_.empty()) {
      reason = "ContainersNotReady";
      message = fmt::format("containers with unready status: [{}]", join(unready_));
    }
    const bool ready = reason.empty();
    add(out, "Ready", ready, reason, message);
    add(out, "ContainersReady", ready, reason, message);
    add(out, "PodScheduled", true, "", "");
    return out;
  }

  void add(Json& out, const char* type, bool holds, std::string reason, std::string message) const {
    Json one{{"type", type},
             {"status", holds ? "True" : "False"},
             {"lastProbeTime", nullptr},
             {"lastTransitionTime", since(type, holds)}};
    if (!reason.empty()) one["reason"] = std::move(reason);
    if (!message.empty()) one["message"] = std::move(message);
    out.push_back(std::move(one));
  }

  std::string since(const char* type, bool holds) const {
    const Json* all = in_.previous == nullptr ? nullptr : kube::find(*in_.previous, "conditions");
    if (all != nullptr && all->is_array()) {
      for (const Json& one : *all) {
        if (kube::text_at(one, "type") != type || (kube::text_at(one, "status") == "True") != holds)
          continue;
        if (std::string at = kube::text_at(one, "lastTransitionTime"); !at.empty()) return at;
      }
    }
    return time_text(in_.now_s);
  }

  void add_addresses(Json& out) const {
    const SandboxView* sandbox = in_.view.newest_sandbox();
    std::vector<std::string> ips;
    if (in_.pod.host_network) {
      if (!in_.host_ip.empty() && sandbox != nullptr) ips.push_back(in_.host_ip);
    } else if (sandbox != nullptr) {
      ips = sandbox->ips;
    }
    if (ips.empty()) return;
    out["podIP"] = ips.front();
    out["podIPs"] = Json::array();
    for (const std::string& ip : ips) out["podIPs"].push_back({{"ip", ip}});
  }

  const StatusInput& in_;
  Count init_, app_;
  std::vector<std::string> unready_, unready_init_;
  bool init_failed_ = false;
};

}  // namespace

Json make_status(const StatusInput& in) {
  return StatusMaker(in).make();
}

}  // namespace edgemesh::edged
