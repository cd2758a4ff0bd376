// Private to core/io: the parts of a Loop that its .cc files share.
#pragma once

#include <uv.h>

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/io/end_of_turn.h"
#include "core/io/fd.h"
#include "core/io/loop.h"

namespace edgemesh::io {

// What epoll's user data points at, by index and generation: an event that the kernel reports for a
// descriptor that is gone (a forked child may keep it open for a moment) finds another generation and
// is dropped. Slots are recycled, never freed, while the loop lives.
struct FdWatch::Slot {
  Loop::Impl* owner = nullptr;
  FdWatch::Handler* handler = nullptr;
  uint32_t index = 0;
  uint32_t generation = 0;
  int fd = -1;
  bool peer_ended = false;
  bool unclear = false;
};

// Binary min-heap of timers by (deadline, sequence); each timer knows its place.
class TimerHeap {
 public:
  bool empty() const { return heap_.empty(); }
  Timer* top() const { return heap_.front(); }
  void push(Timer* timer);
  void remove(Timer* timer);
  uint64_t next_sequence() { return ++sequence_; }

 private:
  static bool before(const Timer* a, const Timer* b) {
    return a->deadline_ != b->deadline_ ? a->deadline_ < b->deadline_ : a->sequence_ < b->sequence_;
  }
  void place(size_t index, Timer* timer);
  void sift_up(size_t index);
  void sift_down(size_t index);

  std::vector<Timer*> heap_;
  uint64_t sequence_ = 0;
};

struct Loop::Impl {
  explicit Impl(Loop& l) : loop(l) {}

  Result<> init();
  void close();
  void turn(Duration wait, bool forever);
  // How long epoll may sleep, from the caller's limit, the timers and the work that waits.
  Duration sleep_limit(Duration wait, bool forever) const;
  void wait_events(Duration limit);
  void run_posted();
  void run_timers();
  void run_deferred();
  void run_end_of_turn();
  bool work_waits() const { return !deferred.empty() || !end_of_turn.alone(); }
  void run_uv();

  FdWatch::Slot* take_slot();
  void give_slot(FdWatch::Slot* slot);

  Loop& loop;
  Fd epoll;
  Fd wake;
  uv_loop_t uv{};
  bool uv_open = false;
  bool uv_touched = false;
  std::atomic<std::thread::id> thread{std::this_thread::get_id()};
  std::atomic<bool> stopping{false};

  std::deque<FdWatch::Slot> slots;
  std::vector<FdWatch::Slot*> free_slots;
  TimerHeap timers;
  std::vector<Task> deferred;
  std::vector<Task> spare_tasks;  // empty; keeps its memory for the next turn
  RingLink end_of_turn;           // of EndOfTurn objects
  std::vector<std::shared_ptr<void>> kept;  // objects that live by themselves (lingering_close)
  size_t pool_work = 0;  // offloaded tasks on their way

  std::mutex mutex;  // guards `posted`
  std::vector<Task> posted;
  std::atomic<bool> has_posted{false};
};

}  // namespace edgemesh::io
