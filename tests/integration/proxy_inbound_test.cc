// The far end of the tunnels: which CONNECTs are taken, and how their bytes go on.
#include "proxy_support.h"

namespace edgemesh::proxy::testing_parts {
namespace {

struct Answer {
  int status = 0;  // 0: dropped or not yet
  std::string reason;
  std::shared_ptr<TunnelStream::State> stream = std::make_shared<TunnelStream::State>();
};

class FakeConnect final : public p2p::IncomingConnect {
 public:
  FakeConnect(SockAddr target, std::shared_ptr<Answer> answer)
      : target_(target), answer_(std::move(answer)) {}
  const std::string& peer_node() const override { return peer_; }
  const SockAddr& target() const override { return target_; }
  std::unique_ptr<io::Stream> accept() override {
    answer_->status = 200;
    return std::make_unique<TunnelStream>(answer_->stream);
  }
  void reject(int status, std::string_view reason) override {
    answer_->status = status;
    answer_->reason = reason;
  }

 private:
  std::string peer_ = "far";
  SockAddr target_;
  std::shared_ptr<Answer> answer_;
};

class InboundTest : public ProxyTest {
 protected:
  explicit InboundTest(Clock& clock = system_clock()) : ProxyTest(clock) {}
  std::shared_ptr<Answer> connect(const SockAddr& target) {
    auto answer = std::make_shared<Answer>();
    inbound = std::make_unique<Inbound>(*context);
    inbound->on_connect(std::make_unique<FakeConnect>(target, answer));
    return answer;
  }
  std::unique_ptr<Inbound> inbound;
};

TEST_F(InboundTest, ConnectsToAnEndpointOfThisNode) {
  Server server(*loop, Server::echo);
  serve({{server.address()}});

  auto answer = connect(server.address());
  answer->stream->incoming = "early";  // came with the CONNECT
  ASSERT_TRUE(wait([&] { return answer->status == 200 && answer->stream->written == "early"; }));
  answer->stream->feed(" late");
  ASSERT_TRUE(wait([&] { return answer->stream->written == "early late"; }));
  answer->stream->end();

  ASSERT_TRUE(wait([&] { return answer->stream->write_ended && context->connections == 0; }));
  EXPECT_EQ(context->metrics.inbound_opened.value(), 1u);
  EXPECT_EQ(ended(EndReason::kClosed), 1u);
}

TEST_F(InboundTest, RefusesWhatIsNoEndpoint) {
  serve({{addr("127.0.0.1:9")}});
  auto answer = connect(addr("127.0.0.1:22"));
  EXPECT_EQ(answer->status, 403);
  EXPECT_EQ(context->metrics.inbound_refused.value(), 1u);
  EXPECT_EQ(context->metrics.opened.value(), 1u);
  EXPECT_EQ(ended(EndReason::kRefused), 1u);
}

TEST_F(InboundTest, RefusesEndpointsOfOtherNodes) {
  serve({{addr("10.9.9.9:80"), "elsewhere"}});
  auto answer = connect(addr("10.9.9.9:80"));
  EXPECT_EQ(answer->status, 403);
  EXPECT_NE(answer->reason.find("another node"), std::string::npos);
}

// Sites with overlapping private networks: of several endpoints at the address one is ours.
TEST_F(InboundTest, AnEndpointOfAnotherNodeAtTheSameAddressDoesNotHideOurs) {
  Server server(*loop, Server::echo);
  for (const char* other : {"aaa", "zzz"}) {
    serve({{server.address(), other}, {server.address(), "here"}, {server.address(), "far"}});
    auto answer = connect(server.address());
    ASSERT_TRUE(wait([&] { return answer->status != 0; }));
    EXPECT_EQ(answer->status, 200) << answer->reason;
    context->abort_all();
  }
  serve({{server.address(), "far"}, {server.address(), "elsewhere"}});
  EXPECT_EQ(connect(server.address())->status, 403);
}

TEST_F(InboundTest, TellsWhyTheEndpointCannotBeReached) {
  SockAddr dead;
  {
    Server gone(*loop, nullptr);
    dead = gone.address();
  }
  serve({{dead}});
  auto answer = connect(dead);
  ASSERT_TRUE(wait([&] { return answer->status != 0; }));
  EXPECT_EQ(answer->status, 503);
  EXPECT_NE(answer->reason.find("refused"), std::string::npos) << answer->reason;
  EXPECT_EQ(context->connections, 0u);
}

class InboundTimeTest : public InboundTest {
 protected:
  InboundTimeTest() : InboundTest(clock) {}
  static ManualClock clock;
};
ManualClock InboundTimeTest::clock;

// After its own connect timeout the other node could not try another endpoint any more.
TEST_F(InboundTimeTest, SaysThatTheEndpointIsSilentBeforeTheOtherNodeGivesUp) {
  auto silent = *io::TcpListener::listen(*loop, loopback(), [](io::Fd, const SockAddr&) {}, {.backlog = 0});
  silent->pause();
  std::vector<std::unique_ptr<io::TcpStream>> fill;  // a full backlog answers no more
  for (int i = 0; i < 4; ++i) fill.push_back(*io::TcpStream::connect(*loop, silent->local_addr()));
  serve({{silent->local_addr()}});
  auto answer = connect(silent->local_addr());
  loop->run_once();
  ASSERT_EQ(answer->status, 0);

  clock.advance(std::chrono::milliseconds(4000));

  ASSERT_TRUE(wait([&] { return answer->status != 0; }));
  EXPECT_EQ(answer->status, 503);
  EXPECT_NE(answer->reason.find("no answer"), std::string::npos) << answer->reason;
  EXPECT_EQ(ended(EndReason::kConnectTimeout), 1u);
}

TEST_F(InboundTest, IsNotReadyBeforeTheFirstSnapshot) {
  serve({});
  context->snapshot = nullptr;
  EXPECT_EQ(connect(addr("127.0.0.1:9"))->status, 503);
}

}  // namespace
}  // namespace edgemesh::proxy::testing_parts
