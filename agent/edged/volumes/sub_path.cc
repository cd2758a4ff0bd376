#include "agent/edged/volumes/sub_path.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

namespace edgemesh::edged {

Result<io::Fd> open_below(const std::string& base, const std::string& inner, bool* is_folder) {
  io::Fd at(open(base.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!at.valid()) return fail_errno("open " + base, errno);
  for (size_t from = 0; from < inner.size();) {
    const size_t end = std::min(inner.find('/', from), inner.size());
    const std::string part = inner.substr(from, end - from);
    const bool last = end == inner.size();
    // O_PATH with O_NOFOLLOW opens a link itself, which is then no folder.
    io::Fd next(openat(at.get(), part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!next.valid() && errno == ENOENT) {
      if (mkdirat(at.get(), part.c_str(), 0750) != 0 && errno != EEXIST)
        return fail_errno("make " + base + "/" + inner, errno);
      next.reset(openat(at.get(), part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    }
    struct stat is {};
    if (!next.valid() || fstat(next.get(), &is) != 0)
      return fail_errno("open " + base + "/" + inner, errno);
    const bool folder = S_ISDIR(is.st_mode);
    if (S_ISLNK(is.st_mode) || (!folder && !last))
      return fail(ErrorCode::kInvalidArgument, "subPath \"{}\": {} is a link or no folder", inner,
                  part);
    *is_folder = folder;
    at = std::move(next);
    from = end + 1;
  }
  return at;
}

}  // namespace edgemesh::edged
