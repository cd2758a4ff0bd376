// TimeZone: the offset from UTC at any time in a zone of the tz database, read from its compiled
// file (TZif, RFC 9636, versions 1 to 4; the rule in the footer says what comes after the last
// change listed). Immutable, thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace edgemesh::kube {

class TimeZone {
 public:
  static TimeZone utc() { return {}; }
  // "Europe/Berlin", "UTC". kNotFound: this machine's database has no such zone.
  static Result<TimeZone> load(const std::string& name);
  // Of the bytes of a compiled file.
  static Result<TimeZone> parse(std::string_view bytes);

  // East of UTC.
  std::chrono::seconds offset_at(std::chrono::sys_seconds time) const;
  // A time of day that is skipped or repeated when the clocks change is taken with the offset that
  // is in force a little before it.
  std::chrono::sys_seconds to_utc(std::chrono::local_seconds time) const;
  std::chrono::local_seconds to_local(std::chrono::sys_seconds time) const {
    return std::chrono::local_seconds(time.time_since_epoch() + offset_at(time));
  }

 private:
  // When the clocks change, every year: the day, and seconds from its midnight.
  struct Change {
    enum class Kind { kMonthWeekDay, kJulian, kDay } kind = Kind::kDay;
    int month = 0, week = 0, day = 0;
    int64_t time = 2 * 3600;
    std::chrono::local_seconds in(int year) const;
  };
  struct Rule {
    int64_t standard = 0, summer = 0;  // offsets
    bool has_summer = false;
    Change start, end;
    int64_t offset_at(int64_t time) const;
  };
  class FooterReader;

  std::vector<int64_t> times_;    // of changes, ascending
  std::vector<int64_t> offsets_;  // from each of them on
  int64_t first_offset_ = 0;      // before the first
  std::optional<Rule> rule_;
};

}  // namespace edgemesh::kube
