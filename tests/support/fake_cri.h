// A container runtime in memory behind cri::RuntimeClient: sandboxes, containers and images with
// the states and refusals of containerd, failures and delays on request. Answers come in a later
// turn.
//
//   runtime.add_image("web:1");
//   runtime.fail_next("StartContainer", {ErrorCode::kUnavailable, "no such file", 0});
//   runtime.hold("PullImage"); ... runtime.release("PullImage");
//   runtime.exit_container(id, 1);                 // as if its process had ended
//   EXPECT_THAT(runtime.calls, ElementsAre("RunPodSandbox web", "CreateContainer main"));
//
// A held call takes effect when it is released. Methods have the names of the protocol.
#pragma once

#include "tests/support/fake_cri_base.h"

namespace edgemesh::test {

class FakeRuntime final : public FakeRuntimeBase {
 public:
  using FakeRuntimeBase::FakeRuntimeBase;

  void version(cri::Done<pb::VersionResponse> done) override {
    later<pb::VersionResponse>("Version", "", std::move(done), [] {
      pb::VersionResponse v;
      v.set_version("0.1.0");
      v.set_runtime_name("fake");
      v.set_runtime_version("1.0");
      v.set_runtime_api_version("v1");
      return Result<pb::VersionResponse>(std::move(v));
    });
  }
  void status(bool verbose, cri::Done<pb::StatusResponse> done) override {
    later<pb::StatusResponse>("Status", "", std::move(done), [this, verbose] {
      pb::StatusResponse out;
      if (verbose)
        (*out.mutable_info())["config"] = R"({"sandboxImage":"registry.k8s.io/pause:3.6"})";
      for (auto [type, good] :
           {std::pair{"RuntimeReady", true}, std::pair{"NetworkReady", network_ready}}) {
        auto* condition = out.mutable_status()->add_conditions();
        condition->set_type(type);
        condition->set_status(good);
      }
      return Result<pb::StatusResponse>(std::move(out));
    });
  }

  void run_pod_sandbox(const pb::RunPodSandboxRequest& r, cri::Done<std::string> done) override {
    later<std::string>("RunPodSandbox", r.config().metadata().name(), std::move(done),
                       [this, r] { return run(r); });
  }
  void stop_pod_sandbox(const std::string& id, cri::Done<void> done) override {
    later<void>("StopPodSandbox", id, std::move(done), [this, id] {
      if (sandboxes.contains(id)) kill_sandbox(id);
      return Result<>();
    });
  }
  void remove_pod_sandbox(const std::string& id, cri::Done<void> done) override {
    later<void>("RemovePodSandbox", id, std::move(done), [this, id] {
      std::erase_if(containers, [&](const auto& c) { return c.second.sandbox == id; });
      sandboxes.erase(id);
      return Result<>();
    });
  }
  void pod_sandbox_status(const std::string& id, bool,
                          cri::Done<pb::PodSandboxStatusResponse> done) override {
    later<pb::PodSandboxStatusResponse>("PodSandboxStatus", "", std::move(done),
                                        [this, id]() -> Result<pb::PodSandboxStatusResponse> {
                                          if (!sandboxes.contains(id))
                                            return not_found("sandbox", id);
                                          pb::PodSandboxStatusResponse out;
                                          *out.mutable_status() = sandboxes[id].status;
                                          return out;
                                        });
  }
  void list_pod_sandboxes(const pb::PodSandboxFilter& f,
                          cri::Done<pb::ListPodSandboxResponse> done) override {
    later<pb::ListPodSandboxResponse>("ListPodSandbox", "", std::move(done), [this, f] {
      pb::ListPodSandboxResponse out;
      for (const auto& [id, s] : sandboxes) {
        if (!f.id().empty() && f.id() != id) continue;
        if (f.has_state() && f.state().state() != s.status.state()) continue;
        if (!selects(f.label_selector(), s.status.labels())) continue;
        auto* item = out.add_items();
        item->set_id(id);
        *item->mutable_metadata() = s.status.metadata();
        item->set_state(s.status.state());
        item->set_created_at(s.status.created_at());
        *item->mutable_labels() = s.status.labels();
        *item->mutable_annotations() = s.status.annotations();
      }
      return Result<pb::ListPodSandboxResponse>(std::move(out));
    });
  }

  void create_container(const pb::CreateContainerRequest& r, cri::Done<std::string> done) override {
    later<std::string>("CreateContainer", r.config().metadata().name(), std::move(done),
                       [this, r] { return create(r); });
  }
  void start_container(const std::string& id, cri::Done<void> done) override {
    later<void>("StartContainer", name_of(id), std::move(done), [this, id]() -> Result<> {
      if (!containers.contains(id)) return not_found("container", id);
      auto& status = containers[id].status;
      if (status.state() != pb::CONTAINER_CREATED) return in_state(id);
      status.set_state(pb::CONTAINER_RUNNING);
      status.set_started_at(now());
      return {};
    });
  }
  void stop_container(const std::string& id, Duration grace, cri::Done<void> done) override {
    later<void>("StopContainer", name_of(id), std::move(done), [this, id, grace] {
      bool killed = ignores_term || grace <= Duration::zero();
      if (containers.contains(id)) exit_container(id, killed ? 137 : 143);
      return Result<>();
    });
  }
  void remove_container(const std::string& id, cri::Done<void> done) override {
    later<void>("RemoveContainer", name_of(id), std::move(done), [this, id] {
      containers.erase(id);
      return Result<>();
    });
  }
  void container_status(const std::string& id, bool,
                        cri::Done<pb::ContainerStatusResponse> done) override {
    later<pb::ContainerStatusResponse>("ContainerStatus", "", std::move(done),
                                       [this, id]() -> Result<pb::ContainerStatusResponse> {
                                         if (!containers.contains(id))
                                           return not_found("container", id);
                                         pb::ContainerStatusResponse out;
                                         *out.mutable_status() = containers[id].status;
                                         return out;
                                       });
  }
  void list_containers(const pb::ContainerFilter& f,
                       cri::Done<pb::ListContainersResponse> done) override {
    later<pb::ListContainersResponse>("ListContainers", "", std::move(done), [this, f] {
      pb::ListContainersResponse out;
      for (const auto& [id, c] : containers) {
        if (f.has_state() && f.state().state() != c.status.state()) continue;
        if (!selected(f, id, c)) continue;
        auto* item = out.add_containers();
        item->set_id(id);
        item->set_pod_sandbox_id(c.sandbox);
        *item->mutable_metadata() = c.status.metadata();
        *item->mutable_image() = c.status.image();
        item->set_image_ref(c.status.image_ref());
        item->set_state(c.status.state());
        item->set_created_at(c.status.created_at());
        *item->mutable_labels() = c.status.labels();
        *item->mutable_annotations() = c.status.annotations();
      }
      return Result<pb::ListContainersResponse>(std::move(out));
    });
  }
  void update_container_resources(const pb::UpdateContainerResourcesRequest& r,
                                  cri::Done<void> done) override {
    later<void>("UpdateContainerResources", name_of(r.container_id()), std::move(done),
                [this, r]() -> Result<> {
                  if (!containers.contains(r.container_id()))
                    return not_found("container", r.container_id());
                  containers[r.container_id()].resources = r.linux();
                  return {};
                });
  }
  void container_stats(const std::string& id, cri::Done<pb::ContainerStats> done) override {
    later<pb::ContainerStats>("ContainerStats", "", std::move(done),
                              [this, id]() -> Result<pb::ContainerStats> {
                                if (!containers.contains(id)) return not_found("container", id);
                                return stats_of(id);
                              });
  }
  void list_container_stats(const pb::ContainerStatsFilter& f,
                            cri::Done<pb::ListContainerStatsResponse> done) override {
    later<pb::ListContainerStatsResponse>("ListContainerStats", "", std::move(done), [this, f] {
      pb::ListContainerStatsResponse out;
      for (const auto& [id, c] : containers)
        if (c.status.state() == pb::CONTAINER_RUNNING && selected(f, id, c))
          *out.add_stats() = stats_of(id);
      return Result<pb::ListContainerStatsResponse>(std::move(out));
    });
  }
  void reopen_container_log(const std::string& id, cri::Done<void> done) override {
    later<void>("ReopenContainerLog", name_of(id), std::move(done), [this, id]() -> Result<> {
      if (!running(id)) return in_state(id);
      ++containers[id].log_reopened;
      return {};
    });
  }
  void exec_sync(const std::string& id, const std::vector<std::string>& command, Duration,
                 cri::Done<pb::ExecSyncResponse> done) override {
    later<pb::ExecSyncResponse>("ExecSync", name_of(id), std::move(done),
                                [this, id, command]() -> Result<pb::ExecSyncResponse> {
                                  if (!running(id)) return in_state(id);
                                  return on_exec ? on_exec(id, command) : pb::ExecSyncResponse();
                                });
  }
  void exec(const pb::ExecRequest& r, cri::Done<std::string> done) override {
    url("Exec", r.container_id(), std::move(done));
  }
  void attach(const pb::AttachRequest& r, cri::Done<std::string> done) override {
    url("Attach", r.container_id(), std::move(done));
  }
  void port_forward(const pb::PortForwardRequest& r, cri::Done<std::string> done) override {
    later<std::string>("PortForward", r.pod_sandbox_id(), std::move(done),
                       [this, id = r.pod_sandbox_id()]() -> Result<std::string> {
                         if (!sandboxes.contains(id)) return not_found("sandbox", id);
                         return "http://127.0.0.1:1/portforward/" + id;
                       });
  }

  void list_images(cri::Done<pb::ListImagesResponse> done) override {
    later<pb::ListImagesResponse>("ListImages", "", std::move(done), [this] {
      pb::ListImagesResponse out;
      for (const auto& [name, image] : images) *out.add_images() = image;
      return Result<pb::ListImagesResponse>(std::move(out));
    });
  }
  void image_status(const std::string& image, cri::Done<pb::ImageStatusResponse> done) override {
    later<pb::ImageStatusResponse>("ImageStatus", "", std::move(done), [this, image] {
      pb::ImageStatusResponse out;
      if (const pb::Image* found = find_image(image)) *out.mutable_image() = *found;
      return Result<pb::ImageStatusResponse>(std::move(out));
    });
  }
  void pull_image(const pb::PullImageRequest& r, cri::Done<std::string> done) override {
    later<std::string>("PullImage", r.image().image(), std::move(done),
                       [this, r]() -> Result<std::string> {
                         pulls.push_back(r);
                         const std::string name = full_name(r.image().image());
                         if (!registry.contains(name))
                           return fail(ErrorCode::kNotFound, "{}: not found", name);
                         if (!images.contains(name)) add_image(name);
                         return images[name].id();
                       });
  }
  void remove_image(const std::string& image, cri::Done<void> done) override {
    later<void>("RemoveImage", image, std::move(done), [this, image] {
      std::erase_if(images, [&](const auto& i) {
        return i.second.id() == image || i.first == full_name(image);
      });
      return Result<>();
    });
  }
  void image_fs_info(cri::Done<pb::ImageFsInfoResponse> done) override {
    later<pb::ImageFsInfoResponse>("ImageFsInfo", "", std::move(done), [this] {
      pb::ImageFsInfoResponse out;
      uint64_t used = 0;
      for (const auto& [name, image] : images) used += image.size();
      auto* fs = out.add_image_filesystems();
      fs->mutable_fs_id()->set_mountpoint("/var/lib/fake");
      fs->mutable_used_bytes()->set_value(used);
      return Result<pb::ImageFsInfoResponse>(std::move(out));
    });
  }

 private:
  void url(const char* method, const std::string& id, cri::Done<std::string> done) {
    later<std::string>(method, name_of(id), std::move(done), [this, id]() -> Result<std::string> {
      if (!running(id)) return in_state(id);
      return "http://127.0.0.1:1/stream/" + id;
    });
  }
  Result<std::string> run(const pb::RunPodSandboxRequest& r);
  Result<std::string> create(const pb::CreateContainerRequest& r);
};

inline Result<std::string> FakeRuntime::run(const pb::RunPodSandboxRequest& r) {
  for (const auto& [id, other] : sandboxes)
    if (other.config.metadata().SerializeAsString() == r.config().metadata().SerializeAsString())
      return fail(ErrorCode::kUnavailable, "failed to reserve sandbox name: reserved for \"{}\"",
                  id);
  std::string id = make_id();
  Sandbox& made = sandboxes[id];
  made.config = r.config();
  made.status.set_id(id);
  *made.status.mutable_metadata() = r.config().metadata();
  made.status.set_created_at(now());
  *made.status.mutable_labels() = r.config().labels();
  *made.status.mutable_annotations() = r.config().annotations();
  auto* options = made.status.mutable_linux()->mutable_namespaces()->mutable_options();
  *options = r.config().linux().security_context().namespace_options();
  if (options->network() != pb::NODE)
    made.status.mutable_network()->set_ip(fmt::format("10.88.0.{}", next_id_ % 250 + 2));
  return id;
}

inline Result<std::string> FakeRuntime::create(const pb::CreateContainerRequest& r) {
  if (!r.sandbox_config().has_metadata() || !r.config().has_metadata())
    return fail(ErrorCode::kInvalidArgument, "the request has no metadata");
  auto sandbox = sandboxes.find(r.pod_sandbox_id());
  if (sandbox == sandboxes.end()) return not_found("sandbox", r.pod_sandbox_id());
  if (sandbox->second.status.state() != pb::SANDBOX_READY)
    return fail(ErrorCode::kUnavailable, "sandbox container is not running");
  const pb::Image* image = find_image(r.config().image().image());
  if (image == nullptr) return not_found("image", r.config().image().image());
  for (const auto& [id, other] : containers)
    if (other.sandbox == r.pod_sandbox_id() &&
        other.config.metadata().name() == r.config().metadata().name() &&
        other.config.metadata().attempt() == r.config().metadata().attempt())
      return fail(ErrorCode::kUnavailable, "failed to reserve container name: reserved for \"{}\"",
                  id);
  std::string id = make_id();
  Container& made = containers[id];
  made.config = r.config();
  made.sandbox = r.pod_sandbox_id();
  made.resources = r.config().linux().resources();
  made.status.set_id(id);
  *made.status.mutable_metadata() = r.config().metadata();
  made.status.set_state(pb::CONTAINER_CREATED);
  made.status.set_created_at(now());
  *made.status.mutable_image() = r.config().image();
  made.status.set_image_ref(image->id());
  *made.status.mutable_labels() = r.config().labels();
  *made.status.mutable_annotations() = r.config().annotations();
  *made.status.mutable_mounts() = r.config().mounts();
  made.status.set_log_path(r.sandbox_config().log_directory() + "/" + r.config().log_path());
  return id;
}

}  // namespace edgemesh::test
