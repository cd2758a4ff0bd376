// A folder of small files that a program in a container sees change all at once, as kubelet writes
// them: the files are in a folder named for the moment, "..data" is a link to it, and each name is
// a link through "..data". Replacing the one link replaces all files. Blocking; threads: one at a
// time for a folder.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace edgemesh::edged {

struct FileContent {
  std::string bytes;
  mode_t mode = 0644;
};
// By path relative to the folder.
using Files = std::map<std::string, FileContent>;

// A relative path that stays inside of its folder, and does not start with "..", which is ours.
bool inner_path(std::string_view path);

// Makes the folder's files these; what is as it should be already is not written. `group`: who owns
// them beside root (fsGroup). Every path must be an inner_path().
Result<> write_atomically(const std::string& folder, const Files& files,
                          std::optional<gid_t> group);

}  // namespace edgemesh::edged
