// Loop: one thread's event loop, its timers and its only door for other threads (`post`).
//
// Built as an epoll set of our own with libuv's backend descriptor inside it. Sockets register once,
// edge-triggered for both directions: one epoll_ctl a socket for its whole life and one epoll_wait a
// turn. libuv serves what is rare: signals, child processes, its thread pool (`offload`).
//
// Threads: everything belongs to the thread that calls run(), apart from post() and stop(). Before
// run() is called, the thread that created the loop counts as its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "core/base/clock.h"
#include "core/base/function.h"
#include "core/base/result.h"

struct uv_loop_s;

namespace edgemesh::io {

using Task = UniqueFunction<void()>;

class Loop {
 public:
  static Result<std::unique_ptr<Loop>> create(Clock& clock = system_clock());
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Runs until stop(). Posted tasks that wait are run before it returns.
  void run();
  // Runs turns until `done` is true or `limit` of real time passed; returns done(). For tests and
  // for start-up code that waits.
  bool run_until(const std::function<bool()>& done, Duration limit);
  // One turn, waiting at most `wait`.
  void run_once(Duration wait = Duration::zero());

  // Thread-safe. `task` runs on the loop's thread in a later turn, in the order of posting.
  void post(Task task);
  void stop();

  // Runs `task` at the end of this turn, after the events of the turn. For deferred deletion
  // (`defer([p = std::move(p)] {})`) and for coalescing writes.
  void defer(Task task);

  // Runs `work` on a pool thread (blocking calls: files, hashing), then `done` on the loop.
  void offload(Task work, Task done);

  bool on_thread() const;
  void assert_on_thread() const { EM_ASSERT(on_thread()); }

  // Time of this turn, read once a turn.
  TimePoint now() const { return now_; }
  Clock& clock() const { return clock_; }

  // A scratch buffer for reads that are consumed before the callback returns. 256 KiB.
  static constexpr size_t kScratchBytes = 256 * 1024;
  uint8_t* scratch() { return scratch_.get(); }

  // For core/io only. uv() marks libuv as touched, so that the next turn runs it.
  uv_loop_s* uv();
  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  explicit Loop(Clock& clock);
  Clock& clock_;
  TimePoint now_{};
  std::unique_ptr<uint8_t[]> scratch_;
  std::unique_ptr<Impl> impl_;
  friend struct Impl;
};

// A one-shot or repeating timer. After stop() or destruction its callback never runs. 56 bytes plus
// the callback; starting and stopping costs O(log n) and no system call.
class Timer {
 public:
  Timer(Loop& loop, Task callback);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void start(Duration after);            // restarts when already running
  void start_at(TimePoint deadline);
  void start_repeating(Duration every);  // first time after `every`
  void stop();
  bool active() const { return heap_index_ >= 0; }
  TimePoint deadline() const { return deadline_; }

 private:
  friend class TimerHeap;
  friend class Loop;
  Loop& loop_;
  Task callback_;
  TimePoint deadline_{};
  uint64_t sequence_ = 0;  // equal deadlines fire in the order of starting
  Duration repeat_{};
  int32_t heap_index_ = -1;
  Timer** running_ = nullptr;  // while the callback runs: how to tell that the timer was destroyed
};

// Readiness of one descriptor, edge-triggered: a callback says that something became possible, so the
// user must read (or write) until it would block. Both directions are always registered.
class FdWatch {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    // `readable` and `writable` are hints; errors and hang-ups set both, and the next call on the
    // descriptor tells the reason. The handler may destroy the FdWatch.
    virtual void on_fd(bool readable, bool writable) = 0;
  };
  FdWatch() = default;
  ~FdWatch() { stop(); }
  FdWatch(const FdWatch&) = delete;
  FdWatch& operator=(const FdWatch&) = delete;

  // `writable`: tells of room to write from the beginning; else only while watch_writable(true).
  Result<> start(Loop& loop, int fd, Handler* handler, bool writable = true);
  // On: on_fd comes at once if there is room, else with the next edge.
  void watch_writable(bool on);
  // `fd_closed_by_caller`: the caller closes fd next, so that no epoll_ctl is needed.
  void stop(bool fd_closed_by_caller = false);
  bool active() const { return slot_ != nullptr; }
  // The peer ended or broke its direction, or sent urgent data (EPOLLRDHUP, EPOLLHUP, EPOLLERR or
  // EPOLLPRI was seen). Until then a read that returned less than asked has emptied the socket: the
  // next arrival makes a new edge.
  bool peer_ended() const;
  // It ended it in order (EPOLLRDHUP alone): behind the last byte there is the end of input.
  bool peer_finished() const;

  struct Slot;

 private:
  Slot* slot_ = nullptr;
};

// Calls `callback` on the loop for each arrival of `signum`.
class SignalWatch {
 public:
  static Result<std::unique_ptr<SignalWatch>> start(Loop& loop, int signum, Task callback);
  ~SignalWatch();

 private:
  struct Impl;
  explicit SignalWatch(Impl* impl) : impl_(impl) {}
  Impl* impl_;
};

}  // namespace edgemesh::io
