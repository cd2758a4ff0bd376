#include "agent/edged/prober.h"

#include "core/base/log.h"

namespace edgemesh::edged {
namespace {

constexpr const char* kNames[] = {"Startup", "Liveness", "Readiness"};

}  // namespace

struct Prober::Entry {
  struct One {
    const Probe* spec = nullptr;
    std::unique_ptr<io::Timer> timer;
    int good = 0, bad = 0;  // in a row
    bool running = false;
  };
  std::string id, pod_uid, ip;
  Container container;  // a copy: the pod may change under it
  std::array<One, 3> probes;
  ProbeVerdict verdict;
};

Prober::Prober(io::Loop& loop, HandlerRunner& handlers, OnChange on_change, OnFailure on_failure)
    : loop_(loop),
      handlers_(handlers),
      on_change_(std::move(on_change)),
      on_failure_(std::move(on_failure)) {}

Prober::~Prober() {
  *alive_ = false;
}

void Prober::watch(const Pod& pod, const Container& spec, const ContainerView& container,
                   const std::string& ip, bool adopted) {
  if (!spec.startup && !spec.liveness && !spec.readiness) return;
  auto& slot = entries_[container.id];
  if (slot != nullptr) return;
  slot = std::make_shared<Entry>();
  Entry& entry = *slot;
  entry.id = container.id;
  entry.pod_uid = pod.uid;
  entry.ip = ip;
  entry.container = spec;
  const std::optional<Probe>* specs[] = {&entry.container.startup, &entry.container.liveness,
                                         &entry.container.readiness};
  for (int kind = 0; kind < 3; ++kind) {
    if (!*specs[kind]) continue;
    entry.probes[kind].spec = &**specs[kind];
    entry.probes[kind].timer = std::make_unique<io::Timer>(
        loop_, [this, id = entry.id, kind] { run(id, static_cast<Kind>(kind)); });
  }
  entry.verdict.started = !spec.startup || adopted;
  entry.verdict.ready = !spec.readiness || adopted;
  const auto wall = std::chrono::nanoseconds(loop_.clock().wall_now().time_since_epoch());
  const Duration age =
      container.started > 0 ? wall - Duration(container.started) : Duration::zero();
  for (Kind kind : {kStartup, kLiveness, kReadiness}) {
    if (entry.probes[kind].spec == nullptr) continue;
    if (kind != kStartup && spec.startup && !adopted) continue;
    plan(entry, kind, std::max(entry.probes[kind].spec->initial_delay - age, Duration::zero()));
  }
}

void Prober::plan(Entry& entry, Kind kind, Duration after) {
  entry.probes[kind].timer->start(after);
}

void Prober::forget_pod(const std::string& pod_uid) {
  std::erase_if(entries_, [&](const auto& e) { return e.second->pod_uid == pod_uid; });
}

ProbeVerdict Prober::verdict(const std::string& container_id) const {
  const auto it = entries_.find(container_id);
  return it == entries_.end() ? ProbeVerdict() : it->second->verdict;
}

void Prober::run(const std::string& id, Kind kind) {
  const auto it = entries_.find(id);
  if (it == entries_.end()) return;
  Entry& entry = *it->second;
  Entry::One& probe = entry.probes[kind];
  plan(entry, kind, probe.spec->period);
  if (std::exchange(probe.running, true)) return;
  handlers_.run(
      probe.spec->handler, {id, entry.ip, &entry.container}, probe.spec->timeout,
      [this, alive = alive_, weak = std::weak_ptr<Entry>(it->second), id, kind](Result<> result) {
        if (!*alive || weak.expired()) return;
        on_result(id, kind, result);
      });
}

void Prober::on_result(const std::string& id, Kind kind, const Result<>& result) {
  const auto it = entries_.find(id);
  if (it == entries_.end()) return;
  const std::shared_ptr<Entry> kept = it->second;
  Entry& entry = *kept;
  Entry::One& probe = entry.probes[kind];
  probe.running = false;
  if (result) {
    ++probe.good;
    probe.bad = 0;
  } else {
    ++probe.bad;
    probe.good = 0;
    on_failure_(entry.pod_uid, entry.container.name, kNames[kind], result.error().message);
  }
  const bool passed = probe.good >= probe.spec->success_threshold;
  const bool failed = probe.bad >= probe.spec->failure_threshold;
  if (!passed && !failed) return;
  const ProbeVerdict before = entry.verdict;
  if (kind == kReadiness) {
    entry.verdict.ready = passed;
  } else if (failed) {
    entry.verdict.healthy = false;
    entry.verdict.message =
        fmt::format("{} probe failed: {}", kNames[kind], result.error().message);
  } else if (kind == kStartup) {
    entry.verdict.started = true;
    probe.timer->stop();
    for (Kind next : {kLiveness, kReadiness}) {
      if (entry.probes[next].spec != nullptr && !entry.probes[next].timer->active())
        plan(entry, next, Duration::zero());
    }
  }
  const ProbeVerdict& now = entry.verdict;
  if (before.started == now.started && before.ready == now.ready && before.healthy == now.healthy)
    return;
  on_change_(entry.pod_uid);
}

}  // namespace edgemesh::edged
