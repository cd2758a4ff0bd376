#include "agent/edged/volumes/volume_manager.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "agent/edged/spec/quantity.h"
#include "agent/edged/spec/security.h"
#include "agent/edged/volumes/sources.h"
#include "core/base/log.h"
#include "core/io/fd.h"
#include "kube/json_util.h"

namespace edgemesh::edged {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

std::optional<gid_t> fs_group(const Pod& pod) {
  const Json* group = kube::find(*pod.json, "spec", "securityContext", "fsGroup");
  if (group == nullptr || !group->is_number_integer()) return std::nullopt;
  return static_cast<gid_t>(group->get<int64_t>());
}

const Json* volumes_of(const Pod& pod) {
  const Json* list = kube::find(*pod.json, "spec", "volumes");
  return list != nullptr && list->is_array() ? list : nullptr;
}

Result<> make_folder(const std::string& path, mode_t mode) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return fail_errno("make " + path, error.value());
  if (chmod(path.c_str(), mode) != 0) return fail_errno("chmod " + path, errno);
  return {};
}

Result<> make_file(const std::string& path, mode_t mode) {
  std::error_code error;
  fs::create_directories(fs::path(path).parent_path(), error);
  io::Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!fd.valid()) return fail_errno("make " + path, errno);
  if (fchmod(fd.get(), mode) != 0) return fail_errno("chmod " + path, errno);
  return {};
}

Result<> check_host_path(const Json& spec) {
  const std::string path = kube::text_at(spec, "path"), type = kube::text_at(spec, "type");
  if (path.empty() || path.front() != '/' || (path + "/").find("/../") != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "hostPath: \"{}\" is no path", path);
  struct stat is {};
  const bool there = stat(path.c_str(), &is) == 0;
  if (type.empty()) return {};
  if (type == "DirectoryOrCreate" && !there) return make_folder(path, 0755);
  if (type == "FileOrCreate" && !there) return make_file(path, 0644);
  const bool good = there && ((type.starts_with("Directory") && S_ISDIR(is.st_mode)) ||
                              (type.starts_with("File") && S_ISREG(is.st_mode)) ||
                              (type == "Socket" && S_ISSOCK(is.st_mode)) ||
                              (type == "CharDevice" && S_ISCHR(is.st_mode)) ||
                              (type == "BlockDevice" && S_ISBLK(is.st_mode)));
  if (good) return {};
  return fail(ErrorCode::kNotFound, "hostPath type check failed: {} is not a {}", path, type);
}

std::string kind_of(const Json& volume) {
  for (const auto& [key, value] : volume.items()) {
    if (key != "name" && !value.is_null()) return key;
  }
  return "none";
}

}  // namespace

std::string VolumeManager::volume_folder(const Pod& pod, const std::string& volume) const {
  return folder_of(pod.uid) + "/volumes/" + volume;
}

Result<> VolumeManager::mount_memory(const std::string& folder, int64_t bytes) {
  if (mounter_.visible()) return mounter_.mount_memory(folder, bytes);
  if (!std::exchange(warned_, true))
    EM_LOG(kWarn, "edged",
           "the container runtime does not see what this process mounts: secrets and volumes in "
           "memory are on disk; run both in one mount namespace");
  return {};
}

// emptyDir: for anyone in the pod, and for fsGroup.
Result<> VolumeManager::set_up_empty(const Pod& pod, const Json& spec, const std::string& folder) {
  EM_TRY_VOID(make_folder(folder, 0777));
  if (kube::text_at(spec, "medium") == "Memory") {
    const std::string limit = kube::text_at(spec, "sizeLimit");
    const auto bytes = limit.empty() ? 0 : parse_units(limit);
    if (!bytes || *bytes < 0)
      return fail(ErrorCode::kInvalidArgument, "emptyDir.sizeLimit: {} is no quantity", limit);
    EM_TRY_VOID(mount_memory(folder, *bytes));
    if (chmod(folder.c_str(), 0777) != 0) return fail_errno("chmod " + folder, errno);
  }
  const auto group = fs_group(pod);
  if (!group) return {};
  if (chown(folder.c_str(), static_cast<uid_t>(-1), *group) != 0)
    return fail_errno("chown " + folder, errno);
  if (chmod(folder.c_str(), 02777) != 0) return fail_errno("chmod " + folder, errno);
  return {};
}

Result<> VolumeManager::set_up(const Pod& pod) {
  if (!inner_path(pod.uid) || pod.uid.find('/') != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "\"{}\" is no uid", pod.uid);
  EM_TRY_VOID(make_folder(folder_of(pod.uid), 0750));
  pods_[pod.uid] = pod;
  const Json* volumes = volumes_of(pod);
  if (volumes == nullptr) return {};
  for (const Json& volume : *volumes) {
    if (auto done = set_up_volume(pod, volume); !done)
      return fail(
          done.error().with_context(fmt::format("volume \"{}\"", kube::text_at(volume, "name"))));
  }
  return {};
}

Result<> VolumeManager::set_up_volume(const Pod& pod, const Json& volume) {
  const std::string name = kube::text_at(volume, "name");
  if (!inner_path(name) || name.find('/') != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "it cannot have this name");
  const std::string folder = volume_folder(pod, name);
  if (const Json* spec = kube::find(volume, "hostPath")) return check_host_path(*spec);
  if (const Json* spec = kube::find(volume, "emptyDir")) return set_up_empty(pod, *spec, folder);
  return fill(pod, volume, folder);
}

Result<> VolumeManager::fill(const Pod& pod, const Json& volume, const std::string& folder) {
  // First the content: nothing is made, or changed, for what cannot be filled.
  auto files = files_of({pod, options_.fields, objects_, tokens_}, volume);
  if (!files)
    return fail(ErrorCode::kInvalidArgument, "this node has no volumes of kind {}",
                kind_of(volume));
  if (!*files) return fail(files->error());
  EM_TRY_VOID(make_folder(folder, 0755));
  if (holds_secrets(volume)) {
    EM_TRY_VOID(mount_memory(folder, 0));
    if (chmod(folder.c_str(), 0755) != 0) return fail_errno("chmod " + folder, errno);
  }
  return write_atomically(folder, **files, fs_group(pod));
}

void VolumeManager::refill(const Pod& pod, const Json& volume) {
  const std::string name = kube::text_at(volume, "name");
  if (!inner_path(name) || name.find('/') != std::string::npos) return;
  auto done = fill(pod, volume, volume_folder(pod, name));
  if (!done)
    EM_LOG(kWarn, "edged", "pod {}/{}: volume \"{}\" stays as it was: {}", pod.ns, pod.name, name,
           done.error().message);
}

void VolumeManager::refresh(const std::string& kind, const std::string& ns,
                            const std::string& name) {
  for (const auto& [uid, pod] : pods_) {
    const Json* volumes = volumes_of(pod);
    if (pod.ns != ns || volumes == nullptr) continue;
    for (const Json& volume : *volumes) {
      if (refers_to(volume, kind, name)) refill(pod, volume);
    }
  }
}

void VolumeManager::refresh_tokens(const std::string& uid) {
  const auto it = pods_.find(uid);
  const Json* volumes = it != pods_.end() ? volumes_of(it->second) : nullptr;
  if (volumes == nullptr) return;
  for (const Json& volume : *volumes) {
    if (holds_token(volume)) refill(it->second, volume);
  }
}

void VolumeManager::follow(const Pod& pod) {
  std::error_code error;
  if (!inner_path(pod.uid) || !fs::exists(folder_of(pod.uid) + "/volumes", error)) return;
  pods_[pod.uid] = pod;
  const Json* volumes = volumes_of(pod);
  if (volumes == nullptr) return;
  for (const Json& volume : *volumes) {
    if (follows_source(volume)) refill(pod, volume);
  }
}

Result<> VolumeManager::tear_down(const std::string& uid) {
  if (!inner_path(uid) || uid.find('/') != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "\"{}\" is no uid", uid);
  pods_.erase(uid);
  if (tokens_ != nullptr) tokens_->forget(uid);
  const std::string folder = folder_of(uid);
  for (const std::string& path : mounter_.mounted_under(folder))
    EM_TRY_VOID(mounter_.unmount(path));
  // What would not go is a mount of somebody else's: removing would empty it.
  if (auto left = mounter_.mounted_under(folder); !left.empty())
    return fail(ErrorCode::kUnavailable, "{} is still mounted", left.front());
  std::error_code error;
  fs::remove_all(folder, error);
  if (error) return fail_errno("remove " + folder, error.value());
  return {};
}

void VolumeManager::remove_strangers(const std::set<std::string>& uids) {
  if (tokens_ != nullptr) tokens_->forget_others(uids);
  std::error_code error;
  std::vector<std::string> gone;
  for (const auto& entry : fs::directory_iterator(options_.root, error)) {
    if (!uids.contains(entry.path().filename())) gone.push_back(entry.path().filename());
  }
  for (const std::string& uid : gone) {
    if (auto done = tear_down(uid); !done)
      EM_LOG(kWarn, "edged", "the folder of a pod that is gone: {}", done.error().message);
  }
}

}  // namespace edgemesh::edged
