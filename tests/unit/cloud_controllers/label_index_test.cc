#include "cloud/controllers/label_index.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <vector>

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;

std::vector<std::string> keys(const LabelIndex& index, std::string_view ns, std::string_view label,
                              std::string_view value) {
  std::vector<std::string> out;
  index.each(ns, label, value, [&](const std::string& key) { out.push_back(key); });
  return out;
}

TEST(LabelIndexTest, FindsByNamespaceLabelAndValueInOrder) {
  LabelIndex index;
  const Json web{{"app", "web"}, {"tier", "front"}}, db{{"app", "db"}, {"tier", "front"}};
  index.add("a", &web, "a/2");
  index.add("a", &web, "a/1");
  index.add("a", &db, "a/3");
  index.add("b", &web, "b/1");
  EXPECT_EQ(keys(index, "a", "app", "web"), (std::vector<std::string>{"a/1", "a/2"}));
  EXPECT_EQ(keys(index, "a", "tier", "front"), (std::vector<std::string>{"a/1", "a/2", "a/3"}));
  EXPECT_EQ(keys(index, "b", "app", "web"), (std::vector<std::string>{"b/1"}));
  EXPECT_TRUE(keys(index, "b", "app", "db").empty());
}

TEST(LabelIndexTest, KeepsNothingOfWhatWasRemoved) {
  LabelIndex index;
  const Json labels{{"app", "web"}, {"odd", 3}};
  index.add("a", &labels, "a/1");
  index.remove("a", &labels, "a/2");
  EXPECT_EQ(keys(index, "a", "app", "web").size(), 1U);
  index.remove("a", &labels, "a/1");
  EXPECT_EQ(index.size(), 0U);
  index.add("a", nullptr, "a/1");
  index.remove("a", nullptr, "a/1");
  EXPECT_EQ(index.size(), 0U);
}

}  // namespace
}  // namespace edgemesh::cloud::controllers
