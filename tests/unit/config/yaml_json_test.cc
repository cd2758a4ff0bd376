#include "core/config/yaml_json.h"

#include <gtest/gtest.h>

namespace edgemesh::config {
namespace {

struct Row {
  const char* yaml;
  const char* json;  // null: refused
};

TEST(YamlToJsonTest, GivesScalarsTheirTypes) {
  const Row rows[] = {
      {"a: 1", R"({"a":1})"},
      {"a: '1'", R"({"a":"1"})"},
      {"a: \"true\"", R"({"a":"true"})"},
      {"a: true", R"({"a":true})"},
      {"a: yes", R"({"a":"yes"})"},
      {"a: ~", R"({"a":null})"},
      {"a:", R"({"a":null})"},
      {"a: 1.5", R"({"a":1.5})"},
      {"a: 10.96.0.1", R"({"a":"10.96.0.1"})"},
      {"a: -7", R"({"a":-7})"},
      {"a: v1", R"({"a":"v1"})"},
      {"[1, x, {b: c}]", R"([1,"x",{"b":"c"}])"},
      {"a: |\n  line\n  two\n", R"({"a":"line\u000atwo\u000a"})"},
      {"a: \"q\\\"\\\\\"", R"({"a":"q\"\\"})"},
      {"a: &x {b: 1}\nc: *x", R"({"a":{"b":1},"c":{"b":1}})"},
      {"{\"json\": [1, null]}", R"({"json":[1,null]})"},
      {"a: [", nullptr},
      {"a: b: c", nullptr},
      {"? [a]\n: b", nullptr},
  };
  for (const Row& row : rows) {
    auto converted = yaml_to_json(row.yaml);
    ASSERT_EQ(converted.has_value(), row.json != nullptr) << row.yaml;
    if (row.json != nullptr) {
      EXPECT_EQ(*converted, row.json) << row.yaml;
    }
  }
}

TEST(YamlToJsonTest, StopsWhatGrowsWithoutBound) {
  std::string deep(100, '[');
  deep += std::string(100, ']');
  EXPECT_FALSE(yaml_to_json(deep));

  // Each level doubles what the one before stands for.
  std::string bomb = "a0: &a0 [x, x]\n";
  for (int i = 1; i < 40; ++i) {
    bomb += fmt::format("a{}: &a{} [*a{}, *a{}]\n", i, i, i - 1, i - 1);
  }
  auto converted = yaml_to_json(bomb, 1 << 16);
  ASSERT_FALSE(converted);
  EXPECT_EQ(converted.error().code, ErrorCode::kResourceExhausted);
}

}  // namespace
}  // namespace edgemesh::config
