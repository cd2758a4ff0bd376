#include "kube/selector.h"

#include <gtest/gtest.h>

namespace edgemesh::kube {
namespace {

struct LabelCase {
  const char* selector;
  bool matches;
};

class LabelSelectorTest : public testing::TestWithParam<LabelCase> {};

TEST_P(LabelSelectorTest, MatchesAsKubernetesDoes) {
  Pairs labels{{"app", "web"}, {"empty", ""}, {"rank", "12"}, {"tier", "front"}};

  auto selector = LabelSelector::parse(GetParam().selector);

  ASSERT_TRUE(selector) << selector.error().message;
  EXPECT_EQ(selector->matches(labels), GetParam().matches) << GetParam().selector;
}

INSTANTIATE_TEST_SUITE_P(
    Table, LabelSelectorTest,
    testing::Values(LabelCase{"", true}, LabelCase{"app=web", true}, LabelCase{"app==web", true},
                    LabelCase{"app = web , tier=front", true},
                    LabelCase{"app=web,tier=back", false}, LabelCase{"app!=web", false},
                    LabelCase{"nope!=x", true}, LabelCase{"app in (db, web)", true},
                    LabelCase{"app in (db)", false}, LabelCase{"app notin (db)", true},
                    LabelCase{"nope notin (db)", true}, LabelCase{"nope in (db)", false},
                    LabelCase{"app", true}, LabelCase{"nope", false}, LabelCase{"!app", false},
                    LabelCase{"! nope", true}, LabelCase{"empty=", true},
                    LabelCase{"empty in ()", true}, LabelCase{"rank>11", true},
                    LabelCase{"rank>12", false}, LabelCase{"rank<13", true},
                    LabelCase{"tier<13", false}, LabelCase{"in in (x)", false}));

TEST(LabelSelectorErrorTest, SaysWhereItIsWrong) {
  for (const char* text :
       {"=x", "a in x", "a in (x", "a b", "a=b c", "a>x", "a,", "!", "a=b,,c=d"}) {
    auto selector = LabelSelector::parse(text);
    ASSERT_FALSE(selector) << text;
    EXPECT_NE(selector.error().message.find("at character"), std::string::npos);
  }
}

TEST(FieldSelectorTest, ComparesFields) {
  Pairs fields{{"metadata.name", "a"}, {"spec.nodeName", "n1"}};
  auto matches = [&](const char* text) {
    auto selector = FieldSelector::parse(text);
    EXPECT_TRUE(selector) << text;
    return selector && selector->matches(fields);
  };

  EXPECT_TRUE(matches(""));
  EXPECT_TRUE(matches("metadata.name=a"));
  EXPECT_TRUE(matches("metadata.name==a,spec.nodeName!=n2"));
  EXPECT_FALSE(matches("metadata.name!=a"));
  EXPECT_TRUE(matches("status.phase!=Failed"));
  EXPECT_TRUE(matches("status.phase="));
  EXPECT_FALSE(FieldSelector::parse("metadata.name"));
  EXPECT_FALSE(FieldSelector::parse("=a"));
}

}  // namespace
}  // namespace edgemesh::kube
