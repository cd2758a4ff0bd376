// RuntimeClient: what edged asks of a container runtime (Kubernetes' CRI v1: containerd, CRI-O).
// The messages are the protocol's own (proto/cri.proto). Every call answers once, in a later turn
// of the loop; none after the client was destroyed, which is allowed in any callback.
//
// What runtimes do, that callers count on:
// - Stopping and removing what is gone already succeeds. Asking for its status is kNotFound.
// - image_status() of an image that is not there succeeds, with no `image` in the answer.
// - stop_pod_sandbox() stops the containers; remove_pod_sandbox() removes them.
// - containerd 1.6 dies of a request without the metadata of pod or container: such requests are
// not
//   sent, they fail with kInvalidArgument.
// - exec(), attach() and port_forward() give a URL of the runtime's streaming server, good once,
//   for about a minute, reachable from the runtime's network namespace.
// Errors: kUnavailable when the runtime is not there, broke off, or failed for a reason of its own
// (gRPC UNKNOWN: the message is all there is); kProtocol when it does not know the call; kTimeout.
// Threads: the loop given.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/base/clock.h"
#include "core/base/function.h"
#include "core/base/result.h"
#include "core/io/loop.h"
#include "proto/cri.pb.h"

namespace edgemesh::cri {

namespace pb = ::runtime::v1;

template <class T>
using Done = UniqueFunction<void(Result<T>)>;

class RuntimeClient {
 public:
  virtual ~RuntimeClient() = default;

  virtual void version(Done<pb::VersionResponse> done) = 0;
  // Conditions RuntimeReady and NetworkReady; `verbose`: the runtime's configuration in `info`.
  virtual void status(bool verbose, Done<pb::StatusResponse> done) = 0;

  // Makes the sandbox and its network, and starts it. The answer is its id. Slow (CNI, a disk).
  virtual void run_pod_sandbox(const pb::RunPodSandboxRequest& request, Done<std::string> done) = 0;
  virtual void stop_pod_sandbox(const std::string& sandbox, Done<void> done) = 0;
  virtual void remove_pod_sandbox(const std::string& sandbox, Done<void> done) = 0;
  virtual void pod_sandbox_status(const std::string& sandbox, bool verbose,
                                  Done<pb::PodSandboxStatusResponse> done) = 0;
  virtual void list_pod_sandboxes(const pb::PodSandboxFilter& filter,
                                  Done<pb::ListPodSandboxResponse> done) = 0;

  // The answer is the container's id. `sandbox_config` is the one that the sandbox was made with.
  virtual void create_container(const pb::CreateContainerRequest& request,
                                Done<std::string> done) = 0;
  virtual void start_container(const std::string& container, Done<void> done) = 0;
  // The stop signal, after `grace` SIGKILL. Zero: SIGKILL at once. Whole seconds, rounded up.
  virtual void stop_container(const std::string& container, Duration grace, Done<void> done) = 0;
  virtual void remove_container(const std::string& container, Done<void> done) = 0;
  virtual void container_status(const std::string& container, bool verbose,
                                Done<pb::ContainerStatusResponse> done) = 0;
  virtual void list_containers(const pb::ContainerFilter& filter,
                               Done<pb::ListContainersResponse> done) = 0;
  virtual void update_container_resources(const pb::UpdateContainerResourcesRequest& request,
                                          Done<void> done) = 0;
  virtual void container_stats(const std::string& container, Done<pb::ContainerStats> done) = 0;
  virtual void list_container_stats(const pb::ContainerStatsFilter& filter,
                                    Done<pb::ListContainerStatsResponse> done) = 0;
  // After the log file was renamed.
  virtual void reopen_container_log(const std::string& container, Done<void> done) = 0;

  // Runs a command to its end; `timeout` zero: no limit but the client's own. A command that fails
  // is a value with its exit code.
  virtual void exec_sync(const std::string& container, const std::vector<std::string>& command,
                         Duration timeout, Done<pb::ExecSyncResponse> done) = 0;
  virtual void exec(const pb::ExecRequest& request, Done<std::string> done) = 0;
  virtual void attach(const pb::AttachRequest& request, Done<std::string> done) = 0;
  virtual void port_forward(const pb::PortForwardRequest& request, Done<std::string> done) = 0;

  virtual void list_images(Done<pb::ListImagesResponse> done) = 0;
  virtual void image_status(const std::string& image, Done<pb::ImageStatusResponse> done) = 0;
  // Always asks the registry, whatever is there already. The answer is the image's reference.
  virtual void pull_image(const pb::PullImageRequest& request, Done<std::string> done) = 0;
  virtual void remove_image(const std::string& image, Done<void> done) = 0;
  virtual void image_fs_info(Done<pb::ImageFsInfoResponse> done) = 0;
};

struct RuntimeOptions {
  std::string endpoint = "unix:///run/containerd/containerd.sock";
  Duration timeout = std::chrono::minutes(2);  // of calls without one of their own
  Duration sandbox_timeout = std::chrono::minutes(4);
  Duration pull_timeout = std::chrono::minutes(30);
  size_t max_message = 16 << 20;
};

// Connects with the first call, and again after the runtime was away. kInvalidArgument: `endpoint`.
Result<std::unique_ptr<RuntimeClient>> connect_runtime(io::Loop& loop,
                                                       const RuntimeOptions& options);

}  // namespace edgemesh::cri
