#include "cloud/dynamic_controller.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/unit/cloud/fake_link.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;
using channel::Application;

Application request(const std::string& verb, const std::string& name = "one") {
  Application out;
  out.version = "v1";
  out.resource = "configmaps";
  out.ns = "default";
  out.name = name;
  out.verb = verb;
  return out;
}

TEST(NodeCall, EachVerbIsARequest) {
  auto get = node_call(request("get"));
  ASSERT_TRUE(get);
  EXPECT_EQ(get->method + " " + get->target, "GET /api/v1/namespaces/default/configmaps/one");

  Application list = request("list", "");
  list.option = R"({"labelSelector":"a=b","limit":5,"watch":false})";
  auto listed = node_call(list);
  ASSERT_TRUE(listed);
  EXPECT_EQ(listed->target, "/api/v1/namespaces/default/configmaps?labelSelector=a%3Db&limit=5");

  Application create = request("create");
  create.body = "{}";
  create.option = R"({"dryRun":["All"],"fieldManager":"probe"})";
  auto created = node_call(create);
  ASSERT_TRUE(created);
  EXPECT_EQ(created->method + " " + created->target,
            "POST /api/v1/namespaces/default/configmaps?fieldManager=probe&dryRun=All");
  EXPECT_EQ(created->body, "{}");

  Application status = request("updatestatus", "");
  status.body = R"({"metadata":{"name":"two"}})";
  auto updated = node_call(status);
  ASSERT_TRUE(updated);
  EXPECT_EQ(updated->method + " " + updated->target,
            "PUT /api/v1/namespaces/default/configmaps/two/status");

  Application remove = request("delete");
  remove.option = R"({"gracePeriodSeconds":0})";
  auto removed = node_call(remove);
  ASSERT_TRUE(removed);
  EXPECT_EQ(removed->method, "DELETE");
  EXPECT_EQ(removed->body, R"({"gracePeriodSeconds":0})");
}

TEST(NodeCall, APatchAsTheClientsLibraryPutsIt) {
  Application patch = request("patch", "");
  patch.group = "apps";
  patch.resource = "deployments";
  patch.option = R"({"Name":"web","PatchType":"application/merge-patch+json","Data":"e30=",)"
                 R"("Options":{"fieldManager":"me","force":true},"Subresources":["scale"]})";
  auto call = node_call(patch);
  ASSERT_TRUE(call) << call.error().message;
  EXPECT_EQ(call->method, "PATCH");
  EXPECT_EQ(call->target,
            "/apis/apps/v1/namespaces/default/deployments/web/scale?fieldManager=me&force=true");
  EXPECT_EQ(call->content_type, "application/merge-patch+json");
  EXPECT_EQ(call->body, "{}");
}

TEST(NodeCall, WhatWouldReachMoreThanOneObjectIsRefused) {
  for (const char* verb : {"get", "update", "delete", "patch"}) {
    Application all = request(verb, "");
    all.body = "{}";
    EXPECT_FALSE(node_call(all)) << verb;
  }
  EXPECT_FALSE(node_call(request("watch")));
  EXPECT_FALSE(node_call(request("deletecollection")));
  Application log = request("get");
  log.subresource = "log";
  EXPECT_FALSE(node_call(log));
  Application odd = request("get", "../../secrets/x");
  auto call = node_call(odd);
  ASSERT_TRUE(call);
  EXPECT_EQ(call->target, "/api/v1/namespaces/default/configmaps/..%2F..%2Fsecrets%2Fx");
  Application patch = request("patch");
  patch.option = R"({"Name":"web","PatchType":"text/plain\r\nX: y","Data":"e30="})";
  EXPECT_FALSE(node_call(patch));
}

class DynamicControllerTest : public ::testing::Test {
 protected:
  void SetUp() override { link_.nodes = {"edge-1"}; }
  channel::Message message(const Application& request) {
    channel::Message out =
        channel::make_message(channel::kApplicationSource, channel::kApplicationGroup, "null",
                              "null", channel::encode_application(request));
    out.id = "q";
    return out;
  }
  Application answer() {
    EXPECT_EQ(link_.sent["edge-1"].size(), 1U);
    if (link_.sent["edge-1"].empty()) return {};
    const channel::Message got = link_.sent["edge-1"].front();
    link_.sent.clear();
    EXPECT_EQ(got.parent_id, "q");
    EXPECT_EQ(got.operation, "applicationResponse");
    EXPECT_EQ(got.resource, "ignore/Application/ignore");
    auto out = channel::decode_application(channel::content_text(got));
    EXPECT_TRUE(out);
    return out ? *out : Application();
  }
  test::FakeLink link_;
  std::vector<NodeCall> calls_;
  std::vector<UniqueFunction<void(Result<NodeCallAnswer>)>> waiting_;
  DynamicController controller_{link_,
                                [this](NodeCall call, auto done) {
                                  calls_.push_back(std::move(call));
                                  waiting_.push_back(std::move(done));
                                },
                                {.max_in_flight = 2, .max_answer = 100}};
};

TEST_F(DynamicControllerTest, AsksAsTheNodeOfTheCertificateAndAnswers) {
  Application ask = request("get");
  ask.node = "edge-2";  // what the message claims counts for nothing
  controller_.on_message("edge-1", message(ask));
  ASSERT_EQ(calls_.size(), 1U);
  EXPECT_EQ(calls_[0].node, "edge-1");
  waiting_[0](NodeCallAnswer{200, R"({"kind":"ConfigMap"})"});
  const Application good = answer();
  EXPECT_EQ(good.status, Application::Status::kApproved);
  EXPECT_EQ(good.response, R"({"kind":"ConfigMap"})");

  controller_.on_message("edge-1", message(request("get")));
  waiting_[1](NodeCallAnswer{403, R"({"code":403,"message":"no","reason":"Forbidden"})"});
  const Application bad = answer();
  EXPECT_EQ(bad.status, Application::Status::kRejected);
  EXPECT_EQ(bad.reason, "no");
  EXPECT_EQ(Json::parse(bad.error)["code"], 403);
}

TEST_F(DynamicControllerTest, LimitsAreAnswered) {
  controller_.on_message("edge-1", message(request("get")));
  controller_.on_message("edge-1", message(request("get")));
  controller_.on_message("edge-1", message(request("get")));
  EXPECT_EQ(calls_.size(), 2U);
  EXPECT_EQ(Json::parse(answer().error)["code"], 429);
  waiting_[0](NodeCallAnswer{200, std::string(101, ' ')});
  EXPECT_EQ(Json::parse(answer().error)["code"], 413);
  waiting_[1](fail(ErrorCode::kUnavailable, "the API is away"));
  EXPECT_EQ(Json::parse(answer().error)["code"], 503);
  controller_.on_message("edge-1", message(request("get")));
  EXPECT_EQ(calls_.size(), 3U);  // there is room again
  controller_.on_message("edge-1", message(request("watch")));
  EXPECT_EQ(Json::parse(answer().error)["code"], 400);
}

}  // namespace
}  // namespace edgemesh::cloud
