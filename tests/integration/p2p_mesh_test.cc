#include <atomic>

#include "core/io/fd.h"
#include "core/io/socket_name.h"
#include "core/io/tcp.h"
#include "tests/integration/p2p_fixture.h"

#if defined(__SANITIZE_THREAD__)
// GLib is not instrumented: its allocator's locks are not seen.
extern "C" const char* __tsan_default_suppressions() {  // NOLINT
  return "called_from_lib:libglib-2.0.so\ncalled_from_lib:libnice.so\nrace:g_slice_*\nrace:g_snprintf\n";
}
#endif

namespace edgemesh::p2p {
namespace {

TEST_F(MeshTest, ByteTravelsThroughThePunchedTunnel) {
  auto& a = add("a", true, false);
  auto& b = add("b", true, false);
  auto begin = loop->clock().now();

  auto c = open(a, "b", 1);

  ASSERT_TRUE(until([&] { return c->done() || c->failed; })) << c->received;
  EXPECT_FALSE(c->failed) << c->error.message;
  auto took = std::chrono::duration_cast<std::chrono::milliseconds>(loop->clock().now() - begin);
  EXPECT_LT(took, 1s);
  RecordProperty("first_byte_ms", static_cast<int>(took.count()));
  ASSERT_EQ(b.acceptor.peers.size(), 1U);
  EXPECT_EQ(b.acceptor.peers[0], "a");
  EXPECT_EQ(a.mesh->dialer().path_kind("b"), PathKind::kPunched);
  ASSERT_TRUE(until([&] { return !a.mesh->peers().empty() && a.mesh->peers()[0].rx_bytes == 1; }));
  EXPECT_EQ(a.mesh->peers()[0].kind, PathKind::kPunched);
}

TEST_F(MeshTest, BothSidesMayStartAtOnce) {
  auto& a = add("a", true, false);
  auto& b = add("b", true, false);

  auto c = open(a, "b", 100000);
  auto d = open(b, "a", 100000);

  ASSERT_TRUE(until([&] { return c->done() && d->done(); }))
      << c->error.message << " " << d->error.message;
}

TEST_F(MeshTest, DirectPathWorksWithoutIceOnceTheAddressIsKnown) {
  auto& a = add("a", false, true);
  auto& b = add("b", false, true);
  drop_signals = true;  // no cloud
  a.mesh->known_peers({{"b", b.mesh->direct_addresses()}});
  until([] { return false; }, 20ms);

  auto c = open(a, "b", 200000);

  ASSERT_TRUE(until([&] { return c->done() || c->failed; }));
  EXPECT_FALSE(c->failed) << c->error.message;
  EXPECT_EQ(a.mesh->dialer().path_kind("b"), PathKind::kDirect);
  EXPECT_EQ(b.acceptor.peers[0], "a");
}

// Takes the TCP handshake of whoever connects, and says nothing.
class SilentPort {
 public:
  SilentPort() {
    sockaddr_storage sa;
    socklen_t len = SockAddr{IpAddr::loopback(), 0}.to_sockaddr(&sa);
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&sa), len), 0);  // NOLINT
    EXPECT_EQ(listen(fd_.get(), 8), 0);
    addr = test::TestPki::take(io::local_name(fd_.get()));
  }
  SockAddr addr;

 private:
  io::Fd fd_{socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
};

TEST_F(MeshTest, DirectPathIsFoundBehindAddressesThatLeadNowhere) {
  auto& a = add("a", false, true);
  auto& b = add("b", false, true);
  drop_signals = true;
  std::vector<SilentPort> silent(8);
  std::vector<SockAddr> addresses;
  for (const auto& port : silent) addresses.push_back(port.addr);
  for (uint16_t port = 1; port <= 7; ++port) addresses.push_back({IpAddr::loopback(), port});  // refused
  addresses.push_back(b.mesh->direct_addresses()[0]);
  a.mesh->known_peers({{"b", addresses}});
  until([] { return false; }, 20ms);

  auto c = open(a, "b", 1000);

  ASSERT_TRUE(until([&] { return c->done() || c->failed; }, 3s));
  EXPECT_FALSE(c->failed) << c->error.message;
  EXPECT_EQ(a.mesh->dialer().path_kind("b"), PathKind::kDirect);
}

// A port that passes connections on to another, until it is cut.
class Forwarder {
 public:
  Forwarder(io::Loop& loop, const SockAddr& to) {
    listener_ = test::TestPki::take(io::TcpListener::listen(
        loop, {IpAddr::loopback(), 0}, [this, &loop, to](io::Fd fd, const SockAddr&) {
          End* near = ends_.emplace_back(std::make_unique<End>()).get();
          End* far = ends_.emplace_back(std::make_unique<End>()).get();
          near->stream = test::TestPki::take(io::TcpStream::adopt(loop, std::move(fd)));
          far->stream = test::TestPki::take(io::TcpStream::connect(loop, to));
          near->other = far;
          far->other = near;
          near->stream->set_handler(near);
          far->stream->set_handler(far);
          near->pump();
        }));
  }
  SockAddr addr() const { return listener_->local_addr(); }
  size_t connections() const { return ends_.size() / 2; }
  void cut() {
    listener_.reset();
    ends_.clear();
  }

 private:
  struct End final : io::Stream::Handler {
    void pump() {
      while (stream != nullptr && other->stream != nullptr) {
        while (!held.empty()) {
          auto w = other->stream->write(io::as_bytes(held));
          if (w.status != io::IoResult::kOk) return;
          held.erase(0, w.n);
        }
        uint8_t block[16384];
        auto r = stream->read(block);
        if (r.status != io::IoResult::kOk) return;
        held.assign(reinterpret_cast<char*>(block), r.n);  // NOLINT
      }
    }
    void on_readable() override { pump(); }
    void on_writable() override { other->pump(); }
    void on_error(const Error&) override {}
    std::unique_ptr<io::TcpStream> stream;
    End* other = nullptr;
    std::string held;
  };
  std::unique_ptr<io::TcpListener> listener_;
  std::vector<std::unique_ptr<End>> ends_;
};

TEST_F(MeshTest, DirectPathThatDiesIsReplacedByAnother) {
  auto& a = add("a", true, true);
  auto& b = add("b", true, true);
  Forwarder port(*loop, b.mesh->direct_addresses()[0]);
  drop_signals = true;  // only the direct path can be found
  a.mesh->known_peers({{"b", {port.addr()}}});
  until([] { return false; }, 20ms);
  auto first = open(a, "b", 1000);
  ASSERT_TRUE(until([&] { return first->done(); })) << first->error.message;
  ASSERT_EQ(a.mesh->dialer().path_kind("b"), PathKind::kDirect);
  ASSERT_EQ(port.connections(), 1U);

  // What b advertises leads to the dead port, so that the path does not come back.
  SockAddr dead = port.addr();
  change_signal = [&, dead](std::string& json) {
    std::string live = b.mesh->direct_addresses()[0].to_string();
    if (size_t at = json.find(live); at != json.npos) json.replace(at, live.size(), dead.to_string());
  };
  port.cut();
  drop_signals = false;

  auto next = open(a, "b", 100'000);
  ASSERT_TRUE(until([&] { return next->done() || next->failed; }));
  if (next->failed) {  // it was on the connection when that was cut, and may be opened again
    next = open(a, "b", 100'000);
    ASSERT_TRUE(until([&] { return next->done() || next->failed; }));
  }
  EXPECT_FALSE(next->failed) << next->error.message;
  EXPECT_EQ(a.mesh->dialer().path_kind("b"), PathKind::kPunched);
}

TEST_F(MeshTest, RefusalSaysNodePathAndReason) {
  auto& a = add("a", true, false);
  add("b", true, false);

  auto c = open(a, "b", 1, 1);

  ASSERT_TRUE(until([&] { return c->failed; }));
  EXPECT_EQ(c->error.code, ErrorCode::kPermissionDenied);
  EXPECT_EQ(c->error.message, "node b, punched: 403 not an endpoint");
  EXPECT_TRUE(c->stream->nothing_delivered());
}

TEST_F(MeshTest, NodeThatIsNotConnectedFailsAtOnce) {
  auto& a = add("a", true, false);

  auto c = open(a, "gone", 1);

  ASSERT_TRUE(until([&] { return c->failed; }, 2s));
  EXPECT_EQ(c->error.message, "node gone: node gone is not connected");
  EXPECT_TRUE(c->stream->nothing_delivered());
}

TEST_F(MeshTest, UnansweredOfferEndsInTimeout) {
  auto& a = add("a", true, false);
  drop_signals = true;

  auto c = open(a, "b", 1);

  ASSERT_TRUE(until([&] { return c->failed; }, 8s));
  EXPECT_EQ(c->error.code, ErrorCode::kTimeout);
}

TEST_F(MeshTest, WrongNamesAreRefused) {
  auto& a = add("a", true, false);
  add("b", true, false, pki, "mallory");

  auto c = open(a, "b", 1);

  ASSERT_TRUE(until([&] { return c->failed; }));
  EXPECT_EQ(c->error.code, ErrorCode::kUnauthenticated) << c->error.message;
}

TEST_F(MeshTest, TransferSurvivesAnAddressChange) {
  auto& a = add("a", true, false);
  add("b", true, false);
  auto c = open(a, "b", 64 << 20);
  ASSERT_TRUE(until([&] { return c->received > 4 << 20; }));

  a.mesh->on_address_change();

  ASSERT_TRUE(until([&] { return c->done() || c->failed; }, 30s)) << c->received;
  EXPECT_FALSE(c->failed) << c->error.message;
  EXPECT_EQ(a.mesh->dialer().path_kind("b"), PathKind::kPunched);
}

TEST_F(MeshTest, RestartedPeerEndsOldStreamsAndServesNewOnes) {
  auto& a = add("a", true, false);
  add("b", true, false);
  auto c = open(a, "b", 0);
  ASSERT_TRUE(until([&] { return c->done(); }));
  auto hanging = std::make_unique<Client>(
      test::TestPki::take(a.mesh->dialer().open("b", {IpAddr::v4(1), 80})), 1 << 20);
  ASSERT_TRUE(until([&] { return hanging->connected; }));

  nodes["b"]->acceptor.echoes.clear();
  nodes["b"]->mesh.reset();
  add("b", true, false);
  auto d = open(*nodes["b"], "a", 1000);
  auto e = open(a, "b", 1000);

  ASSERT_TRUE(until([&] { return d->done() || d->failed; })) << d->received;
  EXPECT_FALSE(d->failed) << d->error.message;
  ASSERT_TRUE(until([&] { return e->done() || e->failed; }));
}

TEST_F(MeshTest, WorkerLoopMayRunOnItsOwnThread) {
  auto worker = test::TestPki::take(io::Loop::create());
  std::atomic<bool> runs{false};
  worker->post([&] { runs = true; });
  std::thread thread([&] { worker->run(); });
  ASSERT_TRUE(until([&] { return runs.load(); }));
  auto id = node_identity(pki, "a");
  MeshOptions o;
  o.node = "a";
  o.cert_pem = id.cert_pem;
  o.key_pem = id.key_pem;
  o.ca_pem = pki.ca().cert_pem;
  o.direct_listen = {IpAddr::loopback(), 0};
  o.loopback_candidates = true;
  EchoAcceptor acceptor;
  std::string signal;
  Hooks hooks;
  hooks.send_signal = [&](const std::string& to, std::string json) { signal = to + json; };
  auto mesh = test::TestPki::take(Mesh::create(*loop, *worker, o, std::move(hooks), acceptor));
  std::unique_ptr<io::Stream> stream;
  worker->post([&] {
    stream = test::TestPki::take(mesh->dialer().open("b", {IpAddr::v4(1), 80}));
  });

  EXPECT_TRUE(until([&] { return !signal.empty(); }));

  EXPECT_TRUE(signal.starts_with("b{"));
  worker->post([&] { stream.reset(); });
  mesh.reset();
  worker->stop();
  thread.join();
}

// All certificates of the test's CA begin before that.
int64_t from_now_on() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch()).count() + 1;
}

TEST_F(MeshTest, ARevokedPeerIsCutAndGetsNoTunnelAgain) {
  auto& a = add("a", true, false);
  auto& b = add("b", true, false);
  auto out = open(a, "b", 1);
  auto in = open(b, "a", 1);
  ASSERT_TRUE(until([&] { return out->done() && in->done(); }));
  out = open(a, "b", 1 << 20);
  in = open(b, "a", 1 << 20);
  ASSERT_TRUE(until([&] { return out->connected && in->connected; }));

  a.mesh->set_revoked({{"b", from_now_on()}});

  ASSERT_TRUE(until([&] { return out->failed && in->failed; }));
  EXPECT_NE(out->error.message.find("revoked"), std::string::npos) << out->error.message;
  out = open(a, "b", 1);
  in = open(b, "a", 1);
  EXPECT_TRUE(until([&] { return out->failed && in->failed; }, 15s));
  EXPECT_EQ(out->received + in->received, 0U);

  a.mesh->set_revoked({{"b", 1}});  // it joined anew
  out = open(a, "b", 1);
  EXPECT_TRUE(until([&] { return out->done() || out->failed; }, 15s));
  EXPECT_TRUE(out->done()) << out->error.message;
}

TEST_F(MeshTest, ARevokedPeerIsCutOffTheDirectPath) {
  auto& a = add("a", false, true);
  auto& b = add("b", false, true);
  drop_signals = true;
  a.mesh->known_peers({{"b", b.mesh->direct_addresses()}});
  b.mesh->known_peers({{"a", a.mesh->direct_addresses()}});
  until([] { return false; }, 20ms);
  auto out = open(a, "b", 64 << 20);
  auto in = open(b, "a", 64 << 20);
  ASSERT_TRUE(until([&] { return out->connected && in->connected; }));

  a.mesh->set_revoked({{"b", from_now_on()}});

  ASSERT_TRUE(until([&] { return out->failed && in->failed; }));
  out = open(a, "b", 1);
  in = open(b, "a", 1);
  EXPECT_TRUE(until([&] { return out->failed && in->failed; }, 15s));
  EXPECT_EQ(out->received + in->received, 0U);
}

TEST_F(MeshTest, WhoIsRefusedOnTheDirectPathLearnsItAtOnce) {
  auto& a = add("a", false, true);
  auto& b = add("b", false, true);
  drop_signals = true;
  a.mesh->known_peers({{"b", b.mesh->direct_addresses()}});
  b.mesh->known_peers({{"a", a.mesh->direct_addresses()}});
  a.mesh->set_revoked({{"b", from_now_on()}});
  until([] { return false; }, 20ms);

  auto out = open(a, "b", 1);
  EXPECT_TRUE(until([&] { return out->failed; }, 2s));
  EXPECT_EQ(out->error.code, ErrorCode::kUnauthenticated);
  EXPECT_NE(out->error.message.find("revoked"), std::string::npos) << out->error.message;

  for (int i = 0; i < 3; ++i) {
    auto in = open(b, "a", 1);
    EXPECT_TRUE(until([&] { return in->failed; }, 2s)) << i;
    EXPECT_EQ(in->error.code, ErrorCode::kPermissionDenied);
    EXPECT_NE(in->error.message.find("node b was revoked"), std::string::npos) << in->error.message;
    EXPECT_TRUE(in->stream->nothing_delivered());
  }
  EXPECT_TRUE(a.acceptor.peers.empty());
  EXPECT_TRUE(until([&] { return b.mesh->dialer().path_kind("a") == PathKind::kNone; }, 3s));
}

}  // namespace
}  // namespace edgemesh::p2p
