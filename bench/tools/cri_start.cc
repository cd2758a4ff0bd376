// cri_start: how long a container runtime alone needs for a pod of one container.
//   cri_start SOCKET IMAGE LOG-DIRECTORY CGROUP COUNT
// Prints milliseconds from RunPodSandbox to the answer of StartContainer, one line a pod, by the
// agent's own client; two more pods warm up. Removes them again.
#include <fmt/core.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

#include "agent/cri/runtime_client.h"

namespace {

using namespace edgemesh;  // NOLINT(google-build-using-namespace): the program's own file
namespace pb = ::runtime::v1;

class Runtime {
 public:
  explicit Runtime(const std::string& socket) {
    cri::RuntimeOptions options;
    options.endpoint = "unix://" + socket;
    client_ = cri::connect_runtime(*loop_, options).value();
  }

  template <class T, class Start>
  T need(const char* what, Start start) {
    std::optional<Result<T>> got;
    start(cri::Done<T>([&](Result<T> r) { got.emplace(std::move(r)); }));
    if (!loop_->run_until([&] { return got.has_value(); }, std::chrono::seconds(60)) || !*got) {
      fmt::print(stderr, "{}: {}\n", what, got ? got->error().message : "no answer");
      std::exit(1);
    }
    if constexpr (!std::is_void_v<T>) return std::move(**got);
  }

  double start(int number, const std::string& image, const std::string& logs,
               const std::string& cgroup) {
    pb::RunPodSandboxRequest run;
    auto& config = *run.mutable_config();
    config.mutable_metadata()->set_name(fmt::format("alone-{}", number));
    config.mutable_metadata()->set_namespace_("bench");
    config.mutable_metadata()->set_uid(fmt::format("alone-{}", number));
    config.set_log_directory(logs);
    config.mutable_linux()->set_cgroup_parent(cgroup);
    config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_pid(
        pb::CONTAINER);
    const auto begun = std::chrono::steady_clock::now();
    const auto sandbox = need<std::string>(
        "RunPodSandbox", [&](auto done) { client_->run_pod_sandbox(run, std::move(done)); });
    pb::CreateContainerRequest create;
    create.set_pod_sandbox_id(sandbox);
    *create.mutable_sandbox_config() = config;
    auto& container = *create.mutable_config();
    container.mutable_metadata()->set_name("main");
    container.mutable_image()->set_image(image);
    container.add_command("sleep");
    container.add_command("3600");
    container.set_log_path(fmt::format("{}.log", number));
    container.mutable_linux();
    const auto id = need<std::string>(
        "CreateContainer", [&](auto done) { client_->create_container(create, std::move(done)); });
    need<void>("StartContainer", [&](auto done) { client_->start_container(id, std::move(done)); });
    const auto took = std::chrono::steady_clock::now() - begun;
    need<void>("StopPodSandbox",
               [&](auto done) { client_->stop_pod_sandbox(sandbox, std::move(done)); });
    need<void>("RemovePodSandbox",
               [&](auto done) { client_->remove_pod_sandbox(sandbox, std::move(done)); });
    return std::chrono::duration<double, std::milli>(took).count();
  }

 private:
  std::unique_ptr<io::Loop> loop_ = io::Loop::create().value();
  std::unique_ptr<cri::RuntimeClient> client_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    fmt::print(stderr, "usage: cri_start SOCKET IMAGE LOG-DIRECTORY CGROUP COUNT\n");
    return 2;
  }
  Runtime runtime(argv[1]);
  for (int i = -2; i < std::atoi(argv[5]); ++i) {
    const double took = runtime.start(i + 2, argv[2], argv[3], argv[4]);
    if (i >= 0) fmt::print("{:.3f}\n", took);
  }
  return 0;
}
