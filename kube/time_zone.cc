#include "kube/time_zone.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>

namespace edgemesh::kube {
namespace {

using std::chrono::days;
using std::chrono::local_days;
using std::chrono::local_seconds;
using std::chrono::seconds;
using std::chrono::sys_seconds;
using std::chrono::weekday;
using std::chrono::year;

constexpr size_t kHeader = 44;
constexpr size_t kMaxFile = 256 << 10;
constexpr const char* kFolders[] = {"/usr/share/zoneinfo/", "/usr/lib/zoneinfo/", "/etc/zoneinfo/"};

int64_t big_endian(std::string_view bytes, size_t at, size_t width) {
  uint64_t value = (static_cast<uint8_t>(bytes[at]) & 0x80) != 0 ? ~uint64_t{0} : 0;
  for (size_t i = 0; i < width; ++i) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return static_cast<int64_t>(value);
}

struct Block {
  size_t changes, types, letters, leaps, standards, universals;
  size_t size(size_t width) const {
    return changes * (width + 1) + types * 6 + letters + leaps * (width + 4) + standards +
           universals;
  }
};

Result<Block> read_header(std::string_view bytes) {
  if (bytes.size() < kHeader || bytes.substr(0, 4) != "TZif")
    return fail(ErrorCode::kInvalidArgument, "not a compiled time zone");
  size_t counts[6];
  for (size_t i = 0; i < 6; ++i) {
    const int64_t count = big_endian(bytes, 20 + 4 * i, 4);
    if (count < 0 || count > static_cast<int64_t>(kMaxFile))
      return fail(ErrorCode::kInvalidArgument, "a time zone with a count of {}", count);
    counts[i] = static_cast<size_t>(count);
  }
  return Block{counts[3], counts[4], counts[5], counts[2], counts[1], counts[0]};
}

bool is_zone_name(const std::string& name) {
  if (name.empty() || name.size() > 64 || name.front() == '/' || name.front() == '.' ||
      name.find("..") != std::string::npos)
    return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '/' || c == '_' || c == '-' ||
           c == '+' || c == '.';
  });
}

}  // namespace

// Reads the footer, as POSIX writes TZ: "CET-1CEST,M3.5.0,M10.5.0/3".
class TimeZone::FooterReader {
 public:
  explicit FooterReader(std::string_view text) : rest_(text) {}

  std::optional<Rule> read() {
    Rule rule;
    if (!name() || !offset(&rule.standard)) return std::nullopt;
    rule.standard = -rule.standard;  // POSIX counts west of Greenwich
    if (rest_.empty()) return rule;
    rule.has_summer = true;
    rule.summer = rule.standard + 3600;
    if (!name()) return std::nullopt;
    if (!rest_.empty() && rest_.front() != ',') {
      if (!offset(&rule.summer)) return std::nullopt;
      rule.summer = -rule.summer;
    }
    if (!take(',') || !change(&rule.start) || !take(',') || !change(&rule.end) || !rest_.empty())
      return std::nullopt;
    return rule;
  }

 private:
  bool take(char c) {
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool name() {
    size_t length = 0;
    if (take('<')) {
      length = rest_.find('>');
      if (length == std::string_view::npos) return false;
      rest_.remove_prefix(length + 1);
      return true;
    }
    while (length < rest_.size() && std::isalpha(static_cast<unsigned char>(rest_[length])) != 0)
      ++length;
    rest_.remove_prefix(length);
    return length >= 3;
  }
  bool number(int64_t* out) {
    size_t length = 0;
    *out = 0;
    while (length < rest_.size() && length < 4 && rest_[length] >= '0' && rest_[length] <= '9')
      *out = *out * 10 + (rest_[length++] - '0');
    rest_.remove_prefix(length);
    return length > 0;
  }
  bool offset(int64_t* out) {
    const bool negative = take('-');
    if (!negative) take('+');
    int64_t hours = 0, minutes = 0, secs = 0;
    if (!number(&hours)) return false;
    if (take(':') && (!number(&minutes) || (take(':') && !number(&secs)))) return false;
    *out = hours * 3600 + minutes * 60 + secs;
    if (negative) *out = -*out;
    return hours <= 167;
  }
  bool change(Change* out) {
    int64_t value = 0;
    if (take('M')) {
      int64_t week = 0, day = 0;
      out->kind = Change::Kind::kMonthWeekDay;
      if (!number(&value) || !take('.') || !number(&week) || !take('.') || !number(&day))
        return false;
      if (value < 1 || value > 12 || week < 1 || week > 5 || day > 6) return false;
      out->month = static_cast<int>(value);
      out->week = static_cast<int>(week);
      out->day = static_cast<int>(day);
    } else {
      out->kind = take('J') ? Change::Kind::kJulian : Change::Kind::kDay;
      if (!number(&value) || value > 365) return false;
      out->day = static_cast<int>(value);
    }
    return !take('/') || offset(&out->time);
  }

  std::string_view rest_;
};

local_seconds TimeZone::Change::in(int of) const {
  const year y(of);
  local_days date;
  if (kind == Kind::kMonthWeekDay) {
    const auto m = y / std::chrono::month(static_cast<unsigned>(month));
    const weekday wanted(static_cast<unsigned>(day));
    date = week == 5 ? local_days(m / wanted[std::chrono::last])
                     : local_days(m / wanted[static_cast<unsigned>(week)]);
  } else {
    date = local_days(y / 1 / 1) + days(kind == Kind::kJulian ? day - 1 : day);
    // Julian days do not count the 29th of February.
    if (kind == Kind::kJulian && y.is_leap() && day >= 60) date += days(1);
  }
  return local_seconds(date) + seconds(time);
}

int64_t TimeZone::Rule::offset_at(int64_t time) const {
  if (!has_summer) return standard;
  const auto local = std::chrono::floor<days>(sys_seconds(seconds(time + standard)));
  const int now = static_cast<int>(std::chrono::year_month_day(local).year());
  const int64_t from = start.in(now).time_since_epoch().count() - standard;
  const int64_t to = end.in(now).time_since_epoch().count() - summer;
  const bool is_summer = from < to ? time >= from && time < to : time >= from || time < to;
  return is_summer ? summer : standard;
}

Result<TimeZone> TimeZone::parse(std::string_view bytes) {
  EM_TRY(Block block, read_header(bytes));
  size_t width = 4;
  if (bytes[4] >= '2') {
    const size_t skipped = kHeader + block.size(4);
    if (bytes.size() < skipped) return fail(ErrorCode::kInvalidArgument, "a short time zone");
    bytes.remove_prefix(skipped);
    EM_TRY(block, read_header(bytes));
    width = 8;
  }
  bytes.remove_prefix(kHeader);
  if (block.types == 0 || bytes.size() < block.size(width))
    return fail(ErrorCode::kInvalidArgument, "a short time zone");
  TimeZone zone;
  const size_t indexes = block.changes * width, types = indexes + block.changes;
  auto offset_of = [&](size_t type) { return big_endian(bytes, types + 6 * type, 4); };
  zone.first_offset_ = offset_of(0);
  for (size_t i = 0; i < block.changes; ++i) {
    const size_t type = static_cast<uint8_t>(bytes[indexes + i]);
    if (type >= block.types) return fail(ErrorCode::kInvalidArgument, "a broken time zone");
    zone.times_.push_back(big_endian(bytes, i * width, width));
    zone.offsets_.push_back(offset_of(type));
  }
  if (!std::is_sorted(zone.times_.begin(), zone.times_.end()))
    return fail(ErrorCode::kInvalidArgument, "a time zone whose changes are not in order");
  std::string_view footer = bytes.substr(block.size(width));
  if (width == 8 && footer.size() > 2 && footer.front() == '\n') {
    footer.remove_prefix(1);
    zone.rule_ = FooterReader(footer.substr(0, footer.find('\n'))).read();
  }
  return zone;
}

Result<TimeZone> TimeZone::load(const std::string& name) {
  if (name == "UTC" || name == "Etc/UTC") return utc();
  for (const char* folder : kFolders) {
    if (!is_zone_name(name)) break;
    std::ifstream file(folder + name, std::ios::binary);
    if (!file) continue;
    std::string bytes(kMaxFile, '\0');
    file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    bytes.resize(static_cast<size_t>(file.gcount()));
    if (auto zone = parse(bytes)) return zone;
  }
  return fail(ErrorCode::kNotFound, "unknown time zone {}", name);
}

seconds TimeZone::offset_at(sys_seconds time) const {
  const int64_t at = time.time_since_epoch().count();
  const auto next = std::upper_bound(times_.begin(), times_.end(), at);
  if (next == times_.end() && rule_) return seconds(rule_->offset_at(at));
  if (next == times_.begin()) return seconds(first_offset_);
  return seconds(offsets_[static_cast<size_t>(next - times_.begin()) - 1]);
}

sys_seconds TimeZone::to_utc(local_seconds time) const {
  // No offset is more than a day: this is before any change that matters for `time`.
  const sys_seconds before = sys_seconds(time.time_since_epoch()) - days(1);
  const sys_seconds first = sys_seconds(time.time_since_epoch()) - offset_at(before);
  if (to_local(first) == time) return first;
  const sys_seconds second = sys_seconds(time.time_since_epoch()) - offset_at(first);
  return to_local(second) == time ? second : first;
}

}  // namespace edgemesh::kube
