// FileWatch: tells that files may have changed, by inotify (7). It looks at the directories that
// the files are in, so that it also sees a file that is replaced by a rename, one that comes back,
// and Kubernetes' volumes, where the link "..data" is what moves. Several changes in a row are told
// once.
//
// A directory that is taken away is looked for again every second. What is told is a hint: who
// listens reads the files and compares. Threads: the loop's.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/io/fd.h"
#include "core/io/loop.h"

namespace edgemesh::io {

class FileWatch final : private FdWatch::Handler {
 public:
  // `on_change` runs `settle` after the last of changes that follow each other closely, and at the
  // latest ten times that after the first. It must not destroy this.
  static Result<std::unique_ptr<FileWatch>> create(
      Loop& loop, Task on_change, Duration settle = std::chrono::milliseconds(200));
  ~FileWatch() override;
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;

  // These files instead of those before. What cannot be looked at is tried again.
  void set(const std::vector<std::string>& files);

 private:
  FileWatch(Loop& loop, Task on_change, Duration settle);
  void on_fd(bool readable, bool writable) override;
  void look_at(const std::string& directory);
  void retry();
  void note_change();

  Loop& loop_;
  Task on_change_;
  const Duration settle_;
  Fd fd_;
  FdWatch watch_;
  std::map<std::string, std::set<std::string>> wanted_;  // directory -> names
  std::map<int, std::string> watched_;                   // by inotify's number
  std::set<std::string> missing_;                        // directories
  TimePoint first_change_{};
  Timer settle_timer_;
  Timer retry_timer_;
};

}  // namespace edgemesh::io
