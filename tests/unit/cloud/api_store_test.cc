#include "cloud/api/store.h"

#include "tests/unit/cloud/api_fixture.h"

namespace edgemesh::cloud {
namespace {

using kube::EventType;
using Backlog = std::vector<std::pair<EventType, ObjectPtr>>;

class ApiStoreTest : public ApiFixture {
 protected:
  uint64_t put(const std::string& name, const std::string& value) {
    auto stored = store_->latest(info(kube::kConfigMaps), "default", name);
    auto written = stored == nullptr
                       ? create(kube::kConfigMaps, "default", config_map(name, value))
                       : update(kube::kConfigMaps, "default", config_map(name, value));
    EXPECT_TRUE(written);
    return store_->version();
  }
  std::vector<std::string> names(const ListResult& list) {
    std::vector<std::string> out;
    for (const auto& object : list.items) out.push_back(object->name);
    return out;
  }
  // "A x", "M x", "D x" of what a watch from `from` gets at once.
  std::string replay(uint64_t from, const std::string& labels = "") {
    Filter filter;
    filter.labels = *kube::LabelSelector::parse(labels);
    Backlog backlog;
    auto watch = store_->subscribe(info(kube::kConfigMaps), filter, from, &backlog, {});
    if (!watch) return "gone";
    std::string out;
    for (const auto& [type, object] : backlog) {
      if (!out.empty()) out += ", ";
      out += type == EventType::kAdded ? "A " : type == EventType::kModified ? "M " : "D ";
      out += object->name;
    }
    return out;
  }
};

TEST_F(ApiStoreTest, VersionsRiseAndSurviveAReopen) {
  uint64_t first = put("a", "1");
  uint64_t second = put("b", "1");
  ASSERT_TRUE(remove(kube::kConfigMaps, "default", "b"));
  uint64_t third = store_->version();
  std::string epoch = store_->epoch();

  open();

  EXPECT_LT(first, second);
  EXPECT_LT(second, third);
  EXPECT_EQ(store_->version(), third);
  EXPECT_EQ(store_->epoch(), epoch);
  EXPECT_NE(store_->get(info(kube::kConfigMaps), "default", "a"), nullptr);
  EXPECT_EQ(store_->get(info(kube::kConfigMaps), "default", "b"), nullptr);
  EXPECT_GT(put("c", "1"), third);
}

TEST_F(ApiStoreTest, WhatAPatchNestsTooDeepIsRefusedAndTheNextStartWorks) {
  put("a", "1");
  auto stack = [](int levels) {
    json value = "x";
    for (int i = 0; i < levels; ++i) value = json{{"n", value}};
    return value;
  };
  kube::WriteOptions options;
  // A field that may hold anything.
  json entry = {{"manager", "m"}, {"operation", "Update"}, {"fieldsV1", stack(30)}};
  json first = json::array({{{"op", "add"}, {"path", "/metadata/managedFields"}, {"value", json::array({entry})}}});
  std::string deep = "/metadata/managedFields/0/fieldsV1";
  for (int i = 0; i < 29; ++i) deep += "/n";
  json second = json::array({{{"op", "add"}, {"path", deep + "/m"}, {"value", stack(40)}}});
  static_cast<void>(patch(kube::kConfigMaps, "default", "a", kube::PatchKind::kJson, first, options));
  EXPECT_FALSE(patch(kube::kConfigMaps, "default", "a", kube::PatchKind::kJson, second, options));
  EXPECT_FALSE(create(kube::kConfigMaps, "default", {{"metadata", {{"name", "d"}, {"managedFields", json::array({{{"fieldsV1", stack(60)}}})}}}}));
  open();
  EXPECT_NE(store_->get(info(kube::kConfigMaps), "default", "a"), nullptr);
  EXPECT_EQ(store_->get(info(kube::kConfigMaps), "default", "d"), nullptr);
}

TEST_F(ApiStoreTest, AWriteIsVisibleOnlyWhenItIsDurable) {
  bool done = false;
  core_->create(info(kube::kConfigMaps), "default", config_map("a"), {},
                [&](ApiResult<ApiCore::Written> written) { done = written.has_value(); });

  EXPECT_EQ(store_->get(info(kube::kConfigMaps), "default", "a"), nullptr);
  EXPECT_NE(store_->latest(info(kube::kConfigMaps), "default", "a"), nullptr);
  settle([&] { return done; });
  EXPECT_NE(store_->get(info(kube::kConfigMaps), "default", "a"), nullptr);
  auto reader = store::Database::open(options_.path);
  auto query = (*reader)->prepare("SELECT count(*) FROM objects WHERE resource='configmaps'");
  ASSERT_TRUE(*query->step());
  EXPECT_EQ(query->column_int(0), 1);
}

TEST_F(ApiStoreTest, WritesOfOneTurnBuildOnEachOtherAndShareCommits) {
  uint64_t before = store_->commits();
  int done = 0;
  auto count = [&](ApiResult<ApiCore::Written> written) {
    EXPECT_TRUE(written) << written.error().message;
    ++done;
  };
  core_->create(info(kube::kConfigMaps), "default", config_map("a", "0"), {}, count);
  for (int i = 1; i <= 200; ++i) {
    core_->update(info(kube::kConfigMaps), "default", "a", config_map("a", std::to_string(i)), {},
                  count);
  }
  settle([&] { return done == 201; });

  json object = json::parse(store_->get(info(kube::kConfigMaps), "default", "a")->text);
  EXPECT_EQ(object["data"]["k"], "200");
  EXPECT_LT(store_->commits() - before, 100U);
}

TEST_F(ApiStoreTest, WatchReplaysWhatCameAfterTheVersion) {
  uint64_t start = store_->version();
  put("a", "1");
  put("b", "1");
  uint64_t middle = put("a", "2");
  ASSERT_TRUE(remove(kube::kConfigMaps, "default", "a"));

  EXPECT_EQ(replay(start), "A a, A b, M a, D a");
  EXPECT_EQ(replay(middle), "D a");
  EXPECT_EQ(replay(store_->version()), "");
}

TEST_F(ApiStoreTest, WatchGoesOnAfterAReopen) {
  put("old", "1");
  uint64_t start = put("kept", "1");
  put("new", "1");
  put("new", "2");
  put("kept", "2");
  ASSERT_TRUE(remove(kube::kConfigMaps, "default", "old"));

  open();

  EXPECT_EQ(replay(start), "A new, M kept, D old");
}

TEST_F(ApiStoreTest, AVersionBeforeTheHistoryIsGone) {
  options_.history_changes = 4;
  open();
  uint64_t start = store_->version();
  for (int i = 0; i < 6; ++i) put("a", std::to_string(i));

  EXPECT_EQ(replay(start), "gone");
  EXPECT_EQ(replay(store_->version() - 1), "M a");
  Filter filter;
  auto list = store_->list(info(kube::kConfigMaps), filter, 0, {}, start + 1);
  ASSERT_FALSE(list);
  EXPECT_EQ(list.error().code, ErrorCode::kGone);
}

TEST_F(ApiStoreTest, ASelectorTurnsChangesIntoComingAndGoing) {
  json object = config_map("a");
  uint64_t start = store_->version();
  create(kube::kConfigMaps, "default", object);
  object["metadata"]["labels"] = {{"on", "yes"}};
  update(kube::kConfigMaps, "default", object);
  object["data"]["k"] = "2";
  update(kube::kConfigMaps, "default", object);
  object["metadata"]["labels"] = {{"on", "no"}};
  update(kube::kConfigMaps, "default", object);
  remove(kube::kConfigMaps, "default", "a");

  EXPECT_EQ(replay(start, "on=yes"), "A a, M a, D a");
}

TEST_F(ApiStoreTest, WhatLeavesAWatchersSightComesAsItWasWithTheNewVersion) {
  json map = config_map("a", "1");
  map["metadata"]["labels"] = {{"app", "x"}};
  create(kube::kConfigMaps, "default", map);
  const uint64_t start = store_->version();
  Backlog live, backlog;
  Filter filter;
  filter.labels = *kube::LabelSelector::parse("app=x");
  auto watch = store_->subscribe(
      info(kube::kConfigMaps), filter, start, &backlog,
      [&](kube::EventType type, const ObjectPtr& object) { live.emplace_back(type, object); });
  ASSERT_TRUE(watch);

  map["data"]["k"] = "2";
  map["metadata"]["labels"]["app"] = "y";
  update(kube::kConfigMaps, "default", map);
  const uint64_t left = store_->version();
  auto late = store_->subscribe(info(kube::kConfigMaps), filter, start, &backlog,
                                [](kube::EventType, const ObjectPtr&) {});
  ASSERT_TRUE(late);

  for (const auto& events : {live, backlog}) {
    ASSERT_EQ(events.size(), 1U);
    EXPECT_EQ(events[0].first, kube::EventType::kDeleted);
    const json object = json::parse(events[0].second->text);
    EXPECT_EQ(object["metadata"]["labels"]["app"], "x");
    EXPECT_EQ(object["data"]["k"], "1");
    EXPECT_EQ(object["metadata"]["resourceVersion"], std::to_string(left));
    EXPECT_EQ(events[0].second->version, left);
  }
}

TEST_F(ApiStoreTest, PagesOfOneListAgreeWhileTheStoreMovesOn) {
  for (const char* name : {"a", "b", "c", "d", "e"}) put(name, "1");
  Filter filter;
  filter.ns = "default";
  auto first = store_->list(info(kube::kConfigMaps), filter, 2);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->remaining, 3);
  put("c", "2");
  put("bb", "1");
  remove(kube::kConfigMaps, "default", "d");

  auto second = store_->list(info(kube::kConfigMaps), filter, 2, first->continue_token);
  ASSERT_TRUE(second) << second.error().message;
  auto third = store_->list(info(kube::kConfigMaps), filter, 2, second->continue_token);
  ASSERT_TRUE(third);

  EXPECT_EQ(names(*first), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(names(*second), (std::vector<std::string>{"c", "d"}));
  EXPECT_EQ(names(*third), (std::vector<std::string>{"e"}));
  EXPECT_EQ(json::parse(second->items[0]->text)["data"]["k"], "1");
  EXPECT_EQ(second->version, first->version);
  EXPECT_TRUE(third->continue_token.empty());
}

TEST_F(ApiStoreTest, RefusesATokenThatIsNotItsOwn) {
  Filter filter;
  for (const char* token : {"x", "1", "0/a", "/", "99999999999999999999999/a"}) {
    EXPECT_FALSE(store_->list(info(kube::kConfigMaps), filter, 1, token)) << token;
  }
}

TEST_F(ApiStoreTest, LiveWatchersMayEndInTheirOwnCallback) {
  int first = 0, second = 0;
  Backlog backlog;
  std::unique_ptr<Subscription> a, b;
  a = std::move(*store_->subscribe(info(kube::kConfigMaps), {}, store_->version(), &backlog,
                                   [&](EventType, const ObjectPtr&) {
                                     ++first;
                                     b.reset();
                                     a.reset();
                                   }));
  b = std::move(*store_->subscribe(info(kube::kConfigMaps), {}, store_->version(), &backlog,
                                   [&](EventType, const ObjectPtr&) { ++second; }));
  put("a", "1");
  put("a", "2");

  EXPECT_EQ(first, 1);
  EXPECT_EQ(second, 0);
  EXPECT_EQ(store_->watchers(), 0U);
}

TEST_F(ApiStoreTest, RefusesWhatIsTooLarge) {
  options_.max_object_bytes = 1000;
  open();

  auto written = create(kube::kConfigMaps, "default", config_map("a", std::string(2000, 'x')));

  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, 413);
}

}  // namespace
}  // namespace edgemesh::cloud
