#include "cloud/api/audit.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "tests/support/temp_dir.h"
#include "tests/unit/cloud/api_server_fixture.h"

namespace edgemesh::cloud {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> lines_of(const std::string& path) {
  std::vector<std::string> out;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) out.push_back(line);
  return out;
}

class AuditTest : public ApiServerTest {
 protected:
  void start(AuditLevel level) {
    AuditOptions options;
    options.file = path_;
    options.level = level;
    auto audit = Audit::open(loop_->clock(), options);
    ASSERT_TRUE(audit) << audit.error().message;
    audit_ = std::move(*audit);
    ApiServerOptions server;
    server.audit = audit_;
    server.authenticator = make_authenticator(
        {{"admin-token", {"admin", {"system:masters"}}}, {"other-token", {"somebody", {}}}});
    handler_ = ApiServer::create(*loop_, api_->core(), std::move(server));
    http::ServerOptions listen;
    listen.listen = *SockAddr::parse("127.0.0.1:0");
    auto made = http::Server::create(*loop_, listen, [this](http::Request request, auto writer) {
      handler_->handle(std::move(request), std::move(writer));
    });
    ASSERT_TRUE(made) << made.error().message;
    server_ = std::move(*made);
  }
  void TearDown() override {
    call_.reset();
    http_.reset();
    server_.reset();
    handler_.reset();
    ApiServerTest::TearDown();
  }
  std::vector<json> events() {
    audit_->file().flush();
    std::vector<json> out;
    for (const std::string& line : lines_of(path_)) out.push_back(json::parse(line));
    return out;
  }
  std::string text() {
    std::string out;
    audit_->file().flush();
    for (const std::string& line : lines_of(path_)) out += line + "\n";
    return out;
  }

  test::TempDir dir_;
  const std::string path_ = dir_.file("audit.log");
  std::shared_ptr<Audit> audit_;
  std::unique_ptr<ApiServer> handler_;
};

TEST_F(AuditTest, AnEventSaysWhoAskedForWhat) {
  start(AuditLevel::kMetadata);
  auto answer = send("POST", kPath, service("web"));
  ASSERT_EQ(answer.status, 201);

  const auto all = events();
  ASSERT_EQ(all.size(), 1U);
  const json& event = all[0];
  EXPECT_EQ(event["kind"], "Event");
  EXPECT_EQ(event["apiVersion"], "audit.k8s.io/v1");
  EXPECT_EQ(event["level"], "Metadata");
  EXPECT_EQ(event["stage"], "ResponseComplete");
  EXPECT_EQ(event["requestURI"], kPath);
  EXPECT_EQ(event["verb"], "create");
  EXPECT_EQ(event["user"]["username"], "admin");
  EXPECT_EQ(event["sourceIPs"], json({"127.0.0.1"}));
  EXPECT_EQ(event["objectRef"], json({{"resource", "services"},
                                      {"namespace", "default"},
                                      {"name", "web"},
                                      {"apiVersion", "v1"}}));
  EXPECT_EQ(event["responseStatus"], json({{"metadata", json::object()}, {"code", 201}}));
  EXPECT_EQ(event["annotations"]["authorization.k8s.io/decision"], "allow");
  EXPECT_EQ(event["auditID"], std::string(answer.headers.get_or("Audit-Id", "")));
  EXPECT_FALSE(event.contains("requestObject"));
  for (const char* time : {"requestReceivedTimestamp", "stageTimestamp"})
    EXPECT_EQ(event[time].get<std::string>().size(), 27U);
}

TEST_F(AuditTest, RefusalsAreEvents) {
  start(AuditLevel::kMetadata);
  token_ = "other-token";
  EXPECT_EQ(send("GET", "/api/v1/nodes/n1").status, 403);
  token_ = "a-wrong-token";
  EXPECT_EQ(send("GET", "/version").status, 401);
  EXPECT_EQ(send("GET", "/healthz").status, 200);

  const auto all = events();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0]["user"]["username"], "somebody");
  EXPECT_EQ(all[0]["annotations"]["authorization.k8s.io/decision"], "forbid");
  EXPECT_EQ(all[0]["responseStatus"]["reason"], "Forbidden");
  EXPECT_THAT(all[0]["responseStatus"]["message"].get<std::string>(), HasSubstr("cannot get"));
  EXPECT_EQ(all[1]["user"], json::object());
  EXPECT_EQ(all[1]["verb"], "get");
  EXPECT_EQ(all[1]["responseStatus"]["code"], 401);
  EXPECT_THAT(text(), Not(HasSubstr("wrong-token")));
}

TEST_F(AuditTest, ImpersonationNamesBoth) {
  start(AuditLevel::kMetadata);
  auto as = request("GET", kPath);
  as.headers.set("Impersonate-User", "jane");
  bool done = false;
  http_->request(std::move(as), [&](auto) { done = true; });
  settle([&] { return done; });

  const auto all = events();
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0]["user"]["username"], "admin");
  EXPECT_EQ(all[0]["impersonatedUser"]["username"], "jane");
}

TEST_F(AuditTest, RequestAddsWhatWasSentButNothingSecret) {
  start(AuditLevel::kRequest);
  ASSERT_EQ(send("POST", kPath, service("web")).status, 201);
  const json secret{{"metadata", {{"name", "s"}}}, {"stringData", {{"password", "hunter-two"}}}};
  ASSERT_EQ(send("POST", "/api/v1/namespaces/default/secrets", secret.dump()).status, 201);
  ASSERT_EQ(
      send("PATCH", "/api/v1/namespaces/default/secrets/s",
           R"({"data":{"hunter-two":"no base64, hunter-two"}})", "application/merge-patch+json")
          .status,
      422);
  const json config{{"metadata", {{"name", "c"}}}, {"data", {{"k", "hunter-two"}}}};
  ASSERT_EQ(send("POST", "/api/v1/namespaces/default/configmaps", config.dump()).status, 201);
  const json review{{"spec", {{"token", "hunter-two"}}}};
  ASSERT_EQ(send("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review.dump()).status, 201);

  const auto all = events();
  ASSERT_EQ(all.size(), 5U);
  EXPECT_EQ(all[0]["level"], "Request");
  EXPECT_EQ(all[0]["requestObject"]["spec"]["ports"][0]["port"], 80);
  EXPECT_EQ(all[1]["level"], "Metadata");
  EXPECT_EQ(all[1]["objectRef"]["name"], "s");
  EXPECT_EQ(all[2]["responseStatus"]["reason"], "Invalid");
  EXPECT_THAT(text(), Not(HasSubstr("hunter-two")));
  EXPECT_THAT(text(), Not(HasSubstr("admin-token")));
}

TEST_F(AuditTest, AWatchHasABeginningAndAnEnd) {
  start(AuditLevel::kMetadata);
  watch("/api/v1/services?watch=1");
  ASSERT_EQ(events().size(), 1U);
  EXPECT_EQ(events()[0]["stage"], "ResponseStarted");
  EXPECT_EQ(events()[0]["verb"], "watch");

  call_.reset();  // the client goes away

  settle([&] { return handler_->watches() == 0; });
  settle([&] { return events().size() == 2; });
  EXPECT_EQ(events()[1]["stage"], "ResponseComplete");
  EXPECT_EQ(events()[1]["responseStatus"]["code"], 200);
  EXPECT_EQ(events()[1]["auditID"], events()[0]["auditID"]);
}

TEST(AuditFileTest, FilesGrowToTheirSizeAndOldOnesGo) {
  test::TempDir dir;
  const std::string path = dir.file("audit.log");
  std::ofstream(path) << "from before\n";
  auto made = AuditFile::open({.path = path, .max_bytes = 30, .max_old = 2, .max_queued = 1 << 20});
  ASSERT_TRUE(made) << made.error().message;
  for (int i = 0; i < 7; ++i) (*made)->put("a line of 20 chars" + std::to_string(10 + i));
  (*made)->flush();
  EXPECT_EQ(lines_of(path), std::vector<std::string>{"a line of 20 chars16"});
  EXPECT_EQ(lines_of(path + ".1"), std::vector<std::string>{"a line of 20 chars15"});
  EXPECT_EQ(lines_of(path + ".2"), std::vector<std::string>{"a line of 20 chars14"});
  EXPECT_FALSE(fs::exists(path + ".3"));
  EXPECT_EQ((*made)->lost(), 0U);
}

TEST(AuditFileTest, WhatDoesNotFitIsLostAndCounted) {
  test::TempDir dir;
  auto made = AuditFile::open({.path = dir.file("audit.log"), .max_queued = 10});
  ASSERT_TRUE(made);
  (*made)->put("this is more than the queue takes");
  EXPECT_EQ((*made)->lost(), 1U);
  (*made)->put("short");
  made->reset();  // writes it
  EXPECT_EQ(lines_of(dir.file("audit.log")), std::vector<std::string>{"short"});
}

TEST(AuditFileTest, TheFileIsItsOwnersAlone) {
  auto made = AuditFile::open({.path = "/dev/full"});
  ASSERT_FALSE(made) << "no regular file";
  test::TempDir dir;
  EXPECT_FALSE(AuditFile::open({.path = dir.file("none/audit.log")}));
  struct stat is {};
  auto file = AuditFile::open({.path = dir.file("audit.log")});
  ASSERT_TRUE(file);
  ASSERT_EQ(stat(dir.file("audit.log").c_str(), &is), 0);
  EXPECT_EQ(is.st_mode & 0777, 0600U);
}

}  // namespace
}  // namespace edgemesh::cloud
