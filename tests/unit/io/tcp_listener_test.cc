#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/base/log.h"
#include "core/io/tcp.h"

namespace {
int accept_error = 0;  // 0: as it is
int accept_calls = 0;
}  // namespace

// In the place of the C library's: the test must not run out of descriptors itself.
extern "C" int accept4(int fd, sockaddr* addr, socklen_t* len, int flags) {
  ++accept_calls;
  if (accept_error != 0) {
    errno = accept_error;
    return -1;
  }
  return static_cast<int>(syscall(SYS_accept4, fd, addr, len, flags));
}

namespace edgemesh::io {
namespace {

using namespace std::chrono_literals;  // NOLINT

class ListenerTest : public testing::Test {
 protected:
  ~ListenerTest() override { accept_error = 0; }
  void turns() {
    for (int i = 0; i < 5; ++i) loop_->run_once(1ms);
  }

  ManualClock clock_;
  std::unique_ptr<Loop> loop_ = *Loop::create(clock_);
  size_t accepted_ = 0;
  std::unique_ptr<TcpListener> listener_ =
      *TcpListener::listen(*loop_, {IpAddr::loopback(), 0}, [this](Fd, const SockAddr&) { ++accepted_; });
};

TEST_F(ListenerTest, LackOfDescriptorsIsWaitedOut) {
  size_t lines = 0;
  log::set_sink([&](std::string_view line) { lines += line.find("accept on") != line.npos ? 1 : 0; });
  for (int error : {EMFILE, ENFILE, ENOBUFS, ENOMEM}) {
    accepted_ = 0;
    accept_calls = 0;
    accept_error = error;
    std::vector<std::unique_ptr<TcpStream>> clients;
    for (int i = 0; i < 20; ++i) {
      clients.push_back(*TcpStream::connect(*loop_, listener_->local_addr()));
      turns();
    }
    EXPECT_EQ(accept_calls, 1) << "each arrival tries in vain";
    clock_.advance(100ms);
    turns();
    EXPECT_EQ(accept_calls, 2);

    accept_error = 0;
    clock_.advance(100ms);

    EXPECT_TRUE(loop_->run_until([&] { return accepted_ == 20; }, 5s)) << accepted_;
  }
  log::set_sink({});
  EXPECT_EQ(lines, 1u);  // less than a second went by
}

// Entries of every epoll of this process.
int watches() {
  int n = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fdinfo")) {
    std::ifstream in(entry.path());
    for (std::string line; std::getline(in, line);) n += line.starts_with("tfd:") ? 1 : 0;
  }
  return n;
}

// As after a hot restart: the socket lives on in another process, whose connections are not ours.
TEST_F(ListenerTest, IsNotWokenForASocketThatSomebodyElseHas) {
  const int before = watches();
  const Fd elsewhere(fcntl(listener_->fd(), F_DUPFD_CLOEXEC, 3));
  listener_.reset();
  EXPECT_EQ(watches(), before - 1);
}

TEST_F(ListenerTest, TakesAllThatWait) {
  std::vector<std::unique_ptr<TcpStream>> clients;
  for (int i = 0; i < 100; ++i)  // more than it accepts in a turn
    clients.push_back(*TcpStream::connect(*loop_, listener_->local_addr()));
  listener_->accept_waiting();
  EXPECT_EQ(accepted_, 100u);
}

TEST_F(ListenerTest, BrokenConnectionDoesNotHoldUpTheNext) {
  accept_error = ECONNABORTED;
  auto client = *TcpStream::connect(*loop_, listener_->local_addr());
  turns();
  EXPECT_GT(accept_calls, 0);
  accept_error = 0;

  EXPECT_TRUE(loop_->run_until([&] { return accepted_ == 1; }, 5s));
}

}  // namespace
}  // namespace edgemesh::io
