#include "proxy/exchange/overload.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <string_view>
#include <utility>

#include "core/io/fd.h"

namespace edgemesh::proxy {

namespace {

constexpr uint64_t percent_of(uint64_t whole, uint64_t percent) {
  return whole / 100 * percent;
}

}  // namespace

void Overload::set(const model::Overload& limits, size_t workers) {
  const uint64_t most = limits.max_connections;
  max_connections_ = most > 0 ? most : UINT64_MAX;
  soft_connections_ = most > 0 ? most - most / 10 : UINT64_MAX;
  max_requests_ = limits.max_requests > 0
                      ? std::max<uint64_t>(1, limits.max_requests / std::max<size_t>(1, workers))
                      : UINT64_MAX;
  max_memory_ = limits.max_memory;
  if (max_memory_ == 0) level_ = kFine;
}

bool Overload::note_memory(uint64_t in_use) {
  memory_.store(in_use, std::memory_order_relaxed);
  const Level before = level();
  Level now = before;
  if (max_memory_ == 0 || in_use < percent_of(max_memory_, 85))
    now = kFine;
  else if (in_use >= max_memory_)
    now = kShed;
  else if (in_use >= percent_of(max_memory_, 90) && before == kFine)
    now = kTight;
  level_.store(now, std::memory_order_relaxed);
  return now != before;
}

bool Overload::note_refusals() {
  const uint64_t now = refused();
  const bool before = refusing_;
  refusing_ = std::exchange(refused_before_, now) != now;
  return refusing_ != before;
}

bool Overload::take_connection() {
  const uint64_t open = connections_.fetch_add(1, std::memory_order_relaxed);
  if (open < max_connections_.load(std::memory_order_relaxed) && level() != kShed) return true;
  give_connection();
  refused_.fetch_add(1, std::memory_order_relaxed);
  return false;
}

uint64_t resident_memory() {
  const io::Fd file(open("/proc/self/statm", O_RDONLY | O_CLOEXEC));
  char text[128];
  const ssize_t n = file.valid() ? read(file.get(), text, sizeof text) : -1;
  if (n <= 0) return 0;
  // "size resident ...", in pages.
  const std::string_view all(text, static_cast<size_t>(n));
  const size_t space = all.find(' ');
  if (space == std::string_view::npos) return 0;
  uint64_t pages = 0;
  std::from_chars(all.data() + space + 1, all.data() + all.size(), pages);
  return pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace edgemesh::proxy
