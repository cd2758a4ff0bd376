#include "cloud/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "core/io/fd.h"

namespace edgemesh::cloud {

Result<> make_dirs(const std::string& path) {
  if (path.empty()) return fail(ErrorCode::kInvalidArgument, "empty directory name");
  for (size_t at = 1; at <= path.size(); ++at) {
    if (at != path.size() && path[at] != '/') continue;
    const std::string part = path.substr(0, at);
    if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      return fail_errno("create directory " + part, errno);
    }
  }
  return {};
}

Result<> write_file(const std::string& path, std::string_view data, mode_t mode) {
  const std::string temp = path + ".new";
  io::Fd fd(::open(temp.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!fd.valid()) return fail_errno("write " + temp, errno);
  // The mode of open() is cut by the umask and does not apply to a file left by a crash.
  if (::fchmod(fd.get(), mode) != 0) return fail_errno("chmod " + temp, errno);
  while (!data.empty()) {
    const ssize_t n = ::write(fd.get(), data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("write " + temp, errno);
    data.remove_prefix(static_cast<size_t>(n));
  }
  if (::fsync(fd.get()) != 0) return fail_errno("fsync " + temp, errno);
  if (::rename(temp.c_str(), path.c_str()) != 0) return fail_errno("rename " + temp, errno);
  // Without it a power cut can take the name away again.
  const std::string dir = path.substr(0, path.rfind('/') + 1);
  io::Fd dir_fd(::open(dir.empty() ? "." : dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir_fd.valid() || ::fsync(dir_fd.get()) != 0) return fail_errno("sync the folder of " + path, errno);
  return {};
}

Result<std::string> read_file(const std::string& path, size_t max_bytes) {
  io::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return fail_errno("read " + path, errno);
  std::string out;
  char buffer[16384];
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("read " + path, errno);
    if (n == 0) return out;
    out.append(buffer, static_cast<size_t>(n));
    if (out.size() > max_bytes) {
      return fail(ErrorCode::kResourceExhausted, "{} is larger than {} bytes", path, max_bytes);
    }
  }
}

Result<FileLock> FileLock::acquire(const std::string& path) {
  return lock(path, LOCK_EX);
}

Result<FileLock> FileLock::try_acquire(const std::string& path) {
  return lock(path, LOCK_EX | LOCK_NB);
}

Result<FileLock> FileLock::lock(const std::string& path, int operation) {
  io::Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.valid()) return fail_errno("open " + path, errno);
  while (::flock(fd.get(), operation) != 0) {
    if (errno == EINTR) continue;
    if (errno == EWOULDBLOCK) {
      return fail(ErrorCode::kUnavailable, "{} is locked by another process", path);
    }
    return fail_errno("lock " + path, errno);
  }
  return FileLock(fd.release());
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace edgemesh::cloud
