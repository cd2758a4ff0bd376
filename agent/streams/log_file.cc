#include "agent/streams/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <filesystem>

namespace edgemesh::streams {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBlock = 64 << 10;
constexpr size_t kStampSize = 15;  // of "20261124-035001"
// The runtime splits lines at 16 KiB; whoever writes more without an end of line gets it cut here.
constexpr size_t kMaxRecord = 1 << 20;
constexpr size_t kRecordHead = 80;  // holds time, stream and tag

int64_t nanoseconds(const timespec& time) {
  return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

bool digits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

int number(std::string_view text) {
  int out = 0;
  for (char c : text) out = out * 10 + (c - '0');
  return out;
}

// Days since 1970-01-01 of a date of the Gregorian calendar.
int64_t days_of(int year, int month, int day) {
  const std::chrono::year_month_day date{std::chrono::year(year),
                                         std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  return date.ok() ? std::chrono::sys_days(date).time_since_epoch().count() : -1;
}

std::string read_at(int fd, int64_t offset, size_t size) {
  std::string out(size, '\0');
  const ssize_t n = pread(fd, out.data(), size, offset);
  out.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return out;
}

// Of the first record that begins at or behind `from`; -1: there is none before `end`.
int64_t time_after(int fd, int64_t from, int64_t end, int64_t* begins) {
  int64_t at = from;
  if (from > 0) {
    for (at = from - 1;;) {
      if (at >= end) return -1;
      const std::string block = read_at(fd, at, kBlock);
      if (block.empty()) return -1;
      const size_t newline = block.find('\n');
      at += static_cast<int64_t>(newline == std::string::npos ? block.size() : newline + 1);
      if (newline != std::string::npos) break;
    }
  }
  *begins = at;
  const std::string head = read_at(fd, at, kRecordHead);
  return parse_time(std::string_view(head).substr(0, head.find(' ')));
}

// Whether the record that begins at `offset` ends a line.
bool ends_line(int fd, int64_t offset) {
  const std::string head = read_at(fd, offset, kRecordHead);
  LogRecord record;
  return !parse_record(std::string_view(head).substr(0, head.find('\n')), &record) ||
         !record.partial;
}

// Goes back over whole lines from the end of a file, until `*lines` were met: then the offset where
// the first of them begins. 0 when the file has no more; *lines is what is still missing.
int64_t back_over_lines(int fd, int64_t size, int64_t* lines) {
  int64_t behind = size;  // where the record behind the one looked at begins
  // True: enough.
  const auto look = [&](int64_t begin) {
    if (ends_line(fd, begin) && (*lines)-- == 0) return true;
    behind = begin;
    return false;
  };
  for (int64_t end = size; end > 0;) {
    const int64_t begin = std::max<int64_t>(0, end - static_cast<int64_t>(kBlock));
    const std::string block = read_at(fd, begin, static_cast<size_t>(end - begin));
    for (size_t i = block.size(); i-- > 0;) {
      const int64_t record = begin + static_cast<int64_t>(i) + 1;
      if (block[i] != '\n' || record >= behind || !look(record)) continue;
      *lines = 0;
      return behind;
    }
    end = begin;
  }
  if (behind > 0 && look(0)) {
    *lines = 0;
    return behind;
  }
  return 0;
}

}  // namespace

int64_t parse_time(std::string_view text) {
  if (text.size() < 20 || text[4] != '-' || text[7] != '-' ||
      (text[10] != 'T' && text[10] != 't') || text[13] != ':' || text[16] != ':')
    return -1;
  for (size_t at : {0, 2, 5, 8, 11, 14, 17})
    if (!digits(text.substr(at, 2))) return -1;
  const int64_t days =
      days_of(number(text.substr(0, 4)), number(text.substr(5, 2)), number(text.substr(8, 2)));
  if (days < 0) return -1;
  int64_t seconds = days * 86400 + number(text.substr(11, 2)) * 3600 +
                    number(text.substr(14, 2)) * 60 + number(text.substr(17, 2));
  size_t at = 19;
  int64_t fraction = 0;
  if (text[at] == '.') {
    int64_t unit = 100'000'000;
    for (++at; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at, unit /= 10)
      fraction += (text[at] - '0') * unit;
  }
  const std::string_view zone = text.substr(at);
  if (zone == "Z" || zone == "z") return seconds * 1'000'000'000 + fraction;
  if (zone.size() != 6 || (zone[0] != '+' && zone[0] != '-') || zone[3] != ':' ||
      !digits(zone.substr(1, 2)) || !digits(zone.substr(4, 2)))
    return -1;
  const int offset = number(zone.substr(1, 2)) * 3600 + number(zone.substr(4, 2)) * 60;
  seconds -= zone[0] == '+' ? offset : -offset;
  return seconds * 1'000'000'000 + fraction;
}

bool parse_record(std::string_view line, LogRecord* out) {
  const size_t first = line.find(' ');
  if (first == std::string_view::npos) return false;
  const size_t second = line.find(' ', first + 1);
  if (second == std::string_view::npos) return false;
  const size_t third = std::min(line.find(' ', second + 1), line.size());
  out->stamp = line.substr(0, first);
  out->stream = line.substr(first + 1, second - first - 1);
  const std::string_view tags = line.substr(second + 1, third - second - 1);
  out->text = line.substr(std::min(third + 1, line.size()));
  out->partial = tags.starts_with('P');
  out->time = parse_time(out->stamp);
  return out->time >= 0 && (out->stream == "stdout" || out->stream == "stderr") &&
         (out->partial || tags.starts_with('F'));
}

Result<std::unique_ptr<LogFile>> LogFile::open(const std::string& path, const LogOptions& options) {
  std::unique_ptr<LogFile> self(new LogFile(path, options));
  self->open_segments();
  if (self->segments_.empty()) return fail(ErrorCode::kNotFound, "there is no {}", path);
  self->seek_since();
  if (options.tail >= 0) self->seek_tail();
  return self;
}

bool LogFile::add_segment(const std::string& path) {
  Segment segment;
  segment.path = path;
  segment.fd = io::Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat is {};
  if (!segment.fd.valid() || fstat(segment.fd.get(), &is) != 0 || !S_ISREG(is.st_mode))
    return false;
  segment.size = is.st_size;
  segment.modified = nanoseconds(is.st_mtim);
  segments_.push_back(std::move(segment));
  return true;
}

void LogFile::open_segments() {
  const std::string start = fs::path(path_).filename().string() + ".";
  std::vector<std::string> aside;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(fs::path(path_).parent_path(), error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(start) || name.size() != start.size() + kStampSize) continue;
    const std::string_view stamp = std::string_view(name).substr(start.size());
    if (digits(stamp.substr(0, 8)) && stamp[8] == '-' && digits(stamp.substr(9)))
      aside.push_back(entry.path());
  }
  std::sort(aside.begin(), aside.end());  // by time
  for (const std::string& path : aside) add_segment(path);
  // Without it the last one put aside is what is written until the runtime has opened a new one.
  add_segment(path_);
}

void LogFile::seek_since() {
  if (options_.since <= 0) return;
  while (at_ + 1 < segments_.size() && segments_[at_].modified < options_.since) ++at_;
  const Segment& segment = segments_[at_];
  int64_t low = 0, high = segment.size;
  while (high - low > static_cast<int64_t>(kBlock)) {
    const int64_t middle = low + (high - low) / 2;
    int64_t begins = middle;
    const int64_t time = time_after(segment.fd.get(), middle, high, &begins);
    if (time >= 0 && time < options_.since && begins < high)
      low = begins;
    else
      high = middle;
  }
  offset_ = low;
}

void LogFile::seek_tail() {
  int64_t lines = options_.tail;
  for (size_t i = segments_.size(); i-- > at_;) {
    const int64_t from = back_over_lines(segments_[i].fd.get(), segments_[i].size, &lines);
    const bool found = from > 0 || lines == 0;
    if (!found) continue;
    if (i > at_ || from > offset_) {
      at_ = i;
      offset_ = from;
    }
    return;
  }
}

Result<bool> LogFile::next_segment() {
  if (at_ + 1 < segments_.size()) {
    segments_[at_].fd = io::Fd();
    ++at_;
    offset_ = 0;
    return true;
  }
  // The one that is written: was it put aside meanwhile? Then a new one stands in its place.
  struct stat now {
  }, have{};
  if (stat(path_.c_str(), &now) != 0 || fstat(segments_[at_].fd.get(), &have) != 0) return false;
  if (now.st_ino != have.st_ino || now.st_dev != have.st_dev) {
    // What was written to the old one between our last read and the change is there by now.
    if (have.st_size > offset_) return true;
    if (!add_segment(path_)) return false;
    segments_[at_].fd = io::Fd();
    ++at_;
    offset_ = 0;
    return true;
  }
  if (have.st_size < offset_) {  // cut by somebody: begin again
    offset_ = 0;
    rest_.clear();
    return true;
  }
  return false;
}

Result<bool> LogFile::read(std::string* out) {
  if (limit_reached()) return false;
  std::string block(kBlock, '\0');
  const ssize_t n = pread(segments_[at_].fd.get(), block.data(), block.size(), offset_);
  if (n < 0) return fail(Error::from_errno("read " + segments_[at_].path, errno));
  if (n == 0) return next_segment();
  offset_ += n;
  rest_.append(block, 0, static_cast<size_t>(n));
  size_t at = 0;
  for (;;) {
    const size_t newline = rest_.find('\n', at);
    if (newline == std::string::npos) break;
    show(std::string_view(rest_).substr(at, newline - at), out);
    at = newline + 1;
    if (limit_reached()) return false;
  }
  rest_.erase(0, at);
  if (rest_.size() > kMaxRecord) {
    show(rest_, out);
    rest_.clear();
  }
  return true;
}

void LogFile::show(std::string_view line, std::string* out) {
  LogRecord record;
  if (!parse_record(line, &record)) {
    put(line, out);
    put("\n", out);
    return;
  }
  if (record.time < options_.since) return;
  if (record.stream == "stdout" ? !options_.with_stdout : !options_.with_stderr) return;
  if (options_.timestamps && !mid_line_) {
    put(record.stamp, out);
    put(" ", out);
  }
  put(record.text, out);
  if (!record.partial) put("\n", out);
  mid_line_ = record.partial;
}

void LogFile::put(std::string_view text, std::string* out) {
  if (options_.limit_bytes >= 0) {
    text = text.substr(0, static_cast<size_t>(options_.limit_bytes));
    options_.limit_bytes -= static_cast<int64_t>(text.size());
  }
  out->append(text);
}

}  // namespace edgemesh::streams
