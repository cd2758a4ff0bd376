#include "proxy/route/jwt.h"

#include <gtest/gtest.h>

namespace edgemesh::proxy {
namespace {

// The example of RFC 7515 A.3: ES256, {"iss":"joe","exp":1300819380,...}.
constexpr char kKeys[] =
    R"({"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",)"
    R"("y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]})";
constexpr char kToken[] =
    "eyJhbGciOiJFUzI1NiJ9."
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVl"
    "fQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
constexpr int64_t kBefore = 1'300'819'000;

TEST(Jwt, AcceptsWhatIsRightAndNothingElse) {
  const auto keys = KeySet::parse(kKeys);
  ASSERT_TRUE(keys) << keys.error().message;
  model::JwtProvider provider;
  provider.issuer = "joe";
  EXPECT_TRUE(verify_jwt(provider, *keys, kToken, kBefore));
  EXPECT_FALSE(verify_jwt(provider, *keys, kToken, kBefore + 1000));  // expired
  std::string changed = kToken;
  changed[30] ^= 1;
  EXPECT_FALSE(verify_jwt(provider, *keys, changed, kBefore));
  // {"alg":"none"}
  EXPECT_FALSE(verify_jwt(provider, *keys, "eyJhbGciOiJub25lIn0.e30.", kBefore));
  for (const auto* bad : {"", ".", "..", "a.b.c.d", "e30.e30.e30"})
    EXPECT_FALSE(verify_jwt(provider, *keys, bad, kBefore)) << bad;
  provider.audiences = {"me"};
  EXPECT_FALSE(verify_jwt(provider, *keys, kToken, kBefore));
  provider.audiences.clear();
  provider.issuer = "eve";
  EXPECT_FALSE(verify_jwt(provider, *keys, kToken, kBefore));
}

TEST(Jwt, IsLookedForWhereTheProviderSays) {
  Head head;
  head.path = "/a?access_token=q";
  model::JwtProvider provider;
  EXPECT_EQ(find_jwt(provider, head), "q");
  head.add("authorization", "Bearer t");
  EXPECT_EQ(find_jwt(provider, head), "t");
  provider.from_cookies = {"c"};
  EXPECT_EQ(find_jwt(provider, head), "");
}

}  // namespace
}  // namespace edgemesh::proxy
