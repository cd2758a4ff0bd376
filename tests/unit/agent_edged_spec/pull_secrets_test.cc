#include "agent/edged/spec/pull_secrets.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "core/tls/x509.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;

Json secret(const char* key, const Json& content) {
  return {{"data", {{key, tls::base64_encode(content.dump())}}}};
}

TEST(PullSecrets, RegistryOfAnImage) {
  EXPECT_EQ(registry_of("busybox:1"), "docker.io");
  EXPECT_EQ(registry_of("library/busybox"), "docker.io");
  EXPECT_EQ(registry_of("index.docker.io/a/b"), "docker.io");
  EXPECT_EQ(registry_of("r.example:5000/a/b:1"), "r.example:5000");
  EXPECT_EQ(registry_of("localhost/a"), "localhost");
}

TEST(PullSecrets, FullNamesOfImages) {
  EXPECT_EQ(full_image_name("busybox"), "docker.io/library/busybox:latest");
  EXPECT_EQ(full_image_name("a/b:1"), "docker.io/a/b:1");
  EXPECT_EQ(full_image_name("docker.io/library/x:1"), "docker.io/library/x:1");
  EXPECT_EQ(full_image_name("r.example:5000/a/b"), "r.example:5000/a/b:latest");
  EXPECT_EQ(full_image_name("localhost/a:2"), "localhost/a:2");
  EXPECT_EQ(full_image_name("r.example/a@sha256:12"), "r.example/a@sha256:12");
}

TEST(PullSecrets, LoginsOfTheRegistryAlone) {
  const Json both =
      secret(".dockerconfigjson",
             {{"auths",
               {{"https://index.docker.io/v1/", {{"auth", tls::base64_encode("bob:pa:ss")}}},
                {"r.example", {{"username", "eve"}, {"password", "x"}}},
                {"empty.example", Json::object()}}}});
  auto hub = logins_in(both, "busybox");
  ASSERT_EQ(hub.size(), 1u);
  EXPECT_EQ(hub[0].username(), "bob");
  EXPECT_EQ(hub[0].password(), "pa:ss");
  auto own = logins_in(both, "r.example/a:1");
  ASSERT_EQ(own.size(), 1u);
  EXPECT_EQ(own[0].username(), "eve");
  EXPECT_TRUE(logins_in(both, "other.example/a").empty());
  EXPECT_TRUE(logins_in(both, "empty.example/a").empty());
}

TEST(PullSecrets, OldFormAndRubbish) {
  EXPECT_EQ(
      logins_in(secret(".dockercfg", {{"r.example", {{"identitytoken", "t"}}}}), "r.example/a")
          .size(),
      1u);
  EXPECT_TRUE(logins_in({{"data", {{".dockercfg", "%"}}}}, "a").empty());
  EXPECT_TRUE(logins_in(secret(".dockercfg", Json::array({1})), "a").empty());
  EXPECT_TRUE(logins_in(Json(), "a").empty());
}

}  // namespace
}  // namespace edgemesh::edged
