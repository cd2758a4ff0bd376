#include "cloud/api/audit_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "core/base/log.h"

namespace edgemesh::cloud {

Result<std::unique_ptr<AuditFile>> AuditFile::open(Options options) {
  std::unique_ptr<AuditFile> file(new AuditFile(std::move(options)));
  EM_TRY_VOID(file->reopen());
  file->thread_ = std::thread([raw = file.get()] { raw->run(); });
  return file;
}

AuditFile::~AuditFile() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  filled_.notify_one();
  thread_.join();
}

void AuditFile::put(std::string_view line) {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() + line.size() >= options_.max_queued) {
      ++lost_;
      return;
    }
    waiting_ += line;
    waiting_ += '\n';
  }
  filled_.notify_one();
}

void AuditFile::flush() {
  std::unique_lock lock(mutex_);
  drained_.wait(lock, [this] { return waiting_.empty() && !writing_; });
}

void AuditFile::run() {
  uint64_t tell_at = 1;
  std::unique_lock lock(mutex_);
  for (;;) {
    filled_.wait(lock, [this] { return !waiting_.empty() || ending_; });
    if (waiting_.empty()) return;
    const std::string lines = std::exchange(waiting_, {});
    writing_ = true;
    lock.unlock();
    write(lines);
    if (const uint64_t lost = lost_; lost >= tell_at) {
      EM_LOG(kError, "audit", "{}: {} events are lost so far: {}", options_.path, lost,
             failure_.empty() ? "they come faster than they can be written" : failure_);
      tell_at = lost * 2;  // a disk that stays full does not fill the log as well
      failure_.clear();
    }
    lock.lock();
    writing_ = false;
    drained_.notify_all();
  }
}

Result<> AuditFile::reopen() {
  fd_ = io::Fd(::open(options_.path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  struct stat is {};
  if (!fd_.valid() || fstat(fd_.get(), &is) != 0) return fail_errno(options_.path, errno);
  if (!S_ISREG(is.st_mode))
    return fail(ErrorCode::kInvalidArgument, "{} is no file", options_.path);
  size_ = is.st_size;
  return {};
}

void AuditFile::rotate() {
  fd_.reset();
  const auto old = [this](int number) { return fmt::format("{}.{}", options_.path, number); };
  for (int number = options_.max_old; number > 0; --number) {
    const std::string from = number == 1 ? options_.path : old(number - 1);
    ::rename(from.c_str(), old(number).c_str());  // over the oldest; one that is not there: nothing
  }
  if (options_.max_old == 0) ::unlink(options_.path.c_str());
}

void AuditFile::write(const std::string& lines) {
  std::string_view rest = lines;
  while (!rest.empty()) {
    const size_t end = rest.find('\n') + 1;
    if (auto done = write_line(rest.substr(0, end)); !done) {
      ++lost_;
      failure_ = done.error().message;
    }
    rest.remove_prefix(end);
  }
}

Result<> AuditFile::write_line(std::string_view line) {
  if (size_ > 0 && size_ + static_cast<int64_t>(line.size()) > options_.max_bytes) rotate();
  if (!fd_.valid()) EM_TRY_VOID(reopen());
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t n = ::write(fd_.get(), line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const int error = errno;
      // What is there of the line goes again, so that the next one begins where a line does.
      if (done > 0 && ::ftruncate(fd_.get(), size_) != 0) fd_.reset();
      return fail_errno(options_.path, error);
    }
    done += static_cast<size_t>(n);
  }
  size_ += static_cast<int64_t>(line.size());
  return {};
}

}  // namespace edgemesh::cloud
