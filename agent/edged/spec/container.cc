// A container as the runtime is asked to make it.
#include <chrono>
#include <nlohmann/json.hpp>

#include "agent/edged/spec/labels.h"
#include "agent/edged/spec/security.h"
#include "agent/edged/spec/translate.h"
#include "kube/json_util.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;

template <class Fn>
void for_each_text(const Json& object, const char* key, Fn fn) {
  const Json* list = kube::find(object, key);
  if (list == nullptr || !list->is_array()) return;
  for (const Json& item : *list) {
    if (item.is_string()) fn(item.get_ref<const std::string&>());
  }
}

void set_marks(const Pod& pod, const Container& container, uint32_t attempt,
               pb::ContainerConfig& out) {
  auto& labels = *out.mutable_labels();
  labels[kPodNameLabel] = pod.name;
  labels[kPodNamespaceLabel] = pod.ns;
  labels[kPodUidLabel] = pod.uid;
  labels[kContainerNameLabel] = container.name;
  auto& notes = *out.mutable_annotations();
  notes[kContainerHashAnnotation] = container.hash;
  notes[kRestartCountAnnotation] = std::to_string(attempt);
  notes[kMessagePathAnnotation] = container.termination_path;
  notes[kMessagePolicyAnnotation] = container.message_from_logs ? "FallbackToLogsOnError" : "File";
  notes[kPodGraceAnnotation] =
      std::to_string(std::chrono::duration_cast<std::chrono::seconds>(pod.grace).count());
}

}  // namespace

Result<pb::ContainerConfig> container_config(const Pod& pod, const Container& container,
                                             const NodeContext& node,
                                             const ContainerInputs& inputs) {
  pb::ContainerConfig out;
  out.mutable_metadata()->set_name(container.name);
  out.mutable_metadata()->set_attempt(inputs.attempt);
  out.mutable_image()->set_image(container.image);
  const Json& spec = *container.json;
  for_each_text(spec, "command",
                [&](const std::string& word) { out.add_command(expand(word, inputs.env)); });
  for_each_text(spec, "args",
                [&](const std::string& word) { out.add_args(expand(word, inputs.env)); });
  out.set_working_dir(kube::text_at(spec, "workingDir"));
  for (const auto& [name, value] : inputs.env) {
    auto* to = out.add_envs();
    to->set_key(name);
    to->set_value(value);
  }
  for (const pb::Mount& mount : inputs.mounts) *out.add_mounts() = mount;
  set_marks(pod, container, inputs.attempt, out);
  out.set_log_path(fmt::format("{}/{}.log", container.name, inputs.attempt));
  out.set_stdin(flag_of(kube::find(spec, "stdin")));
  out.set_stdin_once(flag_of(kube::find(spec, "stdinOnce")));
  out.set_tty(flag_of(kube::find(spec, "tty")));
  auto* config = out.mutable_linux();
  *config->mutable_resources() = resources_of(pod, container, node.fields.memory_bytes);
  EM_TRY_VOID(set_container_security(pod, container, node,
                                     inputs.image_user ? &*inputs.image_user : nullptr,
                                     *config->mutable_security_context()));
  return out;
}

}  // namespace edgemesh::edged
