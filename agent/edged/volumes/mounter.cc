#include "agent/edged/volumes/mounter.h"

#include <fmt/core.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <sstream>

namespace edgemesh::edged {
namespace {

// The kernel writes blanks and the like in paths as \ooo.
std::string unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool octal =
        text[i] == '\\' && i + 3 < text.size() && text[i + 1] >= '0' && text[i + 1] <= '3';
    if (!octal) {
      out += text[i];
      continue;
    }
    out +=
        static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
    i += 3;
  }
  return out;
}

std::string link_of(const char* path) {
  char text[64] = {};
  const ssize_t n = readlink(path, text, sizeof text - 1);
  return n > 0 ? std::string(text, static_cast<size_t>(n)) : std::string();
}

// Of the mount at "/": field 7 on, up to "-".
bool root_is_shared() {
  std::ifstream in("/proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string id, parent, device, inner, path, options, tag;
    words >> id >> parent >> device >> inner >> path >> options;
    if (path != "/") continue;
    while (words >> tag && tag != "-") {
      if (tag.starts_with("shared:")) return true;
    }
  }
  return false;
}

class SystemMounter final : public Mounter {
 public:
  bool visible() override { return visible_; }

  Result<> mount_memory(const std::string& folder, int64_t bytes) override {
    const auto there = mounted_under(folder);
    if (std::find(there.begin(), there.end(), folder) != there.end()) return {};
    const std::string options = bytes > 0 ? fmt::format("size={}", bytes) : std::string();
    if (mount("tmpfs", folder.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, options.c_str()) != 0)
      return fail_errno("mount memory on " + folder, errno);
    return {};
  }

  Result<> bind(int fd, const std::string& target) override {
    const std::string from = fmt::format("/proc/self/fd/{}", fd);
    if (mount(from.c_str(), target.c_str(), nullptr, MS_BIND, nullptr) != 0)
      return fail_errno("mount on " + target, errno);
    return {};
  }

  Result<> unmount(const std::string& folder) override {
    if (umount2(folder.c_str(), UMOUNT_NOFOLLOW | MNT_DETACH) != 0 && errno != EINVAL &&
        errno != ENOENT)
      return fail_errno("unmount " + folder, errno);
    return {};
  }

  std::vector<std::string> mounted_under(const std::string& root) override {
    std::vector<std::string> out;
    std::ifstream in("/proc/self/mountinfo");
    for (std::string line; std::getline(in, line);) {
      std::istringstream words(line);
      std::string id, parent, device, inner, path;
      words >> id >> parent >> device >> inner >> path;
      path = unescaped(path);
      if (path == root || path.starts_with(root + "/")) out.push_back(path);
    }
    // Later ones lie over or in earlier ones.
    std::reverse(out.begin(), out.end());
    return out;
  }

 private:
  const bool visible_ =
      link_of("/proc/self/ns/mnt") == link_of("/proc/1/ns/mnt") || root_is_shared();
};

}  // namespace

Mounter& system_mounter() {
  static SystemMounter mounter;
  return mounter;
}

}  // namespace edgemesh::edged
