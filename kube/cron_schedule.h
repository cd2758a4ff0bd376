// CronSchedule: when a CronJob runs. Five fields (minute, hour, day of the month, month, day of the
// week), each a list of values, ranges and steps, months and weekdays also by name; or @hourly,
// @daily, @midnight, @weekly, @monthly, @yearly, @annually, "@every 1h30m". When both days are
// given, either is enough. Immutable, thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/base/result.h"
#include "kube/time_zone.h"

namespace edgemesh::kube {

class CronSchedule {
 public:
  static Result<CronSchedule> parse(std::string_view text);
  // The first time after `after`; none within five years ("30 February").
  std::optional<std::chrono::sys_seconds> next(std::chrono::sys_seconds after,
                                               const TimeZone& zone) const;
  // The last time in (after, until], and whether there were more than `many` (as far as that is
  // cheap to say); none: there was none.
  struct Last {
    std::chrono::sys_seconds time;
    bool missed_many = false;
  };
  std::optional<Last> last(std::chrono::sys_seconds after, std::chrono::sys_seconds until,
                           const TimeZone& zone, int many) const;

 private:
  bool day_fits(std::chrono::year_month_day date) const;

  uint64_t minutes_ = 0, hours_ = 0, days_ = 0, months_ = 0, weekdays_ = 0;  // bit = value
  bool any_day_ = false, any_weekday_ = false;
  std::chrono::seconds every_{};  // not 0: only that
};

}  // namespace edgemesh::kube
