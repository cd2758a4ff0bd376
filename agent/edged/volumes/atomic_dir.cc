#include "agent/edged/volumes/atomic_dir.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "core/io/fd.h"

namespace edgemesh::edged {
namespace {

namespace fs = std::filesystem;

constexpr const char* kData = "..data";
constexpr const char* kNewData = "..data_tmp";

Result<> write_file(const std::string& path, const FileContent& file, std::optional<gid_t> group) {
  io::Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) return fail_errno("make " + path, errno);
  for (std::string_view left = file.bytes; !left.empty();) {
    const ssize_t n = write(fd.get(), left.data(), left.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("write " + path, errno);
    left.remove_prefix(static_cast<size_t>(n));
  }
  mode_t mode = file.mode;
  if (group) {
    if (fchown(fd.get(), static_cast<uid_t>(-1), *group) != 0)
      return fail_errno("chown " + path, errno);
    mode |= 0440;  // who has the group is meant to read it
  }
  // Not the process's umask: what the pod says.
  if (fchmod(fd.get(), mode) != 0) return fail_errno("chmod " + path, errno);
  return {};
}

bool same(const std::string& folder, const Files& files, std::optional<gid_t> group) {
  size_t found = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder + "/" + kData, error), end; !error && it != end;
       it.increment(error)) {
    if (it->is_directory(error)) continue;
    const std::string name = fs::relative(it->path(), folder + "/" + kData, error).string();
    const auto want = files.find(name);
    struct stat is {};
    if (want == files.end() || lstat(it->path().c_str(), &is) != 0) return false;
    const mode_t mode = want->second.mode | (group ? 0440 : 0);
    if ((is.st_mode & 07777) != mode || (group && is.st_gid != *group)) return false;
    std::ifstream in(it->path(), std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    if (text.str() != want->second.bytes) return false;
    ++found;
  }
  return !error && found == files.size() && fs::exists(folder + "/" + kData, error);
}

std::string first_part(const std::string& path) {
  return path.substr(0, path.find('/'));
}

// Links for names that came, none for those that went.
Result<> link_names(const std::string& folder, const Files& files) {
  std::set<std::string> names;
  for (const auto& [path, file] : files) names.insert(first_part(path));
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("..") || names.contains(name)) continue;
    std::error_code ignored;
    if (entry.is_symlink(ignored)) fs::remove(entry.path(), ignored);
  }
  for (const std::string& name : names) {
    const std::string link = folder + "/" + name;
    const std::string target = std::string(kData) + "/" + name;
    if (symlink(target.c_str(), link.c_str()) != 0 && errno != EEXIST)
      return fail_errno("link " + link, errno);
  }
  return {};
}

void drop_old(const std::string& folder, const std::string& keep) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    std::error_code ignored;
    const bool stamped = name.starts_with("..") && name != kData && name != keep;
    if (stamped && !entry.is_symlink(ignored)) fs::remove_all(entry.path(), ignored);
  }
}

}  // namespace

bool inner_path(std::string_view path) {
  constexpr size_t kLongest = 4096;
  if (path.empty() || path.size() > kLongest || path.front() == '/' || path.starts_with("..") ||
      path.find('\0') != std::string_view::npos)
    return false;
  while (true) {
    const size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (part.empty() || part == "." || part == "..") return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

Result<> write_atomically(const std::string& folder, const Files& files,
                          std::optional<gid_t> group) {
  for (const auto& [path, file] : files) {
    if (!inner_path(path))
      return fail(ErrorCode::kInvalidArgument, "\"{}\" is no path inside of a volume", path);
  }
  if (same(folder, files, group)) return link_names(folder, files);
  std::string stamp = folder + "/..e_XXXXXX";
  if (mkdtemp(stamp.data()) == nullptr) return fail_errno("make a folder in " + folder, errno);
  const std::string name = stamp.substr(folder.size() + 1);
  const auto fill = [&]() -> Result<> {
    if (chmod(stamp.c_str(), 0755) != 0) return fail_errno("chmod " + stamp, errno);
    for (const auto& [path, file] : files) {
      std::error_code error;
      const fs::path at = fs::path(stamp) / path;
      fs::create_directories(at.parent_path(), error);
      if (error) return fail_errno("make " + at.parent_path().string(), error.value());
      EM_TRY_VOID(write_file(at, file, group));
    }
    const std::string link = folder + "/" + kNewData;
    unlink(link.c_str());
    if (symlink(name.c_str(), link.c_str()) != 0) return fail_errno("link " + link, errno);
    if (rename(link.c_str(), (folder + "/" + kData).c_str()) != 0)
      return fail_errno("rename " + link, errno);
    return {};
  };
  if (auto done = fill(); !done) {
    std::error_code ignored;
    fs::remove_all(stamp, ignored);
    return done;
  }
  drop_old(folder, name);
  return link_names(folder, files);
}

}  // namespace edgemesh::edged
