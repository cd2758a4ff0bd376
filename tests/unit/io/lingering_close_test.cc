#include "core/io/lingering_close.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <vector>

#include "core/io/tcp.h"

namespace edgemesh::io {
namespace {

using std::chrono::seconds;

// A stream to a client that has read nothing yet, with all that the system takes written to it.
class LingeringCloseTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*Loop::create(clock_));
    listener_ = std::move(*TcpListener::listen(
        *loop_, SockAddr{IpAddr::v4(0x7f000001), 0}, [this](Fd fd, const SockAddr&) {
          stream_ = std::move(*TcpStream::adopt(*loop_, std::move(fd)));
        }));
    client_ = Fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_storage sa;
    const socklen_t len = listener_->local_addr().to_sockaddr(&sa);
    ASSERT_EQ(connect(client_.get(), reinterpret_cast<sockaddr*>(&sa), len), 0);
    ASSERT_TRUE(loop_->run_until([&] { return stream_ != nullptr; }, seconds(5)));
    const std::vector<uint8_t> piece(64 * 1024, 'x');
    for (;;) {
      const IoResult done = stream_->write(piece);
      if (done.status != IoResult::kOk) break;
      written_ += done.n;
    }
  }
  // What the client still gets; -1 when it ends with a reset.
  ssize_t read_all() {
    std::vector<char> into(64 * 1024);
    ssize_t sum = 0;
    for (;;) {
      pollfd wait{client_.get(), POLLIN, 0};
      EXPECT_EQ(poll(&wait, 1, 5000), 1) << "nothing more, and no end";
      const ssize_t n = recv(client_.get(), into.data(), into.size(), 0);
      if (n < 0) return -1;
      if (n == 0) return sum;
      sum += n;
    }
  }

  ManualClock clock_;
  std::unique_ptr<Loop> loop_;
  std::unique_ptr<TcpListener> listener_;
  std::unique_ptr<TcpStream> stream_;
  Fd client_;
  size_t written_ = 0;
};

TEST_F(LingeringCloseTest, ASlowPeerGetsEverything) {
  lingering_close(*loop_, std::move(stream_));
  loop_->run_once();
  clock_.advance(seconds(10));
  loop_->run_once();
  EXPECT_EQ(read_all(), static_cast<ssize_t>(written_));
}

TEST_F(LingeringCloseTest, AlsoWhenTheLoopEndsBefore) {
  lingering_close(*loop_, std::move(stream_));
  loop_->run_once();
  listener_.reset();
  loop_.reset();
  EXPECT_EQ(read_all(), static_cast<ssize_t>(written_));
}

// For comparison: a connection that is cut in the middle must not look like one that ended.
TEST_F(LingeringCloseTest, WithoutItThePeerSeesAReset) {
  stream_.reset();
  EXPECT_EQ(read_all(), -1);
}

}  // namespace
}  // namespace edgemesh::io
