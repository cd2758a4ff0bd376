#include "core/channel/application.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace edgemesh::channel {
namespace {

using Json = nlohmann::json;

TEST(Application, ARequestComesThroughAsItWas) {
  Application request;
  request.version = "v1";
  request.resource = "configmaps";
  request.ns = "default";
  request.name = "settings";
  request.verb = "update";
  request.node = "edge-1";
  request.option = R"({"fieldManager":"probe"})";
  request.body = R"({"kind":"ConfigMap"})";
  const std::string text = encode_application(request);
  const Json json = Json::parse(text);
  EXPECT_EQ(json["Key"], "/core/v1/configmaps/default/settings");
  EXPECT_EQ(json["ReqBody"], "eyJraW5kIjoiQ29uZmlnTWFwIn0=");  // Go's []byte
  auto back = decode_application(text);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->group, "");
  EXPECT_EQ(back->resource, "configmaps");
  EXPECT_EQ(back->ns, "default");
  EXPECT_EQ(back->name, "settings");
  EXPECT_EQ(back->verb, "update");
  EXPECT_EQ(back->option, request.option);
  EXPECT_EQ(back->body, request.body);
  EXPECT_EQ(back->status, Application::Status::kNone);
  EXPECT_EQ(back->error, "");
}

TEST(Application, ClusterWideAndCollectionsSayNull) {
  Application request;
  request.group = "apps";
  request.version = "v1";
  request.resource = "deployments";
  request.verb = "list";
  const std::string text = encode_application(request);
  EXPECT_EQ(Json::parse(text)["Key"], "/apps/v1/deployments/null/null");
  auto back = decode_application(text);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->group, "apps");
  EXPECT_EQ(back->ns, "");
  EXPECT_EQ(back->name, "");
}

TEST(Application, AnswersCarryTheStatusOfTheApi) {
  Application answer;
  answer.version = "v1";
  answer.resource = "nodes";
  answer.status = Application::Status::kRejected;
  answer.error = R"({"code":404,"reason":"NotFound","status":"Failure"})";
  auto back = decode_application(encode_application(answer));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->status, Application::Status::kRejected);
  EXPECT_EQ(Json::parse(back->error)["code"], 404);
}

TEST(Application, BadOnesAreErrors) {
  for (const char* text :
       {"", "[]", "{}", R"({"Key":"core/v1/pods/a/b"})", R"({"Key":"/core/v1/pods/a"})",
        R"({"Key":"/core/v1/pods/a/b/c"})", R"({"Key":"/core/null/pods/a/b"})",
        R"({"Key":"/core/v1/pods/a/b","ReqBody":"%"})"}) {
    EXPECT_FALSE(decode_application(text)) << text;
  }
}

}  // namespace
}  // namespace edgemesh::channel
