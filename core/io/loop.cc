#include "core/io/loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>

#include "core/io/loop_impl.h"

namespace edgemesh::io {

namespace {
// epoll user data of the two descriptors that are not FdWatch slots.
constexpr uint64_t kWakeKey = ~uint64_t{0};
constexpr uint64_t kUvKey = ~uint64_t{0} - 1;
constexpr int kEventsATurn = 256;
// With a clock that is turned by hand the loop looks again this often.
constexpr Duration kManualPoll = std::chrono::milliseconds(2);
constexpr size_t kSpareTasks = 1024;  // a list that grew beyond is not kept
}  // namespace

Loop::Loop(Clock& clock)
    : clock_(clock),
      now_(clock.now()),
      scratch_(new uint8_t[kScratchBytes]),  // not zeroed: pages are touched only when used
      impl_(std::make_unique<Impl>(*this)) {}

Result<std::unique_ptr<Loop>> Loop::create(Clock& clock) {
  std::unique_ptr<Loop> loop(new Loop(clock));
  EM_TRY_VOID(loop->impl_->init());
  return loop;
}

Loop::~Loop() { impl_->close(); }

Result<> Loop::Impl::init() {
  epoll.reset(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return fail_errno("epoll_create1", errno);
  wake.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return fail_errno("eventfd", errno);
  if (int rc = uv_loop_init(&uv); rc != 0) return fail_errno("uv_loop_init", -rc);
  uv_open = true;

  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.u64 = kWakeKey;
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.get(), &event) != 0)
    return fail_errno("epoll_ctl", errno);
  event.events = EPOLLIN;  // level: libuv decides when its events are taken
  event.data.u64 = kUvKey;
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, uv_backend_fd(&uv), &event) != 0)
    return fail_errno("epoll_ctl", errno);
  return {};
}

void Loop::Impl::close() {
  kept.clear();
  // Tasks may own objects whose destructors post or defer again; a few rounds settle that.
  for (int round = 0; round < 16; ++round) {
    run_posted();
    run_deferred();
    if (!work_waits() && !has_posted.load()) break;
  }
  while (!end_of_turn.alone()) end_of_turn.next->leave();
  if (!uv_open) return;
  while (pool_work > 0) uv_run(&uv, UV_RUN_ONCE);
  uv_run(&uv, UV_RUN_NOWAIT);  // lets closing handles finish
  uv_loop_close(&uv);
}

bool Loop::on_thread() const { return impl_->thread.load() == std::this_thread::get_id(); }

uv_loop_s* Loop::uv() {
  impl_->uv_touched = true;
  return &impl_->uv;
}

void Loop::post(Task task) {
  bool first;
  {
    std::lock_guard lock(impl_->mutex);
    first = impl_->posted.empty();
    impl_->posted.push_back(std::move(task));
    impl_->has_posted.store(true);
  }
  if (first) eventfd_write(impl_->wake.get(), 1);
}

void Loop::stop() {
  impl_->stopping = true;
  eventfd_write(impl_->wake.get(), 1);
}

void Loop::defer(Task task) {
  assert_on_thread();
  impl_->deferred.push_back(std::move(task));
}

void Loop::offload(Task work, Task done) {
  assert_on_thread();
  struct Job {
    uv_work_t request;
    Loop::Impl* impl;
    Task work;
    Task done;
  };
  auto* job = new Job{{}, impl_.get(), std::move(work), std::move(done)};
  job->request.data = job;
  ++impl_->pool_work;
  uv_queue_work(
      uv(), &job->request, [](uv_work_t* request) { static_cast<Job*>(request->data)->work(); },
      [](uv_work_t* request, int) {
        std::unique_ptr<Job> owned(static_cast<Job*>(request->data));
        --owned->impl->pool_work;
        if (owned->done) owned->done();
      });
}

void Loop::run() {
  impl_->thread = std::this_thread::get_id();
  while (!impl_->stopping.load(std::memory_order_relaxed)) impl_->turn({}, true);
  impl_->run_posted();
  impl_->run_deferred();
  impl_->stopping = false;
}

void Loop::run_once(Duration wait) {
  impl_->thread = std::this_thread::get_id();
  impl_->turn(wait, false);
}

bool Loop::run_until(const std::function<bool()>& done, Duration limit) {
  impl_->thread = std::this_thread::get_id();
  auto end = system_clock().now() + limit;
  while (!done()) {
    auto left = end - system_clock().now();
    if (left <= Duration::zero()) return done();
    impl_->turn(std::min<Duration>(left, std::chrono::milliseconds(20)), false);
  }
  return true;
}

Duration Loop::Impl::sleep_limit(Duration wait, bool forever) const {
  if (work_waits() || has_posted.load() || uv_touched) return Duration::zero();
  Duration limit = forever ? std::chrono::hours(1) : wait;
  if (loop.clock_.manual()) return timers.empty() ? limit : std::min(limit, kManualPoll);
  if (!timers.empty()) limit = std::min(limit, timers.top()->deadline() - loop.clock_.now());
  return std::max(limit, Duration::zero());
}

void Loop::Impl::turn(Duration wait, bool forever) {
  if (uv_touched) run_uv();
  wait_events(sleep_limit(wait, forever));
  run_posted();
  run_timers();
  run_deferred();
}

void Loop::Impl::wait_events(Duration limit) {
  epoll_event events[kEventsATurn];
  timespec ts{static_cast<time_t>(limit.count() / 1'000'000'000),
              static_cast<long>(limit.count() % 1'000'000'000)};
  int n = epoll_pwait2(epoll.get(), events, kEventsATurn, &ts, nullptr);
  if (n < 0 && errno == ENOSYS) {  // kernels before 5.11: milliseconds, rounded up
    auto ms = (limit.count() + 999'999) / 1'000'000;
    n = epoll_wait(epoll.get(), events, kEventsATurn, static_cast<int>(ms));
  }
  loop.now_ = loop.clock_.now();
  for (int i = 0; i < n; ++i) {
    uint64_t key = events[i].data.u64;
    if (key == kWakeKey) continue;  // edge-triggered: nothing to drain, run_posted() looks anyway
    if (key == kUvKey) {
      run_uv();
      continue;
    }
    FdWatch::Slot& slot = slots[key & 0xffffffff];
    if (slot.generation != key >> 32 || slot.handler == nullptr) continue;
    uint32_t bits = events[i].events;
    bool broken = (bits & (EPOLLERR | EPOLLHUP)) != 0;
    // Urgent data (EPOLLPRI) makes reads stop short of it: then a short read tells nothing.
    slot.unclear = slot.unclear || broken || (bits & EPOLLPRI) != 0;
    slot.peer_ended = slot.peer_ended || slot.unclear || (bits & EPOLLRDHUP) != 0;
    slot.handler->on_fd(broken || (bits & (EPOLLIN | EPOLLRDHUP)) != 0,
                        broken || (bits & EPOLLOUT) != 0);
  }
}

void Loop::Impl::run_uv() {
  uv_run(&uv, UV_RUN_NOWAIT);
  uv_touched = uv_backend_timeout(&uv) == 0;
}

void Loop::Impl::run_posted() {
  if (!has_posted.load(std::memory_order_acquire)) return;
  std::vector<Task> tasks;
  {
    std::lock_guard lock(mutex);
    tasks.swap(posted);
    has_posted.store(false);
  }
  for (Task& task : tasks) {
    task();
    task = nullptr;  // what it holds dies now, not after the last task
  }
}

void Loop::Impl::run_timers() {
  loop.now_ = loop.clock_.now();
  // A timer that is started again by its callback waits for the next turn.
  TimePoint now = loop.now_;
  uint64_t last = timers.next_sequence();
  while (!timers.empty() && timers.top()->deadline_ <= now && timers.top()->sequence_ < last) {
    Timer* timer = timers.top();
    timers.remove(timer);
    if (timer->repeat_ > Duration::zero()) {
      timer->start_at(std::max(timer->deadline_ + timer->repeat_, now));
    }
    // The callback may destroy its timer: it must not run from storage inside of it.
    Task callback = std::move(timer->callback_);
    struct Restore {
      Timer** slot;
      Task* callback;
      ~Restore() {
        if (*slot != nullptr) (*slot)->callback_ = std::move(*callback);
        if (*slot != nullptr) (*slot)->running_ = nullptr;
      }
    };
    Timer* alive = timer;
    timer->running_ = &alive;
    Restore restore{&alive, &callback};
    callback();
  }
}

void Loop::Impl::run_deferred() {
  if (!deferred.empty()) {
    std::vector<Task> tasks = std::move(spare_tasks);
    tasks.swap(deferred);
    for (Task& task : tasks) {
      task();
      task = nullptr;
    }
    tasks.clear();
    if (tasks.capacity() <= kSpareTasks) spare_tasks = std::move(tasks);
  }
  if (!end_of_turn.alone()) run_end_of_turn();
}

void Loop::Impl::run_end_of_turn() {
  // Those that wait now: what is scheduled meanwhile is for the next turn.
  RingLink due;
  due.take(end_of_turn);
  while (!due.alone()) {
    auto* object = static_cast<EndOfTurn*>(due.next);
    object->cancel();
    object->end_of_turn();
  }
}

void EndOfTurn::schedule(Loop& loop) {
  loop.assert_on_thread();
  if (alone()) insert_before(loop.impl().end_of_turn);
}

FdWatch::Slot* Loop::Impl::take_slot() {
  if (free_slots.empty()) {
    auto& slot = slots.emplace_back();
    slot.owner = this;
    slot.index = static_cast<uint32_t>(slots.size() - 1);
    return &slot;
  }
  auto* slot = free_slots.back();
  free_slots.pop_back();
  return slot;
}

void Loop::Impl::give_slot(FdWatch::Slot* slot) {
  slot->handler = nullptr;
  slot->fd = -1;
  slot->generation = (slot->generation + 1) & 0x7fffffff;  // never equal to the special keys
  free_slots.push_back(slot);
}

namespace {
epoll_event edge_event(const FdWatch::Slot& slot, bool writable) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET | (writable ? uint32_t{EPOLLOUT} : 0U);
  event.data.u64 = (uint64_t{slot.generation} << 32) | slot.index;
  return event;
}
}  // namespace

Result<> FdWatch::start(Loop& loop, int fd, Handler* handler, bool writable) {
  loop.assert_on_thread();
  EM_CHECK(slot_ == nullptr);
  Slot* slot = loop.impl().take_slot();
  slot->handler = handler;
  slot->fd = fd;
  slot->peer_ended = false;
  slot->unclear = false;
  epoll_event event = edge_event(*slot, writable);
  if (epoll_ctl(loop.impl().epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    int err = errno;
    loop.impl().give_slot(slot);
    return fail_errno("watch descriptor", err);
  }
  slot_ = slot;
  return {};
}

void FdWatch::watch_writable(bool on) {
  if (slot_ == nullptr) return;
  epoll_event event = edge_event(*slot_, on);
  epoll_ctl(slot_->owner->epoll.get(), EPOLL_CTL_MOD, slot_->fd, &event);
}

void FdWatch::stop(bool fd_closed_by_caller) {
  if (slot_ == nullptr) return;
  auto* owner = slot_->owner;
  if (!fd_closed_by_caller) epoll_ctl(owner->epoll.get(), EPOLL_CTL_DEL, slot_->fd, nullptr);
  owner->give_slot(slot_);
  slot_ = nullptr;
}

bool FdWatch::peer_ended() const { return slot_ != nullptr && slot_->peer_ended; }
bool FdWatch::peer_finished() const {
  return slot_ != nullptr && slot_->peer_ended && !slot_->unclear;
}

}  // namespace edgemesh::io
