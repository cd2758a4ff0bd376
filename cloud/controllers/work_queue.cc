#include "cloud/controllers/work_queue.h"

#include <algorithm>

#include "core/base/log.h"

namespace edgemesh::cloud::controllers {
namespace {

constexpr Duration kFirstRetry = std::chrono::milliseconds(100);
constexpr Duration kLastRetry = std::chrono::seconds(60);

}  // namespace

WorkQueue::WorkQueue(io::Loop& loop, std::string name, size_t max_parallel, Work work)
    : loop_(loop),
      name_(std::move(name)),
      max_parallel_(max_parallel),
      work_(std::move(work)),
      timer_(loop, [this] {
        const TimePoint now = loop_.now();
        while (!later_.empty() && later_.begin()->first <= now) {
          const std::string key = later_.begin()->second;
          later_.erase(later_.begin());
          due_.erase(key);
          add(key);
        }
        if (!later_.empty()) timer_.start_at(later_.begin()->first);
      }) {}

WorkQueue::~WorkQueue() {
  *alive_ = false;
}

void WorkQueue::start() {
  started_ = true;
  pump();
}

void WorkQueue::add(const std::string& key) {
  if (running_.contains(key)) {
    again_.insert(key);
    return;
  }
  if (!queued_.insert(key).second) return;
  queue_.push_back(key);
  if (!started_ || std::exchange(scheduled_, true)) return;
  loop_.defer([this, alive = alive_] {
    if (!*alive) return;
    scheduled_ = false;
    pump();
  });
}

void WorkQueue::add_after(const std::string& key, Duration wait) {
  const TimePoint when = loop_.now() + wait;
  const auto [it, fresh] = due_.emplace(key, when);
  if (!fresh) {
    if (it->second <= when) return;
    later_.erase({it->second, key});
    it->second = when;
  }
  later_.emplace(when, key);
  timer_.start_at(later_.begin()->first);
}

void WorkQueue::pump() {
  while (started_ && running_.size() < max_parallel_ && !queue_.empty()) {
    const std::string key = std::move(queue_.front());
    queue_.pop_front();
    queued_.erase(key);
    running_.insert(key);
    work_(key, [this, alive = alive_, key](Result<> result) {
      if (*alive) finish(key, result);
    });
  }
}

void WorkQueue::finish(const std::string& key, const Result<>& result) {
  running_.erase(key);
  const bool again = again_.erase(key) > 0;
  if (!result) {
    const int failures = failures_[key]++;
    const Duration wait = std::min(kFirstRetry * (1 << std::min(failures, 10)), kLastRetry);
    EM_LOG(kDebug, "controllers", "{}: {} failed, again later: {}", name_, key,
           result.error().message);
    add_after(key, wait);
  } else {
    failures_.erase(key);
    if (again) add(key);
  }
  if (queue_.empty() || std::exchange(scheduled_, true)) return;
  loop_.defer([this, alive = alive_] {
    if (!*alive) return;
    scheduled_ = false;
    pump();
  });
}

}  // namespace edgemesh::cloud::controllers
