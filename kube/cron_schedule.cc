#include "kube/cron_schedule.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <string>
#include <vector>

namespace edgemesh::kube {
namespace {

using std::chrono::days;
using std::chrono::hours;
using std::chrono::local_days;
using std::chrono::local_seconds;
using std::chrono::minutes;
using std::chrono::seconds;
using std::chrono::sys_seconds;

constexpr days kHorizon{5 * 366};

struct Field {
  const char* name;
  int first, last;
  const char* names;  // three letters each, from `first` on
};
constexpr Field kMinute{"minute", 0, 59, ""}, kHour{"hour", 0, 23, ""},
    kDay{"day of month", 1, 31, ""}, kMonth{"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
    kWeekday{"day of week", 0, 6, "sunmontuewedthufrisat"};

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> out;
  while (true) {
    const size_t at = text.find(separator);
    out.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return out;
    text.remove_prefix(at + 1);
  }
}

std::vector<std::string_view> words(std::string_view text) {
  std::vector<std::string_view> out;
  for (std::string_view part : split(text, ' ')) {
    if (!part.empty()) out.push_back(part);
  }
  return out;
}

std::optional<int> number(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

std::optional<int> value_of(std::string_view text, const Field& field) {
  if (const auto value = number(text)) return value;
  std::string lower;
  for (char c : text) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const size_t at = std::string_view(field.names).find(lower);
  if (lower.size() != 3 || at == std::string_view::npos || at % 3 != 0) return std::nullopt;
  return field.first + static_cast<int>(at / 3);
}

Error bad(const Field& field, std::string_view text) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("'{}' is no {} ({} to {})", text, field.name, field.first, field.last)};
}

// One of a list: "*", "5", "1-5", each with "/step". `*all` when it is a plain star.
Result<uint64_t> part_bits(std::string_view text, const Field& field, bool* all) {
  const auto halves = split(text, '/');
  if (halves.size() > 2) return fail(bad(field, text));
  int first = field.first, last = field.last, step = 1;
  const bool star = halves[0] == "*" || halves[0] == "?";
  if (!star) {
    const auto ends = split(halves[0], '-');
    const auto from = value_of(ends[0], field);
    const auto to = ends.size() == 2 ? value_of(ends[1], field) : from;
    if (ends.size() > 2 || !from || !to) return fail(bad(field, text));
    first = *from;
    if (ends.size() == 2 || halves.size() == 1) last = *to;  // "5/15" goes on to the end
  }
  if (halves.size() == 2) {
    const auto given = number(halves[1]);
    if (!given || *given == 0) return fail(bad(field, text));
    step = *given;
  }
  if (first < field.first || last > field.last || first > last) return fail(bad(field, text));
  *all = *all || (star && step == 1);
  uint64_t bits = 0;
  for (int value = first; value <= last; value += step) bits |= uint64_t{1} << value;
  return bits;
}

Result<uint64_t> field_bits(std::string_view text, const Field& field, bool* all) {
  uint64_t bits = 0;
  for (std::string_view part : split(text, ',')) {
    EM_TRY(const uint64_t some, part_bits(part, field, all));
    bits |= some;
  }
  return bits;
}

// "1h30m", "90s".
Result<seconds> duration_of(std::string_view text) {
  const std::string whole(text);
  seconds sum{};
  while (!text.empty()) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    const char unit = text.empty() ? ' ' : text.front();
    const int64_t factor = unit == 'h' ? 3600 : unit == 'm' ? 60 : unit == 's' ? 1 : 0;
    if (error != std::errc() || factor == 0 || value < 0 || value > 1'000'000) {
      return fail(ErrorCode::kInvalidArgument, "'{}' is no duration (as 1h30m)", whole);
    }
    sum += seconds(value * factor);
    text.remove_prefix(1);
  }
  return std::max(sum, seconds(1));
}

constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kNamed = {
    {{"@yearly", "0 0 1 1 *"},
     {"@annually", "0 0 1 1 *"},
     {"@monthly", "0 0 1 * *"},
     {"@weekly", "0 0 * * 0"},
     {"@daily", "0 0 * * *"},
     {"@midnight", "0 0 * * *"},
     {"@hourly", "0 * * * *"}}};

bool has(uint64_t bits, unsigned value) {
  return (bits >> value & 1) != 0;
}

}  // namespace

Result<CronSchedule> CronSchedule::parse(std::string_view text) {
  CronSchedule out;
  constexpr std::string_view kEvery = "@every ";
  if (text.starts_with(kEvery)) {
    EM_TRY(out.every_, duration_of(text.substr(kEvery.size())));
    return out;
  }
  for (const auto& [name, meaning] : kNamed) {
    if (text == name) return parse(meaning);
  }
  if (text.starts_with('@'))
    return fail(ErrorCode::kInvalidArgument, "unrecognized descriptor: {}", text);
  const auto fields = words(text);
  if (fields.size() != 5) {
    return fail(ErrorCode::kInvalidArgument, "expected exactly 5 fields, found {}: [{}]",
                fields.size(), text);
  }
  bool unused = false;
  EM_TRY(out.minutes_, field_bits(fields[0], kMinute, &unused));
  EM_TRY(out.hours_, field_bits(fields[1], kHour, &unused));
  EM_TRY(out.days_, field_bits(fields[2], kDay, &out.any_day_));
  EM_TRY(out.months_, field_bits(fields[3], kMonth, &unused));
  EM_TRY(out.weekdays_, field_bits(fields[4], kWeekday, &out.any_weekday_));
  return out;
}

bool CronSchedule::day_fits(std::chrono::year_month_day date) const {
  const bool day = has(days_, static_cast<unsigned>(date.day()));
  const bool weekday =
      has(weekdays_, std::chrono::weekday(std::chrono::sys_days(date)).c_encoding());
  return any_day_ || any_weekday_ ? day && weekday : day || weekday;
}

std::optional<sys_seconds> CronSchedule::next(sys_seconds after, const TimeZone& zone) const {
  if (every_ != seconds{}) return after + every_;
  sys_seconds time = std::chrono::floor<minutes>(after) + minutes(1);
  const sys_seconds end = after + kHorizon;
  // To a local midnight, and on in any case: it may be one that the clocks skip.
  auto to_midnight = [&](local_days day) {
    time = std::max(zone.to_utc(local_seconds(day)), time + minutes(1));
  };
  while (time < end) {
    const local_seconds local = zone.to_local(time);
    const local_days day = std::chrono::floor<days>(local);
    const std::chrono::year_month_day date(day);
    const auto of_day = std::chrono::duration_cast<minutes>(local - local_seconds(day));
    if (!has(months_, static_cast<unsigned>(date.month()))) {
      to_midnight(local_days((date.year() / date.month() + std::chrono::months(1)) / 1));
    } else if (!day_fits(date)) {
      to_midnight(day + days(1));
    } else if (!has(hours_, static_cast<unsigned>(of_day.count() / 60))) {
      time += hours(1) - of_day % hours(1);
    } else if (!has(minutes_, static_cast<unsigned>(of_day.count() % 60))) {
      time += minutes(1);
    } else {
      return time;
    }
  }
  return std::nullopt;
}

std::optional<CronSchedule::Last> CronSchedule::last(sys_seconds after, sys_seconds until,
                                                     const TimeZone& zone, int many) const {
  if (every_ != seconds{}) {
    const auto rounds = (until - after) / every_;
    if (rounds < 1) return std::nullopt;
    return Last{after + rounds * every_, rounds > many};
  }
  // From windows that end now and grow, so that a long time with many of them is not walked
  // through.
  for (const seconds window : {seconds(hours(1)), seconds(days(1)), seconds(days(32)),
                               seconds(days(370)), seconds(kHorizon)}) {
    const sys_seconds from = std::max(after, until - window);
    std::optional<Last> found;
    int count = 0;
    for (auto time = next(from, zone); time && *time <= until; time = next(*time, zone)) {
      found = Last{*time, ++count > many};
    }
    if (!found && from > after) continue;
    if (!found) return std::nullopt;
    if (from > after && !found->missed_many) {
      for (auto time = next(after, zone); time && *time <= until && count <= many;
           time = next(*time, zone))
        ++count;
      found->missed_many = count > many;
    }
    return found;
  }
  return std::nullopt;
}

}  // namespace edgemesh::kube
