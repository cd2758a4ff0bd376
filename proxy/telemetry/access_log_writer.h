// AccessLogWriter: the way of access log lines from workers to files. Each worker has a lane, a ring
// of bytes with one producer and one consumer; one thread takes the lines out and writes them.
//
// - put() takes no lock and allocates nothing; it makes a system call only when the thread sleeps
//   because nothing was logged for a while, or when the lane got half full.
// - A lane without room drops the line and counts it: a slow disk or a full pipe never holds up
//   requests.
// - Lines reach the file after at most kBatchTime, those of one lane in order.
// Threads: lanes are one worker's each; all else is thread-safe. The thread is joined by the
// destructor, which writes what is left but waits at most kStopTime for a reader that does not read.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/base/clock.h"
#include "core/base/result.h"
#include "core/io/fd.h"

namespace edgemesh::proxy {

// An open file; see AccessLogWriter::file(). Its members are the writer's.
struct LogFile {
  std::string path;
  io::Fd own;                // of a path
  int fd = -1;               // `own`, or a standard stream
  bool regular = false;      // never blocks
  bool broken = false;       // could not be opened
  TimePoint try_again{};     // not before, when broken
  std::string waiting;       // lines to be written
  uint64_t waiting_lines = 0;
};

class AccessLogWriter {
 public:
  static constexpr size_t kDefaultLaneBytes = 256 << 10;
  static constexpr size_t kMaxLine = 64 << 10;  // longer ones are cut by who writes them
  static constexpr size_t kMaxFiles = 256;
  static constexpr Duration kBatchTime = std::chrono::milliseconds(100);
  static constexpr Duration kStopTime = std::chrono::seconds(1);
  static constexpr Duration kOpenAgain = std::chrono::seconds(5);

  // One worker's.
  class Lane {
   public:
    // False: there was no room; it is counted.
    bool put(LogFile& file, std::string_view line);
    // Room to make a line in; empty it before.
    std::string& scratch() { return scratch_; }
    std::string& value_scratch() { return value_scratch_; }
    uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

   private:
    friend class AccessLogWriter;
    struct Record {  // before each line, at a multiple of its size
      LogFile* file;   // null: the rest of the ring is not used
      uint64_t bytes;  // of the line
    };
    Lane(AccessLogWriter& writer, size_t bytes);
    void wake_if_needed(size_t used);

    AccessLogWriter& writer_;
    const size_t size_;  // a power of two
    std::unique_ptr<uint8_t[]> ring_;
    std::string scratch_, value_scratch_;
    std::atomic<uint64_t> dropped_{0};
    uint64_t seen_tail_ = 0;                     // the producer's last look at tail_
    alignas(64) std::atomic<uint64_t> head_{0};  // bytes ever put
    alignas(64) std::atomic<uint64_t> tail_{0};  // bytes ever taken
  };

  // `lane_bytes` is rounded up to a power of two, 128 KiB at least.
  static Result<std::unique_ptr<AccessLogWriter>> start(size_t lane_bytes = kDefaultLaneBytes);
  ~AccessLogWriter();
  AccessLogWriter(const AccessLogWriter&) = delete;
  AccessLogWriter& operator=(const AccessLogWriter&) = delete;

  // It lives as long as the writer.
  Lane& add_lane();
  // "-" and "/dev/stdout": standard output; "/dev/stderr". The same path gives the same file while
  // somebody holds it. It is opened by the thread, when its first line comes; one that cannot be
  // opened loses its lines and is tried again after kOpenAgain. Errors: too many files.
  Result<std::shared_ptr<LogFile>> file(std::string_view path);
  // Closes and opens all paths, after what was put before was written: for rotation of logs.
  void reopen();
  // Waits until all that was put before is written or lost.
  void flush();

  struct Stats {
    uint64_t lines = 0;    // written
    uint64_t bytes = 0;
    uint64_t dropped = 0;  // no room in a lane
    uint64_t failed = 0;   // could not be written
  };
  Stats stats() const;

 private:
  enum State : int { kAwake, kBatching, kIdle };
  explicit AccessLogWriter(size_t lane_bytes, io::Fd wake_fd);
  void run();
  void wait(State state, int timeout_ms);
  void wake();
  bool drain();  // whether there was anything
  bool drain_lane(Lane& lane);
  void write_files();
  void write_file(LogFile& file);
  bool wait_writable(int fd);
  void open_file(LogFile& file);
  void reopen_files();
  void close_unused();
  bool out_of_time() const;

  const size_t lane_bytes_;
  io::Fd wake_fd_;
  std::atomic<int> state_{kAwake};
  std::atomic<bool> stopping_{false}, reopen_{false};
  std::atomic<uint64_t> lines_{0}, bytes_{0}, failed_{0};
  std::atomic<int64_t> stop_by_{0};  // TimePoint's count

  mutable std::mutex mutex_;  // guards what follows
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::vector<std::shared_ptr<LogFile>> files_;
  uint64_t flush_asked_ = 0, flush_done_ = 0;
  std::condition_variable flushed_;

  std::vector<Lane*> lanes_seen_;                      // the thread's
  std::vector<std::shared_ptr<LogFile>> files_seen_;   // the thread's
  std::thread thread_;
};

}  // namespace edgemesh::proxy
