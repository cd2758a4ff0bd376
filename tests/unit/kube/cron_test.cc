#include <gtest/gtest.h>

#include "kube/cron_schedule.h"
#include "kube/time.h"
#include "kube/time_zone.h"

namespace edgemesh::kube {
namespace {

using std::chrono::floor;
using std::chrono::seconds;
using std::chrono::sys_seconds;

sys_seconds at(const char* text) {
  return floor<seconds>(*parse_rfc3339(text));
}

// The next `count` times after `from`, as text.
std::vector<std::string> next(const char* schedule, const char* from, int count,
                              const TimeZone& zone = TimeZone::utc()) {
  const auto parsed = CronSchedule::parse(schedule);
  if (!parsed) return {parsed.error().message};
  std::vector<std::string> out;
  sys_seconds time = at(from);
  for (int i = 0; i < count; ++i) {
    const auto found = parsed->next(time, zone);
    out.push_back(found ? rfc3339(*found) : "never");
    if (!found) break;
    time = *found;
  }
  return out;
}
using Texts = std::vector<std::string>;

TEST(CronSchedule, RunsWhenItsFieldsSay) {
  EXPECT_EQ(next("*/15 * * * *", "2026-11-24T10:07:30Z", 3),
            (Texts{"2026-11-24T10:15:00Z", "2026-11-24T10:30:00Z", "2026-11-24T10:45:00Z"}));
  EXPECT_EQ(next("5/20 9-10 * * *", "2026-11-24T10:07:00Z", 4),
            (Texts{"2026-11-24T10:25:00Z", "2026-11-24T10:45:00Z", "2026-11-25T09:05:00Z",
                   "2026-11-25T09:25:00Z"}));
  EXPECT_EQ(next("0 0 29 feb *", "2026-01-01T00:00:00Z", 1), Texts{"2028-02-29T00:00:00Z"});
  EXPECT_EQ(next("0 0 30 2 *", "2026-01-01T00:00:00Z", 1), Texts{"never"});
  EXPECT_EQ(next("30 6 * * MON-FRI", "2026-11-27T07:00:00Z", 2),
            (Texts{"2026-11-30T06:30:00Z", "2026-12-01T06:30:00Z"}));
  // Both days given: either is enough. A star with a step is no star.
  EXPECT_EQ(next("0 0 1 * sun", "2026-11-24T00:00:00Z", 3),
            (Texts{"2026-11-29T00:00:00Z", "2026-12-01T00:00:00Z", "2026-12-06T00:00:00Z"}));
  EXPECT_EQ(next("0 0 1 * *", "2026-11-24T00:00:00Z", 1), Texts{"2026-12-01T00:00:00Z"});
  EXPECT_EQ(next("59 23 31 12 ?", "2026-12-31T23:59:00Z", 1), Texts{"2027-12-31T23:59:00Z"});
}

TEST(CronSchedule, HasNamesForTheUsualOnes) {
  EXPECT_EQ(next("@hourly", "2026-11-24T10:07:30Z", 1), Texts{"2026-11-24T11:00:00Z"});
  EXPECT_EQ(next("@daily", "2026-11-24T10:07:30Z", 1), Texts{"2026-11-25T00:00:00Z"});
  EXPECT_EQ(next("@weekly", "2026-11-24T10:07:30Z", 1), Texts{"2026-11-29T00:00:00Z"});
  EXPECT_EQ(next("@monthly", "2026-11-24T10:07:30Z", 1), Texts{"2026-12-01T00:00:00Z"});
  EXPECT_EQ(next("@yearly", "2026-11-24T10:07:30Z", 1), Texts{"2027-01-01T00:00:00Z"});
  EXPECT_EQ(next("@every 1h30m", "2026-11-24T10:07:30Z", 2),
            (Texts{"2026-11-24T11:37:30Z", "2026-11-24T13:07:30Z"}));
}

TEST(CronSchedule, SaysWhatItCannotRead) {
  EXPECT_EQ(next("* * * *", "2026-11-24T10:00:00Z", 1),
            Texts{"expected exactly 5 fields, found 4: [* * * *]"});
  for (const char* text :
       {"60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 7", "5-1 * * * *",
        "*/0 * * * *", "a * * * *", "1,,2 * * * *", "* * * janx *", "1-2-3 * * * *", "@every x",
        "@sometimes", "", "TZ=UTC * * * * *", "-1 * * * *"}) {
    EXPECT_FALSE(CronSchedule::parse(text)) << text;
  }
}

TEST(CronSchedule, KnowsTheLastOneAndThatManyWereMissed) {
  const auto often = *CronSchedule::parse("* * * * *");
  const TimeZone utc = TimeZone::utc();
  auto last = often.last(at("2026-11-24T10:00:30Z"), at("2026-11-24T10:03:10Z"), utc, 100);
  ASSERT_TRUE(last);
  EXPECT_EQ(rfc3339(last->time), "2026-11-24T10:03:00Z");
  EXPECT_FALSE(last->missed_many);
  EXPECT_FALSE(often.last(at("2026-11-24T10:00:00Z"), at("2026-11-24T10:00:59Z"), utc, 100));
  last = often.last(at("2020-01-01T00:00:00Z"), at("2026-11-24T10:03:10Z"), utc, 100);
  EXPECT_TRUE(last->missed_many);
  const auto rarely = *CronSchedule::parse("0 0 1 1 *");
  last = rarely.last(at("2020-06-01T00:00:00Z"), at("2026-11-24T10:03:10Z"), utc, 100);
  EXPECT_EQ(rfc3339(last->time), "2026-01-01T00:00:00Z");
  EXPECT_FALSE(last->missed_many);
  EXPECT_FALSE(rarely.last(at("2026-06-01T00:00:00Z"), at("2026-11-24T00:00:00Z"), utc, 100));
}

void put(std::string* out, int64_t value, int width) {
  for (int i = width - 1; i >= 0; --i) *out += static_cast<char>(value >> (8 * i) & 0xff);
}

// Without any change listed: the footer alone, as in the database's small form.
std::string compiled(const std::string& footer, int64_t offset) {
  std::string out;
  for (const int width : {4, 8}) {
    out += "TZif2" + std::string(15, '\0');
    for (const int count : {0, 0, 0, 0, 1, 4}) put(&out, count, 4);
    put(&out, offset, 4);
    out += std::string(2, '\0') + std::string("LMT\0", 4);
    if (width == 8) out += "\n" + footer + "\n";
  }
  return out;
}

TEST(TimeZone, FollowsTheRuleOfItsFooter) {
  const auto berlin = TimeZone::parse(compiled("CET-1CEST,M3.5.0,M10.5.0/3", 3208));
  ASSERT_TRUE(berlin) << berlin.error().message;
  EXPECT_EQ(berlin->offset_at(at("2026-03-29T00:59:59Z")), seconds(3600));
  EXPECT_EQ(berlin->offset_at(at("2026-03-29T01:00:00Z")), seconds(7200));
  EXPECT_EQ(berlin->offset_at(at("2026-10-25T00:59:59Z")), seconds(7200));
  EXPECT_EQ(berlin->offset_at(at("2026-10-25T01:00:00Z")), seconds(3600));
  const auto sydney = TimeZone::parse(compiled("AEST-10AEDT,M10.1.0,M4.1.0/3", 36292));
  EXPECT_EQ(sydney->offset_at(at("2026-01-01T00:00:00Z")), seconds(11 * 3600));
  EXPECT_EQ(sydney->offset_at(at("2026-07-01T00:00:00Z")), seconds(10 * 3600));
  const auto plain = TimeZone::parse(compiled("<+0530>-5:30", 0));
  EXPECT_EQ(plain->offset_at(at("2026-07-01T00:00:00Z")), seconds(19800));
}

TEST(TimeZone, ADayAtSummerTime) {
  const auto berlin = *TimeZone::parse(compiled("CET-1CEST,M3.5.0,M10.5.0/3", 3208));
  EXPECT_EQ(next("0 9 * * *", "2026-03-27T12:00:00Z", 3, berlin),
            (Texts{"2026-03-28T08:00:00Z", "2026-03-29T07:00:00Z", "2026-03-30T07:00:00Z"}));
  // 02:30 is skipped that day; it is not made up for.
  EXPECT_EQ(next("30 2 * * *", "2026-03-28T12:00:00Z", 1, berlin), Texts{"2026-03-30T00:30:00Z"});
  // An hour that comes twice.
  EXPECT_EQ(next("@hourly", "2026-10-24T23:30:00Z", 3, berlin),
            (Texts{"2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"}));
}

TEST(TimeZone, RefusesBrokenFilesAndNames) {
  const std::string good = compiled("UTC0", 0);
  for (size_t length = 0; length < good.size() - 6; ++length)
    EXPECT_FALSE(TimeZone::parse(good.substr(0, length))) << length;
  for (const char* name : {"../../etc/passwd", "/etc/passwd", "Mars/Olympus", "", "Local"})
    EXPECT_FALSE(TimeZone::load(name)) << name;
  EXPECT_TRUE(TimeZone::load("UTC"));
  // What the machine has.
  if (const auto berlin = TimeZone::load("Europe/Berlin")) {
    EXPECT_EQ(berlin->offset_at(at("1999-07-01T00:00:00Z")), seconds(7200));
    EXPECT_EQ(berlin->offset_at(at("2050-07-01T00:00:00Z")), seconds(7200));
    EXPECT_EQ(berlin->offset_at(at("2050-01-01T00:00:00Z")), seconds(3600));
  }
}

}  // namespace
}  // namespace edgemesh::kube
