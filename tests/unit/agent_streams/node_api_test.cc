#include "agent/streams/node_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "agent/edged/spec/labels.h"
#include "agent/streams/stats.h"
#include "core/http/server.h"
#include "core/io/tcp.h"
#include "tests/support/fake_cri.h"
#include "tests/support/memory_stream.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_pki.h"

namespace edgemesh::streams {
namespace {

using namespace std::chrono_literals;  // NOLINT
using test::Collector;
using test::TestPki;
using ::testing::HasSubstr;

class NodeApiTest : public ::testing::Test {
 protected:
  void SetUp() override {
    runtime_.add_image("web:1");
    http::ServerOptions options;
    options.adopt_only = true;
    server_ = TestPki::take(http::Server::create(
        *loop_, options,
        [this](const http::Request& request, auto writer) { api_->handle(request, writer); }));
    cri::pb::RunPodSandboxRequest run;
    auto& config = *run.mutable_config();
    config.mutable_metadata()->set_name("web");
    config.mutable_metadata()->set_uid("u1");
    label(*config.mutable_labels());
    config.set_log_directory(dir_.path());
    pod_ = config;
    runtime_.run_pod_sandbox(run, [this](Result<std::string> id) { sandbox_ = *id; });
    EXPECT_TRUE(until([&] { return !sandbox_.empty(); }));
  }
  template <class Map>
  static void label(Map& labels) {
    labels[edged::kPodNameLabel] = "web";
    labels[edged::kPodNamespaceLabel] = "default";
    labels[edged::kPodUidLabel] = "u1";
  }
  // A container that runs, with this log.
  std::string start(uint32_t attempt, const std::string& log) {
    cri::pb::CreateContainerRequest create;
    create.set_pod_sandbox_id(sandbox_);
    *create.mutable_sandbox_config() = pod_;
    auto& config = *create.mutable_config();
    config.mutable_metadata()->set_name("main");
    config.mutable_metadata()->set_attempt(attempt);
    config.mutable_image()->set_image("web:1");
    config.set_log_path(fmt::format("{}.log", attempt));
    label(*config.mutable_labels());
    (*config.mutable_labels())[edged::kContainerNameLabel] = "main";
    write(attempt, log);
    std::string id;
    bool started = false;
    clock_.advance(1s);
    runtime_.create_container(create, [&](Result<std::string> made) {
      id = *made;
      runtime_.start_container(id, [&](const Result<>& done) { started = done.has_value(); });
    });
    EXPECT_TRUE(until([&] { return started; }));
    return id;
  }
  void write(uint32_t attempt, const std::string& text) {
    std::ofstream(fmt::format("{}/{}.log", dir_.path(), attempt), std::ios::app)
        << "2026-11-24T04:00:00Z stdout F " << text << "\n";
  }
  std::unique_ptr<Collector> ask(const std::string& target, const std::string& more = "") {
    auto [near, far] = test::MemoryStream::pair(*loop_);
    server_->adopt(std::move(far), SockAddr{});
    auto out = std::make_unique<Collector>(std::move(near));
    out->send("GET " + target + " HTTP/1.1\r\nHost: node\r\n" + more + "\r\n");
    return out;
  }
  // The answer of a request that is closed by the server.
  std::string answer(const std::string& target) {
    auto client = ask(target, "Connection: close\r\n");
    EXPECT_TRUE(until([&] { return client->eof; })) << client->received;
    return client->received;
  }
  bool until(const std::function<bool()>& done) { return loop_->run_until(done, 10s); }

  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_ = TestPki::take(io::Loop::create(clock_));
  test::TempDir dir_;
  test::FakeRuntime runtime_{*loop_};
  std::unique_ptr<NodeApi> api_ = NodeApi::create(*loop_, runtime_, {.node = "edge-1"});
  std::unique_ptr<http::Server> server_;
  cri::pb::PodSandboxConfig pod_;
  std::string sandbox_;
};

TEST_F(NodeApiTest, LogsOfTheContainerAndOfTheOneBefore) {
  runtime_.exit_container(start(0, "first life"), 1);
  EXPECT_THAT(answer("/containerLogs/default/web/main?previous=true"),
              HasSubstr("previous terminated container"));
  start(1, "second life");
  EXPECT_THAT(answer("/containerLogs/default/web/main"), HasSubstr("second life"));
  EXPECT_THAT(answer("/containerLogs/default/web/main?previous=true"), HasSubstr("first life"));
  EXPECT_THAT(answer("/containerLogs/default/web/main?tailLines=x"), HasSubstr("400"));
  EXPECT_THAT(answer("/containerLogs/default/web/other"), HasSubstr("waiting to start"));
  EXPECT_THAT(answer("/containerLogs/default/web"), HasSubstr("404"));
}

TEST_F(NodeApiTest, FollowsALogUntilTheContainerHasEnded) {
  const std::string id = start(0, "one");
  auto client = ask("/containerLogs/default/web/main?follow=true");
  ASSERT_TRUE(until([&] { return client->received.find("one") != std::string::npos; }));
  write(0, "two");
  ASSERT_TRUE(until([&] {
    clock_.advance(100ms);
    return client->received.find("two") != std::string::npos;
  }));
  EXPECT_EQ(api_->streams(), 1u);
  runtime_.exit_container(id, 0);
  write(0, "last words");
  ASSERT_TRUE(until([&] {
    clock_.advance(100ms);
    return client->received.ends_with("0\r\n\r\n");
  }));
  EXPECT_THAT(client->received, HasSubstr("last words"));
  EXPECT_TRUE(until([&] { return api_->streams() == 0; }));
}

TEST_F(NodeApiTest, AClientThatGoesEndsItsLog) {
  start(0, "one");
  auto client = ask("/containerLogs/default/web/main?follow=true");
  ASSERT_TRUE(until([&] { return client->received.find("one") != std::string::npos; }));
  client->drop();
  EXPECT_TRUE(until([&] { return api_->streams() == 0; }));
}

TEST_F(NodeApiTest, ExecIsRefusedWhereNothingRuns) {
  EXPECT_THAT(answer("/exec/default/web/main?command=ls&output=1"), HasSubstr("is not running"));
  start(0, "one");
  EXPECT_THAT(answer("/exec/default/web/main?output=1"), HasSubstr("there is no command"));
  EXPECT_THAT(answer("/exec/default/web/main?command=ls"), HasSubstr("must be asked for"));
  // The fake runtime's streaming server is not there.
  EXPECT_THAT(answer("/exec/default/web/main?command=ls&output=1"), HasSubstr("HTTP/1.1 500"));
  EXPECT_THAT(answer("/portForward/default/absent"),
              HasSubstr("pod \\\"absent\\\" is not running"));
}

TEST(Stats, UsageIsBetweenTwoLooks) {
  UsageLook before, now;
  before.node = {0, 1'000'000'000, 1};
  now.node = {2'000'000'000, 2'000'000'000, 4096};
  before.containers["a"] = {"u1", "default", "web", "main", {0, 0, 1}};
  now.containers["a"] = {"u1", "default", "web", "main", {1'000'000'000, 250'000'000, 1 << 20}};
  now.containers["b"] = {"u1", "default", "web", "new", {1'000'000'000, 250'000'000, 1 << 20}};
  const std::string text = render_summary("edge-1", before, now);
  EXPECT_THAT(text, HasSubstr(R"("usageNanoCores":500000000)"));
  EXPECT_THAT(text, HasSubstr(R"("usageNanoCores":250000000)"));
  EXPECT_THAT(text, HasSubstr(R"("workingSetBytes":4096)"));
  EXPECT_EQ(text.find("new"), std::string::npos);
}

TEST_F(NodeApiTest, ASummaryTakesASecondLookIfItMust) {
  start(0, "one");
  auto client = ask("/stats/summary");
  ASSERT_TRUE(until([&] {
    clock_.advance(100ms);
    return client->received.find("nodeName") != std::string::npos;
  })) << client->received;
  EXPECT_THAT(client->received, HasSubstr("HTTP/1.1 200"));
}

}  // namespace
}  // namespace edgemesh::streams
