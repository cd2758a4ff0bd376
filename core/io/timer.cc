#include <utility>

#include "core/io/loop_impl.h"

namespace edgemesh::io {

void TimerHeap::place(size_t index, Timer* timer) {
  heap_[index] = timer;
  timer->heap_index_ = static_cast<int32_t>(index);
}

void TimerHeap::sift_up(size_t index) {
  Timer* timer = heap_[index];
  while (index > 0) {
    size_t parent = (index - 1) / 2;
    if (!before(timer, heap_[parent])) break;
    place(index, heap_[parent]);
    index = parent;
  }
  place(index, timer);
}

void TimerHeap::sift_down(size_t index) {
  Timer* timer = heap_[index];
  for (;;) {
    size_t child = 2 * index + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && before(heap_[child + 1], heap_[child])) ++child;
    if (!before(heap_[child], timer)) break;
    place(index, heap_[child]);
    index = child;
  }
  place(index, timer);
}

void TimerHeap::push(Timer* timer) {
  heap_.push_back(timer);
  sift_up(heap_.size() - 1);
}

void TimerHeap::remove(Timer* timer) {
  auto index = static_cast<size_t>(timer->heap_index_);
  timer->heap_index_ = -1;
  Timer* last = heap_.back();
  heap_.pop_back();
  if (last == timer) return;
  place(index, last);
  sift_up(index);
  sift_down(static_cast<size_t>(last->heap_index_));
}

Timer::Timer(Loop& loop, Task callback) : loop_(loop), callback_(std::move(callback)) {}

Timer::~Timer() {
  stop();
  if (running_ != nullptr) *running_ = nullptr;
}

void Timer::start_at(TimePoint deadline) {
  loop_.assert_on_thread();
  auto& timers = loop_.impl().timers;
  if (active()) timers.remove(this);
  deadline_ = deadline;
  sequence_ = timers.next_sequence();
  timers.push(this);
}

void Timer::start(Duration after) {
  repeat_ = Duration::zero();
  start_at(loop_.clock().now() + after);
}

void Timer::start_repeating(Duration every) {
  repeat_ = every;
  start_at(loop_.clock().now() + every);
}

void Timer::stop() {
  repeat_ = Duration::zero();
  if (active()) loop_.impl().timers.remove(this);
}

}  // namespace edgemesh::io
