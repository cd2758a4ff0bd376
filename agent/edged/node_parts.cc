#include "agent/edged/node_parts.h"

#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "agent/edged/spec/pull_secrets.h"
#include "core/base/log.h"
#include "kube/json_util.h"

namespace edgemesh::edged {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostWords = 4096, kMostLogWords = 2048;

FieldContext fields_of(const NodePartsOptions& options) {
  FieldContext out;
  out.node = options.node;
  out.host_ip = options.host_ip;
  out.cpu_milli = sysconf(_SC_NPROCESSORS_ONLN) * 1000;
  struct sysinfo memory {};
  if (sysinfo(&memory) == 0)
    out.memory_bytes = static_cast<int64_t>(memory.totalram) * memory.mem_unit;
  struct statvfs disk {};
  if (statvfs("/", &disk) == 0)
    out.disk_bytes = static_cast<int64_t>(disk.f_blocks * disk.f_frsize);
  return out;
}

std::string read_file(const std::string& path, size_t most) {
  std::string out(most, '\0');
  std::ifstream in(path, std::ios::binary);
  in.read(out.data(), static_cast<std::streamsize>(most));
  out.resize(static_cast<size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  return out;
}

// A local resolver of the host does not answer pods: systemd's keeps its own servers elsewhere.
DnsSettings host_dns(const std::string& path) {
  constexpr size_t kMost = 64 << 10;
  DnsSettings out = read_resolv_conf(read_file(path, kMost));
  const bool local = !out.servers.empty() &&
                     std::all_of(out.servers.begin(), out.servers.end(),
                                 [](const std::string& s) { return s.starts_with("127."); });
  if (!local) return out;
  DnsSettings behind = read_resolv_conf(read_file("/run/systemd/resolve/resolv.conf", kMost));
  return behind.servers.empty() ? out : behind;
}

NodeContext context_of(const NodePartsOptions& options) {
  NodeContext out;
  out.fields = fields_of(options);
  out.log_root = options.log_root;
  out.cgroup_root = options.cgroup_parent;
  out.cluster_dns = options.cluster_dns;
  out.cluster_domain = options.cluster_domain;
  return out;
}

// The end of a container's log without what the runtime puts before each line.
std::string end_of_log(const std::string& path) {
  constexpr std::streamoff kRead = 8192;
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = in ? static_cast<std::streamoff>(in.tellg()) : 0;
  if (size <= 0) return "";
  in.seekg(std::max<std::streamoff>(size - kRead, 0));
  std::string line, out;
  if (size > kRead) std::getline(in, line);  // a part of one
  while (std::getline(in, line)) {
    size_t at = 0;
    for (int word = 0; word < 3 && at != std::string::npos; ++word) {
      at = line.find(' ', at);
      if (at != std::string::npos) ++at;
    }
    if (at != std::string::npos) out += line.substr(at) + "\n";
  }
  if (out.size() > kMostLogWords) out.erase(0, out.size() - kMostLogWords);
  return out;
}

// They name folders. The uid alone is enough of an orphan's.
bool safe_names(const Pod& pod) {
  const auto inside = [](const std::string& name) { return name.find('/') == std::string::npos; };
  return inside(pod.ns) && inside(pod.name) && inner_path(pod.uid) && inside(pod.uid);
}

// The runtime makes the pod's cgroup, and leaves it; empty by now.
void remove_cgroup(const std::string& path) {
  const std::string root = "/sys/fs/cgroup";
  rmdir((root + path).c_str());
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(root, error))
    rmdir((entry.path().string() + path).c_str());  // one for each controller, before version 2
}

}  // namespace

Result<nlohmann::json> NodeParts::Objects::get(const std::string& kind, const std::string& ns,
                                               const std::string& name) {
  EM_TRY(const std::string text, meta_.get({kind, ns, name}));
  nlohmann::json object = nlohmann::json::parse(text, nullptr, false);
  if (!object.is_object()) return fail(ErrorCode::kInternal, "{} {}/{} is no JSON", kind, ns, name);
  return object;
}

NodeParts::NodeParts(agent::MetaModule& meta, NodePartsOptions options,
                     TokenSource* tokens, Mounter& mounter)
    : objects_(meta),
      options_(std::move(options)),
      node_(context_of(options_)),
      volumes_({.root = options_.volume_root,
                .fields = node_.fields,
                .cluster_domain = options_.cluster_domain},
               objects_, tokens, mounter) {}

Result<> NodeParts::prepare(const Pod& pod) {
  if (!safe_names(pod))
    return fail(ErrorCode::kInvalidArgument, "a namespace, name or uid that is no file's name");
  std::error_code error;
  const std::string folder = log_folder(pod, node_);
  for (const auto* list : {&pod.init_containers, &pod.containers}) {
    for (const Container& c : *list) {
      fs::create_directories(folder + "/" + c.name, error);
      if (error) return fail_errno("make " + folder, error.value());
    }
  }
  return volumes_.set_up(pod);
}

Result<pb::PodSandboxConfig> NodeParts::sandbox(const Pod& pod, uint32_t attempt) {
  node_.host_dns = host_dns(options_.resolv_conf);
  return sandbox_config(pod, node_, attempt);
}

Result<pb::ContainerConfig> NodeParts::container(const Pod& pod, const Container& container,
                                                 uint32_t attempt, const PodView& view) {
  const SandboxView* sandbox = view.newest_sandbox();
  std::vector<std::string> ips = sandbox == nullptr ? std::vector<std::string>() : sandbox->ips;
  if (pod.host_network) ips = {options_.host_ip};
  node_.api_service = options_.api_service ? options_.api_service() : std::nullopt;
  ContainerInputs inputs;
  inputs.attempt = attempt;
  const auto user = image_users_.find(full_image_name(container.image));
  if (user != image_users_.end()) inputs.image_user = user->second;
  EM_TRY(inputs.env, container_env(pod, container, node_, ips, objects_));
  EM_TRY(inputs.mounts,
         volumes_.mounts(pod, container, inputs.env, ips.empty() ? "" : ips.front(), attempt));
  return container_config(pod, container, node_, inputs);
}

std::vector<pb::AuthConfig> NodeParts::logins(const Pod& pod, const std::string& image) {
  std::vector<pb::AuthConfig> out;
  for (const std::string& name : pod.pull_secrets) {
    auto secret = objects_.get("secret", pod.ns, name);
    if (!secret) continue;  // as kubelet: the registry may give the image to anyone
    for (pb::AuthConfig& login : logins_in(*secret, image)) out.push_back(std::move(login));
  }
  return out;
}

std::string NodeParts::last_words(const Pod& pod, const ContainerView& container) {
  std::string words =
      read_file(volumes_.last_words_file(pod, container.name, container.attempt), kMostWords);
  if (!words.empty() || container.exit_code == 0) return words;
  for (const auto* list : {&pod.init_containers, &pod.containers}) {
    for (const Container& c : *list) {
      if (c.name == container.name && c.message_from_logs) return end_of_log(container.log_path);
    }
  }
  return "";
}

void NodeParts::tear_down(const Pod& pod) {
  if (!safe_names(pod)) return;
  std::error_code error;
  const std::string folder = log_folder(pod, node_);
  fs::remove_all(folder, error);
  if (error) EM_LOG(kWarn, "edged", "{}: {}", folder, error.message());
  if (auto done = volumes_.tear_down(pod.uid); !done)
    EM_LOG(kWarn, "edged", "pod {}/{}: {}", pod.ns, pod.name, done.error().message);
  // By its class of service, which is not known of a pod without an object.
  for (const char* part : {"", "/burstable", "/besteffort"})
    remove_cgroup(fmt::format("{}{}/pod{}", options_.cgroup_parent, part, pod.uid));
}

void NodeParts::sweep(const std::set<std::string>& uids) {
  volumes_.remove_strangers(uids);
  std::vector<fs::path> gone;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(options_.log_root, error)) {
    // <namespace>_<name>_<uid>; what is not named so is somebody else's.
    const std::string name = entry.path().filename();
    const size_t first = name.find('_'), last = name.rfind('_');
    if (first == last || last + 1 == name.size()) continue;
    if (!uids.contains(name.substr(last + 1))) gone.push_back(entry.path());
  }
  for (const fs::path& folder : gone) {
    EM_LOG(kInfo, "edged", "{} is of a pod that is gone: it is removed", folder.string());
    fs::remove_all(folder, error);
  }
}

void NodeParts::set_images(const pb::ListImagesResponse& images) {
  image_users_.clear();
  for (const auto& image : images.images()) {
    ImageUser user;
    if (image.has_uid()) user.uid = image.uid().value();
    user.name = image.username();
    image_users_[image.id()] = user;
    for (const auto* names : {&image.repo_tags(), &image.repo_digests()}) {
      for (const std::string& name : *names) image_users_[name] = user;
    }
  }
}

void NodeParts::on_object(const agent::MetaKey& key, std::string_view json) {
  if (key.kind == "configmap" || key.kind == "secret")
    return volumes_.refresh(key.kind, key.ns, key.name);
  if (key.kind != "pod") return;
  if (auto pod = parse_pod(json)) volumes_.follow(*pod);
}

}  // namespace edgemesh::edged
