// The sockets of one L7Proxy in another one: what a hot restart does, in one process.
#include <fcntl.h>
#include <sys/socket.h>

#include "tests/unit/proxy_listener/listener_fixture.h"

namespace edgemesh::proxy {
namespace {

class HandoverTest : public ListenerTest {
 protected:
  static std::string answers(const std::string& body) {
    return "[{match: {prefix: /}, respond: {body: " + body + "}}]";
  }
  // `count` sockets of each key of the first proxy, as another process gets them.
  void hand_over() {
    for (const auto& [key, fd] : proxy_->listening_sockets())
      inherited_.add(key, io::Fd(fcntl(fd, F_DUPFD_CLOEXEC, 3)));
  }
  std::unique_ptr<L7Proxy> successor(std::vector<io::Loop*> workers) {
    L7ProxyOptions options;
    options.inherited = &inherited_;
    return std::move(*L7Proxy::create(*loop_, std::move(workers), options));
  }
  Result<> apply_to(L7Proxy& proxy, const std::string& listeners, const std::string& routes) {
    const std::string text =
        "listeners:\n" + listeners +
        "\nroutes:\n- name: r\n  hosts:\n  - domains: [\"*\"]\n    routes: " + routes;
    EM_TRY(auto config, model::parse_config(text, "test"));
    auto applied = proxy.apply(config);
    settle(5);
    return applied;
  }
  static constexpr const char* kListener =
      "- {name: l, address: 127.0.0.1:0, chains: [{http: {routes: r}}]}\n";
  InheritedSockets inherited_;
};

TEST_F(HandoverTest, TheSuccessorAcceptsWhatWaitsAndTheOldOneFinishes) {
  ASSERT_TRUE(apply(kListener, answers("old")));
  const SockAddr addr = addr_of("l");
  auto& kept = dial(addr);
  EXPECT_THAT(talk(kept, get("/"), "old"), HasSubstr("200"));

  hand_over();
  auto second = successor({loop_.get()});
  ASSERT_TRUE(apply_to(*second, kListener, answers("new")));
  EXPECT_TRUE(inherited_.empty());
  ASSERT_EQ(second->listen_addrs().size(), 1U);
  EXPECT_EQ(second->listen_addrs()[0].second, addr);

  bool drained = false;
  proxy_->drain([&] { drained = true; }, Drain::kPatient);
  settle(5);
  EXPECT_THAT(talk(dial(addr), get("/"), "new"), HasSubstr("200"));
  // A kept connection has one more answer of the old one.
  kept.received.clear();
  EXPECT_THAT(talk(kept, get("/"), "old"), HasSubstr("Connection: close"));
  ASSERT_TRUE(until([&] {
    clock_.advance(milliseconds(20));
    return drained;
  }));
  second->stop();
}

// A connection that has been accepted and has not said anything yet.
TEST_F(HandoverTest, WhoHasOnlyJustComeIsServed) {
  ASSERT_TRUE(apply(kListener, answers("old")));
  auto& early = dial("l");
  settle(10);
  proxy_->drain([] {}, Drain::kPatient);
  settle(5);
  EXPECT_THAT(talk(early, get("/"), "old"), HasSubstr("Connection: close"));
}

// The successor does not have the listener: who waits in its queue must not be reset.
TEST_F(HandoverTest, WhoWaitsInTheQueueIsServed) {
  ASSERT_TRUE(apply(kListener, answers("old")));
  std::vector<int> waiting;
  sockaddr_storage to;
  const socklen_t size = addr_of("l").to_sockaddr(&to);
  for (int i = 0; i < 100; ++i) {  // more than are accepted in a turn
    waiting.push_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(connect(waiting.back(), reinterpret_cast<sockaddr*>(&to), size), 0);
    fcntl(waiting.back(), F_SETFL, O_NONBLOCK);
  }
  proxy_->drain([] {}, Drain::kPatient);
  settle(5);
  for (const int fd : waiting) {
    auto& client = *clients_.emplace_back(
        std::make_unique<test::Collector>(std::move(*io::TcpStream::adopt(*loop_, io::Fd(fd)))));
    EXPECT_THAT(talk(client, get("/"), "old"), HasSubstr("Connection: close"));
  }
}

TEST_F(HandoverTest, EveryQueueHasAWorkerAndEveryWorkerAQueue) {
  const auto two = io::Loop::create(clock_);
  const std::string key = InheritedSockets::key(false, SockAddr{IpAddr::v4(0x7f000001), 0}, "l");
  // One queue, two workers.
  ASSERT_TRUE(apply(kListener, answers("old")));
  hand_over();
  auto wide = successor({loop_.get(), two->get()});
  ASSERT_TRUE(apply_to(*wide, kListener, answers("new")));
  EXPECT_EQ(wide->listening_sockets().size(), 1U);
  EXPECT_EQ(wide->listening_sockets()[0].first, key);
  // Three queues, one worker.
  io::ListenOptions shared;
  shared.reuse_port = true;
  auto first = io::open_tcp_listener(SockAddr{IpAddr::v4(0x7f000001), 0}, shared);
  ASSERT_TRUE(first);
  const SockAddr addr = *io::original_dst(first->get(), false);
  inherited_.add(key, std::move(*first));
  for (int i = 0; i < 2; ++i) inherited_.add(key, std::move(*io::open_tcp_listener(addr, shared)));
  auto narrow = successor({loop_.get()});
  ASSERT_TRUE(apply_to(*narrow, kListener, answers("narrow")));
  EXPECT_EQ(narrow->listening_sockets().size(), 3U);
  for (int i = 0; i < 12; ++i)  // the system spreads them over the three
    EXPECT_THAT(talk(dial(addr), get("/"), "narrow"), HasSubstr("200"));
  narrow->stop();
  (*two)->post([] {});
  wide.reset();
}

TEST_F(HandoverTest, WhatIsNotWantedIsClosed) {
  ASSERT_TRUE(apply(kListener, answers("old")));
  const SockAddr addr = addr_of("l");
  hand_over();
  auto second = successor({loop_.get()});
  ASSERT_TRUE(apply_to(*second,
                       "- {name: other, address: 127.0.0.1:0, chains: [{http: {routes: r}}]}\n",
                       answers("new")));
  EXPECT_FALSE(inherited_.empty());
  inherited_.clear();
  proxy_->stop();
  proxy_.reset();
  auto& refused = dial(addr);
  EXPECT_TRUE(until([&] { return refused.failed; }));
  second->stop();
}

}  // namespace
}  // namespace edgemesh::proxy
