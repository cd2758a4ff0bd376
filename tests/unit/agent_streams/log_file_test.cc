#include "agent/streams/log_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "tests/support/temp_dir.h"

namespace edgemesh::streams {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kStart = 1'795'492'800 * kSecond;  // 2026-11-24T04:00:00Z

std::string stamp(int second) {
  return fmt::format("2026-11-24T04:{:02}:{:02}.5Z", second / 60, second % 60);
}
std::string record(int second, std::string_view text, const char* tag = "F",
                   const char* stream = "stdout") {
  return fmt::format("{} {} {} {}\n", stamp(second), stream, tag, text);
}

class LogFileTest : public ::testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::app) << text;
  }
  // All that there is now.
  std::string rest() {
    std::string out;
    for (;;) {
      const auto more = file_->read(&out);
      EXPECT_TRUE(more);
      if (!more || !*more) return out;
    }
  }
  std::string show(const LogOptions& options) {
    auto file = LogFile::open(path_, options);
    EXPECT_TRUE(file);
    if (!file) return file.error().message;
    file_ = std::move(*file);
    return rest();
  }

  test::TempDir dir_;
  std::string path_ = dir_.path() + "/0.log";
  std::unique_ptr<LogFile> file_;
};

TEST(LogTime, ReadsRfc3339) {
  EXPECT_EQ(parse_time("1970-01-01T00:00:00Z"), 0);
  EXPECT_EQ(parse_time("2026-11-24T04:00:00Z"), kStart);
  EXPECT_EQ(parse_time("2026-11-24T05:30:00.25+01:30"), kStart + kSecond / 4);
  EXPECT_EQ(parse_time("2026-11-24T04:00:00.123456789Z"), kStart + 123456789);
  for (const char* bad : {"", "2026-11-24", "2026-13-24T04:00:00Z", "2026-11-24T04:00:00",
                          "2026-11-24T04:00:0xZ", "2026-11-24T04:00:00+1:00"})
    EXPECT_EQ(parse_time(bad), -1) << bad;
}

TEST_F(LogFileTest, ShowsLinesJoinedAndWithTimes) {
  write(path_,
        record(1, "one") + record(2, "tw", "P") + record(2, "o") + record(3, "", "F", "stderr"));
  EXPECT_EQ(show({}), "one\ntwo\n\n");
  LogOptions options;
  options.timestamps = true;
  EXPECT_EQ(show(options), fmt::format("{} one\n{} two\n{} \n", stamp(1), stamp(2), stamp(3)));
  options = {};
  options.with_stderr = false;
  EXPECT_EQ(show(options), "one\ntwo\n");
  options.limit_bytes = 5;
  EXPECT_EQ(show(options), "one\nt");
  EXPECT_TRUE(file_->limit_reached());
}

TEST_F(LogFileTest, TailCountsLinesFromTheEnd) {
  write(path_, record(1, "one") + record(2, "tw", "P") + record(2, "o") + record(3, "three"));
  const std::vector<std::string> wanted{"", "three\n", "two\nthree\n", "one\ntwo\nthree\n"};
  for (size_t i = 0; i < 5; ++i) {
    LogOptions options;
    options.tail = static_cast<int64_t>(i);
    EXPECT_EQ(show(options), wanted[std::min<size_t>(i, 3)]) << i;
  }
}

TEST_F(LogFileTest, TailOfALargeFileCrossesBlocks) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += record(i, std::string(100, 'x') + std::to_string(i));
  write(path_, text);
  LogOptions options;
  options.tail = 1500;
  const std::string got = show(options);
  EXPECT_EQ(std::count(got.begin(), got.end(), '\n'), 1500);
  EXPECT_TRUE(got.starts_with(std::string(100, 'x') + "1500\n"));
}

TEST_F(LogFileTest, WhatWasRotatedIsAPartOfTheLog) {
  write(path_ + ".20261124-040002", record(1, "one") + record(2, "two"));
  write(path_ + ".20261124-040004", record(3, "three") + record(4, "four"));
  write(path_ + ".tmp", record(4, "something else"));
  write(path_, record(5, "five"));
  EXPECT_EQ(show({}), "one\ntwo\nthree\nfour\nfive\n");
  LogOptions options;
  options.tail = 2;
  EXPECT_EQ(show(options), "four\nfive\n");
  options.tail = 4;
  EXPECT_EQ(show(options), "two\nthree\nfour\nfive\n");
  options.tail = 99;
  EXPECT_EQ(show(options), "one\ntwo\nthree\nfour\nfive\n");
}

TEST_F(LogFileTest, SinceIsFoundByBisection) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += record(i, std::string(200, 'x') + std::to_string(i));
  write(path_, text);
  LogOptions options;
  options.since = kStart + 2990 * kSecond;
  const std::string got = show(options);
  EXPECT_EQ(std::count(got.begin(), got.end(), '\n'), 10);
  EXPECT_TRUE(got.starts_with(std::string(200, 'x') + "2990\n"));
  options.since = kStart + 5000 * kSecond;
  EXPECT_EQ(show(options), "");
  options.since = kStart - 5 * kSecond;
  EXPECT_EQ(show(options).size(), [&] {
    size_t n = 0;
    for (int i = 0; i < 3000; ++i) n += 201 + std::to_string(i).size();
    return n;
  }());
}

TEST_F(LogFileTest, FollowsOverRotations) {
  write(path_, record(1, "one"));
  EXPECT_EQ(show({}), "one\n");
  write(path_, "2026-11-24T04:00:02.5Z stdout F tw");
  EXPECT_EQ(rest(), "");
  write(path_, "o\n");
  EXPECT_EQ(rest(), "two\n");
  std::filesystem::rename(path_, path_ + ".20261124-040002");
  EXPECT_EQ(rest(), "");
  // The runtime goes on with the old one until it is told.
  write(path_ + ".20261124-040002", record(3, "three"));
  write(path_, record(4, "four"));
  EXPECT_EQ(rest(), "three\nfour\n");
  write(path_, record(5, "five"));
  EXPECT_EQ(rest(), "five\n");
}

TEST_F(LogFileTest, OtherTextIsShownAsItIs) {
  write(path_, "not a record\n\n" + record(1, "one"));
  EXPECT_EQ(show({}), "not a record\n\none\n");
}

TEST_F(LogFileTest, NoFile) {
  const auto file = LogFile::open(path_, {});
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace edgemesh::streams
