// What FakeRuntime (fake_cri.h) is made of: its objects, the knobs of tests, and how calls are
// answered.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "agent/cri/runtime_client.h"

namespace edgemesh::test {

namespace pb = ::runtime::v1;

class FakeRuntimeBase : public cri::RuntimeClient {
 public:
  explicit FakeRuntimeBase(io::Loop& loop) : loop_(loop) {}
  ~FakeRuntimeBase() override { *alive_ = false; }

  struct Sandbox {
    pb::PodSandboxStatus status;
    pb::PodSandboxConfig config;
  };
  struct Container {
    pb::ContainerStatus status;
    pb::ContainerConfig config;
    std::string sandbox;
    pb::LinuxContainerResources resources;
    int log_reopened = 0;
  };

  // What tests look at and set.
  std::vector<std::string> calls;  // method and its object, those that change something
  std::map<std::string, Sandbox> sandboxes;
  std::map<std::string, Container> containers;
  std::map<std::string, pb::Image> images;  // by full name: "docker.io/library/web:1"
  std::set<std::string> registry;           // full names that can be pulled
  std::vector<pb::PullImageRequest> pulls;
  bool network_ready = true;
  bool ignores_term = false;  // stopping takes SIGKILL: exit code 137, not 143
  std::optional<Error> down;  // every call fails so
  std::function<Result<pb::ExecSyncResponse>(const std::string&, const std::vector<std::string>&)>
      on_exec;

  static std::string full_name(const std::string& image) {
    std::string name = image;
    size_t slash = name.find('/');
    bool has_host = slash != std::string::npos &&
                    name.substr(0, slash).find_first_of(".:") != std::string::npos;
    if (!has_host) name = (slash == std::string::npos ? "docker.io/library/" : "docker.io/") + name;
    if (name.find(':', name.rfind('/')) == std::string::npos && name.find('@') == std::string::npos)
      name += ":latest";
    return name;
  }
  void add_image(const std::string& image, uint64_t size = 1 << 20) {
    pb::Image made;
    made.set_id("sha256:" + std::to_string(images.size() + 1));
    made.add_repo_tags(full_name(image));
    made.set_size(size);
    images[full_name(image)] = made;
  }
  void fail_next(const std::string& method, Error error) {
    failures_[method].push_back(std::move(error));
  }
  void hold(const std::string& method) { held_.try_emplace(method); }
  void release(const std::string& method) {
    auto node = held_.extract(method);
    if (node.empty()) return;
    for (io::Task& task : node.mapped()) loop_.post(std::move(task));
  }
  size_t waiting(const std::string& method) const {
    auto it = held_.find(method);
    return it == held_.end() ? 0 : it->second.size();
  }
  void exit_container(const std::string& id, int code, const std::string& reason = "") {
    auto& status = containers.at(id).status;
    if (status.state() != pb::CONTAINER_RUNNING) return;
    status.set_state(pb::CONTAINER_EXITED);
    status.set_exit_code(code);
    status.set_finished_at(now());
    status.set_reason(!reason.empty() ? reason : code == 0 ? "Completed" : "Error");
  }
  // The pause process died, as after a reboot.
  void kill_sandbox(const std::string& id) {
    sandboxes.at(id).status.set_state(pb::SANDBOX_NOTREADY);
    for (auto& [key, c] : containers)
      if (c.sandbox == id) exit_container(key, 137);
  }

 protected:
  // Notes the call (those with an object), then answers in a later turn: what was asked to fail
  // fails.
  template <class T, class Work>
  void later(const std::string& method, const std::string& object, cri::Done<T> done, Work work) {
    if (!object.empty()) calls.push_back(method + " " + object);
    io::Task task = [this, alive = alive_, method, done = std::move(done), work = std::move(work)] {
      if (!*alive) return;
      auto& failures = failures_[method];
      if (down) return done(fail(*down));
      if (failures.empty()) return done(work());
      Error error = std::move(failures.front());
      failures.pop_front();
      done(fail(std::move(error)));
    };
    if (auto it = held_.find(method); it != held_.end())
      return it->second.push_back(std::move(task));
    loop_.post(std::move(task));
  }
  int64_t now() const {
    return std::chrono::nanoseconds(loop_.clock().wall_now().time_since_epoch()).count();
  }
  std::string make_id() { return fmt::format("{:064x}", ++next_id_); }
  std::string name_of(const std::string& id) const {
    auto it = containers.find(id);
    return it == containers.end() ? id : it->second.status.metadata().name();
  }
  bool running(const std::string& id) const {
    auto it = containers.find(id);
    return it != containers.end() && it->second.status.state() == pb::CONTAINER_RUNNING;
  }
  tl::unexpected<Error> not_found(const char* what, const std::string& id) const {
    return fail(ErrorCode::kNotFound, "{} \"{}\": not found", what, id);
  }
  // containerd has no status of its own for this: UNKNOWN.
  tl::unexpected<Error> in_state(const std::string& id) const {
    auto it = containers.find(id);
    if (it == containers.end()) return not_found("container", id);
    return fail(ErrorCode::kUnavailable, "container is in {} state",
                pb::ContainerState_Name(it->second.status.state()));
  }
  template <class Map>
  static bool selects(const Map& selector, const Map& labels) {
    for (const auto& [key, value] : selector) {
      auto it = labels.find(key);
      if (it == labels.end() || it->second != value) return false;
    }
    return true;
  }
  template <class Filter>
  static bool selected(const Filter& f, const std::string& id, const Container& c) {
    return (f.id().empty() || f.id() == id) &&
           (f.pod_sandbox_id().empty() || f.pod_sandbox_id() == c.sandbox) &&
           selects(f.label_selector(), c.status.labels());
  }
  const pb::Image* find_image(const std::string& image) const {
    for (const auto& [name, i] : images)
      if (i.id() == image || name == full_name(image)) return &i;
    return nullptr;
  }
  pb::ContainerStats stats_of(const std::string& id) {
    pb::ContainerStats out;
    out.mutable_attributes()->set_id(id);
    *out.mutable_attributes()->mutable_metadata() = containers[id].status.metadata();
    *out.mutable_attributes()->mutable_labels() = containers[id].status.labels();
    out.mutable_cpu()->mutable_usage_core_nano_seconds()->set_value(1'000'000);
    out.mutable_memory()->mutable_working_set_bytes()->set_value(4 << 20);
    return out;
  }

  io::Loop& loop_;
  std::map<std::string, std::deque<Error>> failures_;
  std::map<std::string, std::vector<io::Task>> held_;
  uint64_t next_id_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::test
