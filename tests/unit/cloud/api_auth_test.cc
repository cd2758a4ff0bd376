#include "cloud/api/auth.h"

#include <gtest/gtest.h>

#include "core/tls/context.h"

namespace edgemesh::cloud {
namespace {

TEST(ApiAuthTest, ARevokedNodeCertificateIsNone) {
  auto shared = std::make_shared<tls::PeerIdentity>();
  tls::PeerIdentity& peer = *shared;
  peer.common_name = "system:node:a";
  peer.organizations = {"system:nodes"};
  peer.not_before = 100;
  http::Request request;
  request.peer = shared;
  auto auth = make_authenticator({}, [](const std::string& node, int64_t not_before) -> Result<> {
    if (node == "a" && not_before < 200) return fail(ErrorCode::kPermissionDenied, "revoked");
    return {};
  });

  EXPECT_FALSE(auth->authenticate(request));

  peer.not_before = 200;
  ASSERT_TRUE(auth->authenticate(request));
  EXPECT_EQ(auth->authenticate(request)->name, "system:node:a");
  peer.not_before = 100;
  EXPECT_TRUE(make_authenticator()->authenticate(request)) << "nobody asked for a check";
  peer.common_name = "admin";
  EXPECT_TRUE(auth->authenticate(request)) << "no node";
}

}  // namespace
}  // namespace edgemesh::cloud
