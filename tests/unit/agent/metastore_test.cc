#include "agent/metastore.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
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

TEST_F(MetastoreTest, OfFilesThatWereSetAsideTheNewestStays) {
  for (const char* old : {".broken-1", ".broken-2", ".broken-2-wal"}) std::ofstream(path() + old) << "x";
  std::ofstream(dir_.path() + "/other.db.broken-1") << "x";
  std::ofstream(path()) << std::string(10'000, 'z');
  open();
  ASSERT_NE(store_->set_aside(), "");
  EXPECT_TRUE(std::filesystem::exists(store_->set_aside()));
  for (const char* old : {".broken-1", ".broken-2", ".broken-2-wal"})
    EXPECT_FALSE(std::filesystem::exists(path() + old)) << old;
  EXPECT_TRUE(std::filesystem::exists(dir_.path() + "/other.db.broken-1"));
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

TEST_F(MetastoreTest, ItsSizeIsBounded) {
  Metastore::Options options;
  options.max_bytes = 1000;
  open(options);
  EXPECT_TRUE(store_->put("a", "service", std::string(600, 'x')));
  EXPECT_FALSE(store_->put("b", "service", std::string(600, 'x')));
  EXPECT_TRUE(store_->put("a", "service", std::string(900, 'x')));  // in place of the one before
  EXPECT_EQ(store_->bytes(), 901U);
  open(options);
  EXPECT_EQ(store_->bytes(), 901U);
  EXPECT_FALSE(store_->put("b", "service", std::string(200, 'x')));
  store_->remove("a");
  EXPECT_EQ(store_->bytes(), 0U);
  EXPECT_TRUE(store_->put("b", "service", std::string(600, 'x')));
}

TEST_F(MetastoreTest, AnObserverHearsOfWhatIsOnDisk) {
  open();
  std::vector<std::string> heard;
  store_->set_observer([&](const std::string& key, std::string_view type, const std::string* value) {
    heard.push_back(fmt::format("{} {} {}", key, type, value == nullptr ? "gone" : *value));
    EXPECT_EQ(rows("service").contains(key), value != nullptr);
  });
  store_->put("a", "service", "1");
  EXPECT_TRUE(heard.empty());
  EXPECT_TRUE(flush());
  store_->remove("a");
  EXPECT_TRUE(flush());
  EXPECT_EQ(heard, (std::vector<std::string>{"a service 1", "a service gone"}));
}

// A process that writes numbers and says which are confirmed, until it is killed.
struct Killed {
  int confirmed = -1;
};

Killed write_and_kill(const std::string& path, int after) {
  int pipe[2];
  EM_CHECK(::pipe(pipe) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    auto loop = std::move(*io::Loop::create());
    obs::Registry registry;
    auto store = std::move(*Metastore::open(*loop, path, registry));
    std::function<void(int)> next = [&](int n) {
      store->put("row/" + std::to_string(n % 50), "service", fmt::format("{} {}", n, std::string(3000, 'x')));
      store->flush([&, n](Result<> done) {
        if (done && ::write(pipe[1], &n, sizeof n) != sizeof n) ::_exit(1);
        next(n + 1);
      });
    };
    next(0);
    loop->run();
    ::_exit(0);
  }
  ::close(pipe[1]);
  Killed out;
  for (int n = 0; n <= after && ::read(pipe[0], &n, sizeof n) == sizeof n;) out.confirmed = n;
  ::kill(child, SIGKILL);
  for (int n = 0; ::read(pipe[0], &n, sizeof n) == sizeof n;) out.confirmed = n;
  int status = 0;
  ::waitpid(child, &status, 0);
  ::close(pipe[0]);
  return out;
}

int newest(const std::map<std::string, std::string>& rows) {
  int out = -1;
  for (const auto& [key, value] : rows) out = std::max(out, std::atoi(value.c_str()));
  return out;
}

TEST_F(MetastoreTest, WhatWasConfirmedIsThereAfterAKill) {
  for (int round = 0; round < 5; ++round) {
    const Killed killed = write_and_kill(path(), 20 + 37 * round);
    ASSERT_GE(killed.confirmed, 20);
    open();
    EXPECT_EQ(store_->set_aside(), "");
    EXPECT_GE(newest(rows("service")), killed.confirmed);
    store_.reset();
    std::filesystem::remove(path());
  }
}

TEST_F(MetastoreTest, ATornLogEndsAtAWholeCommit) {
  const Killed killed = write_and_kill(path(), 30);
  const std::string log = path() + "-wal";
  ASSERT_GT(std::filesystem::file_size(log), 100'000U);
  int before = killed.confirmed;
  // Cut shorter and shorter, in the middle of pages; and one with a page of noise at its end.
  for (int round = 0; round < 6; ++round) {
    const auto size = std::filesystem::file_size(log);
    std::filesystem::remove(path() + "-shm");
    if (round == 0) {
      std::fstream file(log, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(static_cast<std::streamoff>(size - 2000));
      file << std::string(2000, 'z');
    } else {
      std::filesystem::resize_file(log, size - 9'001);
    }
    // A copy is opened: to open it takes the log in.
    const std::string copy = dir_.path() + "/copy";
    for (const char* suffix : {"", "-wal"})
      std::filesystem::copy_file(path() + suffix, copy + suffix,
                                 std::filesystem::copy_options::overwrite_existing);
    auto torn = Metastore::open(*loop_, copy, registry_);
    ASSERT_TRUE(torn) << torn.error().message;
    EXPECT_EQ((*torn)->set_aside(), "");
    std::map<std::string, std::string> found;
    EXPECT_TRUE((*torn)->for_each(
        "service", [&](const std::string& key, std::string_view value) { found[key] = value; }));
    EXPECT_LE(newest(found), before);
    EXPECT_GT(newest(found), 0);
    for (const auto& [key, value] : found) EXPECT_GT(value.size(), 3000U) << key;
    before = newest(found);
    torn->reset();
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(copy + suffix);
  }
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
