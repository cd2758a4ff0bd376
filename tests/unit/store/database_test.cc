#include "core/store/database.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "core/store/writer.h"
#include "tests/support/temp_dir.h"

namespace edgemesh::store {
namespace {

using std::chrono_literals::operator""s;

std::unique_ptr<Database> open(const std::string& path) {
  auto db = Database::open(path);
  EXPECT_TRUE(db) << db.error().message;
  return std::move(*db);
}

int64_t scalar(Database& db, std::string_view sql) {
  auto query = db.prepare(sql);
  EXPECT_TRUE(query) << query.error().message;
  auto row = query->step();
  EXPECT_TRUE(row && *row);
  return query->column_int(0);
}

TEST(DatabaseTest, KeepsRowsAcrossReopen) {
  test::TempDir dir;
  {
    auto db = open(dir.file("a.db"));
    ASSERT_TRUE(db->exec("CREATE TABLE t(a INTEGER, b TEXT)"));
    auto insert = db->prepare("INSERT INTO t VALUES(?1, ?2)");
    ASSERT_TRUE(insert->bind(1, 7).bind(2, "").run());
    ASSERT_TRUE(insert->bind(1, 8).bind(2, nullptr).run());
  }
  auto db = open(dir.file("a.db"));

  auto query = db->prepare("SELECT a, b FROM t ORDER BY a");

  ASSERT_TRUE(*query->step());
  EXPECT_EQ(query->column_int(0), 7);
  EXPECT_FALSE(query->column_is_null(1));
  ASSERT_TRUE(*query->step());
  EXPECT_TRUE(query->column_is_null(1));
  EXPECT_FALSE(*query->step());
}

TEST(DatabaseTest, MakesTheFileReadableByItsOwnerOnly) {
  test::TempDir dir;

  open(dir.file("a.db"));

  struct stat info {};
  ASSERT_EQ(stat(dir.file("a.db").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
}

TEST(DatabaseTest, NamesWhatIsWrong) {
  auto missing = Database::open("/nonexistent-folder/a.db");
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message.find("/nonexistent-folder/a.db"), std::string::npos);

  auto db = open(":memory:");
  auto bad = db->prepare("SELECT nothing FROM nowhere");
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().message.find("nowhere"), std::string::npos);

  ASSERT_TRUE(db->exec("CREATE TABLE t(a INTEGER PRIMARY KEY)"));
  ASSERT_TRUE(db->exec("INSERT INTO t VALUES(1)"));
  auto twice = db->exec("INSERT INTO t VALUES(1)");
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().code, ErrorCode::kAlreadyExists);
}

TEST(DatabaseTest, RefusesAFileThatIsNoDatabase) {
  test::TempDir dir;
  FILE* file = fopen(dir.file("a.db").c_str(), "w");
  fputs("this is not a database, and it is long enough to be read as a header of one......", file);
  fclose(file);

  auto db = Database::open(dir.file("a.db"));

  ASSERT_FALSE(db);
  EXPECT_EQ(db.error().code, ErrorCode::kIo);
}

TEST(DatabaseTest, MigratesStepByStepAndRefusesNewerFiles) {
  auto db = open(":memory:");
  ASSERT_TRUE(db->migrate({"CREATE TABLE a(x)"}));
  ASSERT_TRUE(db->migrate({"CREATE TABLE a(x)", "CREATE TABLE b(x)"}));
  EXPECT_EQ(scalar(*db, "PRAGMA user_version"), 2);

  auto older = db->migrate({"CREATE TABLE a(x)"});

  ASSERT_FALSE(older);
  EXPECT_NE(older.error().message.find("newer release"), std::string::npos);
}

TEST(TransactionTest, RollsBackWhatWasNotCommitted) {
  auto db = open(":memory:");
  ASSERT_TRUE(db->exec("CREATE TABLE t(a)"));
  {
    auto transaction = Transaction::begin(*db);
    ASSERT_TRUE(db->exec("INSERT INTO t VALUES(1)"));
  }
  {
    auto transaction = Transaction::begin(*db);
    ASSERT_TRUE(db->exec("INSERT INTO t VALUES(2)"));
    ASSERT_TRUE(transaction->commit());
  }

  EXPECT_EQ(scalar(*db, "SELECT count(*) FROM t"), 1);
}

class WriterTest : public testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*io::Loop::create());
    auto db = open(dir_.file("w.db"));
    ASSERT_TRUE(db->exec("CREATE TABLE t(a INTEGER PRIMARY KEY)"));
    writer_ = std::move(*Writer::start(*loop_, std::move(db)));
  }
  static Writer::Work insert(int value) {
    return
        [value](Database& db) { return db.exec(fmt::format("INSERT INTO t VALUES({})", value)); };
  }
  test::TempDir dir_;
  std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<Writer> writer_;
};

TEST_F(WriterTest, AnswersInOrderAfterTheCommit) {
  std::vector<int> order;
  for (int i = 0; i < 1000; ++i) {
    writer_->submit(insert(i), [&order, i](Result<> done) {
      EXPECT_TRUE(done);
      order.push_back(i);
    });
  }

  ASSERT_TRUE(loop_->run_until([&] { return order.size() == 1000; }, 10s));

  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  EXPECT_LT(writer_->commits(), 1000U);
  auto reader = open(dir_.file("w.db"));
  EXPECT_EQ(scalar(*reader, "SELECT count(*) FROM t"), 1000);
}

TEST_F(WriterTest, UndoesOnlyTheWorkThatFailed) {
  int good = 0, bad = 0;
  for (int value : {1, 2, 1, 3}) {
    writer_->submit(insert(value), [&](Result<> done) { ++(done ? good : bad); });
  }

  ASSERT_TRUE(loop_->run_until([&] { return good + bad == 4; }, 10s));

  EXPECT_EQ(good, 3);
  EXPECT_EQ(bad, 1);
}

TEST_F(WriterTest, CommitsWhatWasSubmittedBeforeItsEnd) {
  for (int i = 0; i < 100; ++i) writer_->submit(insert(i), {});

  writer_.reset();

  auto reader = open(dir_.file("w.db"));
  EXPECT_EQ(scalar(*reader, "SELECT count(*) FROM t"), 100);
}

}  // namespace
}  // namespace edgemesh::store
