#include "core/io/file_watch.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/base/log.h"

namespace edgemesh::io {

namespace {

constexpr uint32_t kEvents = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE |
                             IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
constexpr Duration kRetry = std::chrono::seconds(1);
constexpr std::string_view kVolumeLink = "..data";

}  // namespace

FileWatch::FileWatch(Loop& loop, Task on_change, Duration settle)
    : loop_(loop),
      on_change_(std::move(on_change)),
      settle_(settle),
      settle_timer_(loop,
                    [this] {
                      first_change_ = {};
                      on_change_();
                    }),
      retry_timer_(loop, [this] { retry(); }) {}

FileWatch::~FileWatch() {
  watch_.stop();
}

Result<std::unique_ptr<FileWatch>> FileWatch::create(Loop& loop, Task on_change, Duration settle) {
  std::unique_ptr<FileWatch> out(new FileWatch(loop, std::move(on_change), settle));
  out->fd_ = Fd(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!out->fd_.valid()) return fail_errno("inotify", errno);
  EM_TRY_VOID(out->watch_.start(loop, out->fd_.get(), out.get(), false));
  return out;
}

void FileWatch::set(const std::vector<std::string>& files) {
  std::map<std::string, std::set<std::string>> wanted;
  for (const std::string& file : files) {
    const size_t slash = file.rfind('/');
    const std::string directory = slash == std::string::npos ? "."
                                  : slash == 0               ? "/"
                                                             : file.substr(0, slash);
    wanted[directory].insert(file.substr(slash + 1));
  }
  std::erase_if(watched_, [&](const auto& item) {
    if (wanted.contains(item.second)) return false;
    inotify_rm_watch(fd_.get(), item.first);
    return true;
  });
  std::set<std::string> have;
  for (const auto& [number, directory] : watched_) have.insert(directory);
  wanted_ = std::move(wanted);
  missing_.clear();
  for (const auto& [directory, names] : wanted_)
    if (!have.contains(directory)) look_at(directory);
}

void FileWatch::look_at(const std::string& directory) {
  const int number = inotify_add_watch(fd_.get(), directory.c_str(), kEvents);
  if (number >= 0) {
    watched_[number] = directory;
    return;
  }
  if (missing_.insert(directory).second && errno != ENOENT)
    EM_LOG(kWarn, "io", "changes in {} cannot be seen: {}", directory, strerror(errno));
  if (!retry_timer_.active()) retry_timer_.start(kRetry);
}

void FileWatch::retry() {
  for (const std::string& directory : std::exchange(missing_, {})) {
    look_at(directory);
    // It came back, with other files perhaps.
    if (!missing_.contains(directory)) note_change();
  }
}

void FileWatch::on_fd(bool, bool) {
  alignas(inotify_event) char buffer[4096];
  bool changed = false;
  std::set<std::string> lost;
  for (;;) {
    const ssize_t n = read(fd_.get(), buffer, sizeof buffer);
    if (n <= 0) break;
    for (ssize_t at = 0; at < n;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
      at += static_cast<ssize_t>(sizeof *event + event->len);
      if ((event->mask & IN_Q_OVERFLOW) != 0) changed = true;
      const auto it = watched_.find(event->wd);
      if (it == watched_.end()) continue;
      if ((event->mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF)) != 0) {
        if ((event->mask & IN_IGNORED) == 0) inotify_rm_watch(fd_.get(), event->wd);
        lost.insert(it->second);
        watched_.erase(it);
        changed = true;
        continue;
      }
      const std::string name = event->len > 0 ? event->name : "";
      if (name == kVolumeLink || wanted_[it->second].contains(name)) changed = true;
    }
  }
  for (const std::string& directory : lost) look_at(directory);
  if (changed) note_change();
}

void FileWatch::note_change() {
  const TimePoint now = loop_.now();
  if (first_change_ == TimePoint{}) first_change_ = now;
  settle_timer_.start_at(std::min(now + settle_, first_change_ + 10 * settle_));
}

}  // namespace edgemesh::io
