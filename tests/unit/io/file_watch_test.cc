#include "core/io/file_watch.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/temp_dir.h"

namespace edgemesh::io {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

class FileWatchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*Loop::create(clock_));
    fs::create_directory(dir_.file("certs"));
    write("certs/tls.crt", "one");
    watch_ = std::move(*FileWatch::create(*loop_, [this] { ++told_; }));
    watch_->set({dir_.file("certs/tls.crt")});
  }
  void write(const std::string& name, const std::string& text) {
    std::ofstream(dir_.file(name)) << text;
  }
  // The kernel tells at once; what settles needs time.
  int told() {
    for (int i = 0; i < 3; ++i) {
      loop_->run_once();
      clock_.advance(milliseconds(200));
      loop_->run_once();
    }
    return std::exchange(told_, 0);
  }

  ManualClock clock_;
  test::TempDir dir_;
  std::unique_ptr<Loop> loop_;
  std::unique_ptr<FileWatch> watch_;
  int told_ = 0;
};

TEST_F(FileWatchTest, AFileThatIsWrittenIsToldOnce) {
  EXPECT_EQ(told(), 0);
  write("certs/tls.crt", "two");
  write("certs/tls.crt", "three");
  EXPECT_EQ(told(), 1);
  EXPECT_EQ(told(), 0);
}

TEST_F(FileWatchTest, AFileThatIsReplacedByARename) {
  write("certs/tls.new", "two");
  EXPECT_EQ(told(), 0);
  fs::rename(dir_.file("certs/tls.new"), dir_.file("certs/tls.crt"));
  EXPECT_EQ(told(), 1);
  write("certs/tls.crt", "three");
  EXPECT_EQ(told(), 1);
}

TEST_F(FileWatchTest, OtherFilesOfTheDirectoryAreNotTold) {
  write("certs/other", "x");
  fs::remove(dir_.file("certs/other"));
  EXPECT_EQ(told(), 0);
}

// tls.crt -> ..data/tls.crt, ..data -> ..1: what is renamed is the link to the directory.
TEST_F(FileWatchTest, AVolumeOfKubernetes) {
  fs::remove(dir_.file("certs/tls.crt"));
  fs::create_directory(dir_.file("certs/..1"));
  write("certs/..1/tls.crt", "one");
  fs::create_directory_symlink("..1", dir_.file("certs/..data"));
  fs::create_symlink("..data/tls.crt", dir_.file("certs/tls.crt"));
  told();
  fs::create_directory(dir_.file("certs/..2"));
  write("certs/..2/tls.crt", "two");
  EXPECT_EQ(told(), 0);
  fs::create_directory_symlink("..2", dir_.file("certs/..data_tmp"));
  fs::rename(dir_.file("certs/..data_tmp"), dir_.file("certs/..data"));
  EXPECT_EQ(told(), 1);
}

TEST_F(FileWatchTest, ADirectoryThatComesBack) {
  fs::remove_all(dir_.file("certs"));
  EXPECT_EQ(told(), 1);
  clock_.advance(seconds(1));
  EXPECT_EQ(told(), 0);
  fs::create_directory(dir_.file("certs"));
  write("certs/tls.crt", "two");
  clock_.advance(seconds(1));
  EXPECT_EQ(told(), 1);
  write("certs/tls.crt", "three");
  EXPECT_EQ(told(), 1);
}

TEST_F(FileWatchTest, OtherFilesInsteadOfThoseBefore) {
  write("elsewhere", "x");
  watch_->set({dir_.file("elsewhere")});
  write("certs/tls.crt", "two");
  EXPECT_EQ(told(), 0);
  write("elsewhere", "y");
  EXPECT_EQ(told(), 1);
  watch_->set({});
  write("elsewhere", "z");
  EXPECT_EQ(told(), 0);
}

// Changes that do not end are told, too.
TEST_F(FileWatchTest, SettlingHasAnEnd) {
  int rounds = 0;
  while (told_ == 0 && rounds < 100) {
    ++rounds;
    write("certs/tls.crt", std::to_string(rounds));
    loop_->run_once();
    clock_.advance(milliseconds(100));
    loop_->run_once();
  }
  EXPECT_GT(rounds, 10);
  EXPECT_LE(rounds, 21);
}

}  // namespace
}  // namespace edgemesh::io
