#include "kube/time.h"

#include <gtest/gtest.h>

namespace edgemesh::kube {
namespace {

TEST(Rfc3339Test, FormatsTimes) {
  const std::chrono::system_clock::time_point t{std::chrono::milliseconds(1'700'000'000'250)};
  EXPECT_EQ(rfc3339(t), "2023-11-14T22:13:20Z");
  EXPECT_EQ(rfc3339(t, true), "2023-11-14T22:13:20.250000Z");
}

TEST(Rfc3339Test, ReadsWhatItFormats) {
  const std::chrono::system_clock::time_point t{std::chrono::seconds(1'700'000'000)};
  EXPECT_EQ(parse_rfc3339("2023-11-14T22:13:20Z"), t);
  EXPECT_EQ(parse_rfc3339("2023-11-14T22:13:20.250000Z"), t);
  EXPECT_EQ(parse_rfc3339("2023-11-15T00:43:20.5+02:30"), t);
  EXPECT_EQ(parse_rfc3339("2023-11-14T21:13:20-01:00"), t);
  EXPECT_EQ(parse_rfc3339("2023-11-14T22:13:20"), t);
  EXPECT_FALSE(parse_rfc3339("2023-11-14T22:13:20+2"));
  EXPECT_FALSE(parse_rfc3339("2023-11-14T22:13:20 and then"));
  EXPECT_FALSE(parse_rfc3339("2023-11-14"));
  EXPECT_FALSE(parse_rfc3339("yesterday, at some time or other"));
}

}  // namespace
}  // namespace edgemesh::kube
