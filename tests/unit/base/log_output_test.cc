#include "core/base/log_output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "core/base/log.h"

namespace edgemesh::log {
namespace {

using std::chrono::seconds;

// A pipe in place of stderr, that nobody reads until the test does.
class LogOutputTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::pipe2(pipe_, O_CLOEXEC), 0);
    LogOutput::instance().flush(seconds(5));
    LogOutput::instance().set_fd(pipe_[1]);
  }
  void TearDown() override {
    LogOutput::instance().flush(seconds(5));
    LogOutput::instance().set_fd(STDERR_FILENO);
    ::close(pipe_[0]);
    if (pipe_[1] >= 0) ::close(pipe_[1]);
  }
  // Reads while `work` runs, and what is left afterwards.
  std::string read_while(const std::function<void()>& work) {
    std::string out;
    std::thread reader([&] {
      char block[65536];
      for (ssize_t n; (n = ::read(pipe_[0], block, sizeof block)) > 0;) {
        out.append(block, static_cast<size_t>(n));
        if (out.ends_with("END\n")) return;
      }
    });
    work();
    LogOutput::instance().write("END");
    reader.join();
    return out;
  }
  int pipe_[2] = {-1, -1};
};

TEST_F(LogOutputTest, WhoQueuesNeverWaitsForTheReader) {
  const uint64_t before = LogOutput::instance().dropped();
  const std::string text(200, 'x');
  // More than the pipe and the queue hold; nobody reads. Were it to wait, the test would never end.
  constexpr size_t kLines = 3 * LogOutput::kMaxQueued / 200;
  for (size_t i = 0; i < kLines; ++i) EM_LOG(kInfo, "access", "{}", text);
  const uint64_t lost = LogOutput::instance().dropped() - before;
  EXPECT_GT(lost, 0U);

  const std::string read = read_while([] { EXPECT_TRUE(LogOutput::instance().flush(seconds(10))); });
  const auto lines = static_cast<size_t>(std::count(read.begin(), read.end(), '\n'));
  EXPECT_GE(lines, kLines - lost);
  EXPECT_NE(read.find("lines were dropped"), std::string::npos);
  EXPECT_EQ(LogOutput::instance().dropped() - before, lost);
}

TEST_F(LogOutputTest, OtherLinesAreWrittenAtOnce) {
  EM_LOG(kWarn, "test", "now");
  char block[256] = {};
  ASSERT_GT(::read(pipe_[0], block, sizeof block - 1), 0);
  EXPECT_NE(std::string(block).find("test: now"), std::string::npos);
}

TEST_F(LogOutputTest, LinesOfManyThreadsStayWhole) {
  const std::string read = read_while([] {
    std::vector<std::thread> threads;
    for (char c : {'a', 'b', 'c', 'd'}) {
      threads.emplace_back([c] {
        for (int i = 0; i < 500; ++i) {
          c < 'c' ? LogOutput::instance().queue(std::string(100, c))
                  : LogOutput::instance().write(std::string(100, c));
        }
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_TRUE(LogOutput::instance().flush(seconds(10)));
  });
  size_t lines = 0;
  for (size_t at = 0, end; (end = read.find('\n', at)) != std::string::npos; at = end + 1) {
    const std::string line = read.substr(at, end - at);
    if (line == "END") break;
    ASSERT_EQ(line, std::string(100, line[0]));
    ++lines;
  }
  EXPECT_EQ(lines, 2000U);
}

TEST_F(LogOutputTest, AChildWritesWhatItQueuedBeforeItEnds) {
  LogOutput::instance().queue("of the parent");
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    LogOutput::instance().queue("of the child");
    std::exit(0);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  const std::string read = read_while([] { LogOutput::instance().flush(seconds(5)); });
  EXPECT_NE(read.find("of the child\n"), std::string::npos);
  EXPECT_EQ(read.find("of the parent\n"), read.rfind("of the parent\n")) << "written twice";
}

}  // namespace
}  // namespace edgemesh::log
