#include "agent/edged/spec/security.h"

#include <array>

#include "agent/edged/spec/translate.h"
#include "kube/json_util.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;

// Parts of the kernel's interface that tell of, or change, more than the container.
constexpr std::array kMasked{"/proc/asound",
                             "/proc/acpi",
                             "/proc/kcore",
                             "/proc/keys",
                             "/proc/latency_stats",
                             "/proc/timer_list",
                             "/proc/timer_stats",
                             "/proc/sched_debug",
                             "/proc/scsi",
                             "/sys/firmware",
                             "/sys/devices/virtual/powercap"};
constexpr std::array kReadOnly{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                               "/proc/sysrq-trigger"};

const Json* context_of(const Json& object) {
  return kube::find(object, "securityContext");
}

const Json* pod_context(const Pod& pod) {
  return kube::find(*pod.json, "spec", "securityContext");
}

// The container's word, else the pod's.
const Json* pick(const Pod& pod, const Container& container, const char* key) {
  const Json* own = kube::find(*container.json, "securityContext", key);
  return own != nullptr ? own : kube::find(*pod.json, "spec", "securityContext", key);
}

bool privileged(const Container& container) {
  return flag_of(kube::find(*container.json, "securityContext", "privileged"));
}

template <class Context>
void set_namespaces(const Pod& pod, Context& out) {
  auto* options = out.mutable_namespace_options();
  options->set_network(pod.host_network ? pb::NODE : pb::POD);
  options->set_ipc(flag_of(kube::find(*pod.json, "spec", "hostIPC")) ? pb::NODE : pb::POD);
  options->set_pid(flag_of(kube::find(*pod.json, "spec", "hostPID")) ? pb::NODE
                   : flag_of(kube::find(*pod.json, "spec", "shareProcessNamespace"))
                       ? pb::POD
                       : pb::CONTAINER);
}

template <class Context>
void set_groups(const Pod& pod, Context& out) {
  const Json* context = pod_context(pod);
  if (context == nullptr) return;
  const Json* list = kube::find(*context, "supplementalGroups");
  if (list != nullptr && list->is_array()) {
    for (const Json& group : *list) {
      if (group.is_number_integer()) out.add_supplemental_groups(group.get<int64_t>());
    }
  }
  const Json* group = kube::find(*context, "fsGroup");
  if (group != nullptr && group->is_number_integer())
    out.add_supplemental_groups(group->get<int64_t>());
}

Result<> set_profile(const Json* profile, bool by_default, const std::string& root,
                     pb::SecurityProfile& out) {
  using Type = pb::SecurityProfile;
  out.set_profile_type(by_default ? Type::RuntimeDefault : Type::Unconfined);
  if (profile == nullptr) return {};
  const std::string type = kube::text_at(*profile, "type");
  if (type == "RuntimeDefault") out.set_profile_type(Type::RuntimeDefault);
  if (type == "Unconfined") out.set_profile_type(Type::Unconfined);
  if (type != "Localhost") return {};
  const std::string name = kube::text_at(*profile, "localhostProfile");
  if (name.empty() || name.front() == '/' || ("/" + name + "/").find("/../") != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "seccompProfile: \"{}\" is no profile of this node",
                name);
  if (root.empty())
    return fail(ErrorCode::kInvalidArgument,
                "seccompProfile: this node has no profiles of its own");
  out.set_profile_type(Type::Localhost);
  out.set_localhost_ref(root + "/" + name);
  return {};
}

void set_capabilities(const Container& container, pb::LinuxContainerSecurityContext& out) {
  const Json* wanted = kube::find(*container.json, "securityContext", "capabilities");
  if (wanted == nullptr) return;
  for (const char* list : {"add", "drop"}) {
    const Json* names = kube::find(*wanted, list);
    if (names == nullptr || !names->is_array()) continue;
    for (const Json& name : *names) {
      if (!name.is_string()) continue;
      auto* to = out.mutable_capabilities();
      *(*list == 'a' ? to->add_add_capabilities() : to->add_drop_capabilities()) =
          name.get<std::string>();
    }
  }
}

// As kubelet says it.
Result<> check_image_user(const Pod& pod, const Container& container, const ImageUser* image) {
  const std::string where =
      fmt::format("(pod: \"{}_{}({})\", container: {})", pod.name, pod.ns, pod.uid, container.name);
  if (image == nullptr)
    return fail(ErrorCode::kUnavailable,
                "container has runAsNonRoot, and the user of its image is not known yet {}", where);
  if (!image->uid && !image->name.empty())
    return fail(
        ErrorCode::kInvalidArgument,
        "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user "
        "is non-root {}",
        image->name, where);
  if (image->uid.value_or(0) == 0)
    return fail(ErrorCode::kInvalidArgument,
                "container has runAsNonRoot and image will run as root {}", where);
  return {};
}

}  // namespace

bool flag_of(const Json* value) {
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

void set_sandbox_security(const Pod& pod, pb::LinuxPodSandboxConfig& out) {
  auto& context = *out.mutable_security_context();
  set_namespaces(pod, context);
  set_groups(pod, context);
  for (const auto* list : {&pod.init_containers, &pod.containers}) {
    for (const Container& c : *list) {
      if (privileged(c)) context.set_privileged(true);
    }
  }
  // What holds the sandbox open needs nothing: it gets the narrow profile whatever the pod asks.
  context.mutable_seccomp()->set_profile_type(pb::SecurityProfile::RuntimeDefault);
  const Json* own = pod_context(pod);
  if (own == nullptr) return;
  if (const Json* user = kube::find(*own, "runAsUser");
      user != nullptr && user->is_number_integer())
    context.mutable_run_as_user()->set_value(user->get<int64_t>());
  // The runtime refuses a group without a user.
  if (const Json* group = kube::find(*own, "runAsGroup");
      group != nullptr && group->is_number_integer() && context.has_run_as_user())
    context.mutable_run_as_group()->set_value(group->get<int64_t>());
  const Json* sysctls = kube::find(*own, "sysctls");
  if (sysctls == nullptr || !sysctls->is_array()) return;
  for (const Json& one : *sysctls) {
    if (const std::string name = kube::text_at(one, "name"); !name.empty())
      (*out.mutable_sysctls())[name] = kube::text_at(one, "value");
  }
}

Result<> set_container_security(const Pod& pod, const Container& container, const NodeContext& node,
                                const ImageUser* image, pb::LinuxContainerSecurityContext& out) {
  set_namespaces(pod, out);
  set_groups(pod, out);
  set_capabilities(container, out);
  out.set_privileged(privileged(container));
  const Json* user = pick(pod, container, "runAsUser");
  if (user != nullptr && user->is_number_integer())
    out.mutable_run_as_user()->set_value(user->get<int64_t>());
  const Json* group = pick(pod, container, "runAsGroup");
  if (group != nullptr && group->is_number_integer())
    out.mutable_run_as_group()->set_value(group->get<int64_t>());
  if (flag_of(pick(pod, container, "runAsNonRoot"))) {
    if (!out.has_run_as_user()) {
      EM_TRY_VOID(check_image_user(pod, container, image));
    } else if (out.run_as_user().value() == 0) {
      return fail(
          ErrorCode::kInvalidArgument,
          "container's runAsUser breaks non-root policy (pod: \"{}_{}({})\", container: {})",
          pod.name, pod.ns, pod.uid, container.name);
    }
  }
  if (const Json* own = context_of(*container.json)) {
    out.set_readonly_rootfs(flag_of(kube::find(*own, "readOnlyRootFilesystem")));
    const Json* escalate = kube::find(*own, "allowPrivilegeEscalation");
    out.set_no_new_privs(escalate != nullptr && !flag_of(escalate));
  }
  const Json* mount = kube::find(*container.json, "securityContext", "procMount");
  if (mount == nullptr || *mount != "Unmasked") {
    for (const char* path : kMasked) out.add_masked_paths(path);
    for (const char* path : kReadOnly) out.add_readonly_paths(path);
  }
  return set_profile(pick(pod, container, "seccompProfile"),
                     node.seccomp_default && !out.privileged(), node.seccomp_root,
                     *out.mutable_seccomp());
}

}  // namespace edgemesh::edged
