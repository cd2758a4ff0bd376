// Pod: what edged needs of a Pod object of the Kubernetes API, with the API's defaults filled in.
// Values; pure functions, thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/clock.h"
#include "core/base/result.h"

namespace edgemesh::edged {

enum class RestartPolicy { kAlways, kOnFailure, kNever };
enum class PullPolicy { kIfNotPresent, kAlways, kNever };

// What a probe or a life-cycle hook does.
struct Handler {
  enum class Kind { kExec, kHttp, kTcp, kGrpc, kSleep };
  Kind kind = Kind::kExec;
  std::vector<std::string> command;
  std::string host;    // HTTP, TCP; empty: the pod's address
  std::string port;    // a number or the name of a port
  std::string path;    // HTTP
  std::string scheme;  // HTTP or HTTPS
  std::vector<std::pair<std::string, std::string>> headers;
  std::string service;  // gRPC
  Duration sleep{};
};

struct Probe {
  Handler handler;
  Duration initial_delay{};
  Duration period = std::chrono::seconds(10);
  Duration timeout = std::chrono::seconds(1);
  int success_threshold = 1, failure_threshold = 3;
  std::optional<Duration> grace;  // of the container when this probe ends it
};

struct ContainerPort {
  std::string name, protocol = "TCP", host_ip;
  int container_port = 0, host_port = 0;
};

struct Container {
  std::string name, image;
  PullPolicy pull_policy = PullPolicy::kIfNotPresent;
  std::vector<ContainerPort> ports;
  std::optional<Probe> liveness, readiness, startup;
  std::optional<Handler> post_start, pre_stop;
  bool restart_always = false;  // of an init container: a sidecar
  std::string termination_path = "/dev/termination-log";
  bool message_from_logs = false;  // terminationMessagePolicy FallbackToLogsOnError
  std::string hash;                // of what makes a new container necessary when it changes
  // The container as it was written: what is translated to the runtime's request.
  std::shared_ptr<const nlohmann::json> json;
};

struct Pod {
  std::string uid, ns, name, node_name;
  std::map<std::string, std::string> labels, annotations;
  std::vector<Container> init_containers, containers;
  RestartPolicy restart_policy = RestartPolicy::kAlways;
  Duration grace = std::chrono::seconds(30);  // terminationGracePeriodSeconds
  std::optional<Duration> deletion_grace;     // set: its deletion was asked for
  std::optional<Duration> active_deadline;
  bool host_network = false;
  std::vector<std::string> pull_secrets;
  int64_t start_time_s = 0;  // of its status: Unix seconds, 0: it has none
  std::string source;        // annotation kubernetes.io/config.source
  // The whole object.
  std::shared_ptr<const nlohmann::json> json;
};

// kInvalidArgument: not a Pod that can be run; the message says what is wrong.
Result<Pod> parse_pod(std::string_view json);

}  // namespace edgemesh::edged
