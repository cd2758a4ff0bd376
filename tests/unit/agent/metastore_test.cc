#include "agent/metastore.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>

#include "tests/support/temp_dir.h"

namespace edgemesh::agent {
namespace {

using std::chrono::seconds;

class MetastoreTest : public ::testing::Test {
 protected:
  void SetUp() override { loop_ = std::move(*io::Loop::create()); }
  void open(Metastore::Options options = {}) {
    store_.reset();
    auto store = Metastore::open(*loop_, path(), registry_, options);
    ASSERT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
  }
  std::string path() const { return dir_.path() + "/meta.db"; }
  Result<> flush() {
    bool done = false;
    Result<> out;
    store_->flush([&](Result<> result) {
      done = true;
      out = std::move(result);
    });
    EXPECT_TRUE(loop_->run_until([&] { return done; }, seconds(10)));
    return out;
  }
  std::map<std::string, std::string> rows(std::string_view type) {
    std::map<std::string, std::string> out;
    EXPECT_TRUE(store_->for_each(type, [&](const std::string& key, std::string_view value) {
      out[key] = value;
    }));
    return out;
  }

  test::TempDir dir_;
  obs::Registry registry_;
  std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<Metastore> store_;
};

TEST_F(MetastoreTest, KeepsRowsOverARestart) {
  open();
  EXPECT_EQ(store_->size(), 0U);
  store_->put("default/service/a", "service", "1");
  store_->put("default/service/b", "service", "2");
  store_->put("default/service/a", "service", "3");
  store_->put("peer/x", "peer", "[]");
  store_->remove("default/service/b");
  store_->remove("never/service/was");
  open();  // the destructor commits

  EXPECT_EQ(rows("service"), (std::map<std::string, std::string>{{"default/service/a", "3"}}));
  EXPECT_EQ(store_->keys("peer"), std::vector<std::string>{"peer/x"});
  EXPECT_EQ(store_->count("service"), 1U);
  EXPECT_TRUE(store_->has("peer/x"));
  EXPECT_EQ(store_->get("peer/x").value(), "[]");
  EXPECT_EQ(store_->get("none").value(), "");
}

TEST_F(MetastoreTest, WhatWasFlushedIsReadByForEach) {
  open();
  store_->put("a", "t", std::string("\0\xff x", 4));
  ASSERT_TRUE(flush());
  EXPECT_EQ(rows("t").at("a"), std::string("\0\xff x", 4));
}

TEST_F(MetastoreTest, TenThousandServicesAreWrittenQuickly) {
  open();
  const std::string value(1500, 'x');
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 10'000; ++i) store_->put("default/service/s" + std::to_string(i), "service", value);
  ASSERT_TRUE(flush());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;

  EXPECT_EQ(store_->count("service"), 10'000U);
  EXPECT_LT(took.count(), 5.0);  // measured: well below a second
}

TEST_F(MetastoreTest, ADamagedFileIsSetAside) {
  std::ofstream(path()) << std::string(8192, 'x');
  open();

  EXPECT_EQ(store_->size(), 0U);
  EXPECT_TRUE(std::filesystem::exists(store_->set_aside())) << store_->set_aside();
  store_->put("a", "t", "1");
  EXPECT_TRUE(flush());
}

TEST_F(MetastoreTest, ATornFileIsSetAside) {
  open();
  for (int i = 0; i < 2000; ++i) store_->put("k" + std::to_string(i), "t", std::string(200, 'v'));
  ASSERT_TRUE(flush());
  store_.reset();
  std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
  for (int page = 2; page < 20; ++page) {
    file.seekp(page * 4096);
    file << std::string(2048, '\x5a');
  }
  file.close();
  open();

  EXPECT_NE(store_->set_aside(), "");
  EXPECT_EQ(store_->size(), 0U);
}

TEST_F(MetastoreTest, AFileOfAnotherProgramIsSetAside) {
  {
    auto db = store::Database::open(path());
    ASSERT_TRUE(db);
    ASSERT_TRUE((*db)->exec("CREATE TABLE meta(x)"));
  }
  open();
  EXPECT_NE(store_->set_aside(), "");
}

TEST_F(MetastoreTest, KubeEdgesTableIsTaken) {
  {
    auto db = store::Database::open(path());
    ASSERT_TRUE(db);
    ASSERT_TRUE((*db)->exec("CREATE TABLE meta(key text(256) PRIMARY KEY, type text(32), value text);"
                            "INSERT INTO meta VALUES('default/pod/p', 'pod', '{}')"));
  }
  open();
  EXPECT_EQ(store_->set_aside(), "");
  EXPECT_EQ(rows("pod").size(), 1U);
}

TEST_F(MetastoreTest, ADirectoryThatIsMissingIsNamed) {
  auto store = Metastore::open(*loop_, dir_.path() + "/none/meta.db", registry_);
  ASSERT_FALSE(store);
  EXPECT_NE(store.error().message.find("/none/meta.db"), std::string::npos);
}

TEST_F(MetastoreTest, LimitsHold) {
  open({.max_value_bytes = 100, .max_keys = 2});
  EXPECT_FALSE(store_->put("a", "t", std::string(101, 'x')));
  EXPECT_TRUE(store_->put("a", "t", "1"));
  EXPECT_TRUE(store_->put("b", "t", "1"));
  EXPECT_FALSE(store_->put("c", "t", "1"));
  EXPECT_TRUE(store_->put("a", "t", "2"));
  ASSERT_TRUE(flush());
  EXPECT_EQ(rows("t"), (std::map<std::string, std::string>{{"a", "2"}, {"b", "1"}}));
}

TEST_F(MetastoreTest, AFailedWriteDropsThePosition) {
  open();
  store_->put("pos", Metastore::kPositionType, "5");
  ASSERT_TRUE(flush());
  {
    auto db = store::Database::open(path());
    ASSERT_TRUE(db);
    ASSERT_TRUE((*db)->exec("CREATE TRIGGER no BEFORE INSERT ON meta WHEN NEW.key = 'bad' "
                            "BEGIN SELECT RAISE(ABORT, 'disk on fire'); END"));
  }
  store_->put("bad", "t", "1");
  ASSERT_TRUE(flush());
  store_->put("good", "t", "1");
  ASSERT_TRUE(flush());

  EXPECT_EQ(rows("t").size(), 1U);
  EXPECT_EQ(store_->get("pos").value(), "");
}

}  // namespace
}  // namespace edgemesh::agent
