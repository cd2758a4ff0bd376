#include "cloud/backup.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "cloud/api/restamp.h"
#include "cloud/ca.h"
#include "cloud/files.h"
#include "tests/unit/cloud/api_fixture.h"

namespace edgemesh::cloud {
namespace {

namespace fs = std::filesystem;

const std::chrono::system_clock::time_point kNow{std::chrono::seconds(1'700'000'000)};

class BackupTest : public ApiFixture {
 protected:
  void SetUp() override {
    state_ = dir_.file("state");
    ASSERT_TRUE(make_dirs(state_));
    ASSERT_TRUE(Ca::open({.state_dir = state_}));
    loop_ = std::move(*io::Loop::create());
    options_.path = state_ + "/api.db";
    open();
  }
  void close() {
    core_.reset();
    store_.reset();
  }
  std::string backup() {
    const std::string file = dir_.file("backup-" + std::to_string(++made_));
    auto done = make_backup(state_, file, kNow);
    EXPECT_TRUE(done) << done.error().message;
    return file;
  }
  static std::string read(const std::string& path) {
    auto text = read_file(path);
    return text ? *text : "";
  }
  static std::string version_of(const ObjectPtr& object) {
    return kube::text_at(json::parse(object->text), "metadata", "resourceVersion");
  }
  std::string state_;
  int made_ = 0;
};

TEST_F(BackupTest, MadeBesideARunningCloudItHoldsAllButWhatEachStartMakes) {
  ASSERT_TRUE(create(kube::kServices, "default", service("web")));
  ASSERT_TRUE(write_file(state_ + "/join-token", "t", 0600));
  ASSERT_TRUE(write_file(state_ + "/revoked-certificates", "r", 0600));
  const std::string file = backup();
  struct stat st {};
  ASSERT_EQ(::stat(file.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600U);
  EXPECT_FALSE(fs::exists(file + ".part"));
  EXPECT_FALSE(fs::exists(file + "-wal"));
  auto again = make_backup(state_, file, kNow);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kAlreadyExists);

  const std::string fresh = dir_.file("fresh");
  auto restored = restore_backup(file, fresh, false, kNow);
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_EQ(restored->objects, 5U);  // with the four namespaces
  EXPECT_EQ(read(fresh + "/ca/ca.key"), read(state_ + "/ca/ca.key"));
  EXPECT_EQ(read(fresh + "/revoked-certificates"), "r");
  EXPECT_FALSE(fs::exists(fresh + "/join-token"));
  for (const auto& entry : fs::recursive_directory_iterator(fresh)) {
    if (entry.path().extension() != ".key" && entry.path().extension() != ".db") continue;
    EXPECT_EQ(entry.status().permissions() & fs::perms(077), fs::perms::none) << entry.path();
  }
}

TEST_F(BackupTest, VersionsGoOnAboveAllThatWereGivenOut) {
  ASSERT_TRUE(create(kube::kServices, "default", service("kept")));
  ASSERT_TRUE(create(kube::kServices, "default", service("removed")));
  ASSERT_TRUE(remove(kube::kServices, "default", "removed"));
  const std::string uid = store_->get(info(kube::kServices), "default", "kept")->uid;
  const std::string epoch = store_->epoch();
  const std::string file = backup();
  // What happens after the backup is lost, but nodes and watchers have seen it.
  ASSERT_TRUE(create(kube::kServices, "default", service("later")));
  for (int i = 0; i < 20; ++i)
    ASSERT_TRUE(update(kube::kServices, "default", [&] {
      json body = json::parse(store_->get(info(kube::kServices), "default", "kept")->text);
      body["metadata"]["labels"]["n"] = std::to_string(i);
      return body;
    }()));
  const uint64_t lost = store_->version();
  close();
  auto restored = restore_backup(file, state_, true, kNow);
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_EQ(restored->set_aside, state_ + "/before-restore-1700000000");
  EXPECT_TRUE(fs::exists(restored->set_aside + "/api.db"));
  open();
  EXPECT_GT(store_->version(), lost);
  EXPECT_NE(store_->epoch(), epoch);
  const ObjectPtr kept = store_->get(info(kube::kServices), "default", "kept");
  ASSERT_NE(kept, nullptr);
  EXPECT_EQ(kept->uid, uid);
  EXPECT_GT(kept->version, lost);
  EXPECT_EQ(version_of(kept), std::to_string(kept->version));
  EXPECT_EQ(store_->get(info(kube::kServices), "default", "later"), nullptr);
  EXPECT_EQ(store_->get(info(kube::kServices), "default", "removed"), nullptr);
  // A watch that goes on where it was must list again.
  std::vector<std::pair<kube::EventType, ObjectPtr>> backlog;
  auto watch = store_->subscribe(info(kube::kServices), {}, lost, &backlog,
                                 [](kube::EventType, const ObjectPtr&) {});
  ASSERT_FALSE(watch);
  EXPECT_EQ(watch.error().code, ErrorCode::kGone);
  // And writes work, in the order of the versions.
  ASSERT_TRUE(create(kube::kServices, "default", service("new")));
  EXPECT_GT(store_->get(info(kube::kServices), "default", "new")->version, kept->version);
  auto put = update(kube::kServices, "default", json::parse(kept->text));
  EXPECT_TRUE(put) << put.error().message;
}

TEST_F(BackupTest, ARestoredStateCanBeBackedUpAndRestoredAgain) {
  ASSERT_TRUE(create(kube::kServices, "default", service("web")));
  const std::string first = backup();
  close();
  ASSERT_TRUE(restore_backup(first, state_, true, kNow));
  open();
  const uint64_t once = store_->version();
  const std::string second = backup();
  close();
  auto again = restore_backup(second, state_, true, kNow + std::chrono::seconds(1));
  ASSERT_TRUE(again) << again.error().message;
  open();
  EXPECT_GE(store_->version(), once + kRestoreJump);
}

TEST_F(BackupTest, NothingIsOverwrittenByMistake) {
  const std::string file = backup();
  auto there = restore_backup(file, state_, false, kNow);
  ASSERT_FALSE(there);
  EXPECT_EQ(there.error().code, ErrorCode::kAlreadyExists);
  auto lock = FileLock::try_acquire(state_ + "/lock");
  ASSERT_TRUE(lock);
  auto runs = restore_backup(file, state_, true, kNow);
  ASSERT_FALSE(runs);
  EXPECT_NE(runs.error().message.find("stop it first"), std::string::npos);
}

TEST_F(BackupTest, OtherFilesAndDamagedOnesLeaveTheStateAsItIs) {
  const std::string key = read(state_ + "/ca/ca.key");
  close();
  std::ofstream(dir_.file("text")) << "no database";
  EXPECT_FALSE(restore_backup(dir_.file("text"), state_, true, kNow));
  EXPECT_FALSE(restore_backup(dir_.file("absent"), state_, true, kNow));
  auto foreign = restore_backup(state_ + "/api.db", state_, true, kNow);
  ASSERT_FALSE(foreign);
  EXPECT_NE(foreign.error().message.find("no backup"), std::string::npos);
  const std::string file = backup();
  {  // a path out of the state directory
    auto db = store::Database::open(file);
    ASSERT_TRUE(db);
    ASSERT_TRUE((*db)->exec("INSERT INTO edgemesh_backup VALUES('../evil', 384, 'x', 0)"));
  }
  auto evil = restore_backup(file, state_, true, kNow);
  ASSERT_FALSE(evil);
  EXPECT_NE(evil.error().message.find("no file of a state directory"), std::string::npos);
  const std::string whole = backup();
  fs::resize_file(whole, fs::file_size(whole) / 2);
  EXPECT_FALSE(restore_backup(whole, state_, true, kNow));
  EXPECT_EQ(read(state_ + "/ca/ca.key"), key);
  EXPECT_TRUE(fs::exists(state_ + "/api.db"));
}

}  // namespace
}  // namespace edgemesh::cloud
