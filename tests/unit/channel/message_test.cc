#include "core/channel/message.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace edgemesh::channel {
namespace {

using Json = nlohmann::json;

// Every text frame between KubeEdge 1.23's edgecore and cloudcore, both ways.
TEST(MessageTest, GenuineFramesAreDecodedAndEncodedWithTheSameMeaning) {
  std::ifstream in(EDGEMESH_SOURCE_DIR "/tests/data/kubeedge/frames.jsonl");
  ASSERT_TRUE(in);
  size_t frames = 0;
  for (std::string line; std::getline(in, line);) {
    const Json record = Json::parse(line);
    if (!record.contains("text") || record["op"] != 1) continue;
    const std::string text = record["text"];
    auto message = decode(text);
    ASSERT_TRUE(message) << message.error().message << "\n" << text;
    EXPECT_EQ(Json::parse(encode(*message)), Json::parse(text));
    ++frames;
  }
  EXPECT_GT(frames, 100U);
}

Message sample() {
  Message m;
  m.id = "i";
  m.timestamp_ms = 5;
  m.source = "edged";
  m.group = "meta";
  m.operation = "update";
  m.resource = "null/node/a";
  m.content = R"({"a":1})";
  return m;
}

TEST(MessageTest, EmptyFieldsAreLeftOut) {
  EXPECT_EQ(encode(sample()),
            R"({"header":{"msg_id":"i","timestamp":5},"route":{"source":"edged","group":"meta",)"
            R"("operation":"update","resource":"null/node/a"},"content":{"a":1}})"
            "\n");
  EXPECT_EQ(encode(Message{}), R"({"header":{"msg_id":"","timestamp":0},"route":{},"content":null})"
                               "\n");
}

TEST(MessageTest, AllFieldsSurvive) {
  Message m = sample();
  m.parent_id = "p";
  m.resource_version = "12";
  m.sync = true;
  m.type = "channel";
  m.destination = "d";
  auto back = decode(encode(m));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->parent_id, "p");
  EXPECT_EQ(back->resource_version, "12");
  EXPECT_TRUE(back->sync);
  EXPECT_EQ(back->type, "channel");
  EXPECT_EQ(back->destination, "d");
  EXPECT_EQ(encode(*back), encode(m));
}

TEST(MessageTest, GosHtmlEscapesMeanTheCharacters) {
  auto m = decode(R"({"header":{"msg_id":"1","timestamp":1},"route":{"source":"\u003ca\u0026\u003e"},"content":"\u003c"})");
  ASSERT_TRUE(m);
  EXPECT_EQ(m->source, "<a&>");
  EXPECT_EQ(content_text(*m), "<");
}

TEST(MessageTest, ContentIsAnObjectOrAStringThatHoldsOne) {
  Message m = sample();
  EXPECT_EQ(content_text(m), R"({"a":1})");
  m.content = json_string(R"({"a":1})");
  EXPECT_EQ(content_text(m), R"({"a":1})");
  m.content = "not json";
  EXPECT_EQ(content_text(*decode(encode(m))), "not json");
  m.content = "";
  EXPECT_EQ(decode(encode(m))->content, "null");
}

TEST(MessageTest, TextThatIsNotUtf8DoesNotBreakTheFrame) {
  Message m = sample();
  m.resource = "a\xff";
  auto back = decode(encode(m));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->resource, "a\xef\xbf\xbd");
}

TEST(MessageTest, WrongFramesAreRefusedWithAReason) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "not a JSON object"},
      {"[]", "not a JSON object"},
      {R"({"route":{}})", "no 'header'"},
      {R"({"header":{}})", "no 'route'"},
      {R"({"header":{"msg_id":1},"route":{}})", "'msg_id' is not a string"},
      {R"({"header":{"timestamp":"x"},"route":{}})", "'timestamp' is not an integer"},
      {R"({"header":{"sync":1},"route":{}})", "'sync' is not a boolean"},
      {R"({"header":{},"route":{"source":[]}})", "'source' is not a string"},
      {R"({"header":{},"route":{"source":")" + std::string(5000, 'x') + "\"}}", "longer than"},
      {R"({"header":{},"route":{},"content":)" + std::string(100, '[') + std::string(100, ']') + "}", "nested"},
      {R"({"header":{},"route":{}} x)", "not a JSON object"},
  };
  for (const auto& [text, reason] : cases) {
    auto m = decode(text);
    ASSERT_FALSE(m) << text;
    EXPECT_NE(m.error().message.find(reason), std::string::npos) << m.error().message;
  }
  EXPECT_EQ(decode(encode(sample()), 10).error().code, ErrorCode::kResourceExhausted);
}

TEST(MessageTest, AnAnswerNamesTheQuestion) {
  const Message reply = reply_to(sample(), "\"OK\"");
  EXPECT_EQ(reply.parent_id, "i");
  EXPECT_EQ(reply.operation, "response");
  EXPECT_EQ(reply.source, "edged");
  EXPECT_EQ(reply.group, "meta");
  EXPECT_EQ(reply.resource, "null/node/a");
  EXPECT_NE(reply.id, "i");
}

}  // namespace
}  // namespace edgemesh::channel
