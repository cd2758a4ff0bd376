// VolumeManager: the mounts of a container.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "agent/edged/spec/security.h"
#include "agent/edged/volumes/sub_path.h"
#include "agent/edged/volumes/volume_manager.h"
#include "kube/json_util.h"

namespace edgemesh::edged {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const Json* find_volume(const Pod& pod, const std::string& name) {
  const Json* list = kube::find(*pod.json, "spec", "volumes");
  if (list == nullptr || !list->is_array()) return nullptr;
  for (const Json& volume : *list) {
    if (kube::text_at(volume, "name") == name) return &volume;
  }
  return nullptr;
}

Result<> make_target(const std::string& path, bool folder) {
  std::error_code error;
  fs::create_directories(folder ? fs::path(path) : fs::path(path).parent_path(), error);
  if (error) return fail_errno("make " + path, error.value());
  if (folder) return {};
  io::Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640));
  if (!fd.valid()) return fail_errno("make " + path, errno);
  return {};
}

// Of files that we write ourselves, through our own links.
Result<std::string> resolve_own(const std::string& folder, const std::string& inner) {
  std::error_code error;
  const fs::path base = fs::canonical(folder, error);
  const fs::path path = error ? fs::path() : fs::canonical(fs::path(folder) / inner, error);
  if (error) return fail(ErrorCode::kNotFound, "subPath \"{}\" is not in the volume", inner);
  if (!path.string().starts_with(base.string() + "/"))
    return fail(ErrorCode::kInvalidArgument, "subPath \"{}\" is outside of the volume", inner);
  return path.string();
}

Result<> write_text(const std::string& path, const std::string& text) {
  std::error_code error;
  fs::create_directories(fs::path(path).parent_path(), error);
  // In place: containers have the file itself mounted.
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  if (!out || chmod(path.c_str(), 0644) != 0) return fail_errno("write " + path, errno);
  return {};
}

}  // namespace

std::string VolumeManager::last_words_file(const Pod& pod, const std::string& container,
                                           uint32_t attempt) const {
  return fmt::format("{}/containers/{}/{}.message", folder_of(pod.uid), container, attempt);
}

Result<pb::Mount> VolumeManager::mount(const Pod& pod, const Container& container,
                                       const Json& wanted, const Env& env) {
  const std::string name = kube::text_at(wanted, "name");
  const std::string at = kube::text_at(wanted, "mountPath");
  const Json* volume = find_volume(pod, name);
  if (volume == nullptr || at.empty())
    return fail(ErrorCode::kInvalidArgument, "volumeMounts: there is no volume \"{}\"", name);
  pb::Mount out;
  out.set_container_path(at.front() == '/' ? at : "/" + at);
  out.set_readonly(flag_of(kube::find(wanted, "readOnly")));
  const std::string propagation = kube::text_at(wanted, "mountPropagation");
  out.set_propagation(propagation == "Bidirectional"     ? pb::PROPAGATION_BIDIRECTIONAL
                      : propagation == "HostToContainer" ? pb::PROPAGATION_HOST_TO_CONTAINER
                                                         : pb::PROPAGATION_PRIVATE);
  const Json* host = kube::find(*volume, "hostPath");
  const bool foreign = host != nullptr || kube::find(*volume, "emptyDir") != nullptr;
  const std::string base =
      host != nullptr ? kube::text_at(*host, "path") : volume_folder(pod, name);
  // What follows its source is not the container's to write.
  if (!foreign) out.set_readonly(true);
  std::string inner = kube::text_at(wanted, "subPath");
  if (const std::string text = kube::text_at(wanted, "subPathExpr"); !text.empty())
    inner = expand(text, env);
  out.set_host_path(base);
  if (inner.empty()) return out;
  if (!inner_path(inner) || inner.find("$(") != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "subPath \"{}\" is no path inside of the volume",
                inner);
  if (!foreign) {
    EM_TRY(std::string path, resolve_own(base, inner));
    out.set_host_path(path);
    return out;
  }
  bool folder = true;
  EM_TRY(io::Fd fd, open_below(base, inner, &folder));
  if (!mounter_.visible()) {
    out.set_host_path(base + "/" + inner);
    return out;
  }
  // The runtime must mount what was looked at, whatever the path leads to by then.
  std::string flat = at;
  std::replace(flat.begin(), flat.end(), '/', '~');
  const std::string target =
      fmt::format("{}/sub-paths/{}/{}{}", folder_of(pod.uid), container.name, name, flat);
  EM_TRY_VOID(mounter_.unmount(target));
  EM_TRY_VOID(make_target(target, folder));
  EM_TRY_VOID(mounter_.bind(fd.get(), target));
  out.set_host_path(target);
  return out;
}

Result<> VolumeManager::write_hosts(const Pod& pod, const std::string& pod_ip,
                                    const std::string& path) {
  std::string text = "# Managed by edgemesh-agent\n";
  if (pod.host_network) {
    std::ifstream in("/etc/hosts");
    text.append(std::istreambuf_iterator<char>(in), {});
    if (text.back() != '\n') text += '\n';
  } else {
    text +=
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::0\tip6-localnet\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";
    std::string host = kube::text_at(*pod.json, "spec", "hostname");
    if (host.empty()) host = pod.name;
    const std::string subdomain = kube::text_at(*pod.json, "spec", "subdomain");
    const std::string full = subdomain.empty() ? ""
                                               : fmt::format("{}.{}.{}.svc.{}\t", host, subdomain,
                                                             pod.ns, options_.cluster_domain);
    if (!pod_ip.empty()) text += fmt::format("{}\t{}{}\n", pod_ip, full, host);
  }
  const Json* aliases = kube::find(*pod.json, "spec", "hostAliases");
  if (aliases != nullptr && aliases->is_array()) {
    for (const Json& alias : *aliases) {
      std::string line = kube::text_at(alias, "ip");
      const Json* names = kube::find(alias, "hostnames");
      if (names == nullptr || !names->is_array()) continue;
      for (const Json& name : *names) {
        if (name.is_string()) line += "\t" + name.get<std::string>();
      }
      text += line + "\n";
    }
  }
  return write_text(path, text);
}

Result<std::vector<pb::Mount>> VolumeManager::mounts(const Pod& pod, const Container& container,
                                                     const Env& env, const std::string& pod_ip,
                                                     uint32_t attempt) {
  std::vector<pb::Mount> out;
  bool own_hosts = false;
  const Json* wanted = kube::find(*container.json, "volumeMounts");
  if (wanted != nullptr && wanted->is_array()) {
    for (const Json& one : *wanted) {
      EM_TRY(pb::Mount mount, this->mount(pod, container, one, env));
      own_hosts = own_hosts || mount.container_path() == "/etc/hosts";
      out.push_back(std::move(mount));
    }
  }
  if (!own_hosts) {
    const std::string path = folder_of(pod.uid) + "/etc-hosts";
    EM_TRY_VOID(write_hosts(pod, pod_ip, path));
    pb::Mount mount;
    mount.set_container_path("/etc/hosts");
    mount.set_host_path(path);
    out.push_back(std::move(mount));
  }
  const std::string words = last_words_file(pod, container.name, attempt);
  EM_TRY_VOID(write_text(words, ""));
  // Whoever the container runs as may leave a message.
  if (chmod(words.c_str(), 0666) != 0) return fail_errno("chmod " + words, errno);
  pb::Mount mount;
  mount.set_container_path(container.termination_path);
  mount.set_host_path(words);
  out.push_back(std::move(mount));
  return out;
}

}  // namespace edgemesh::edged
