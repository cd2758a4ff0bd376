// The handover's protocol, and the two processes: this binary starts itself as the successor.
#include "cmd/hot_restart/hot_restart.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "core/base/log.h"
#include "core/io/tcp.h"

namespace edgemesh::cmd {
namespace {

using namespace std::chrono_literals;  // NOLINT
using testing::HasSubstr;

constexpr const char* kHello = "edgemesh-handover 1";
constexpr size_t kMany = 350;
constexpr const char* kRole = "HOT_RESTART_TEST_ROLE";

int descriptors() {
  int n = 0;
  for (int fd = 0; fd < 256; ++fd) n += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
  return n;
}

class PredecessorTest : public testing::Test {
 protected:
  PredecessorTest() {
    int pair[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    far_ = io::Fd(pair[0]);
    near_ = std::make_unique<Predecessor>(io::Fd(pair[1]), 30ms);
  }
  // One packet with `n` descriptors.
  void send(const std::string& text, size_t n = 0) {
    iovec part{const_cast<char*>(text.data()), text.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))] = {};
    if (n > 0) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(n * sizeof(int));
      cmsghdr* head = CMSG_FIRSTHDR(&message);
      head->cmsg_level = SOL_SOCKET;
      head->cmsg_type = SCM_RIGHTS;
      head->cmsg_len = CMSG_LEN(n * sizeof(int));
      const std::vector<int> fds(n, STDERR_FILENO);
      std::memcpy(CMSG_DATA(head), fds.data(), n * sizeof(int));
    }
    ASSERT_EQ(sendmsg(far_.get(), &message, MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  Error refused() {
    auto got = near_->receive(&sockets_);
    EXPECT_FALSE(got);
    return got ? Error{} : got.error();
  }

  io::Fd far_;
  std::unique_ptr<Predecessor> near_;
  proxy::InheritedSockets sockets_;
  std::vector<proxy::HandedFlow> flows_;
};

TEST_F(PredecessorTest, SocketsByName) {
  send(kHello);
  send("socket tcp 127.0.0.1:80", 1);
  send("socket tcp 127.0.0.1:80", 1);
  send("socket admin 127.0.0.1:15000", 1);
  send("end");
  ASSERT_TRUE(near_->receive(&sockets_));
  EXPECT_EQ(sockets_.take("tcp 127.0.0.1:80").size(), 2U);
  auto admin = sockets_.take("admin 127.0.0.1:15000");
  ASSERT_EQ(admin.size(), 1U);
  EXPECT_EQ(fcntl(admin[0].get(), F_GETFD), FD_CLOEXEC);
  EXPECT_TRUE(sockets_.empty());
}

TEST_F(PredecessorTest, AnotherVersion) {
  send("edgemesh-handover 2");
  EXPECT_THAT(refused().message, HasSubstr("another version"));
}

TEST_F(PredecessorTest, ASocketWithoutADescriptor) {
  send(kHello);
  send("socket tcp 127.0.0.1:80");
  EXPECT_EQ(refused().code, ErrorCode::kProtocol);
}

TEST_F(PredecessorTest, AnUnknownMessage) {
  send(kHello);
  send("sockets", 1);
  EXPECT_EQ(refused().code, ErrorCode::kProtocol);
}

TEST_F(PredecessorTest, TooManyDescriptorsAreNotLeaked) {
  send(kHello);
  const int before = descriptors();
  send("socket tcp 127.0.0.1:80", 8);
  EXPECT_EQ(refused().code, ErrorCode::kProtocol);
  EXPECT_EQ(descriptors(), before);
}

TEST_F(PredecessorTest, AMessageThatIsTooLong) {
  send(kHello);
  send("socket " + std::string(5000, 'a'), 1);
  EXPECT_THAT(refused().message, HasSubstr("too large"));
}

TEST_F(PredecessorTest, EndsInTheMiddle) {
  send(kHello);
  send("socket tcp 127.0.0.1:80", 1);
  far_.reset();
  EXPECT_EQ(refused().code, ErrorCode::kUnavailable);
}

TEST_F(PredecessorTest, SaysNothing) {
  EXPECT_EQ(refused().code, ErrorCode::kTimeout);
}

TEST_F(PredecessorTest, TakesOver) {
  send("flow 127.0.0.1:53 10.0.0.1:4000 127.0.0.1:53 10.0.0.2:53", 1);
  send("flow [::]:53 [2001:db8::1]:4000 [::1]:53 [2001:db8::2]:53 3", 1);
  send("draining");
  EXPECT_TRUE(near_->take_over(&flows_));
  ASSERT_EQ(flows_.size(), 2U);
  EXPECT_EQ(flows_[0].key.client.to_string(), "10.0.0.1:4000");
  EXPECT_EQ(flows_[0].endpoint.to_string(), "10.0.0.2:53");
  EXPECT_EQ(flows_[0].queue, 0U);
  EXPECT_EQ(flows_[1].queue, 3U);
  EXPECT_EQ(flows_[1].listener.to_string(), "[::]:53");
  EXPECT_EQ(flows_[1].key.destination.to_string(), "[::1]:53");
  EXPECT_TRUE(flows_[1].socket.valid());
  char text[16];
  const ssize_t n = recv(far_.get(), text, sizeof text, 0);
  EXPECT_EQ(std::string(text, static_cast<size_t>(std::max<ssize_t>(n, 0))), "ready");
}

TEST_F(PredecessorTest, BadFlows) {
  const std::string good = "flow 127.0.0.1:53 10.0.0.1:4000 127.0.0.1:53 10.0.0.2:53";
  send(good);  // without a socket
  EXPECT_FALSE(near_->take_over(&flows_));
  for (const char* bad :
       {"flow ", "flow 127.0.0.1:53 10.0.0.1:4000 127.0.0.1:53", "flow x y z a",
        "flow 127.0.0.1:53 10.0.0.1:4000 127.0.0.1:53 10.0.0.2:53 x"}) {
    send(bad, 1);
    EXPECT_FALSE(near_->take_over(&flows_)) << bad;
  }
  send(good + " 10.0.0.3:53", 1);
  EXPECT_FALSE(near_->take_over(&flows_));
  EXPECT_TRUE(flows_.empty());
}

TEST_F(PredecessorTest, EndsBeforeItIsTakenOver) {
  send("flow 127.0.0.1:53 10.0.0.1:4000 127.0.0.1:53 10.0.0.2:53", 1);
  far_.reset();
  auto taken = near_->take_over(&flows_);
  EXPECT_EQ(flows_.size(), 1U);
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code, ErrorCode::kUnavailable);
}

TEST(FindPredecessor, OnlyWhereTheVariableNamesASocket) {
  unsetenv(kHandoverVariable);
  auto none = Predecessor::find();
  ASSERT_TRUE(none);
  EXPECT_EQ(*none, nullptr);
  for (const char* bad : {"", "x", "1", "2000", "3x", "-1"}) {
    setenv(kHandoverVariable, bad, 1);
    EXPECT_FALSE(Predecessor::find()) << bad;
    EXPECT_EQ(getenv(kHandoverVariable), nullptr) << "it is not for the next one";
  }
}

// ---- Two processes.

class HotRestartTest : public testing::Test {
 protected:
  HotRestartTest() {
    log::set_sink([this](std::string_view line) { log_ += line; });
  }
  ~HotRestartTest() override {
    log::set_sink({});
    unsetenv(kRole);
  }
  void begin(const std::string& role) {
    setenv(kRole, role.c_str(), 1);
    restart_.begin();
  }
  bool until(const std::function<bool()>& done) { return loop_->run_until(done, 20s); }

  std::string log_;
  std::unique_ptr<io::Loop> loop_ = *io::Loop::create();
  io::Fd socket_ = *io::open_tcp_listener({IpAddr::loopback(), 0});
  HotRestart::Hooks hooks() {
    HotRestart::Hooks out;
    // More of both than fits into the pair of sockets at a time.
    out.sockets = [this] {
      return std::vector<std::pair<std::string, int>>(kMany, {"tcp x", socket_.get()});
    };
    out.give_flows = [this](auto done) {
      std::vector<proxy::HandedFlow> flows(kMany);
      for (auto& flow : flows) {
        flow.listener = flow.endpoint = flow.key.client =
            flow.key.destination = {IpAddr::loopback(), 53};
        flow.socket = io::Fd(fcntl(socket_.get(), F_DUPFD_CLOEXEC, 3));
      }
      ++given_;
      done(std::move(flows));
    };
    out.take_datagrams_back = [this] { ++taken_back_; };
    out.drain = [this] { ++drained_; };
    return out;
  }

  int drained_ = 0, given_ = 0, taken_back_ = 0;
  HotRestart restart_{*loop_,
                      {"/proc/self/exe", "--gtest_filter=SuccessorProcess.DISABLED_Runs",
                       "--gtest_also_run_disabled_tests", "--gtest_brief=1"},
                      hooks()};
};

// What HotRestart starts: no test by itself.
TEST(SuccessorProcess, DISABLED_Runs) {
  const char* role = getenv(kRole);
  if (role == nullptr || getenv(kHandoverVariable) == nullptr) _exit(2);
  auto before = Predecessor::find();
  if (!before || *before == nullptr) _exit(3);
  proxy::InheritedSockets sockets;
  if (!(*before)->receive(&sockets)) _exit(4);
  if (std::strcmp(role, "fails") == 0) _exit(5);
  if (sockets.take("tcp x").size() != kMany) _exit(6);
  if (std::strcmp(role, "dies") == 0) {  // ready, and gone before it has the flows
    _exit(send(3, "ready", 5, 0) == 5 ? 9 : 10);
  }
  std::vector<proxy::HandedFlow> flows;
  if (!(*before)->take_over(&flows)) _exit(7);
  _exit(flows.size() == kMany ? 0 : 8);
}

TEST_F(HotRestartTest, TheSuccessorTakesOver) {
  begin("serves");
  EXPECT_TRUE(until([&] { return drained_ > 0; })) << log_;
  EXPECT_THAT(log_, HasSubstr("serves"));
  restart_.begin();  // it is over: nothing more is started
  EXPECT_FALSE(loop_->run_until([&] { return drained_ > 1; }, 50ms));
}

TEST_F(HotRestartTest, AfterOneThatFailsAnotherMayBegin) {
  begin("fails");
  EXPECT_TRUE(until([&] { return log_.find("this process goes on") != log_.npos; }));
  EXPECT_EQ(drained_, 0);
  begin("serves");
  EXPECT_TRUE(until([&] { return drained_ > 0; })) << log_;
}

TEST_F(HotRestartTest, OneThatDiesWhenItShouldServe) {
  begin("dies");
  EXPECT_TRUE(until([&] { return log_.find("this process goes on") != log_.npos; }));
  EXPECT_EQ(drained_, 0);
  EXPECT_EQ(given_, taken_back_);
  begin("serves");
  EXPECT_TRUE(until([&] { return drained_ > 0; })) << log_;
}

TEST_F(HotRestartTest, AProgramThatIsNotThere) {
  HotRestart restart(*loop_, {"/nonexistent/program"}, hooks());
  restart.begin();
  EXPECT_THAT(log_, HasSubstr("this process goes on"));
  EXPECT_EQ(drained_, 0);
}

}  // namespace
}  // namespace edgemesh::cmd
