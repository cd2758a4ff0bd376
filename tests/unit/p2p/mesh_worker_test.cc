#include "p2p/mesh_worker.h"

#include <gtest/gtest.h>

#include "tests/unit/p2p/quic_fixture.h"

namespace edgemesh::p2p {
namespace {

class NoAcceptor final : public Acceptor {
 public:
  void on_connect(std::unique_ptr<IncomingConnect>) override {}
};

TEST(MeshWorkerTest, PublishingCostsNothingWhileNothingHappens) {
  test::TestPki pki;
  auto id = node_cert(pki, "a");
  ManualClock clock;
  auto loop = test::TestPki::take(io::Loop::create(clock));
  MeshOptions o;
  o.node = "a";
  o.cert_pem = id.cert_pem;
  o.key_pem = id.key_pem;
  o.ca_pem = pki.ca().cert_pem;
  o.direct_listen = {IpAddr::loopback(), 0};
  o.loopback_candidates = true;
  o.ice_enabled = false;
  NoAcceptor acceptor;
  MeshWorker::Out out{[](auto, auto) {}, [] {}, [](auto) {}};
  auto worker = test::TestPki::take(MeshWorker::create(*loop, o, std::move(out), acceptor));
  auto pass = [&] {
    for (int i = 0; i < 10; ++i) {
      clock.advance(500ms);
      for (int turn = 0; turn < 3; ++turn) loop->run_once();
    }
  };
  constexpr size_t kPeers = 500;
  std::vector<KnownPeer> known;
  for (size_t i = 0; i < kPeers; ++i)
    known.push_back({"n" + std::to_string(i), {{IpAddr::loopback(), 1}}});
  worker->known_peers(known);
  pass();
  EXPECT_EQ(worker->snapshot().peers.size(), kPeers);
  uint64_t before = worker->statuses_made();

  pass();
  EXPECT_EQ(worker->statuses_made(), before);

  auto stream = worker->open("n7", {IpAddr::v4(1), 80});
  ASSERT_TRUE(stream);
  clock.advance(500ms);
  for (int turn = 0; turn < 3; ++turn) loop->run_once();
  EXPECT_GT(worker->statuses_made(), before);
  EXPECT_LT(worker->statuses_made(), before + 10);
  auto peers = worker->snapshot().peers;
  auto busy = std::find_if(peers.begin(), peers.end(), [](const auto& p) { return p.node == "n7"; });
  ASSERT_NE(busy, peers.end());
  EXPECT_EQ(busy->streams, 1U);
}

}  // namespace
}  // namespace edgemesh::p2p
