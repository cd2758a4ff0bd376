// Small files of the state directory: keys, tokens, kubeconfigs. Blocking; for start-up and for
// rare writes. Thread-safe.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "core/base/result.h"

namespace edgemesh::cloud {

// Creates the directory and its parents (mode 0700 for what is new).
Result<> make_dirs(const std::string& path);
// Replaces the file in one step (temporary file, fsync, rename): a reader sees the old or the new
// text, a crash leaves one of them.
Result<> write_file(const std::string& path, std::string_view data, mode_t mode);
// kNotFound when it does not exist; files beyond `max_bytes` are refused.
Result<std::string> read_file(const std::string& path, size_t max_bytes = 1 << 20);

// Holds an exclusive lock on a file while it lives, so that two processes (the server and
// `token create`) do not both make a CA in a fresh state directory.
class FileLock {
 public:
  static Result<FileLock> acquire(const std::string& path);
  // kUnavailable at once when another process holds it.
  static Result<FileLock> try_acquire(const std::string& path);
  FileLock(FileLock&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  static Result<FileLock> lock(const std::string& path, int operation);
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace edgemesh::cloud
