// AuditFile: lines that a thread of its own appends to a file. Whoever puts a line never waits:
// what does not fit into the queue, or cannot be written, is lost, counted, and said in the log. A
// file that would grow beyond its size becomes <file>.1, what was there <file>.2, and so on; the
// oldest goes. Each line is whole, also after a full disk. put() and lost() are thread-safe.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "core/base/result.h"
#include "core/io/fd.h"

namespace edgemesh::cloud {

class AuditFile {
 public:
  struct Options {
    std::string path;
    int64_t max_bytes = 100 << 20;  // of one file
    int max_old = 10;               // files beside the one that is written
    size_t max_queued = 16 << 20;   // bytes
  };

  // Opens the file for appending (mode 0600). Blocking.
  static Result<std::unique_ptr<AuditFile>> open(Options options);
  ~AuditFile();  // writes what is queued
  AuditFile(const AuditFile&) = delete;
  AuditFile& operator=(const AuditFile&) = delete;

  void put(std::string_view line);  // without its newline
  void flush();                     // waits until all is written or lost
  uint64_t lost() const { return lost_; }

 private:
  explicit AuditFile(Options options) : options_(std::move(options)) {}
  void run();
  Result<> reopen();
  void rotate();
  void write(const std::string& lines);
  Result<> write_line(std::string_view line);

  const Options options_;
  // The thread's:
  io::Fd fd_;
  int64_t size_ = 0;
  std::string failure_;  // of the last line that could not be written
  std::atomic<uint64_t> lost_{0};
  std::mutex mutex_;  // guards what follows; never held while writing
  std::condition_variable filled_, drained_;
  std::string waiting_;
  bool writing_ = false, ending_ = false;
  std::thread thread_;
};

}  // namespace edgemesh::cloud
