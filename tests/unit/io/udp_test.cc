#include "core/io/udp.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "core/io/stream.h"

namespace {
int sends_to_fail = 0;
int send_error = 0;
int send_calls = 0;
}  // namespace

// In the place of the C library's: full buffers cannot be had over loopback.
extern "C" ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  ++send_calls;
  if (sends_to_fail > 0) {
    --sends_to_fail;
    errno = send_error;
    return -1;
  }
  return syscall(SYS_sendmsg, fd, message, flags);
}

namespace edgemesh::io {
namespace {

using namespace std::chrono_literals;  // NOLINT

class UdpRoomTest : public testing::Test {
 protected:
  UdpRoomTest() {
    sender_->set_on_writable([this] {
      ++told_;
      if (resend_) send();
    });
    send_calls = sends_to_fail = 0;
  }
  ~UdpRoomTest() override { sends_to_fail = 0; }
  void send() {
    auto sent = sender_->send_train(as_bytes(std::string_view(train_).substr(sent_)), 1000, receiver_->local_addr());
    ASSERT_TRUE(sent) << sent.error().message;
    sent_ += *sent;
  }
  std::unique_ptr<UdpSocket> bind(std::string& into) {
    return *UdpSocket::bind(
        *loop_, {IpAddr::loopback(), 0},
        [&into](std::span<const uint8_t> data, size_t, const SockAddr&) { into.append(as_text(data)); }, {});
  }

  std::unique_ptr<Loop> loop_ = *Loop::create();
  std::string got_, back_;
  std::unique_ptr<UdpSocket> receiver_ = bind(got_), sender_ = bind(back_);
  std::string train_ = std::string(10'000, 'x');
  size_t sent_ = 0;
  int told_ = 0;
  bool resend_ = true;
};

TEST_F(UdpRoomTest, FullDeviceIsTriedAgainAfterAMomentAndNothingIsLost) {
  send_error = ENOBUFS;
  sends_to_fail = 3;

  send();
  EXPECT_EQ(sent_, 0u);

  ASSERT_TRUE(loop_->run_until([&] { return got_.size() == train_.size(); }, 5s));
  EXPECT_EQ(told_, 3);
  EXPECT_EQ(send_calls, 4);  // one each time: no spinning
}

TEST_F(UdpRoomTest, FullSocketTellsWhenThereIsRoom) {
  send_error = EAGAIN;
  sends_to_fail = 1;

  send();
  EXPECT_EQ(sent_, 0u);

  ASSERT_TRUE(loop_->run_until([&] { return got_.size() == train_.size(); }, 5s));
  EXPECT_EQ(told_, 1);
}

TEST_F(UdpRoomTest, RoomIsNoNewsUnlessItWasWaitedFor) {
  resend_ = false;
  send_error = ENOBUFS;
  sends_to_fail = 1;
  send();
  ASSERT_TRUE(loop_->run_until([&] { return told_ == 1; }, 5s));

  for (int i = 0; i < 10; ++i) {
    size_t before = back_.size();
    ASSERT_TRUE(receiver_->send_to(as_bytes("hello"), sender_->local_addr()));
    send();
    ASSERT_TRUE(loop_->run_until([&] { return back_.size() > before; }, 5s));
    sent_ = 0;
  }

  EXPECT_EQ(told_, 1);
}

}  // namespace
}  // namespace edgemesh::io
