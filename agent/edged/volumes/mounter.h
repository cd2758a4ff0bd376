// Mounter: file systems in memory for volumes that must not be on disk. A seam: mounting needs
// root, tests have none. Blocking.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/result.h"

namespace edgemesh::edged {

class Mounter {
 public:
  virtual ~Mounter() = default;
  // Does the container runtime see what is mounted here? Not when this process has a mount
  // namespace of its own and mounts in it are not shared.
  virtual bool visible() = 0;
  // `bytes` 0: the kernel's own limit, half of the memory. Mounted already: done.
  virtual Result<> mount_memory(const std::string& folder, int64_t bytes) = 0;
  // What `fd` has open is at `target` afterwards, which is there and of the same kind.
  virtual Result<> bind(int fd, const std::string& target) = 0;
  // Not mounted: done. What is still open goes on for who has it open.
  virtual Result<> unmount(const std::string& folder) = 0;
  // Folders at or under `root` that something is mounted on, the innermost first.
  virtual std::vector<std::string> mounted_under(const std::string& root) = 0;
};

Mounter& system_mounter();

}  // namespace edgemesh::edged
