#include "core/base/log_output.h"

#include <poll.h>
#include <pthread.h>

#include <cerrno>
#include <cstdlib>
#include <new>
#include <system_error>
#include <thread>

#include "core/base/log.h"

namespace edgemesh::log {
namespace {

constexpr Duration kExitWait = std::chrono::seconds(1);
constexpr int kRetryMs = 1000;

}  // namespace

LogOutput& LogOutput::instance() {
  static auto* output = new LogOutput;  // never destroyed: threads may log until the end
  return *output;
}

LogOutput::LogOutput() {
  // The child of a fork has one thread: what another held would stay locked, and who waited is gone.
  ::pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                   [] { instance().begin_anew(); });
}

void LogOutput::begin_anew() {
  started_ = writing_ = false;
  waiting_.clear();
  new (&output_) std::mutex;
  new (&mutex_) std::mutex;
  new (&filled_) std::condition_variable;
  new (&drained_) std::condition_variable;
}

void LogOutput::write(std::string_view line) {
  std::string bytes(line);
  bytes.push_back('\n');
  std::lock_guard lock(output_);
  write_all(bytes);
}

void LogOutput::queue(std::string_view line) {
  std::unique_lock lock(mutex_);
  if (waiting_.size() + line.size() + 1 > kMaxQueued) {
    dropped_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  if (!started_) start_thread();
  waiting_.append(line);
  waiting_.push_back('\n');
  lock.unlock();
  filled_.notify_one();
}

void LogOutput::start_thread() {
  started_ = true;
  // Detached: it may be stuck in a write when the process ends.
  try {
    std::thread([this] { run(); }).detach();
  } catch (const std::system_error&) {
    started_ = false;  // the next line tries again; the queue's limit holds
    return;
  }
  static const int registered = std::atexit([] { instance().flush(kExitWait); });
  static_cast<void>(registered);
}

void LogOutput::run() {
  uint64_t said = dropped();
  std::string batch;
  std::unique_lock lock(mutex_);
  for (;;) {
    filled_.wait(lock, [this] { return !waiting_.empty(); });
    batch.clear();
    batch.swap(waiting_);
    writing_ = true;
    lock.unlock();
    {
      std::lock_guard out(output_);
      write_all(batch);
    }
    if (const uint64_t now = dropped(); now != said) {
      EM_LOG(kWarn, "log", "{} lines were dropped: what reads this log is slow", now - said);
      said = now;
    }
    lock.lock();
    writing_ = false;
    if (waiting_.empty()) drained_.notify_all();
  }
}

bool LogOutput::flush(Duration limit) {
  std::unique_lock lock(mutex_);
  if (!started_) return true;
  return drained_.wait_for(lock, limit, [this] { return waiting_.empty() && !writing_; });
}

void LogOutput::write_all(std::string_view bytes) {
  while (!bytes.empty()) {
    const int fd = fd_.load();
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n > 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
    } else if (n < 0 && errno == EAGAIN) {  // someone made it non-blocking
      pollfd ready{fd, POLLOUT, 0};
      static_cast<void>(::poll(&ready, 1, kRetryMs));
    } else if (n == 0 || errno != EINTR) {
      return;  // nobody reads it any more
    }
  }
}

}  // namespace edgemesh::log
