#include "cloud/rate_limit.h"

#include <gtest/gtest.h>

namespace edgemesh::cloud {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(TokenBucketTest, AllowsABurstThenTheRate) {
  TokenBucket bucket({.per_second = 10, .burst = 3});
  TimePoint now(seconds(100));

  for (int i = 0; i < 3; ++i) EXPECT_TRUE(bucket.take(now));
  EXPECT_FALSE(bucket.take(now));
  now += milliseconds(100);
  EXPECT_TRUE(bucket.take(now));
  EXPECT_FALSE(bucket.take(now));
  EXPECT_FALSE(bucket.full(now));
  EXPECT_TRUE(bucket.full(now + seconds(1)));
}

TEST(KeyedLimiterTest, CountsEachKeyAlone) {
  KeyedLimiter limiter({.per_second = 1, .burst = 1});
  const TimePoint now(seconds(1));

  EXPECT_TRUE(limiter.take("a", now));
  EXPECT_FALSE(limiter.take("a", now));
  EXPECT_TRUE(limiter.take("b", now));
  limiter.forget("a");
  EXPECT_TRUE(limiter.take("a", now));
}

TEST(KeyedLimiterTest, HoldsABoundedNumberOfKeys) {
  KeyedLimiter limiter({.per_second = 1, .burst = 1}, 100);
  const TimePoint now(seconds(1));

  for (int i = 0; i < 10'000; ++i) EXPECT_TRUE(limiter.take(std::to_string(i), now));

  EXPECT_EQ(limiter.size(), 100U);
  EXPECT_FALSE(limiter.take("9999", now));
}

}  // namespace
}  // namespace edgemesh::cloud
