#include "agent/edged/runtime_view.h"

#include <algorithm>

#include "agent/edged/spec/labels.h"

namespace edgemesh::edged {
namespace {

template <class Map>
std::string value_at(const Map& map, const char* key) {
  const auto it = map.find(key);
  return it == map.end() ? std::string() : it->second;
}

ContainerView::State state_of(pb::ContainerState state) {
  switch (state) {
    case pb::CONTAINER_CREATED: return ContainerView::State::kCreated;
    case pb::CONTAINER_RUNNING: return ContainerView::State::kRunning;
    case pb::CONTAINER_EXITED: return ContainerView::State::kExited;
    default: return ContainerView::State::kUnknown;
  }
}

template <class Items>
void put_into(Items& items, typename Items::value_type item) {
  for (auto& have : items) {
    if (have.id != item.id) continue;
    have = std::move(item);
    return;
  }
  items.push_back(std::move(item));
}

template <class Message>
PodView& pod_of(PodViews& pods, const Message& item, const std::string& uid) {
  PodView& pod = pods[uid];
  pod.uid = uid;
  if (pod.name.empty()) pod.name = value_at(item.labels(), kPodNameLabel);
  if (pod.ns.empty()) pod.ns = value_at(item.labels(), kPodNamespaceLabel);
  return pod;
}

}  // namespace

const ContainerView* PodView::newest(std::string_view container) const {
  const auto it = std::find_if(containers.begin(), containers.end(),
                               [&](const ContainerView& c) { return c.name == container; });
  return it == containers.end() ? nullptr : &*it;
}

const ContainerView* PodView::before_newest(std::string_view container) const {
  const ContainerView* first = newest(container);
  for (const ContainerView& c : containers) {
    if (&c != first && c.name == container) return &c;
  }
  return nullptr;
}

const ContainerView* PodView::by_id(std::string_view id) const {
  const auto it = std::find_if(containers.begin(), containers.end(),
                               [&](const ContainerView& c) { return c.id == id; });
  return it == containers.end() ? nullptr : &*it;
}

bool PodView::any_running() const {
  return std::any_of(containers.begin(), containers.end(),
                     [](const ContainerView& c) { return c.running(); });
}

void PodView::put(ContainerView container) {
  put_into(containers, std::move(container));
  sort();
}

void PodView::put(SandboxView sandbox) {
  put_into(sandboxes, std::move(sandbox));
  sort();
}

void PodView::erase_container(std::string_view id) {
  std::erase_if(containers, [&](const ContainerView& c) { return c.id == id; });
}

void PodView::erase_sandbox(std::string_view id) {
  std::erase_if(sandboxes, [&](const SandboxView& s) { return s.id == id; });
  std::erase_if(containers, [&](const ContainerView& c) { return c.sandbox == id; });
}

void PodView::sort() {
  // By attempt at last: two that were made in one tick of the clock.
  const auto newer = [](const auto& a, const auto& b) {
    return std::make_pair(a.created, a.attempt) > std::make_pair(b.created, b.attempt);
  };
  std::stable_sort(sandboxes.begin(), sandboxes.end(), newer);
  std::stable_sort(containers.begin(), containers.end(), newer);
}

PodViews read_views(const pb::ListPodSandboxResponse& sandboxes,
                    const pb::ListContainersResponse& containers) {
  PodViews pods;
  for (const pb::PodSandbox& item : sandboxes.items()) {
    const std::string uid = value_at(item.labels(), kPodUidLabel);
    if (uid.empty()) continue;
    SandboxView view;
    view.id = item.id();
    view.attempt = item.metadata().attempt();
    view.ready = item.state() == pb::SANDBOX_READY;
    view.created = item.created_at();
    pod_of(pods, item, uid).sandboxes.push_back(std::move(view));
  }
  for (const pb::Container& item : containers.containers()) {
    const std::string uid = value_at(item.labels(), kPodUidLabel);
    if (uid.empty()) continue;
    ContainerView view;
    view.id = item.id();
    view.sandbox = item.pod_sandbox_id();
    view.name = value_at(item.labels(), kContainerNameLabel);
    view.state = state_of(item.state());
    view.attempt = item.metadata().attempt();
    view.created = item.created_at();
    view.image = item.image().image();
    view.image_ref = item.image_ref();
    view.hash = value_at(item.annotations(), kContainerHashAnnotation);
    pod_of(pods, item, uid).containers.push_back(std::move(view));
  }
  for (auto& [uid, pod] : pods) pod.sort();
  return pods;
}

ContainerView read_new(const pb::ContainerStatus& status) {
  ContainerView out;
  out.id = status.id();
  out.name = value_at(status.labels(), kContainerNameLabel);
  out.attempt = status.metadata().attempt();
  out.created = status.created_at();
  out.hash = value_at(status.annotations(), kContainerHashAnnotation);
  return out;
}

void read_status(const pb::ContainerStatus& status, ContainerView& out) {
  out.state = state_of(status.state());
  out.started = status.started_at();
  out.finished = status.finished_at();
  out.exit_code = status.exit_code();
  out.reason = status.reason();
  out.message = status.message();
  out.image = status.image().image();
  out.image_ref = status.image_ref();
  out.log_path = status.log_path();
  out.detailed = true;
}

void read_status(const pb::PodSandboxStatus& status, SandboxView& out) {
  out.ready = status.state() == pb::SANDBOX_READY;
  out.host_network = status.linux().namespaces().options().network() == pb::NODE;
  out.ips.clear();
  if (!status.network().ip().empty()) out.ips.push_back(status.network().ip());
  for (const auto& more : status.network().additional_ips()) out.ips.push_back(more.ip());
  out.detailed = true;
}

}  // namespace edgemesh::edged
