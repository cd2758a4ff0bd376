// The L4 path over loopback, in one loop: client -> L4Connection -> server.
#include <sys/socket.h>

#include "proxy_support.h"

namespace edgemesh::proxy::testing_parts {
namespace {

using namespace std::chrono_literals;

// A port where nobody listens.
SockAddr dead_port(io::Loop& loop) {
  auto listener = io::TcpListener::listen(loop, loopback(), [](io::Fd, const SockAddr&) {});
  return (*listener)->local_addr();
}

class L4Test : public ProxyTest {};

TEST_F(L4Test, PassesBytesBothWays) {
  Server server(*loop, Server::echo);
  serve({{server.address()}});
  Peer& peer = client();

  peer.send_text("hello");

  ASSERT_TRUE(wait([&] { return peer.text == "hello"; }));
  peer.end();
  ASSERT_TRUE(wait([&] { return peer.eof && context->connections == 0; }));
  EXPECT_EQ(ended(EndReason::kClosed), 1u);
  EXPECT_EQ(context->metrics.to_upstream.value(), 5u);
  EXPECT_EQ(context->metrics.to_client.value(), 5u);
  EXPECT_EQ(context->metrics.connect_seconds.count(), 1u);
}

TEST_F(L4Test, KeepsTheOtherDirectionOpenWhenTheClientEnds) {
  Server server(*loop, [](Peer& p) { p.on_eof = [](Peer& q) { q.send(200'000, true); }; });
  serve({{server.address()}});
  Peer& peer = client();
  peer.check_pattern = true;

  peer.send(100'000, true);

  ASSERT_TRUE(wait([&] { return peer.eof; }));
  EXPECT_EQ(server.peers.at(0)->received, 100'000u);
  EXPECT_EQ(peer.received, 200'000u);
  EXPECT_TRUE(peer.intact);
}

TEST_F(L4Test, KeepsTheOtherDirectionOpenWhenTheServerEnds) {
  Server server(*loop, [](Peer& p) { p.end(); });
  serve({{server.address()}});
  Peer& peer = client();
  ASSERT_TRUE(wait([&] { return peer.eof; }));

  peer.send(100'000, true);

  ASSERT_TRUE(wait([&] { return context->connections == 0 && server.peers[0]->eof; }));
  EXPECT_EQ(server.peers.at(0)->received, 100'000u);
  EXPECT_EQ(ended(EndReason::kClosed), 1u);
}

TEST_F(L4Test, BulkIsSplicedAndArrivesWhole) {
  constexpr uint64_t kBytes = 64 << 20;
  Server server(*loop, [](Peer& p) {
    p.check_pattern = true;
    p.send(kBytes, true);
  });
  serve({{server.address()}});
  Peer& peer = client();
  peer.check_pattern = true;

  peer.send(kBytes, true);

  ASSERT_TRUE(
      wait([&] { return context->connections == 0 && peer.eof && server.peers.at(0)->eof; }, 60s));
  EXPECT_EQ(peer.received, kBytes);
  EXPECT_EQ(server.peers.at(0)->received, kBytes);
  EXPECT_TRUE(peer.intact);
  EXPECT_TRUE(server.peers.at(0)->intact);
  EXPECT_EQ(ended(EndReason::kClosed), 1u);
}

TEST_F(L4Test, ASlowReaderGetsEverythingAndHoldsTheSenderBack) {
  constexpr uint64_t kBytes = 24 << 20;
  Server server(*loop, [](Peer& p) { p.send(kBytes, true); });
  serve({{server.address()}});
  Peer& peer = client();
  peer.check_pattern = true;
  peer.read_slowly(100'000);
  ASSERT_TRUE(wait([&] { return !server.peers.empty() && server.peers[0]->sent > 0; }));
  for (int i = 0; i < 200; ++i) loop->run_once();
  EXPECT_LT(server.peers[0]->sent, kBytes) << "nobody reads";

  ASSERT_TRUE(wait(
      [&] {
        for (int i = 0; i < 8; ++i) peer.step();
        return peer.eof;
      },
      60s));
  EXPECT_EQ(peer.received, kBytes);
  EXPECT_TRUE(peer.intact);
}

TEST_F(L4Test, ASlowServerGetsEverything) {
  constexpr uint64_t kBytes = 24 << 20;
  Server server(*loop, [](Peer& p) {
    p.check_pattern = true;
    p.read_slowly(77'777);
  });
  serve({{server.address()}});
  Peer& peer = client();

  peer.send(kBytes, true);

  ASSERT_TRUE(wait(
      [&] {
        for (auto& p : server.peers) p->step();
        return !server.peers.empty() && server.peers[0]->eof;
      },
      60s));
  EXPECT_EQ(server.peers[0]->received, kBytes);
  EXPECT_TRUE(server.peers[0]->intact);
}

TEST_F(L4Test, BytesBehindUrgentDataAreNotLost) {
  Server server(*loop, nullptr);
  serve({{server.address()}});
  io::Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_storage sa;
  socklen_t len = listener->local_addr().to_sockaddr(&sa);
  ASSERT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&sa), len), 0);  // NOLINT
  ASSERT_EQ(::send(fd.get(), "abc", 3, 0), 3);
  ASSERT_EQ(::send(fd.get(), "!", 1, MSG_OOB), 1);
  ASSERT_EQ(::send(fd.get(), "def", 3, 0), 3);

  ASSERT_TRUE(wait([&] { return !server.peers.empty() && server.peers[0]->text == "abcdef"; }, 5s));
  ASSERT_EQ(::send(fd.get(), "ghi", 3, 0), 3);
  ASSERT_EQ(::send(fd.get(), "!", 1, MSG_OOB), 1);
  ASSERT_EQ(::send(fd.get(), "jkl", 3, 0), 3);
  fd.reset();
  ASSERT_TRUE(wait([&] { return server.peers[0]->eof; }, 5s));
  EXPECT_EQ(server.peers[0]->text, "abcdefghijkl");
}

TEST_F(L4Test, TriesAnotherEndpointWhenOneRefuses) {
  Server server(*loop, Server::echo);
  serve({{dead_port(*loop)}, {server.address()}});

  for (int i = 0; i < 4; ++i) {
    Peer& peer = client();
    peer.send_text("hello");
    ASSERT_TRUE(wait([&] { return peer.text == "hello"; }));
  }

  EXPECT_GE(context->metrics.retries.value(), 1u);
}

TEST_F(L4Test, SaysConnectFailedWhenNoEndpointAnswers) {
  serve({{dead_port(*loop)}, {dead_port(*loop)}});
  Peer& peer = client();

  ASSERT_TRUE(wait([&] { return peer.failed; }));
  EXPECT_EQ(ended(EndReason::kConnectFailed), 1u);
  EXPECT_EQ(context->connections, 0u);
}

TEST_F(L4Test, RefusesWhatIsNoService) {
  serve({{addr("127.0.0.1:1")}});
  destination = addr("10.96.0.99:80");
  Peer& peer = client();

  ASSERT_TRUE(wait([&] { return peer.failed; }));
  EXPECT_EQ(peer.error.code, ErrorCode::kConnectionReset);
  EXPECT_EQ(ended(EndReason::kNoService), 1u);
}

TEST_F(L4Test, RefusesAServiceWithoutEndpoint) {
  serve({});
  Peer& peer = client();
  ASSERT_TRUE(wait([&] { return peer.failed; }));
  EXPECT_EQ(ended(EndReason::kNoEndpoint), 1u);
}

TEST_F(L4Test, RefusesConnectionsOverTheLimit) {
  options.max_connections = 2;
  Server server(*loop, Server::echo);
  serve({{server.address()}});
  for (int i = 0; i < 2; ++i) {
    Peer& peer = client();
    peer.send_text("x");
    ASSERT_TRUE(wait([&] { return peer.received == 1; }));
  }

  Peer& third = client();

  ASSERT_TRUE(wait([&] { return third.failed; }));
  EXPECT_EQ(ended(EndReason::kTooMany), 1u);
  EXPECT_EQ(context->connections, 2u);
}

TEST_F(L4Test, AResetOfTheServerReachesTheClient) {
  Server server(*loop, nullptr);
  serve({{server.address()}});
  Peer& peer = client();
  peer.send_text("x");
  ASSERT_TRUE(wait([&] { return !server.peers.empty() && server.peers[0]->received == 1; }));

  server.peers[0]->close();

  ASSERT_TRUE(wait([&] { return peer.failed; }));
  EXPECT_EQ(ended(EndReason::kUpstreamReset), 1u);
}

TEST_F(L4Test, AResetOfTheClientReachesTheServer) {
  Server server(*loop, nullptr);
  serve({{server.address()}});
  Peer& peer = client();
  peer.send_text("x");
  ASSERT_TRUE(wait([&] { return !server.peers.empty() && server.peers[0]->received == 1; }));

  peer.close();

  ASSERT_TRUE(wait([&] { return server.peers[0]->failed; }));
  EXPECT_EQ(ended(EndReason::kClientReset), 1u);
}

TEST_F(L4Test, AThousandAtOnceAndNoDescriptorIsLost) {
  Server server(*loop, [](Peer& p) {
    p.check_pattern = true;
    p.on_eof = [](Peer& q) { q.send(3'000, true); };
  });
  serve({{server.address()}});
  size_t before = open_descriptors();

  for (int i = 0; i < 1000; ++i) {
    Peer& peer = client();
    peer.check_pattern = true;
    peer.send(5'000 + static_cast<uint64_t>(i), true);
  }

  ASSERT_TRUE(wait(
      [&] {
        auto ended = [](auto& p) { return p->eof; };
        return std::all_of(clients.begin(), clients.end(), ended) && server.peers.size() == 1000 &&
               std::all_of(server.peers.begin(), server.peers.end(), ended) &&
               context->connections == 0;
      },
      60s));
  uint64_t total = 0;
  for (auto& c : clients) {
    EXPECT_TRUE(c->intact);
    EXPECT_EQ(c->received, 3'000u);
  }
  for (auto& p : server.peers) {
    EXPECT_TRUE(p->intact);
    total += p->received;
  }
  EXPECT_EQ(total, 1000u * 5'000 + 999u * 500);
  EXPECT_EQ(ended(EndReason::kClosed), 1000u);
  clients.clear();
  server.peers.clear();
  EXPECT_EQ(open_descriptors(), before);
}

class L4TunnelTest : public ProxyTest {
 protected:
  L4TunnelTest() { dialer = &tunnel; }
  FakeDialer tunnel;
};

TEST_F(L4TunnelTest, FirstBytesTravelWithTheOpen) {
  serve({{addr("10.1.0.5:8080"), "far"}});
  Peer& peer = client();
  peer.send_text("GET");

  ASSERT_TRUE(wait([&] { return !tunnel.streams.empty() && tunnel.streams[0]->written == "GET"; }));
  EXPECT_EQ(tunnel.opened[0].first, "far");
  EXPECT_EQ(tunnel.opened[0].second, addr("10.1.0.5:8080"));

  tunnel.streams[0]->connect();
  tunnel.streams[0]->feed("OK");
  ASSERT_TRUE(wait([&] { return peer.text == "OK"; }));
  EXPECT_EQ(tunnel.streams[0]->written, "GET") << "nothing is sent twice";
  peer.end();
  ASSERT_TRUE(wait([&] { return tunnel.streams[0]->write_ended; }));
  tunnel.streams[0]->end();
  ASSERT_TRUE(wait([&] { return peer.eof && context->connections == 0; }));
}

TEST_F(L4TunnelTest, EarlyBytesAreGivenToTheNextEndpoint) {
  serve({{addr("10.1.0.5:8080"), "far"}, {addr("10.2.0.5:8080"), "farther"}});
  Peer& peer = client();
  peer.send_text("GET");
  ASSERT_TRUE(wait([&] { return !tunnel.streams.empty() && tunnel.streams[0]->written == "GET"; }));

  tunnel.streams[0]->refuse(Error{ErrorCode::kUnavailable, "node far, relayed: 503", 0});

  ASSERT_TRUE(
      wait([&] { return tunnel.streams.size() == 2 && tunnel.streams[1]->written == "GET"; }));
  EXPECT_NE(tunnel.opened[0].first, tunnel.opened[1].first);
  EXPECT_TRUE(tunnel.streams[0]->destroyed);
  tunnel.streams[1]->connect();
  peer.send_text("MORE");
  ASSERT_TRUE(wait([&] { return tunnel.streams[1]->written == "GETMORE"; }));
}

// The first endpoint may have got them, and done what they ask for.
TEST_F(L4TunnelTest, EarlyBytesAreNotSentTwiceWhenTheTunnelBreaks) {
  serve({{addr("10.1.0.5:8080"), "far"}, {addr("10.2.0.5:8080"), "farther"}});
  Peer& peer = client();
  peer.send_text("POST");
  ASSERT_TRUE(
      wait([&] { return !tunnel.streams.empty() && tunnel.streams[0]->written == "POST"; }));

  tunnel.streams[0]->fail(Error{ErrorCode::kUnavailable, "node far: the tunnel was closed", 0});

  ASSERT_TRUE(wait([&] { return peer.failed; }));
  EXPECT_EQ(tunnel.streams.size(), 1u);
  EXPECT_EQ(ended(EndReason::kUpstreamReset), 1u);
  EXPECT_EQ(context->metrics.to_upstream.value(), 4u);
  EXPECT_EQ(context->metrics.retries.value(), 0u);
}

TEST_F(L4TunnelTest, EarlyBytesThatNeverLeftAreGivenToTheNextEndpoint) {
  serve({{addr("10.1.0.5:8080"), "far"}, {addr("10.2.0.5:8080"), "farther"}});
  Peer& peer = client();
  peer.send_text("POST");
  ASSERT_TRUE(
      wait([&] { return !tunnel.streams.empty() && tunnel.streams[0]->written == "POST"; }));

  tunnel.streams[0]->left = false;
  tunnel.streams[0]->fail(Error{ErrorCode::kTimeout, "no path to the node was found in time", 0});

  ASSERT_TRUE(
      wait([&] { return tunnel.streams.size() == 2 && tunnel.streams[1]->written == "POST"; }));
}

TEST_F(L4TunnelTest, AFailedEndpointDoesNotExcludeTheSameAddressOnAnotherNode) {
  serve({{addr("192.168.1.10:8080"), "far"}, {addr("192.168.1.10:8080"), "farther"}});
  client();
  ASSERT_TRUE(wait([&] { return tunnel.streams.size() == 1; }));

  tunnel.streams[0]->refuse(Error{ErrorCode::kUnavailable, "node far, relayed: 503", 0});

  ASSERT_TRUE(wait([&] { return tunnel.streams.size() == 2; }));
  EXPECT_NE(tunnel.opened[0].first, tunnel.opened[1].first);
}

TEST_F(L4TunnelTest, OnlyAsMuchAsCanBeReplayedIsReadEarly) {
  serve({{addr("10.1.0.5:8080"), "far"}});
  Peer& peer = client();
  peer.send(1 << 20);
  ASSERT_TRUE(
      wait([&] { return !tunnel.streams.empty() && tunnel.streams[0]->written.size() == 16384; }));
  for (int i = 0; i < 20; ++i) loop->run_once();
  EXPECT_EQ(tunnel.streams[0]->written.size(), 16384u);

  tunnel.streams[0]->connect();

  ASSERT_TRUE(wait([&] { return tunnel.streams[0]->written.size() == 1 << 20; }));
  bool same = true;
  for (size_t i = 0; i < 1 << 20; ++i)
    same &= static_cast<uint8_t>(tunnel.streams[0]->written[i]) == pattern(i);
  EXPECT_TRUE(same);
}

TEST_F(L4TunnelTest, TheReasonOfTheTunnelEndsTheConnectionWhenNothingIsLeft) {
  tunnel.refuse = true;
  serve({{addr("10.1.0.5:8080"), "far"}});
  Peer& peer = client();
  ASSERT_TRUE(wait([&] { return peer.failed; }));
  EXPECT_EQ(ended(EndReason::kConnectFailed), 1u);
}

TEST_F(L4TunnelTest, WithoutATunnelTheConnectionIsRefused) {
  dialer = nullptr;
  serve({{addr("10.1.0.5:8080"), "far"}});
  Peer& peer = client();
  ASSERT_TRUE(wait([&] { return peer.failed; }));
  EXPECT_EQ(ended(EndReason::kNoTunnel), 1u);
}

// Two workers; the second one has the tunnels.
class L4HandoverTest : public L4TunnelTest {
 protected:
  void serve_both(const std::vector<TestEndpoint>& endpoints) {
    dialer = nullptr;
    serve(endpoints);
    second = std::make_unique<WorkerContext>(*loop, options, discovery::Picker("here", ""), registry, 1);
    second->dialer = &tunnel;
    second->snapshot = context->snapshot;
    context->hand_over = [this](Handover handover) {
      auto shared = std::make_shared<Handover>(std::move(handover));
      loop->post([this, shared] { L4Connection::resume(*second, std::move(*shared)); });
    };
  }
  ~L4HandoverTest() override {
    if (second) second->abort_all();
  }
  uint64_t opened() { return context->metrics.opened.value() + second->metrics.opened.value(); }
  uint64_t retries() { return context->metrics.retries.value() + second->metrics.retries.value(); }
  std::unique_ptr<WorkerContext> second;
};

TEST_F(L4HandoverTest, AConnectionIsHandedToTheWorkerWithTheTunnel) {
  serve_both({{addr("10.1.0.5:8080"), "far"}});
  Peer& peer = client();
  peer.send_text("GET");

  ASSERT_TRUE(wait([&] { return !tunnel.streams.empty() && tunnel.streams[0]->written == "GET"; }));
  EXPECT_EQ(context->connections, 0u);
  EXPECT_EQ(second->connections, 1u);
  EXPECT_EQ(opened(), 1u) << "it is one connection";
  EXPECT_EQ(retries(), 0u);
  second->abort_all();
  ASSERT_TRUE(wait([&] { return peer.failed; }));
}

TEST_F(L4HandoverTest, WhatWasTriedBeforeCounts) {
  SockAddr dead;
  {
    Server gone(*loop, nullptr);
    dead = gone.address();
  }
  options.max_attempts = 2;
  serve_both({{dead, "here"}, {addr("10.1.0.5:8080"), "far"}, {addr("10.1.0.6:8080"), "far"}});
  Peer& peer = client();
  ASSERT_TRUE(wait([&] { return tunnel.streams.size() == 1; }));
  EXPECT_EQ(retries(), 1u);

  tunnel.streams[0]->refuse(Error{ErrorCode::kUnavailable, "node far, relayed: 503", 0});

  ASSERT_TRUE(wait([&] { return peer.failed; }));
  EXPECT_EQ(tunnel.streams.size(), 1u) << "two attempts are allowed, and the first was before";
  EXPECT_EQ(second->metrics.ended[static_cast<size_t>(EndReason::kConnectFailed)]->value(), 1u);
  EXPECT_EQ(opened(), 1u);
}

// The list may have changed on the way, and nothing is left to try.
TEST_F(L4HandoverTest, TheReasonOfTheFirstFailureIsKept) {
  SockAddr dead;
  {
    Server gone(*loop, nullptr);
    dead = gone.address();
  }
  serve_both({{dead, "here"}, {addr("10.1.0.5:8080"), "far"}});
  second->snapshot = make_snapshot(*loop, vip, {{dead, "here"}});
  Peer& peer = client();

  ASSERT_TRUE(wait([&] { return peer.failed; }));
  EXPECT_EQ(second->metrics.ended[static_cast<size_t>(EndReason::kConnectFailed)]->value(), 1u);
}

class L4TimeTest : public ProxyTest {
 protected:
  L4TimeTest() : ProxyTest(clock) { dialer = &tunnel; }
  static ManualClock clock;
  FakeDialer tunnel;
};
ManualClock L4TimeTest::clock;

TEST_F(L4TimeTest, GivesUpOnEndpointsThatDoNotAnswer) {
  serve({{addr("10.1.0.5:8080"), "far"}, {addr("10.2.0.5:8080"), "farther"}});
  Peer& peer = client();
  ASSERT_TRUE(wait([&] { return tunnel.streams.size() == 1; }));

  clock.advance(5s);
  ASSERT_TRUE(wait([&] { return tunnel.streams.size() == 2; }));
  EXPECT_TRUE(tunnel.streams[0]->destroyed);
  clock.advance(5s);

  ASSERT_TRUE(wait([&] { return peer.failed; }));
  EXPECT_EQ(ended(EndReason::kConnectTimeout), 1u);
}

TEST_F(L4TimeTest, ASilentEndpointThatMayHaveGotBytesIsTheLast) {
  serve({{addr("10.1.0.5:8080"), "far"}, {addr("10.2.0.5:8080"), "farther"}});
  Peer& peer = client();
  peer.send_text("POST");
  ASSERT_TRUE(
      wait([&] { return !tunnel.streams.empty() && tunnel.streams[0]->written == "POST"; }));

  clock.advance(5s);

  ASSERT_TRUE(wait([&] { return peer.failed; }));
  EXPECT_EQ(tunnel.streams.size(), 1u);
  EXPECT_EQ(ended(EndReason::kConnectTimeout), 1u);
}

TEST_F(L4TimeTest, EndsIdleConnections) {
  options.idle_timeout = 60s;
  options.half_close_timeout = 0s;
  Server server(*loop, Server::echo);
  serve({{server.address()}});
  Peer& peer = client();
  peer.send_text("x");
  ASSERT_TRUE(wait([&] { return peer.received == 1; }));

  clock.advance(40s);
  for (int i = 0; i < 5; ++i) loop->run_once();
  peer.send_text("y");
  ASSERT_TRUE(wait([&] { return peer.received == 2; }));
  clock.advance(40s);
  for (int i = 0; i < 5; ++i) loop->run_once();
  EXPECT_EQ(context->connections, 1u) << "it was used 40 s ago";
  clock.advance(21s);

  ASSERT_TRUE(wait([&] { return peer.failed; }));
  EXPECT_EQ(ended(EndReason::kIdle), 1u);
}

TEST_F(L4TimeTest, EndsHalfClosedConnectionsThatAreSilent) {
  options.half_close_timeout = 30s;
  Server server(*loop, nullptr);
  serve({{server.address()}});
  Peer& peer = client();
  peer.send(1, true);
  ASSERT_TRUE(wait([&] { return !server.peers.empty() && server.peers[0]->eof; }));

  for (int i = 0; i < 4 && context->connections > 0; ++i) {
    clock.advance(16s);
    for (int k = 0; k < 5; ++k) loop->run_once();
  }

  EXPECT_EQ(context->connections, 0u);
  EXPECT_EQ(ended(EndReason::kIdle), 1u);
}

}  // namespace
}  // namespace edgemesh::proxy::testing_parts
