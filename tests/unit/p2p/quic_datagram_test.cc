// Datagrams of CONNECT-UDP streams in frames of their own.
#include "core/io/datagram_side.h"
#include "quic_fixture.h"

namespace edgemesh::p2p {
namespace {

// A CONNECT-UDP stream, with what came on it.
class Flow final : public io::Stream::Handler {
 public:
  explicit Flow(std::unique_ptr<io::Stream> s) : stream(std::move(s)) { stream->set_handler(this); }
  bool send(const std::string& data) {
    return stream->datagrams()->send_datagram(io::as_bytes(data));
  }
  size_t room() const { return stream->datagrams()->max_datagram(); }
  void on_readable() override {
    uint8_t into[io::DatagramSide::kMaxBytes];
    while (auto n = stream->datagrams()->read_datagram(into))
      got.emplace_back(reinterpret_cast<char*>(into), *n);  // NOLINT
    lost += stream->datagrams()->take_lost();
    uint8_t bytes[2048];
    for (;;) {
      auto r = stream->read(bytes);
      if (r.status != io::IoResult::kOk) return;
      text.append(reinterpret_cast<char*>(bytes), r.n);  // NOLINT
    }
  }
  void on_writable() override {}
  void on_error(const Error&) override { failed = true; }

  std::unique_ptr<io::Stream> stream;
  std::vector<std::string> got;
  std::string text;
  uint64_t lost = 0;
  bool failed = false;
};

class Server final : public QuicEndpoint::Handler {
 public:
  Server(io::Loop& loop, std::shared_ptr<const QuicIdentity> id, const QuicOptions& o)
      : endpoint(loop, std::move(id), "a", *this, o) {}
  void on_tunnel_connect(std::unique_ptr<IncomingConnect> connect) override {
    ASSERT_TRUE(connect->udp());
    flows.push_back(std::make_unique<Flow>(connect->accept()));
  }
  QuicEndpoint endpoint;
  std::vector<std::unique_ptr<Flow>> flows;
};

class QuicDatagramTest : public QuicTest {
 protected:
  // Paths of 10 ms, and `count` flows that were answered.
  void start(QuicOptions left = {}, QuicOptions right = {}, size_t count = 1) {
    a = std::make_unique<Side>(*loop, id_a, "b", left);
    server = std::make_unique<Server>(*loop, id_b, right);
    mem_a = std::make_unique<MemoryPath>(*loop, 1);
    mem_b = std::make_unique<MemoryPath>(*loop, 2);
    mem_a->connect(*mem_b);
    mem_b->connect(*mem_a);
    mem_a->delay = mem_b->delay = 10ms;
    a->use(*mem_a);
    mem_b->set_receiver(&server->endpoint);
    server->endpoint.use_path(mem_b.get());
    for (size_t i = 0; i < count; ++i) {
      flows.push_back(std::make_unique<Flow>(test::TestPki::take(a->endpoint.open(target, true))));
      // Kept for the bytes of the stream: the answer comes with nothing else.
      flows.back()->stream->write(io::as_bytes("hello"));
    }
    ASSERT_TRUE(until([&] {
      return server->flows.size() == count && server->flows.back()->text == "hello";
    }));
    for (auto& flow : server->flows) flow->stream->write(io::as_bytes("welcome"));
    ASSERT_TRUE(until([&] {
      return std::all_of(flows.begin(), flows.end(), [](auto& f) { return f->text == "welcome"; });
    }));
  }
  ~QuicDatagramTest() override {
    flows.clear();
    if (server != nullptr) server->flows.clear();
  }
  std::unique_ptr<Server> server;
  std::vector<std::unique_ptr<Flow>> flows;
};

TEST_F(QuicDatagramTest, TravelBothWaysBesideTheBytes) {
  start();
  ASSERT_GT(flows[0]->room(), 1100u);
  ASSERT_GT(server->flows[0]->room(), 1100u);
  for (const std::string& text : {std::string(), std::string("x"), std::string(1100, 'y')}) {
    EXPECT_TRUE(flows[0]->send(text));
    EXPECT_TRUE(server->flows[0]->send(text + "!"));
  }
  ASSERT_TRUE(until([&] { return flows[0]->got.size() == 3 && server->flows[0]->got.size() == 3; }));
  EXPECT_EQ(server->flows[0]->got, (std::vector<std::string>{"", "x", std::string(1100, 'y')}));
  EXPECT_EQ(flows[0]->got[2], std::string(1100, 'y') + "!");
  EXPECT_EQ(flows[0]->text, "welcome") << "nothing of them is in the stream";
}

TEST_F(QuicDatagramTest, ArePassedToTheFlowThatTheyBelongTo) {
  start({}, {}, 3);
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(flows[i]->send(std::to_string(i)));
  ASSERT_TRUE(until([&] {
    return std::all_of(server->flows.begin(), server->flows.end(),
                       [](auto& f) { return f->got.size() == 1; });
  }));
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(server->flows[i]->got[0], std::to_string(i));
}

TEST_F(QuicDatagramTest, NoneWithoutThePeersConsent) {
  QuicOptions without;
  without.datagrams = false;
  start({}, without);
  EXPECT_EQ(flows[0]->room(), 0u);
  EXPECT_EQ(server->flows[0]->room(), 0u);
  EXPECT_FALSE(flows[0]->send("x"));
}

TEST_F(QuicDatagramTest, NoneBeforeTheAnswerAndNoneOfBytes) {
  start();
  auto another = test::TestPki::take(a->endpoint.open(target, true));
  EXPECT_EQ(another->datagrams()->max_datagram(), 0u);
  auto bytes = test::TestPki::take(a->endpoint.open(target, false));
  EXPECT_EQ(bytes->datagrams(), nullptr);
}

TEST_F(QuicDatagramTest, TooLargeOnesAreNotTaken) {
  start();
  EXPECT_FALSE(flows[0]->send(std::string(flows[0]->room() + 1, 'x')));
  EXPECT_TRUE(flows[0]->send(std::string(flows[0]->room(), 'x')));
  ASSERT_TRUE(until([&] { return server->flows[0]->got.size() == 1; }));
}

// What RFC 9221 is for: a loss delays nobody else, and is not made good.
TEST_F(QuicDatagramTest, LossesAreNotRepeatedAndDelayNobody) {
  start({}, {}, 2);
  mem_a->cut = true;
  EXPECT_TRUE(flows[0]->send("lost"));
  flows[0]->stream->write(io::as_bytes(", late"));
  a->endpoint.path_changed();  // sends at once
  ASSERT_FALSE(until([&] { return !server->flows[0]->got.empty(); }, 1ms));
  mem_a->cut = false;
  EXPECT_TRUE(flows[1]->send("other flow"));
  EXPECT_TRUE(flows[0]->send("next"));
  ASSERT_TRUE(until([&] { return !server->flows[0]->got.empty() && !server->flows[1]->got.empty(); }));
  EXPECT_EQ(server->flows[0]->text, "hello") << "the bytes still wait to be sent again";
  ASSERT_TRUE(until([&] { return server->flows[0]->text == "hello, late"; }));
  EXPECT_EQ(server->flows[0]->got, std::vector<std::string>{"next"});
  EXPECT_EQ(server->flows[1]->got, std::vector<std::string>{"other flow"});
}

TEST_F(QuicDatagramTest, TheQueueIsBoundedAndGoesOn) {
  QuicOptions small;
  small.datagram_limit = 100'000;
  small.datagram_budget = 150'000;
  start(small, {}, 2);
  const std::string kilobyte(1000, 'x');
  auto fill = [&](Flow& flow) {
    size_t taken = 0;
    while (taken < 1000 && flow.send(kilobyte)) ++taken;
    return taken;
  };
  EXPECT_EQ(fill(*flows[0]), 99u);
  EXPECT_EQ(fill(*flows[1]), 50u) << "what is left of the connection's";
  ASSERT_TRUE(until([&] {
    return server->flows[0]->got.size() == 99 && server->flows[1]->got.size() == 50;
  }));
  EXPECT_TRUE(flows[0]->send("after"));
  ASSERT_TRUE(until([&] { return server->flows[0]->got.back() == "after"; }));
}

// A flow that is not read keeps a bounded part, and what it loses is known.
TEST_F(QuicDatagramTest, ThoseThatFindNoRoomAreCounted) {
  QuicOptions small;
  small.datagram_limit = 10'000;
  start({}, small);
  struct Deaf final : io::Stream::Handler {
    void on_readable() override { ++told; }
    void on_writable() override {}
    void on_error(const Error&) override {}
    int told = 0;
  } deaf;
  server->flows[0]->stream->set_handler(&deaf);
  for (int i = 0; i < 30; ++i) EXPECT_TRUE(flows[0]->send(std::string(1000, 'x')));
  flows[0]->stream->write(io::as_bytes("."));
  ASSERT_TRUE(until([&] { return !a->endpoint.in_flight() && deaf.told > 0; }));
  server->flows[0]->on_readable();
  EXPECT_EQ(server->flows[0]->got.size(), 9u);
  EXPECT_EQ(server->flows[0]->lost, 21u);
}

TEST_F(QuicDatagramTest, StreamsAndDatagramsShareTheWay) {
  QuicOptions large;
  large.datagram_limit = 4 << 20;
  start(large, {}, 2);
  const std::string kilobyte(1000, 'x');
  for (int i = 0; i < 3000; ++i) ASSERT_TRUE(flows[0]->send(kilobyte));
  flows[1]->stream->write(io::as_bytes(std::string(100'000, 'b')));
  ASSERT_TRUE(until([&] { return server->flows[1]->text.size() > 50'000; }));
  EXPECT_LT(server->flows[0]->got.size(), 2500u) << "the bytes did not wait for all datagrams";
  EXPECT_GT(server->flows[0]->got.size(), 0u);
}

TEST_F(QuicDatagramTest, AFlowEndsWithDatagramsThatWait) {
  start({}, {}, 2);
  for (int i = 0; i < 200; ++i) EXPECT_TRUE(flows[0]->send(std::string(1000, 'x')));
  flows[0].reset();
  server->flows[0].reset();
  EXPECT_TRUE(flows[1]->send("other"));
  ASSERT_TRUE(until([&] { return !server->flows[1]->got.empty(); }));
  EXPECT_EQ(server->flows[1]->got, std::vector<std::string>{"other"});
}

}  // namespace
}  // namespace edgemesh::p2p
