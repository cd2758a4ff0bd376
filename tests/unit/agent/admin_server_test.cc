#include "cmd/admin/admin_server.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "core/base/log.h"
#include "core/http/client.h"

namespace edgemesh::cmd {
namespace {

class AdminServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*io::Loop::create());
    admin_ = std::move(*AdminServer::create(*loop_, {IpAddr::loopback(), 0}, registry_,
                                            [this] { return not_ready_; }));
    admin_->get_json("/state", [] { return nlohmann::json{{"x", 1}}; });
    admin_->post("/act", [this](const http::Request&, const AdminServer::Writer& writer) {
      ++acts_;
      AdminServer::send_text(writer, 200, "done");
    });
    level_ = log::level();
  }
  void TearDown() override { log::set_level(level_); }

  int ask(const std::string& method, const std::string& target, http::Headers headers = {}) {
    http::Client client(*loop_, {});
    http::ClientRequest request;
    request.method = method;
    request.url = "http://" + admin_->local_addr().to_string() + target;
    request.headers = std::move(headers);
    std::optional<Result<http::Response>> answer;
    client.request(std::move(request), [&](Result<http::Response> r) { answer = std::move(r); });
    EXPECT_TRUE(loop_->run_until([&] { return answer.has_value(); }, std::chrono::seconds(5)));
    if (!answer || !*answer) return 0;
    body_ = (*answer)->body;
    return (*answer)->status;
  }

  std::unique_ptr<io::Loop> loop_;
  obs::Registry registry_;
  std::unique_ptr<AdminServer> admin_;
  std::string not_ready_, body_;
  int acts_ = 0;
  log::Level level_ = log::Level::kInfo;
};

TEST_F(AdminServerTest, HasHealthMetricsAndThePagesOfTheProgram) {
  EXPECT_EQ(ask("GET", "/healthz"), 200);
  EXPECT_EQ(ask("GET", "/readyz"), 200);
  not_ready_ = "not yet";
  EXPECT_EQ(ask("GET", "/readyz"), 503);
  EXPECT_EQ(body_, "not yet\n");
  EXPECT_EQ(ask("GET", "/metrics"), 200);
  EXPECT_EQ(ask("GET", "/state"), 200);
  EXPECT_EQ(nlohmann::json::parse(body_)["x"], 1);
  EXPECT_EQ(ask("GET", "/nothing"), 404);
  EXPECT_NE(body_.find("/state"), std::string::npos);
}

TEST_F(AdminServerTest, OnlyPostActs) {
  EXPECT_EQ(ask("GET", "/act"), 405);
  EXPECT_EQ(acts_, 0);
  EXPECT_EQ(ask("POST", "/act"), 200);
  EXPECT_EQ(acts_, 1);
  EXPECT_EQ(ask("POST", "/state"), 405);
  EXPECT_EQ(ask("DELETE", "/state"), 405);
}

TEST_F(AdminServerTest, LevelsAreSetByPostAlone) {
  log::set_level(log::Level::kWarn);
  EXPECT_EQ(ask("GET", "/log?level=debug"), 405);
  EXPECT_EQ(log::level(), log::Level::kWarn);
  EXPECT_EQ(ask("POST", "/log?level=nonsense"), 400);
  EXPECT_EQ(ask("POST", "/log?level=debug"), 200);
  EXPECT_EQ(log::level(), log::Level::kDebug);
  EXPECT_EQ(ask("GET", "/log"), 200);
  EXPECT_EQ(nlohmann::json::parse(body_)["level"], "debug");
}

TEST_F(AdminServerTest, RefusesPagesOfTheWeb) {
  EXPECT_EQ(ask("POST", "/act", {{"Origin", "http://evil.example"}}), 403);
  EXPECT_EQ(ask("GET", "/state", {{"Origin", "http://evil.example"}}), 403);
  EXPECT_EQ(acts_, 0);
}

TEST(AdminHostTest, NamesOtherThanLocalhostAreRefused) {
  const IpAddr loopback = IpAddr::loopback();
  for (const char* good : {"127.0.0.1", "127.0.0.1:15000", "127.1.2.3:1", "[::1]:15000", "[::1]",
                           "localhost", "LocalHost:15000"}) {
    EXPECT_TRUE(admin_host_allowed(good, loopback)) << good;
  }
  for (const char* bad : {"", "evil.example", "evil.example:15000", "localhost.evil.example", "[::1",
                          "127.0.0.1.evil.example:80", "10.0.0.5:15000", "[fe80::1]:80", ":15000"}) {
    EXPECT_FALSE(admin_host_allowed(bad, loopback)) << bad;
  }
  EXPECT_TRUE(admin_host_allowed("10.0.0.5:15000", *IpAddr::parse("10.0.0.5")));
  EXPECT_TRUE(admin_host_allowed("10.0.0.6:15000", IpAddr::any(false)));
  EXPECT_FALSE(admin_host_allowed("evil.example", IpAddr::any(false)));
}

}  // namespace
}  // namespace edgemesh::cmd
