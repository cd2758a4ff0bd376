// From a pod to what the runtime is asked for: the configuration of its sandbox and of its
// containers, as kubelet writes them, so that tools and the next run of the agent read them.
// Pure but for ObjectSource. Errors read as a container's CreateContainerConfigError shows them
// (`configmap "x" not found`).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/edged/spec/fields.h"
#include "agent/edged/spec/object_source.h"
#include "agent/edged/spec/pod_spec.h"
#include "agent/edged/spec/resources.h"
#include "core/base/net_addr.h"

namespace edgemesh::edged {

struct DnsSettings {
  std::vector<std::string> servers, searches, options;
};
// The lines of a resolv.conf.
DnsSettings read_resolv_conf(std::string_view text);

struct NodeContext {
  FieldContext fields;  // without pod_ips
  std::string log_root = "/var/log/pods";
  std::string cgroup_root = "/kubepods";
  std::string seccomp_root;     // of profiles of type Localhost
  bool seccomp_default = true;  // RuntimeDefault where a pod says nothing
  DnsSettings host_dns;
  std::vector<std::string> cluster_dns;  // the mesh's on this node; empty: pods get the host's
  std::string cluster_domain = "cluster.local";
  // The Service by which programs in pods find the API; none: it is not known.
  std::optional<SockAddr> api_service;
};

using Env = std::vector<std::pair<std::string, std::string>>;

// Whom an image says it runs as: a number, else a name; neither: root.
struct ImageUser {
  std::optional<int64_t> uid;
  std::string name;
};

struct ContainerInputs {
  uint32_t attempt = 0;
  Env env;                        // of container_env()
  std::vector<pb::Mount> mounts;  // volumes, hosts file, termination log
  // None: not known yet. A container with runAsNonRoot and no user of its own waits for it.
  std::optional<ImageUser> image_user = {};
};

std::string log_folder(const Pod& pod, const NodeContext& node);

pb::PodSandboxConfig sandbox_config(const Pod& pod, const NodeContext& node, uint32_t attempt);

// Variables: envFrom, env, with $(NAME) replaced, those of the API server first.
Result<Env> container_env(const Pod& pod, const Container& container, const NodeContext& node,
                          const std::vector<std::string>& pod_ips, ObjectSource& objects);

Result<pb::ContainerConfig> container_config(const Pod& pod, const Container& container,
                                             const NodeContext& node,
                                             const ContainerInputs& inputs);

// $(NAME) becomes its value, $$ a dollar; names that are not known stay as they are.
std::string expand(std::string_view text, const Env& env);

}  // namespace edgemesh::edged
