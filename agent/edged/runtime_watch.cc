#include "agent/edged/runtime_watch.h"

#include "core/base/log.h"

namespace edgemesh::edged {
namespace {

constexpr Duration kSoon = std::chrono::milliseconds(50);
// The runtime hears of the end of a process a little later than we do.
constexpr Duration kNotice = std::chrono::milliseconds(100);
constexpr int kMostNotices = 50;

}  // namespace

RuntimeWatch::RuntimeWatch(io::Loop& loop, cri::RuntimeClient& runtime, OnViews on_views,
                           OnState on_state)
    : loop_(loop),
      runtime_(runtime),
      on_views_(std::move(on_views)),
      on_state_(std::move(on_state)),
      timer_(loop, [this] { ask(); }),
      exits_(loop, [this](const std::string& container) {
        ended_[container] = 0;
        ask_within(kSoon);
      }) {}

RuntimeWatch::~RuntimeWatch() {
  *alive_ = false;
}

void RuntimeWatch::refresh() {
  if (asking_)
    again_ = true;
  else
    ask_within(kSoon);
}

void RuntimeWatch::ask_within(Duration wait) {
  if (asking_) {
    again_ = true;
  } else if (!timer_.active() || timer_.deadline() > loop_.now() + wait) {
    timer_.start(wait);
  }
}

void RuntimeWatch::set_busy(bool busy) {
  if (busy_ == busy) return;
  busy_ = busy;
  if (busy) ask_within(kBusyEvery);
}

void RuntimeWatch::ask_later() {
  timer_.start(again_            ? kSoon
               : !ended_.empty() ? kNotice
               : busy_           ? kBusyEvery
               : blind_          ? kBlindEvery
                                 : kIdleEvery);
}

void RuntimeWatch::ask() {
  if (asking_) return;
  asking_ = true;
  again_ = false;
  timer_.stop();
  auto round = std::make_shared<Round>();
  round->asked = loop_.now();
  round->open = 2;
  runtime_.list_pod_sandboxes({}, [this, alive = alive_, round](auto answer) {
    if (!*alive) return;
    if (answer) {
      round->sandboxes = std::move(*answer);
    } else if (!std::exchange(round->failed, true)) {
      on_failed(answer.error());
    }
    if (--round->open == 0) on_listed(round);
  });
  runtime_.list_containers({}, [this, alive = alive_, round](auto answer) {
    if (!*alive) return;
    if (answer) {
      round->containers = std::move(*answer);
    } else if (!std::exchange(round->failed, true)) {
      on_failed(answer.error());
    }
    if (--round->open == 0) on_listed(round);
  });
}

void RuntimeWatch::on_failed(const Error& error) {
  if (reachable_ || busy_)
    EM_LOG(kDebug, "edged", "the runtime does not answer: {}", error.message);
  reachable_ = false;
  on_state_(fail(error));
}

void RuntimeWatch::on_listed(const RoundPtr& round) {
  if (round->failed) {
    asking_ = false;
    again_ = false;
    return timer_.start(kBusyEvery);
  }
  round->views = read_views(round->sandboxes, round->containers);
  if (!std::exchange(reachable_, true)) on_state_({});
  ask_details(round);
}

void RuntimeWatch::ask_details(const RoundPtr& round) {
  round->open = 1;
  for (auto& [uid, pod] : round->views) {
    for (SandboxView& s : pod.sandboxes) {
      const auto known = sandboxes_.find(s.id);
      if (known != sandboxes_.end() && known->second.ready == s.ready) {
        s = known->second;
        continue;
      }
      ++round->open;
      runtime_.pod_sandbox_status(s.id, false, [this, alive = alive_, round, &s](auto answer) {
        if (!*alive) return;
        if (answer) read_status(answer->status(), s);
        close_one(round);
      });
    }
    for (ContainerView& c : pod.containers) {
      const auto known = containers_.find(c.id);
      if (known != containers_.end() && known->second.state == c.state) {
        c = known->second;
        continue;
      }
      ++round->open;
      runtime_.container_status(c.id, c.running(), [this, alive = alive_, round, &c](auto answer) {
        if (!*alive) return;
        if (answer) on_status(c, *answer);
        close_one(round);
      });
    }
  }
  close_one(round);
}

void RuntimeWatch::on_status(ContainerView& view, const cri::pb::ContainerStatusResponse& answer) {
  read_status(answer.status(), view);
  const auto info = answer.info().find("info");
  if (view.running() && info != answer.info().end())
    exits_.watch(view.id, pid_of_info(info->second));
}

// Which of them can be watched, and which have ended without the runtime having noticed yet.
void RuntimeWatch::follow_processes(const PodViews& views) {
  std::set<std::string> running;
  blind_ = false;
  for (const auto& [uid, pod] : views) {
    for (const ContainerView& c : pod.containers) {
      if (!c.running()) continue;
      running.insert(c.id);
      blind_ = blind_ || (!exits_.watches(c.id) && !ended_.contains(c.id));
    }
  }
  exits_.keep_only(running);
  for (auto it = ended_.begin(); it != ended_.end();) {
    const bool over = !running.contains(it->first) || ++it->second > kMostNotices;
    it = over ? ended_.erase(it) : std::next(it);
  }
}

void RuntimeWatch::close_one(const RoundPtr& round) {
  if (--round->open == 0) finish(round);
}

void RuntimeWatch::finish(const RoundPtr& round) {
  containers_.clear();
  sandboxes_.clear();
  for (const auto& [uid, pod] : round->views) {
    for (const SandboxView& s : pod.sandboxes) {
      if (s.detailed) sandboxes_[s.id] = s;
    }
    for (const ContainerView& c : pod.containers) {
      if (c.detailed) containers_[c.id] = c;
    }
  }
  follow_processes(round->views);
  asking_ = false;
  on_views_(std::move(round->views), round->asked);
  if (!asking_) ask_later();
}

}  // namespace edgemesh::edged
