#include "cloud/turn_credentials.h"

#include <gtest/gtest.h>

namespace edgemesh::cloud {
namespace {

// The expected value was computed with: printf '1700000000:edge-1' | openssl dgst -sha1 -hmac
// secret -binary | base64
TEST(TurnCredentialsTest, AreWhatCoturnComputes) {
  const TurnCredentials credentials = make_turn_credentials("secret", "edge-1", 1'700'000'000);

  EXPECT_EQ(credentials.username, "1700000000:edge-1");
  EXPECT_EQ(credentials.password, "Kmid29eHW4OZK3EGe6u0uZoN0d4=");
  EXPECT_EQ(credentials.expires, 1'700'000'000);
}

}  // namespace
}  // namespace edgemesh::cloud
