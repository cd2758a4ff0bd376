#include <dirent.h>

#include <set>

#include "udp_fixture.h"

namespace edgemesh::proxy::testing_parts {
namespace {

using namespace std::chrono_literals;

size_t open_descriptors() {
  size_t n = 0;
  DIR* dir = opendir("/proc/self/fd");
  while (readdir(dir) != nullptr) ++n;
  closedir(dir);
  return n;
}

class UdpListenerTest : public UdpTest {};

TEST_F(UdpListenerTest, AnswersComeFromTheDestination) {
  TestSocket server(*loop, addr("127.0.0.1:0"), true);
  TestSocket client(*loop);
  listen();
  serve("svc", {at("127.0.0.9"), {server.address()}});

  client.send("hello", at("127.0.0.9"));

  ASSERT_TRUE(wait([&] { return client.got.size() == 1; }));
  EXPECT_EQ(client.got[0].data, "hello");
  EXPECT_EQ(client.got[0].from, at("127.0.0.9"));
  EXPECT_EQ(context->metrics.to_upstream.value(), 1u);
  EXPECT_EQ(context->metrics.bytes_to_client.value(), 5u);
  EXPECT_EQ(listener->flows(), 1u);
}

TEST_F(UdpListenerTest, KeepsBoundariesFromNothingToTheLargest) {
  TestSocket server(*loop, addr("127.0.0.1:0"), true);
  TestSocket client(*loop);
  listen();
  serve("svc", {at("127.0.0.1"), {server.address()}});

  for (size_t size : {size_t{0}, size_t{1}, size_t{1472}, size_t{9000}, size_t{65'507}}) {
    client.got.clear();
    std::string data(size, 'x');
    for (size_t i = 0; i < size; ++i) data[i] = static_cast<char>(i * 31 >> 3);
    client.send(data, at("127.0.0.1"));
    ASSERT_TRUE(wait([&] { return client.got.size() == 1; })) << size;
    EXPECT_TRUE(client.got[0].data == data) << size;
  }
  EXPECT_EQ(server.received, 5u);
}

TEST_F(UdpListenerTest, TrainsArriveAsTheDatagramsThatWereSent) {
  TestSocket server(*loop, addr("127.0.0.1:0"), true);
  listen();
  serve("svc", {at("127.0.0.1"), {server.address()}});
  auto fd = open_datagram_socket(false, {});
  ASSERT_TRUE(fd);
  TestSocket client(*loop);
  const SockAddr to = at("127.0.0.1");
  std::string bytes(20 * 1000 + 7, 'a');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>('a' + i / 1000);
  Datagram train{as_span(bytes), 1000};

  SendOutcome out = send_datagrams(fd->get(), {&train, 1}, &to);

  EXPECT_EQ(out.datagrams, 21u);
  ASSERT_TRUE(wait([&] { return server.received == 21; }));
  EXPECT_EQ(server.got[3].data, std::string(1000, 'd'));
  EXPECT_EQ(server.got[20].data.size(), 7u);
  EXPECT_EQ(context->metrics.to_upstream.value(), 21u);
}

TEST_F(UdpListenerTest, EachDestinationAndClientIsAFlowOfItsOwn) {
  TestSocket one(*loop, addr("127.0.0.1:0"), true);
  TestSocket two(*loop, addr("127.0.0.1:0"), true);
  TestSocket client(*loop);
  TestSocket other(*loop);
  listen();
  serve("one", {at("127.0.0.1"), {one.address()}});
  serve("two", {at("127.0.0.2"), {two.address()}});

  client.send("a", at("127.0.0.1"));
  client.send("b", at("127.0.0.2"));
  other.send("c", at("127.0.0.1"));

  ASSERT_TRUE(wait([&] { return client.got.size() == 2 && other.got.size() == 1; }));
  EXPECT_EQ(listener->flows(), 3u);
  EXPECT_EQ(one.received, 2u);
  EXPECT_EQ(two.received, 1u);
  // The two clients of one service are two clients to its endpoint.
  EXPECT_NE(one.got[0].from, one.got[1].from);
}

TEST_F(UdpListenerTest, TcpServicesOfTheSamePortAreNotMeant) {
  TestSocket server(*loop);
  TestSocket client(*loop);
  listen();
  serve("tcp", {at("127.0.0.1"), {server.address()}, "TCP"});

  client.send("x", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return dropped(UdpDrop::kNoService) == 1; }));
  EXPECT_EQ(listener->flows(), 0u);

  serve("udp", {at("127.0.0.1"), {server.address()}});
  client.send("y", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return server.received == 1; }));
  EXPECT_EQ(server.got[0].data, "y");
}

TEST_F(UdpListenerTest, AServiceWithoutEndpointsTakesNoFlow) {
  TestSocket client(*loop);
  listen();
  serve("svc", {at("127.0.0.1"), {}});

  client.send("x", at("127.0.0.1"));

  ASSERT_TRUE(wait([&] { return dropped(UdpDrop::kNoEndpoint) == 1; }));
  EXPECT_EQ(listener->flows(), 0u);
  EXPECT_EQ(ended(FlowEnd::kNoEndpoint), 1u);
}

TEST_F(UdpListenerTest, AnUnreachablePortIsLeftForTheNextEndpoint) {
  TestSocket server(*loop, addr("127.0.0.1:0"), true);
  TestSocket client(*loop);
  listen();
  SockAddr dead = dead_port(*loop);
  serve("svc", {at("127.0.0.1"), {dead, server.address()}});

  // Whichever endpoint comes first: what follows a refusal reaches the one that lives.
  for (int i = 0; i < 8; ++i) {
    TestSocket one(*loop);
    one.send("first", at("127.0.0.1"));
    auto refused = context->metrics.refused.value();
    ASSERT_TRUE(
        wait([&] { return one.received == 1 || context->metrics.refused.value() > refused; }));
    one.send("second", at("127.0.0.1"));
    ASSERT_TRUE(wait([&] { return !one.got.empty() && one.got.back().data == "second"; })) << i;
  }
  EXPECT_GE(context->metrics.refused.value(), 1u);
}

TEST_F(UdpListenerTest, TheOnlyEndpointIsTriedAgainAfterARefusal) {
  TestSocket client(*loop);
  listen();
  SockAddr place = dead_port(*loop);
  serve("svc", {at("127.0.0.1"), {place}});
  client.send("lost", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return context->metrics.refused.value() == 1; }));

  TestSocket server(*loop, place, true);
  client.send("again", at("127.0.0.1"));

  ASSERT_TRUE(wait([&] { return client.got.size() == 1; }));
  EXPECT_EQ(client.got[0].data, "again");
}

TEST_F(UdpListenerTest, AnEndpointThatLeftItsServiceIsLeft) {
  TestSocket before(*loop, addr("127.0.0.1:0"), true);
  TestSocket after(*loop, addr("127.0.0.1:0"), true);
  TestSocket client(*loop);
  listen();
  serve("svc", {at("127.0.0.1"), {before.address()}});
  client.send("1", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return client.got.size() == 1; }));

  serve("svc", {at("127.0.0.1"), {after.address(), before.address()}});
  client.send("2", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return client.got.size() == 2; }));
  EXPECT_EQ(before.received, 2u) << "a flow keeps its endpoint while there is it";

  serve("svc", {at("127.0.0.1"), {after.address()}});
  client.send("3", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return client.got.size() == 3; }));
  EXPECT_EQ(after.received, 1u);

  services.remove_service("default", "svc");
  snapshot = services.snapshot();
  client.send("4", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return ended(FlowEnd::kNoEndpoint) == 1; }));
  EXPECT_EQ(listener->flows(), 0u);
}

TEST_F(UdpListenerTest, ManyFlowsLeaveNothingBehind) {
  TestSocket server(*loop, addr("127.0.0.1:0"), true);
  server.keep = false;
  listen();
  serve("svc", {at("127.0.0.1"), {server.address()}});
  const size_t before = open_descriptors();
  {
    std::vector<std::unique_ptr<TestSocket>> clients;
    for (int i = 0; i < 300; ++i) clients.push_back(std::make_unique<TestSocket>(*loop));
    for (int round = 0; round < 3; ++round)
      for (auto& client : clients) client->send("x", at("127.0.0.1"));
    ASSERT_TRUE(wait([&] { return context->metrics.to_client.value() == 900; }));
    EXPECT_EQ(listener->flows(), 300u);
    EXPECT_GE(open_descriptors(), before + 600);
    listener.reset();
  }
  EXPECT_EQ(open_descriptors(), before - 1);
  EXPECT_EQ(context->metrics.active.value(), 0);
  EXPECT_EQ(ended(FlowEnd::kShutdown), 300u);
}

TEST_F(UdpListenerTest, ANewFlowIsRefusedWhileNoneIsIdle) {
  TestSocket server(*loop, addr("127.0.0.1:0"), true);
  TestSocket first(*loop), second(*loop);
  options.max_flows = 1;
  listen();
  serve("svc", {at("127.0.0.1"), {server.address()}});
  first.send("a", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return first.received == 1; }));

  second.send("b", at("127.0.0.1"));

  ASSERT_TRUE(wait([&] { return dropped(UdpDrop::kTooMany) == 1; }));
  first.send("c", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return first.received == 2; }));
}

TEST_F(UdpListenerTest, ParcelsOfOtherWorkersAreTreatedAlike) {
  TestSocket server(*loop, addr("127.0.0.1:0"), true);
  TestSocket client(*loop);
  listen();
  serve("svc", {at("127.0.0.1"), {server.address()}});
  UdpParcel parcel;
  parcel.key = {client.address(), at("127.0.0.1")};
  parcel.bytes = {'a', 'b', 'c', 'd', 'e', 'f'};
  parcel.items = {{1, 0}, {5, 2}};

  listener->deliver(parcel);

  ASSERT_TRUE(wait([&] { return client.got.size() == 4; }));
  EXPECT_EQ(client.got[0].data, "a");
  EXPECT_EQ(client.got[1].data, "bc");
  EXPECT_EQ(client.got[3].data, "f");
}

TEST_F(UdpListenerTest, EndpointsOfOtherNodesAreHandedOver) {
  TestSocket client(*loop);
  listen();
  serve("svc", {at("127.0.0.1"), {addr("10.9.9.9:53")}, "UDP", "there"});
  client.send("none", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return dropped(UdpDrop::kTunnel) == 1; }));

  std::vector<UdpParcel> parcels;
  context->hand_over = [&](UdpParcel parcel) {
    parcels.push_back(std::move(parcel));
    return true;
  };
  client.send("one", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return parcels.size() == 1; }));
  EXPECT_EQ(as_string(parcels[0].bytes), "one");
  EXPECT_EQ(parcels[0].key.client, client.address());
  EXPECT_EQ(parcels[0].key.destination, at("127.0.0.1"));
}

// Time by hand: nothing waits for it.
class UdpIdleTest : public UdpTest {
 protected:
  UdpIdleTest() : UdpTest(clock) {}
  inline static ManualClock clock;
};

TEST_F(UdpIdleTest, IdleFlowsEnd) {
  TestSocket server(*loop, addr("127.0.0.1:0"), true);
  TestSocket client(*loop);
  listen();
  serve("svc", {at("127.0.0.1"), {server.address()}});
  client.send("a", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return client.received == 1; }));

  clock.advance(40s);
  client.send("b", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return client.received == 2; }));
  clock.advance(40s);
  for (int i = 0; i < 4; ++i) loop->run_once();
  EXPECT_EQ(listener->flows(), 1u);
  clock.advance(30s);
  ASSERT_TRUE(wait([&] { return listener->flows() == 0; }));
  EXPECT_EQ(ended(FlowEnd::kIdle), 1u);
  EXPECT_EQ(server.got[0].from, server.got[1].from);

  client.send("c", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return client.received == 3; }));
}

TEST_F(UdpIdleTest, TheLeastRecentlyUsedIdleFlowMakesRoom) {
  TestSocket server(*loop, addr("127.0.0.1:0"), true);
  TestSocket first(*loop), second(*loop), third(*loop);
  options.max_flows = 2;
  listen();
  serve("svc", {at("127.0.0.1"), {server.address()}});
  first.send("a", at("127.0.0.1"));
  second.send("b", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return first.received == 1 && second.received == 1; }));
  clock.advance(2s);
  loop->run_once();
  first.send("c", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return first.received == 2; }));

  third.send("d", at("127.0.0.1"));

  ASSERT_TRUE(wait([&] { return third.received == 1; }));
  EXPECT_EQ(ended(FlowEnd::kEvicted), 1u);
  first.send("e", at("127.0.0.1"));
  ASSERT_TRUE(wait([&] { return first.received == 3; }));
  // The first kept its flow, so it kept its address towards the endpoint.
  std::set<SockAddr> of_first;
  for (auto& got : server.got)
    if (got.data == "a" || got.data == "c" || got.data == "e") of_first.insert(got.from);
  EXPECT_EQ(of_first.size(), 1u);
}

}  // namespace
}  // namespace edgemesh::proxy::testing_parts
