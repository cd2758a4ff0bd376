#include "agent/edged/node_parts.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "agent/edged/spec/labels.h"
#include "core/base/log.h"
#include "kube/json_util.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;

void add_labels(const Pod& pod, google::protobuf::Map<std::string, std::string>& labels) {
  labels[kPodNameLabel] = pod.name;
  labels[kPodNamespaceLabel] = pod.ns;
  labels[kPodUidLabel] = pod.uid;
}

template <class Fn>
void for_each_text(const Json& object, const char* key, Fn fn) {
  const Json* list = kube::find(object, key);
  if (list == nullptr || !list->is_array()) return;
  for (const Json& item : *list) {
    if (item.is_string()) fn(item.get<std::string>());
  }
}

}  // namespace

std::string NodeParts::log_folder(const Pod& pod) const {
  return fmt::format("{}/{}_{}_{}", options_.log_root, pod.ns, pod.name, pod.uid);
}

Result<> NodeParts::prepare(const Pod& pod) {
  std::error_code error;
  const std::string folder = log_folder(pod);
  for (const auto* list : {&pod.init_containers, &pod.containers}) {
    for (const Container& c : *list) {
      std::filesystem::create_directories(folder + "/" + c.name, error);
      if (error) return fail_errno("make " + folder, error.value());
    }
  }
  return {};
}

Result<pb::PodSandboxConfig> NodeParts::sandbox(const Pod& pod, uint32_t attempt) {
  pb::PodSandboxConfig out;
  auto* meta = out.mutable_metadata();
  meta->set_name(pod.name);
  meta->set_namespace_(pod.ns);
  meta->set_uid(pod.uid);
  meta->set_attempt(attempt);
  out.set_hostname(pod.name);
  out.set_log_directory(log_folder(pod));
  for (const auto& [key, value] : pod.labels) (*out.mutable_labels())[key] = value;
  add_labels(pod, *out.mutable_labels());
  auto* linux_config = out.mutable_linux();
  linux_config->set_cgroup_parent(options_.cgroup_parent + "/pod" + pod.uid);
  if (pod.host_network) {
    linux_config->mutable_security_context()->mutable_namespace_options()->set_network(pb::NODE);
  }
  return out;
}

Result<pb::ContainerConfig> NodeParts::container(const Pod& pod, const Container& container,
                                                 uint32_t attempt, const PodView&) {
  pb::ContainerConfig out;
  out.mutable_metadata()->set_name(container.name);
  out.mutable_metadata()->set_attempt(attempt);
  out.mutable_image()->set_image(container.image);
  const Json& spec = *container.json;
  for_each_text(spec, "command", [&](std::string word) { out.add_command(std::move(word)); });
  for_each_text(spec, "args", [&](std::string word) { out.add_args(std::move(word)); });
  if (const Json* env = kube::find(spec, "env"); env != nullptr && env->is_array()) {
    for (const Json& one : *env) {
      auto* to = out.add_envs();
      to->set_key(kube::text_at(one, "name"));
      to->set_value(kube::text_at(one, "value"));
    }
  }
  out.set_working_dir(kube::text_at(spec, "workingDir"));
  add_labels(pod, *out.mutable_labels());
  (*out.mutable_labels())[kContainerNameLabel] = container.name;
  (*out.mutable_annotations())[kContainerHashAnnotation] = container.hash;
  (*out.mutable_annotations())[kRestartCountAnnotation] = std::to_string(attempt);
  out.set_log_path(fmt::format("{}/{}.log", container.name, attempt));
  return out;
}

std::vector<pb::AuthConfig> NodeParts::logins(const Pod&, const std::string&) {
  return {};
}

std::string NodeParts::last_words(const Pod&, const ContainerView&) {
  return "";
}

void NodeParts::tear_down(const Pod& pod) {
  std::error_code error;
  std::filesystem::remove_all(log_folder(pod), error);
  if (error) EM_LOG(kWarn, "edged", "{}: {}", log_folder(pod), error.message());
}

}  // namespace edgemesh::edged
