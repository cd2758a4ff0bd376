#include "agent/edged/runtime_watch.h"

#include "core/base/log.h"

namespace edgemesh::edged {

RuntimeWatch::RuntimeWatch(io::Loop& loop, cri::RuntimeClient& runtime, OnViews on_views,
                           OnState on_state)
    : loop_(loop),
      runtime_(runtime),
      on_views_(std::move(on_views)),
      on_state_(std::move(on_state)),
      timer_(loop, [this] { ask(); }) {}

RuntimeWatch::~RuntimeWatch() {
  *alive_ = false;
}

void RuntimeWatch::refresh() {
  if (asking_)
    again_ = true;
  else
    timer_.start(Duration::zero());  // several in one turn ask once
}

void RuntimeWatch::set_busy(bool busy) {
  if (busy_ == busy) return;
  busy_ = busy;
  if (!asking_) ask_later();
}

void RuntimeWatch::ask_later() {
  timer_.start(again_ ? Duration::zero() : busy_ ? kBusyEvery : kIdleEvery);
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
      runtime_.container_status(c.id, false, [this, alive = alive_, round, &c](auto answer) {
        if (!*alive) return;
        if (answer) read_status(answer->status(), c);
        close_one(round);
      });
    }
  }
  close_one(round);
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
  asking_ = false;
  on_views_(std::move(round->views), round->asked);
  if (!asking_) ask_later();
}

}  // namespace edgemesh::edged
