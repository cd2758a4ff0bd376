// LogOutput: where log lines go, by default stderr. Two ways in: at once, in the caller's thread, and by a bounded
// queue that a thread of its own empties. The queue is for lines that come with the traffic: whoever puts one in
// never waits for a slow terminal, pipe or disk; what does not fit is dropped and counted, and said in the log when
// there is room again. Thread-safe. Lives until the process ends; at exit what is queued is written, for at most a
// second. A fork's child begins with an empty queue.
#pragma once

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "core/base/clock.h"

namespace edgemesh::log {

// Its lines, one a connection, are queued; those of all others are written when EM_LOG returns. A sink
// (log::set_sink) gets both in the caller's thread.
inline constexpr std::string_view kQueuedComponent = "access";

class LogOutput {
 public:
  static constexpr size_t kMaxQueued = 1 << 20;  // bytes

  static LogOutput& instance();

  // Both take a line without its newline.
  void write(std::string_view line);
  void queue(std::string_view line);

  // Waits until all that is queued is written. False: not within `limit`.
  bool flush(Duration limit);
  uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }
  // Another descriptor than stderr; borrowed.
  void set_fd(int fd) { fd_.store(fd); }

 private:
  LogOutput();
  void start_thread();
  void begin_anew();  // in the child of a fork
  void run();
  void write_all(std::string_view bytes);

  std::atomic<int> fd_{STDERR_FILENO};
  std::atomic<uint64_t> dropped_{0};
  std::mutex output_;  // held while lines are written, so that they stay whole
  std::mutex mutex_;   // guards all below; never held while writing
  std::condition_variable filled_, drained_;
  std::string waiting_;
  bool started_ = false;
  bool writing_ = false;
};

}  // namespace edgemesh::log
