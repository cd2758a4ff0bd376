#include "cloud/api/auth.h"

#include <gtest/gtest.h>

#include "core/tls/context.h"
#include "tests/unit/cloud/api_server_fixture.h"

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

TEST_F(ApiServerTest, AWatchEndsWithItsCertificate) {
  bool good = true;
  auto peer = std::make_shared<tls::PeerIdentity>();
  peer->common_name = "system:node:n1";
  peer->organizations = {"system:nodes"};
  const auto check = [&good](const std::string&, int64_t) -> Result<> {
    if (!good) return fail(ErrorCode::kPermissionDenied, "revoked");
    return {};
  };
  auto fresh = ApiServer::create(*loop_, api_->core(), {.authenticator = make_authenticator({}, check)});
  http::ServerOptions options;
  options.listen = *SockAddr::parse("127.0.0.1:0");
  auto made = http::Server::create(*loop_, options, [&](http::Request request, auto writer) {
    request.peer = peer;
    fresh->handle(std::move(request), std::move(writer));
  });
  ASSERT_TRUE(made) << made.error().message;
  server_ = std::move(*made);
  watch("/api/v1/services?watch=1");
  ASSERT_EQ(watch_status_, 200);
  fresh->end_refused();
  EXPECT_EQ(fresh->watches(), 1U);

  good = false;
  fresh->end_refused();

  settle([&] { return watch_ended_; });
  EXPECT_EQ(fresh->watches(), 0U);
  EXPECT_EQ(send("GET", "/api/v1/services").status, 401);
  call_.reset();
  http_.reset();
  server_.reset();
}

}  // namespace
}  // namespace edgemesh::cloud
