#include "agent/cri/runtime_client.h"

#include <utility>

#include "core/grpc/channel.h"

namespace edgemesh::cri {

namespace {

constexpr const char* kRuntime = "/runtime.v1.RuntimeService/";
constexpr const char* kImages = "/runtime.v1.ImageService/";
// Beyond what the runtime was given: its answer says more than our own deadline.
constexpr Duration kMargin = std::chrono::seconds(10);

int64_t whole_seconds(Duration d) {
  return std::chrono::ceil<std::chrono::seconds>(d).count();
}

bool complete(const pb::PodSandboxConfig& config) {
  return config.has_metadata() && !config.metadata().name().empty();
}

class GrpcRuntimeClient final : public RuntimeClient {
 public:
  GrpcRuntimeClient(io::Loop& loop, std::unique_ptr<grpc::Channel> channel,
                    const RuntimeOptions& options)
      : loop_(loop), options_(options), channel_(std::move(channel)) {}

  void version(Done<pb::VersionResponse> done) override {
    pb::VersionRequest request;
    request.set_version("v1");
    call(kRuntime, "Version", request, options_.timeout, std::move(done));
  }
  void status(bool verbose, Done<pb::StatusResponse> done) override {
    pb::StatusRequest request;
    request.set_verbose(verbose);
    call(kRuntime, "Status", request, options_.timeout, std::move(done));
  }

  void run_pod_sandbox(const pb::RunPodSandboxRequest& request, Done<std::string> done) override {
    if (!complete(request.config())) return refuse("RunPodSandbox", std::move(done));
    pick<pb::RunPodSandboxResponse>(
        kRuntime, "RunPodSandbox", request, options_.sandbox_timeout, std::move(done),
        [](auto& answer) { return std::move(*answer.mutable_pod_sandbox_id()); });
  }
  void stop_pod_sandbox(const std::string& sandbox, Done<void> done) override {
    pb::StopPodSandboxRequest request;
    request.set_pod_sandbox_id(sandbox);
    command(kRuntime, "StopPodSandbox", request, options_.sandbox_timeout, std::move(done));
  }
  void remove_pod_sandbox(const std::string& sandbox, Done<void> done) override {
    pb::RemovePodSandboxRequest request;
    request.set_pod_sandbox_id(sandbox);
    command(kRuntime, "RemovePodSandbox", request, options_.sandbox_timeout, std::move(done));
  }
  void pod_sandbox_status(const std::string& sandbox, bool verbose,
                          Done<pb::PodSandboxStatusResponse> done) override {
    pb::PodSandboxStatusRequest request;
    request.set_pod_sandbox_id(sandbox);
    request.set_verbose(verbose);
    call(kRuntime, "PodSandboxStatus", request, options_.timeout, std::move(done));
  }
  void list_pod_sandboxes(const pb::PodSandboxFilter& filter,
                          Done<pb::ListPodSandboxResponse> done) override {
    pb::ListPodSandboxRequest request;
    *request.mutable_filter() = filter;
    call(kRuntime, "ListPodSandbox", request, options_.timeout, std::move(done));
  }

  void create_container(const pb::CreateContainerRequest& request,
                        Done<std::string> done) override {
    if (!complete(request.sandbox_config()) || !request.config().has_metadata() ||
        !request.config().has_image())
      return refuse("CreateContainer", std::move(done));
    pick<pb::CreateContainerResponse>(
        kRuntime, "CreateContainer", request, options_.timeout, std::move(done),
        [](auto& answer) { return std::move(*answer.mutable_container_id()); });
  }
  void start_container(const std::string& container, Done<void> done) override {
    pb::StartContainerRequest request;
    request.set_container_id(container);
    command(kRuntime, "StartContainer", request, options_.timeout, std::move(done));
  }
  void stop_container(const std::string& container, Duration grace, Done<void> done) override {
    pb::StopContainerRequest request;
    request.set_container_id(container);
    request.set_timeout(whole_seconds(grace));
    command(kRuntime, "StopContainer", request, options_.timeout + grace, std::move(done));
  }
  void remove_container(const std::string& container, Done<void> done) override {
    pb::RemoveContainerRequest request;
    request.set_container_id(container);
    command(kRuntime, "RemoveContainer", request, options_.timeout, std::move(done));
  }
  void container_status(const std::string& container, bool verbose,
                        Done<pb::ContainerStatusResponse> done) override {
    pb::ContainerStatusRequest request;
    request.set_container_id(container);
    request.set_verbose(verbose);
    call(kRuntime, "ContainerStatus", request, options_.timeout, std::move(done));
  }
  void list_containers(const pb::ContainerFilter& filter,
                       Done<pb::ListContainersResponse> done) override {
    pb::ListContainersRequest request;
    *request.mutable_filter() = filter;
    call(kRuntime, "ListContainers", request, options_.timeout, std::move(done));
  }
  void update_container_resources(const pb::UpdateContainerResourcesRequest& request,
                                  Done<void> done) override {
    command(kRuntime, "UpdateContainerResources", request, options_.timeout, std::move(done));
  }
  void container_stats(const std::string& container, Done<pb::ContainerStats> done) override {
    pb::ContainerStatsRequest request;
    request.set_container_id(container);
    pick<pb::ContainerStatsResponse>(
        kRuntime, "ContainerStats", request, options_.timeout, std::move(done),
        [](auto& answer) { return std::move(*answer.mutable_stats()); });
  }
  void list_container_stats(const pb::ContainerStatsFilter& filter,
                            Done<pb::ListContainerStatsResponse> done) override {
    pb::ListContainerStatsRequest request;
    *request.mutable_filter() = filter;
    call(kRuntime, "ListContainerStats", request, options_.timeout, std::move(done));
  }
  void reopen_container_log(const std::string& container, Done<void> done) override {
    pb::ReopenContainerLogRequest request;
    request.set_container_id(container);
    command(kRuntime, "ReopenContainerLog", request, options_.timeout, std::move(done));
  }

  void exec_sync(const std::string& container, const std::vector<std::string>& argv,
                 Duration timeout, Done<pb::ExecSyncResponse> done) override {
    pb::ExecSyncRequest request;
    request.set_container_id(container);
    for (const std::string& word : argv) request.add_cmd(word);
    request.set_timeout(whole_seconds(timeout));
    Duration limit = timeout > Duration::zero() ? timeout + kMargin : options_.timeout;
    call(kRuntime, "ExecSync", request, limit, std::move(done));
  }
  void exec(const pb::ExecRequest& request, Done<std::string> done) override {
    url<pb::ExecResponse>("Exec", request, std::move(done));
  }
  void attach(const pb::AttachRequest& request, Done<std::string> done) override {
    url<pb::AttachResponse>("Attach", request, std::move(done));
  }
  void port_forward(const pb::PortForwardRequest& request, Done<std::string> done) override {
    url<pb::PortForwardResponse>("PortForward", request, std::move(done));
  }

  void list_images(Done<pb::ListImagesResponse> done) override {
    call(kImages, "ListImages", pb::ListImagesRequest(), options_.timeout, std::move(done));
  }
  void image_status(const std::string& image, Done<pb::ImageStatusResponse> done) override {
    pb::ImageStatusRequest request;
    request.mutable_image()->set_image(image);
    call(kImages, "ImageStatus", request, options_.timeout, std::move(done));
  }
  void pull_image(const pb::PullImageRequest& request, Done<std::string> done) override {
    pick<pb::PullImageResponse>(
        kImages, "PullImage", request, options_.pull_timeout, std::move(done),
        [](auto& answer) { return std::move(*answer.mutable_image_ref()); });
  }
  void remove_image(const std::string& image, Done<void> done) override {
    pb::RemoveImageRequest request;
    request.mutable_image()->set_image(image);
    command(kImages, "RemoveImage", request, options_.timeout, std::move(done));
  }
  void image_fs_info(Done<pb::ImageFsInfoResponse> done) override {
    call(kImages, "ImageFsInfo", pb::ImageFsInfoRequest(), options_.timeout, std::move(done));
  }

 private:
  // The answer as a message; bytes that are none are the runtime's mistake.
  template <class Answer, class Request>
  void call(const char* service, const char* name, const Request& request, Duration timeout,
            Done<Answer> done) {
    std::string method = std::string(service) + name;
    channel_->unary(
        method, request.SerializeAsString(), timeout,
        [name, done = std::move(done)](Result<std::string> bytes) {
          if (!bytes) return done(fail(bytes.error().with_context(name)));
          Answer answer;
          if (!answer.ParseFromString(*bytes))
            return done(fail(ErrorCode::kProtocol, "{}: the answer is no such message", name));
          done(std::move(answer));
        });
  }
  void refuse(const char* name, Done<std::string> done) {
    loop_.post([name, alive = std::weak_ptr(alive_), done = std::move(done)] {
      if (!alive.expired())
        done(fail(ErrorCode::kInvalidArgument, "{}: the request has no metadata or image", name));
    });
  }
  // One field of the answer.
  template <class Answer, class Request, class T, class Pick>
  void pick(const char* service, const char* name, const Request& request, Duration timeout,
            Done<T> done, Pick field) {
    call<Answer>(service, name, request, timeout,
                 Done<Answer>([done = std::move(done), field](Result<Answer> answer) {
                   if (!answer) return done(fail(answer.error()));
                   done(field(*answer));
                 }));
  }
  template <class Request>
  void command(const char* service, const char* name, const Request& request, Duration timeout,
               Done<void> done) {
    call<pb::Empty>(service, name, request, timeout,
                    Done<pb::Empty>([done = std::move(done)](Result<pb::Empty> answer) {
                      if (!answer) return done(fail(answer.error()));
                      done({});
                    }));
  }
  template <class Answer, class Request>
  void url(const char* name, const Request& request, Done<std::string> done) {
    pick<Answer>(kRuntime, name, request, options_.timeout, std::move(done),
                 [](auto& answer) { return std::move(*answer.mutable_url()); });
  }

  io::Loop& loop_;
  const RuntimeOptions options_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::unique_ptr<grpc::Channel> channel_;
};

}  // namespace

Result<std::unique_ptr<RuntimeClient>> connect_runtime(io::Loop& loop,
                                                       const RuntimeOptions& options) {
  grpc::ChannelOptions how;
  how.target = options.endpoint;
  how.max_message = options.max_message;
  EM_TRY(auto channel, grpc::Channel::create(loop, how));
  return std::unique_ptr<RuntimeClient>(
      std::make_unique<GrpcRuntimeClient>(loop, std::move(channel), options));
}

}  // namespace edgemesh::cri
