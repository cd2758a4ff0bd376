// Walks one pod through a real container runtime with the agent's own client, and checks each
// answer:
//   cri_walk SOCKET IMAGE LOG-DIRECTORY CGROUP host|cni
// Prints a line a step with its time; exit code 1 at the first that is not as it should be.
#include <fmt/core.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

#include "agent/cri/runtime_client.h"

namespace {

using namespace std::chrono_literals;
using namespace edgemesh;
namespace pb = ::runtime::v1;

void check(bool good, std::string_view what) {
  if (good) return;
  fmt::print("FAIL {}\n", what);
  std::exit(1);
}

class Walk {
 public:
  Walk(const std::string& socket, std::string image, std::string logs, std::string cgroup,
       bool host_network)
      : image_(std::move(image)),
        logs_(std::move(logs)),
        cgroup_(std::move(cgroup)),
        host_network_(host_network) {
    cri::RuntimeOptions options;
    options.endpoint = "unix://" + socket;
    options.timeout = 15s;
    client_ = cri::connect_runtime(*loop_, options).value();
  }
  void run() {
    look();
    make();
    use();
    fail_in_order();
    end();
  }

 private:
  template <class T, class Start>
  Result<T> ask(const char* what, Start start) {
    std::optional<Result<T>> got;
    auto begin = std::chrono::steady_clock::now();
    start(cri::Done<T>([&](Result<T> r) { got.emplace(std::move(r)); }));
    check(loop_->run_until([&] { return got.has_value(); }, 60s),
          fmt::format("{}: no answer", what));
    auto took = std::chrono::steady_clock::now() - begin;
    fmt::print("{:8.1f} ms  {}{}\n", std::chrono::duration<double, std::milli>(took).count(), what,
               *got ? "" : ": " + got->error().message);
    return std::move(*got);
  }
  template <class T, class Start>
  T need(const char* what, Start start) {
    Result<T> got = ask<T>(what, std::move(start));
    check(got.has_value(), what);
    if constexpr (!std::is_void_v<T>) return std::move(*got);
  }

  void look();
  void make();
  void use();
  void fail_in_order();
  void end();
  pb::ContainerStatus status() {
    return need<pb::ContainerStatusResponse>(
               "ContainerStatus",
               [&](auto done) { client_->container_status(container_, false, std::move(done)); })
        .status();
  }
  pb::ExecSyncResponse exec(const std::vector<std::string>& argv) {
    return need<pb::ExecSyncResponse>(
        "ExecSync", [&](auto done) { client_->exec_sync(container_, argv, 10s, std::move(done)); });
  }
  std::string log_text() const {
    std::ifstream file(logs_ + "/main/0.log");
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::unique_ptr<io::Loop> loop_ = io::Loop::create().value();
  std::unique_ptr<cri::RuntimeClient> client_;
  std::string image_, logs_, cgroup_;
  bool host_network_;
  pb::PodSandboxConfig config_;
  std::string sandbox_, container_;
};

void Walk::look() {
  auto version =
      need<pb::VersionResponse>("Version", [&](auto done) { client_->version(std::move(done)); });
  check(version.runtime_api_version() == "v1", "the API's version");
  fmt::print("             {} {}\n", version.runtime_name(), version.runtime_version());
  auto state = need<pb::StatusResponse>(
      "Status", [&](auto done) { client_->status(false, std::move(done)); });
  for (const auto& condition : state.status().conditions()) {
    if (condition.type() == "RuntimeReady") check(condition.status(), "the runtime is ready");
    if (condition.type() == "NetworkReady")
      check(condition.status() != host_network_,
            "the network is ready where there is a CNI configuration");
  }
  auto image = need<pb::ImageStatusResponse>(
      "ImageStatus", [&](auto done) { client_->image_status(image_, std::move(done)); });
  check(image.has_image() && !image.image().id().empty() && image.image().size() > 0,
        "the image is there");
  auto none = need<pb::ImageStatusResponse>(
      "ImageStatus of none", [&](auto done) { client_->image_status("none:1", std::move(done)); });
  check(!none.has_image(), "an image that is not there is no error");
  auto images = need<pb::ListImagesResponse>(
      "ListImages", [&](auto done) { client_->list_images(std::move(done)); });
  check(images.images_size() >= 2, "the images are listed");
  auto disk = need<pb::ImageFsInfoResponse>(
      "ImageFsInfo", [&](auto done) { client_->image_fs_info(std::move(done)); });
  check(disk.image_filesystems_size() == 1, "the images' file system");
}

void Walk::make() {
  pb::RunPodSandboxRequest run;
  auto& config = config_;
  config.mutable_metadata()->set_name("walk");
  config.mutable_metadata()->set_namespace_("default");
  config.mutable_metadata()->set_uid("uid-walk");
  config.set_hostname(host_network_ ? "" : "walk");
  config.set_log_directory(logs_);
  (*config.mutable_labels())["io.kubernetes.pod.name"] = "walk";
  auto& options = *config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  options.set_network(host_network_ ? pb::NODE : pb::POD);
  options.set_pid(pb::CONTAINER);
  config.mutable_linux()->set_cgroup_parent(cgroup_);
  *run.mutable_config() = config;
  sandbox_ = need<std::string>("RunPodSandbox",
                               [&](auto done) { client_->run_pod_sandbox(run, std::move(done)); });
  auto status = need<pb::PodSandboxStatusResponse>("PodSandboxStatus", [&](auto done) {
                  client_->pod_sandbox_status(sandbox_, false, std::move(done));
                }).status();
  check(status.state() == pb::SANDBOX_READY, "the sandbox is ready");
  check(status.network().ip().empty() == host_network_,
        "an address exactly with a network of its own");
  fmt::print("             address '{}'\n", status.network().ip());
  pb::PodSandboxFilter filter;
  (*filter.mutable_label_selector())["io.kubernetes.pod.name"] = "walk";
  auto list = need<pb::ListPodSandboxResponse>(
      "ListPodSandbox", [&](auto done) { client_->list_pod_sandboxes(filter, std::move(done)); });
  check(list.items_size() == 1 && list.items(0).id() == sandbox_, "it is listed by its label");

  pb::CreateContainerRequest create;
  create.set_pod_sandbox_id(sandbox_);
  *create.mutable_sandbox_config() = config;
  auto& container = *create.mutable_config();
  container.mutable_metadata()->set_name("main");
  container.mutable_image()->set_image(image_);
  for (const char* word : {"/bin/sh", "-c"}) container.add_command(word);
  container.add_args("trap 'exit 7' TERM; echo \"$GREETING\"; while :; do sleep 0.1; done");
  auto& env = *container.add_envs();
  env.set_key("GREETING");
  env.set_value("hello from the pod");
  container.set_log_path("main/0.log");
  container.mutable_linux()->mutable_resources()->set_memory_limit_in_bytes(64 << 20);
  std::filesystem::create_directories(logs_ + "/main");
  container_ = need<std::string>(
      "CreateContainer", [&](auto done) { client_->create_container(create, std::move(done)); });
  check(this->status().state() == pb::CONTAINER_CREATED, "created");
  need<void>("StartContainer",
             [&](auto done) { client_->start_container(container_, std::move(done)); });
  check(this->status().state() == pb::CONTAINER_RUNNING, "running");
}

void Walk::use() {
  auto out = exec({"sh", "-c", "echo out; echo err >&2; exit 5"});
  check(out.exit_code() == 5 && out.stdout() == "out\n" && out.stderr() == "err\n",
        "output and exit code");
  out = exec({"sh", "-c", "dd if=/dev/zero bs=1024 count=3000 2>/dev/null"});
  check(out.stdout().size() == 3000 * 1024, "3 MB of output, beyond every window of HTTP/2");
  pb::UpdateContainerResourcesRequest update;
  update.set_container_id(container_);
  update.mutable_linux()->set_memory_limit_in_bytes(32 << 20);
  need<void>("UpdateContainerResources",
             [&](auto done) { client_->update_container_resources(update, std::move(done)); });
  auto stats = need<pb::ContainerStats>(
      "ContainerStats", [&](auto done) { client_->container_stats(container_, std::move(done)); });
  check(stats.memory().working_set_bytes().value() > 0, "memory in use");
  auto all = need<pb::ListContainerStatsResponse>("ListContainerStats", [&](auto done) {
    client_->list_container_stats(pb::ContainerStatsFilter(), std::move(done));
  });
  check(all.stats_size() == 1, "one container has figures");

  pb::ExecRequest request;
  request.set_container_id(container_);
  request.add_cmd("true");
  request.set_stdout(true);
  auto url = need<std::string>("Exec", [&](auto done) { client_->exec(request, std::move(done)); });
  check(url.starts_with("http://127.0.0.1:"), "a URL of the streaming server: " + url);
  pb::AttachRequest attach;
  attach.set_container_id(container_);
  attach.set_stdout(true);
  need<std::string>("Attach", [&](auto done) { client_->attach(attach, std::move(done)); });
  pb::PortForwardRequest forward;
  forward.set_pod_sandbox_id(sandbox_);
  forward.add_port(80);
  need<std::string>("PortForward",
                    [&](auto done) { client_->port_forward(forward, std::move(done)); });

  auto old = log_text();
  check(old.find("stdout F hello from the pod") != std::string::npos, "the log: " + old);
  std::filesystem::rename(logs_ + "/main/0.log", logs_ + "/main/0.log.1");
  need<void>("ReopenContainerLog",
             [&](auto done) { client_->reopen_container_log(container_, std::move(done)); });
  check(std::filesystem::exists(logs_ + "/main/0.log"), "a fresh log");
}

void Walk::fail_in_order() {
  auto absent = ask<pb::ContainerStatusResponse>("ContainerStatus of none", [&](auto done) {
    client_->container_status("none", false, std::move(done));
  });
  check(!absent && absent.error().code == ErrorCode::kNotFound, "kNotFound");
  auto again = ask<void>("StartContainer again",
                         [&](auto done) { client_->start_container(container_, std::move(done)); });
  check(!again, "a container that runs cannot be started");
  pb::CreateContainerRequest create;
  create.set_pod_sandbox_id(sandbox_);
  create.mutable_config()->mutable_metadata()->set_name("other");
  create.mutable_config()->mutable_image()->set_image("none:1");
  create.mutable_config()->set_log_path("main/1.log");
  *create.mutable_sandbox_config() = config_;
  auto no_image = ask<std::string>("CreateContainer without image", [&](auto done) {
    client_->create_container(create, std::move(done));
  });
  check(!no_image && no_image.error().code == ErrorCode::kNotFound, "kNotFound for an image");
  auto slow = ask<pb::ExecSyncResponse>("ExecSync beyond its time", [&](auto done) {
    client_->exec_sync(container_, {"sleep", "30"}, 1s, std::move(done));
  });
  check(!slow && slow.error().code == ErrorCode::kTimeout, "kTimeout");
}

void Walk::end() {
  need<void>("StopContainer",
             [&](auto done) { client_->stop_container(container_, 5s, std::move(done)); });
  auto ended = status();
  check(ended.state() == pb::CONTAINER_EXITED && ended.exit_code() == 7,
        fmt::format("SIGTERM was obeyed: exit code {}", ended.exit_code()));
  check(ended.finished_at() > ended.started_at(), "its times");
  for (int i = 0; i < 2; ++i)
    need<void>("RemoveContainer",
               [&](auto done) { client_->remove_container(container_, std::move(done)); });
  for (int i = 0; i < 2; ++i)
    need<void>("StopPodSandbox",
               [&](auto done) { client_->stop_pod_sandbox(sandbox_, std::move(done)); });
  auto status = need<pb::PodSandboxStatusResponse>("PodSandboxStatus", [&](auto done) {
    client_->pod_sandbox_status(sandbox_, false, std::move(done));
  });
  check(status.status().state() == pb::SANDBOX_NOTREADY, "the sandbox is stopped");
  for (int i = 0; i < 2; ++i)
    need<void>("RemovePodSandbox",
               [&](auto done) { client_->remove_pod_sandbox(sandbox_, std::move(done)); });
  auto pods = need<pb::ListPodSandboxResponse>("ListPodSandbox", [&](auto done) {
    client_->list_pod_sandboxes(pb::PodSandboxFilter(), std::move(done));
  });
  auto left = need<pb::ListContainersResponse>("ListContainers", [&](auto done) {
    client_->list_containers(pb::ContainerFilter(), std::move(done));
  });
  check(pods.items_size() == 0 && left.containers_size() == 0, "nothing is left");
  // The registry is out of reach here; asking for a pull must end in an error, not hang.
  pb::PullImageRequest pull;
  pull.mutable_image()->set_image("127.0.0.1:1/none:1");
  pull.mutable_auth()->set_username("me");
  pull.mutable_auth()->set_password("secret");
  auto pulled =
      ask<std::string>("PullImage", [&](auto done) { client_->pull_image(pull, std::move(done)); });
  check(!pulled && pulled.error().message.find("secret") == std::string::npos,
        "a pull that cannot work fails");
  need<void>("RemoveImage", [&](auto done) { client_->remove_image(image_, std::move(done)); });
  auto image = need<pb::ImageStatusResponse>(
      "ImageStatus", [&](auto done) { client_->image_status(image_, std::move(done)); });
  check(!image.has_image(), "the image is gone");
  fmt::print("walked\n");
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (argc != 6) {
    fmt::print(stderr, "usage: cri_walk SOCKET IMAGE LOG-DIRECTORY CGROUP host|cni\n");
    return 2;
  }
  Walk(argv[1], argv[2], argv[3], argv[4], std::string_view(argv[5]) == "host").run();
  return 0;
}
