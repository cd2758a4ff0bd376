#include "proxy/telemetry/access_log_writer.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "core/base/log.h"

namespace edgemesh::proxy {

namespace {

constexpr size_t kMinLaneBytes = 128 << 10;  // two lines of the greatest length
constexpr size_t kWriteBytes = 64 << 10;     // at a time
constexpr size_t kPipeBytes = 4096;          // what a pipe that is writable takes without blocking
constexpr int kIdleMs = -1;                  // until woken
constexpr int kBlockedMs = 100;              // how often a full pipe lets us look at the rest

int64_t now_count() { return system_clock().now().time_since_epoch().count(); }

}  // namespace

AccessLogWriter::Lane::Lane(AccessLogWriter& writer, size_t bytes)
    : writer_(writer), size_(bytes), ring_(std::make_unique_for_overwrite<uint8_t[]>(bytes)) {
  scratch_.reserve(4096);
  value_scratch_.reserve(1024);
}

bool AccessLogWriter::Lane::put(LogFile& file, std::string_view line) {
  line = line.substr(0, kMaxLine);
  const uint64_t need = sizeof(Record) + (line.size() + sizeof(Record) - 1) / sizeof(Record) *
                                             sizeof(Record);
  const uint64_t head = head_.load(std::memory_order_relaxed);
  const size_t offset = head & (size_ - 1);
  const uint64_t skip = need > size_ - offset ? size_ - offset : 0;
  if (head + skip + need - seen_tail_ > size_) {
    seen_tail_ = tail_.load(std::memory_order_acquire);
    if (head + skip + need - seen_tail_ > size_) {
      dropped_.store(dropped_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
      return false;
    }
  }
  if (skip > 0) {
    const Record mark{nullptr, 0};
    std::memcpy(ring_.get() + offset, &mark, sizeof mark);
  }
  uint8_t* at = ring_.get() + (skip > 0 ? 0 : offset);
  const Record record{&file, line.size()};
  std::memcpy(at, &record, sizeof record);
  std::memcpy(at + sizeof record, line.data(), line.size());
  // Sequentially consistent, as is the thread's order of "I sleep" and looking here once more: one of
  // the two sees the other.
  head_.store(head + skip + need, std::memory_order_seq_cst);
  wake_if_needed(head + skip + need - seen_tail_);
  return true;
}

void AccessLogWriter::Lane::wake_if_needed(size_t used) {
  const int state = writer_.state_.load(std::memory_order_seq_cst);
  if (state == kIdle) return writer_.wake();
  if (state != kBatching || used < size_ / 2) return;
  seen_tail_ = tail_.load(std::memory_order_acquire);
  if (head_.load(std::memory_order_relaxed) - seen_tail_ >= size_ / 2) writer_.wake();
}

AccessLogWriter::AccessLogWriter(size_t lane_bytes, io::Fd wake_fd)
    : lane_bytes_(lane_bytes), wake_fd_(std::move(wake_fd)) {}

Result<std::unique_ptr<AccessLogWriter>> AccessLogWriter::start(size_t lane_bytes) {
  io::Fd wake_fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_fd.valid()) return fail_errno("eventfd", errno);
  lane_bytes = std::bit_ceil(std::max(lane_bytes, kMinLaneBytes));
  std::unique_ptr<AccessLogWriter> writer(new AccessLogWriter(lane_bytes, std::move(wake_fd)));
  writer->thread_ = std::thread([raw = writer.get()] { raw->run(); });
  return writer;
}

AccessLogWriter::~AccessLogWriter() {
  stop_by_ = now_count() + kStopTime.count();
  stopping_ = true;
  wake();
  thread_.join();
}

AccessLogWriter::Lane& AccessLogWriter::add_lane() {
  std::lock_guard lock(mutex_);
  lanes_.push_back(std::unique_ptr<Lane>(new Lane(*this, lane_bytes_)));
  return *lanes_.back();
}

Result<std::shared_ptr<LogFile>> AccessLogWriter::file(std::string_view path) {
  if (path == "/dev/stdout") path = "-";
  if (path.empty() || path.find('\0') != std::string_view::npos)
    return fail(ErrorCode::kInvalidArgument, "access log: the path is empty");
  std::lock_guard lock(mutex_);
  for (const auto& file : files_)
    if (file->path == path) return file;
  if (files_.size() >= kMaxFiles)
    return fail(ErrorCode::kResourceExhausted, "access log {}: more than {} files", path, kMaxFiles);
  files_.push_back(std::make_shared<LogFile>());
  files_.back()->path = path;
  return files_.back();
}

void AccessLogWriter::reopen() {
  reopen_ = true;
  wake();
}

void AccessLogWriter::flush() {
  std::unique_lock lock(mutex_);
  const uint64_t mine = ++flush_asked_;
  wake();
  flushed_.wait(lock, [&] { return flush_done_ >= mine; });
}

AccessLogWriter::Stats AccessLogWriter::stats() const {
  Stats out;
  out.lines = lines_.load(std::memory_order_relaxed);
  out.bytes = bytes_.load(std::memory_order_relaxed);
  out.failed = failed_.load(std::memory_order_relaxed);
  std::lock_guard lock(mutex_);
  for (const auto& lane : lanes_) out.dropped += lane->dropped();
  return out;
}

void AccessLogWriter::wake() {
  state_.store(kAwake, std::memory_order_relaxed);  // one system call is enough
  const uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(wake_fd_.get(), &one, sizeof one);
}

void AccessLogWriter::run() {
  sigset_t all;
  sigfillset(&all);  // signals are for other threads; SIGPIPE becomes EPIPE
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  for (;;) {
    // Read before draining: what was put before one of them was set is then written.
    const bool stopping = stopping_.load();
    const bool reopen = reopen_.exchange(false);
    uint64_t flush = 0;
    {
      std::lock_guard lock(mutex_);
      flush = flush_asked_;
      lanes_seen_.clear();
      for (const auto& lane : lanes_) lanes_seen_.push_back(lane.get());
      files_seen_ = files_;
    }
    const bool any = drain();
    write_files();
    if (reopen) reopen_files();
    files_seen_.clear();
    close_unused();
    {
      std::lock_guard lock(mutex_);
      flush_done_ = flush;
    }
    flushed_.notify_all();
    if (stopping) return;
    if (any)
      wait(kBatching, static_cast<int>(kBatchTime / std::chrono::milliseconds(1)));
    else
      wait(kIdle, kIdleMs);
  }
}

void AccessLogWriter::wait(State state, int timeout_ms) {
  state_.store(state, std::memory_order_seq_cst);
  bool sleep = true;
  if (state == kIdle)
    for (const Lane* lane : lanes_seen_)
      sleep &= lane->head_.load(std::memory_order_seq_cst) ==
               lane->tail_.load(std::memory_order_relaxed);
  pollfd fd{wake_fd_.get(), POLLIN, 0};
  ::poll(&fd, 1, sleep ? timeout_ms : 0);
  state_.store(kAwake, std::memory_order_seq_cst);
  uint64_t count = 0;
  [[maybe_unused]] const auto n = ::read(wake_fd_.get(), &count, sizeof count);
}

bool AccessLogWriter::drain() {
  bool any = false;
  for (Lane* lane : lanes_seen_) any |= drain_lane(*lane);
  return any;
}

bool AccessLogWriter::drain_lane(Lane& lane) {
  uint64_t tail = lane.tail_.load(std::memory_order_relaxed);
  const uint64_t head = lane.head_.load(std::memory_order_acquire);
  if (tail == head) return false;
  while (tail != head) {
    const size_t offset = tail & (lane.size_ - 1);
    Lane::Record record;
    std::memcpy(&record, lane.ring_.get() + offset, sizeof record);
    if (record.file == nullptr) {
      tail += lane.size_ - offset;
      continue;
    }
    const char* text = reinterpret_cast<const char*>(lane.ring_.get()) + offset + sizeof record;
    record.file->waiting.append(text, record.bytes);
    ++record.file->waiting_lines;
    tail += sizeof record + (record.bytes + sizeof record - 1) / sizeof record * sizeof record;
    if (record.file->waiting.size() >= kWriteBytes) {
      lane.tail_.store(tail, std::memory_order_release);  // room before it takes time
      write_file(*record.file);
    }
  }
  lane.tail_.store(tail, std::memory_order_release);
  return true;
}

void AccessLogWriter::write_files() {
  for (const auto& file : files_seen_) write_file(*file);
}

void AccessLogWriter::write_file(LogFile& file) {
  if (file.waiting.empty()) return;
  if (file.fd < 0) open_file(file);
  std::string_view left = file.waiting;
  while (file.fd >= 0 && !left.empty()) {
    if (!file.regular && !wait_writable(file.fd)) break;
    const size_t bytes = file.regular ? left.size() : std::min(left.size(), kPipeBytes);
    const ssize_t n = ::write(file.fd, left.data(), bytes);
    if (n > 0) left.remove_prefix(static_cast<size_t>(n));
    if (n < 0 && errno != EINTR && errno != EAGAIN) break;
  }
  if (left.empty()) {
    lines_.store(lines_.load(std::memory_order_relaxed) + file.waiting_lines,
                 std::memory_order_relaxed);
    bytes_.store(bytes_.load(std::memory_order_relaxed) + file.waiting.size(),
                 std::memory_order_relaxed);
  } else {
    failed_.store(failed_.load(std::memory_order_relaxed) + file.waiting_lines,
                  std::memory_order_relaxed);
  }
  file.waiting_lines = 0;
  file.waiting.clear();
  if (file.waiting.capacity() > 2 * kWriteBytes) file.waiting.shrink_to_fit();
}

// False: the process ends and cannot wait any longer.
bool AccessLogWriter::wait_writable(int fd) {
  for (;;) {
    pollfd what{fd, POLLOUT, 0};
    if (::poll(&what, 1, kBlockedMs) > 0) return true;
    if (out_of_time()) return false;
  }
}

bool AccessLogWriter::out_of_time() const { return stopping_ && now_count() >= stop_by_; }

void AccessLogWriter::open_file(LogFile& file) {
  if (file.broken && system_clock().now() < file.try_again) return;
  if (file.path == "-") {
    file.fd = STDOUT_FILENO;
  } else if (file.path == "/dev/stderr") {
    file.fd = STDERR_FILENO;
  } else {
    // Without O_NONBLOCK a FIFO nobody reads would hold the thread here.
    file.own.reset(::open(file.path.c_str(),
                          O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0640));
    if (!file.own.valid()) {
      EM_LOG(kWarn, "access_log", "{}", Error::from_errno("open " + file.path, errno).message);
      file.broken = true;
      file.try_again = system_clock().now() + kOpenAgain;
      return;
    }
    file.fd = file.own.get();
  }
  file.broken = false;
  struct stat info {};
  file.regular = ::fstat(file.fd, &info) == 0 && S_ISREG(info.st_mode);
}

void AccessLogWriter::reopen_files() {
  for (const auto& file : files_seen_) {
    file->own.reset();
    file->fd = -1;
    file->broken = false;
  }
}

// Files that nobody holds: their lines were put before the last one let go. Those lines may have come
// after this turn's drain, so the lanes are emptied once more before the file goes.
void AccessLogWriter::close_unused() {
  std::vector<std::shared_ptr<LogFile>> unused;
  {
    std::lock_guard lock(mutex_);  // file() cannot give it out again meanwhile
    const auto keep = std::stable_partition(files_.begin(), files_.end(),
                                            [](const auto& f) { return f.use_count() > 1; });
    unused.assign(std::make_move_iterator(keep), std::make_move_iterator(files_.end()));
    files_.erase(keep, files_.end());
    if (unused.empty()) return;
    // A lane may be younger than this turn, and have lines of such a file.
    lanes_seen_.clear();
    for (const auto& lane : lanes_) lanes_seen_.push_back(lane.get());
    files_seen_ = files_;
  }
  std::atomic_thread_fence(std::memory_order_acquire);  // after their last owner's puts
  drain();
  write_files();
  files_seen_.clear();
  for (const auto& file : unused) write_file(*file);
}

}  // namespace edgemesh::proxy
