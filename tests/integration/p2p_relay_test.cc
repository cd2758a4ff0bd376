// The relayed path, through a real coturn on loopback.
#include <netinet/in.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "core/io/tcp.h"
#include "tests/integration/p2p_fixture.h"

extern char** environ;

namespace edgemesh::p2p {
namespace {

// coturn cannot choose a port itself: one that is free now.
uint16_t free_port(io::Loop& loop) {
  auto listener = io::TcpListener::listen(loop, {IpAddr::loopback(), 0}, [](io::Fd, const SockAddr&) {});
  return listener ? (*listener)->local_addr().port : 0;
}

class Coturn {
 public:
  explicit Coturn(uint16_t port) : port_(port) { start(); }
  ~Coturn() { kill_it(); }
  void start() {
    std::string dir = testing::TempDir();
    std::vector<std::string> args = {"turnserver", "-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1",
                                     fmt::format("--listening-port={}", port_), "--lt-cred-mech",
                                     "--user=em:secret", "--realm=edgemesh", "--no-tls", "--no-dtls",
                                     "--no-cli", "--allow-loopback-peers", "--log-file=/dev/null",
                                     fmt::format("--pidfile={}/turn-{}.pid", dir, port_),
                                     fmt::format("--userdb={}/turn-{}.db", dir, port_)};
    std::vector<char*> argv;
    for (auto& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    if (posix_spawnp(&pid_, "turnserver", &actions, nullptr, argv.data(), environ) != 0) pid_ = -1;
    posix_spawn_file_actions_destroy(&actions);
  }
  void kill_it() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  bool running() const { return pid_ > 0; }

 private:
  uint16_t port_;
  pid_t pid_ = -1;
};

class RelayTest : public MeshTest {
 protected:
  RelayTest() : port(free_port(*loop)), coturn(port) {}
  void wait_for_coturn() {
    // It listens on TCP and UDP at about the same time.
    for (int i = 0; i < 250; ++i) {
      io::Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      sockaddr_storage sa;
      socklen_t len = SockAddr{IpAddr::loopback(), port}.to_sockaddr(&sa);
      if (connect(fd.get(), reinterpret_cast<sockaddr*>(&sa), len) == 0) return;  // NOLINT
      until([] { return false; }, 20ms);
    }
    FAIL() << "turnserver does not start: is coturn installed?";
  }
  void add_both() {
    for (const char* name : {"a", "b"}) {
      options_hook = [](MeshOptions& o) {
        o.relay_only = true;
        o.open_timeout = 15s;
      };
      add(name, true, false).mesh->set_relay({"127.0.0.1", port, "em", "secret", 0});
    }
    until([] { return false; }, 20ms);
  }
  uint16_t port;
  Coturn coturn;
};

TEST_F(RelayTest, CarriesStreamsThroughTheRelay) {
  wait_for_coturn();
  add_both();

  auto c = open(*nodes["a"], "b", 8 << 20);

  ASSERT_TRUE(until([&] { return c->done() || c->failed; }, 40s)) << c->received;
  EXPECT_FALSE(c->failed) << c->error.message;
  ASSERT_TRUE(until([&] { return !nodes["a"]->mesh->peers().empty(); }));
  auto status = nodes["a"]->mesh->peers()[0];
  EXPECT_EQ(status.kind, PathKind::kRelayed);
  EXPECT_FALSE(status.reason.empty());
}

TEST_F(RelayTest, StreamsGoOnAfterTheRelayWasRestarted) {
  wait_for_coturn();
  add_both();
  auto c = open(*nodes["a"], "b", 64 << 20);
  ASSERT_TRUE(until([&] { return c->received > 1 << 20 || c->failed; }, 20s));
  ASSERT_FALSE(c->failed) << c->error.message;

  coturn.kill_it();
  until([] { return false; }, 1s);
  uint64_t before = c->received;
  coturn.start();

  EXPECT_TRUE(until([&] { return c->received > before + (4 << 20) || c->failed; }, 25s)) << c->received;
  EXPECT_FALSE(c->failed) << c->error.message;
}

}  // namespace
}  // namespace edgemesh::p2p
