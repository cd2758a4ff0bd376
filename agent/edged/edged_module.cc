#include "agent/edged/edged_module.h"

#include <nlohmann/json.hpp>

#include "agent/hub_client.h"
#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxEvents = 1000;  // of a run of the agent, until the cloud is connected again
constexpr Duration kOrphanGrace = std::chrono::seconds(30);
// In the metastore once its pods are all there are.
constexpr const char* kTrustedKey = "edged/all-pods-known";
constexpr const char* kTrustedType = "edged";

std::string status_resource(const Pod& pod) {
  return fmt::format("{}/podstatus/{}", pod.ns, pod.name);
}

int64_t wall_s(io::Loop& loop) {
  return std::chrono::duration_cast<std::chrono::seconds>(
             loop.clock().wall_now().time_since_epoch())
      .count();
}

}  // namespace

EdgedModule::EdgedModule(io::Loop& loop, cri::RuntimeClient& runtime, PodParts& parts,
                         agent::Outbox& outbox, agent::Metastore& store, Options options,
                         obs::Registry& registry)
    : loop_(loop),
      options_(std::move(options)),
      parts_(parts),
      outbox_(outbox),
      store_(store),
      images_(loop, runtime,
              [this](const std::string& uid) {
                if (const auto it = pods_.find(uid); it != pods_.end()) it->second.worker->look();
              }),
      handlers_(loop, runtime),
      prober_(
          loop, handlers_,
          [this](const std::string& uid) {
            if (const auto it = pods_.find(uid); it != pods_.end()) it->second.worker->look();
          },
          [this](const std::string& uid, const std::string& container, const std::string& kind,
                 const std::string& message) {
            const auto it = pods_.find(uid);
            if (it == pods_.end()) return;
            send_event(it->second.worker->pod(),
                       {true, "Unhealthy", kind + " probe failed: " + message, container});
          }),
      shared_{.loop = loop,
              .runtime = runtime,
              .parts = parts,
              .images = images_,
              .prober = prober_,
              .handlers = handlers_,
              .backoff = backoff_,
              .host_ip = options_.host_ip,
              .started_ns =
                  std::chrono::nanoseconds(loop.clock().wall_now().time_since_epoch()).count(),
              .on_change = [this](const std::string& uid) { on_pod_change(uid); },
              .on_event = [this](const Pod& pod, const PodEvent& event) { send_event(pod, event); },
              .on_work = [this] { watch_.refresh(); }},
      watch_(
          loop, runtime,
          [this](PodViews views, TimePoint asked) { on_views(std::move(views), asked); },
          [this](const Result<>& reachable) { on_runtime(reachable); }),
      pods_gauge_(registry.gauge("edgemesh_edged_pods", "Pods that this node runs or ends.")),
      restarts_(registry.counter("edgemesh_edged_events_total", "Events told about pods.")) {}

EdgedModule::~EdgedModule() {
  *alive_ = false;
}

Result<> EdgedModule::start(bus::Bus& bus) {
  bus_ = &bus;
  EM_TRY_VOID(outbox_.start(bus));
  trusted_ = store_.has(kTrustedKey);
  watch_.start();
  return {};
}

void EdgedModule::stop() {
  outbox_.stop();
  bus_ = nullptr;
}

void EdgedModule::on_message(bus::Message message) {
  if (message.resource != "node/connection") return;
  connected_ = message.content == "\"cloud_connected\"";
  if (connected_) {
    events_ = 0;
    // What the cloud has may be older than what it confirmed: it may be a new one, from a backup.
    for (auto& [uid, entry] : pods_) send_status(entry, true);
  }
  outbox_.on_connection(connected_);
}

// --- what is wanted ---

EdgedModule::Entry& EdgedModule::entry_for(Pod pod) {
  const std::string uid = pod.uid;
  auto it = pods_.find(uid);
  if (it == pods_.end()) {
    int64_t start = pod.start_time_s > 0 ? pod.start_time_s : wall_s(loop_);
    it = pods_.emplace(uid, Entry{}).first;
    it->second.worker = std::make_unique<PodWorker>(shared_, std::move(pod), start);
    pods_gauge_.set(static_cast<int64_t>(pods_.size()));
    strangers_.erase(uid);
    if (bus_ != nullptr) watch_.refresh();
  } else {
    it->second.worker->set_pod(std::move(pod));
  }
  return it->second;
}

void EdgedModule::on_object(const agent::MetaKey& key, std::string_view json) {
  if (key.kind != "pod") {
    if (key.kind != "node") retry_all();
    return;
  }
  auto pod = parse_pod(json);
  if (!pod) {
    EM_LOG(kError, "edged", "pod {}/{}: {}", key.ns, key.name, pod.error().message);
    return;
  }
  if (!pod->node_name.empty() && pod->node_name != options_.node) return;
  // A pod of the same name with another uid: the one before is gone.
  for (auto& [uid, entry] : pods_) {
    const Pod& other = entry.worker->pod();
    if (uid == pod->uid || other.name != pod->name || other.ns != pod->ns || entry.gone) continue;
    entry.gone = true;
    entry.worker->end(other.grace);
    on_pod_change(uid);
  }
  const std::string uid = pod->uid;
  Entry& entry = entry_for(std::move(*pod));
  entry.gone = entry.silent = false;
  on_pod_change(uid);
}

void EdgedModule::on_object_gone(const agent::MetaKey& key, const std::string& uid) {
  if (key.kind != "pod") {
    if (key.kind != "node") retry_all();
    return;
  }
  const auto it = pods_.find(uid);
  if (it == pods_.end()) return;
  it->second.gone = true;
  outbox_.cancel(status_resource(it->second.worker->pod()), "update");
  it->second.worker->end(it->second.worker->pod().grace);
  on_pod_change(uid);
}

void EdgedModule::retry_all() {
  for (auto& [uid, entry] : pods_) entry.worker->retry();
}

void EdgedModule::retry(const std::string& uid) {
  if (const auto it = pods_.find(uid); it != pods_.end()) it->second.worker->retry();
}

// --- what is there ---

void EdgedModule::on_runtime(const Result<>& reachable) {
  if (reachable) {
    EM_LOG(kInfo, "edged", "the container runtime answers");
  } else {
    EM_LOG(kWarn, "edged", "the container runtime does not answer: {}", reachable.error().message);
  }
}

void EdgedModule::on_views(PodViews views, TimePoint asked) {
  if (bus_ == nullptr) return;
  adopt_orphans(views);
  for (auto& [uid, entry] : pods_) {
    auto node = views.extract(uid);
    PodView view;
    if (!node.empty()) view = std::move(node.mapped());
    view.uid = uid;
    entry.worker->set_view(std::move(view), asked);
  }
  backoff_.collect(loop_.now());
  update_pace();
}

void EdgedModule::on_pod_list(const std::vector<std::string>& uids) {
  list_.emplace(uids.begin(), uids.end());
  if (bus_ != nullptr) watch_.refresh();
}

// Its object may be on its way.
bool EdgedModule::may_be_wanted(const std::string& uid) const {
  return list_ ? list_->contains(uid) : !trusted_;
}

// Pods of the runtime that have no object.
void EdgedModule::adopt_orphans(PodViews& views) {
  if (!loaded_) return;
  const TimePoint now = loop_.now();
  std::erase_if(strangers_, [&](const auto& s) { return !views.contains(s.first); });
  bool all_known = true;
  for (const auto& [uid, view] : views) {
    if (pods_.contains(uid)) continue;
    Stranger& stranger = strangers_.try_emplace(uid, Stranger{now}).first->second;
    const bool due = now - stranger.seen >= options_.orphan_after;
    if (!may_be_wanted(uid)) {
      if (due) end_orphan(view);
      continue;
    }
    all_known = false;
    if (due && !std::exchange(stranger.told, true))
      EM_LOG(kWarn, "edged",
             "pod {}/{} ({}) has no object here; it goes on until the cloud says what is wanted",
             view.ns, view.name, uid);
  }
  if (trusted_ || !all_known) return;
  trusted_ = store_.put(kTrustedKey, kTrustedType, "1");
}

void EdgedModule::end_orphan(const PodView& view) {
  EM_LOG(kInfo, "edged", "pod {}/{} ({}) is not one of this node's: it is ended", view.ns,
         view.name, view.uid);
  Pod pod;
  pod.uid = view.uid;
  pod.ns = view.ns;
  pod.name = view.name;
  pod.grace = kOrphanGrace;
  Entry& entry = entry_for(std::move(pod));
  entry.gone = entry.silent = true;
  entry.worker->end(kOrphanGrace);
}

void EdgedModule::update_pace() {
  bool busy = false;
  for (const auto& [uid, entry] : pods_) busy = busy || entry.worker->busy();
  watch_.set_busy(busy);
}

// --- what is told ---

// From within a worker: it is looked at in a later turn, when it may be destroyed.
void EdgedModule::on_pod_change(const std::string& uid) {
  changed_.insert(uid);
  if (changed_.size() > 1) return;
  loop_.defer([this, alive = alive_] {
    if (!*alive) return;
    for (const std::string& each : std::exchange(changed_, {})) advance(each);
    update_pace();
  });
}

void EdgedModule::advance(const std::string& uid) {
  const auto it = pods_.find(uid);
  if (it == pods_.end()) return;
  Entry& entry = it->second;
  PodWorker& worker = *entry.worker;
  send_status(entry, false);
  if (worker.stage() == PodWorker::Stage::kEnded && (entry.gone || worker.pod().deletion_grace))
    worker.remove();
  if (worker.stage() != PodWorker::Stage::kRemoved) return;
  if (!entry.gone) return send_end(entry);
  EM_LOG(kInfo, "edged", "pod {}/{} is gone", worker.pod().ns, worker.pod().name);
  pods_.erase(it);
  pods_gauge_.set(static_cast<int64_t>(pods_.size()));
}

void EdgedModule::send_status(Entry& entry, bool again) {
  const PodWorker& worker = *entry.worker;
  if (bus_ == nullptr || entry.gone || entry.silent || entry.confirmed) return;
  if (!worker.status().is_object()) return;
  const Pod& pod = worker.pod();
  std::string content =
      kube::to_text({{"UID", pod.uid}, {"Name", pod.name}, {"Status", worker.status()}});
  if (!again && content == entry.sent) return;
  entry.sent = content;
  auto put = outbox_.put(
      {.resource = status_resource(pod), .operation = "update", .content = std::move(content)});
  if (!put) {
    entry.sent.clear();
    EM_LOG(kWarn, "edged", "the status of pod {}/{}: {}", pod.ns, pod.name, put.error().message);
  }
}

void EdgedModule::send_end(Entry& entry) {
  if (bus_ == nullptr || std::exchange(entry.confirmed, true)) return;
  const Pod& pod = entry.worker->pod();
  auto put = outbox_.put({.resource = fmt::format("{}/pod/{}", pod.ns, pod.name),
                          .operation = "delete",
                          .content = kube::to_text(
                              {{"gracePeriodSeconds", 0}, {"preconditions", {{"uid", pod.uid}}}})});
  if (put) return;
  entry.confirmed = false;
  EM_LOG(kWarn, "edged", "the end of pod {}/{}: {}", pod.ns, pod.name, put.error().message);
}

void EdgedModule::send_event(const Pod& pod, const PodEvent& event) {
  restarts_.add();
  if (bus_ == nullptr || !connected_ || pod.containers.empty() || ++events_ > kMaxEvents) return;
  const auto now = loop_.clock().wall_now();
  const std::string at = kube::rfc3339(now);
  const auto ns = std::chrono::nanoseconds(now.time_since_epoch()).count();
  const std::string name = fmt::format("{}.{:x}{:03x}", pod.name, ns, events_ % 4096);
  Json object{{"kind", "Pod"},
              {"apiVersion", "v1"},
              {"namespace", pod.ns},
              {"name", pod.name},
              {"uid", pod.uid}};
  if (!event.container.empty())
    object["fieldPath"] = fmt::format("spec.containers{{{}}}", event.container);
  const Json content{{"metadata", {{"name", name}, {"namespace", pod.ns}}},
                     {"involvedObject", std::move(object)},
                     {"reason", event.reason},
                     {"message", event.message.substr(0, 1024)},
                     {"type", event.warning ? "Warning" : "Normal"},
                     {"source", {{"component", "edged"}, {"host", options_.node}}},
                     {"firstTimestamp", at},
                     {"lastTimestamp", at},
                     {"count", 1},
                     {"reportingComponent", "edged"},
                     {"reportingInstance", options_.node}};
  auto sent =
      bus_->send(agent::kHubModule, bus::make_message(kEdgedModule, "meta", "insert",
                                                      fmt::format("{}/event/{}", pod.ns, name),
                                                      kube::to_text(content)));
  if (!sent) EM_LOG(kDebug, "edged", "an event is not told: {}", sent.error().message);
}

EdgedModule::Status EdgedModule::status() const {
  Status out{.runtime = watch_.reachable(), .pods = pods_.size(), .running = 0};
  for (const auto& [uid, entry] : pods_) {
    if (entry.worker->view().any_running()) ++out.running;
  }
  return out;
}

}  // namespace edgemesh::edged
