#include "proxy/udp/flow_table.h"

#include <gtest/gtest.h>

namespace edgemesh::proxy {
namespace {

using namespace std::chrono_literals;

FlowKey key(uint16_t client_port) {
  return {{IpAddr::loopback(), client_port}, {IpAddr::v4(0x0a600001), 53}};
}

class FlowTableTest : public ::testing::Test {
 protected:
  FlowNode& add(uint16_t port, Duration at) {
    table.insert(std::make_unique<FlowNode>(key(port)), TimePoint(at));
    return *table.find(key(port));
  }
  FlowTable table{60s, 5s, 1};
};

TEST_F(FlowTableTest, FindsByClientAndDestination) {
  add(1, 0s);
  EXPECT_NE(table.find(key(1)), nullptr);
  EXPECT_EQ(table.find(key(2)), nullptr);
  FlowKey other = key(1);
  other.destination.port = 54;
  EXPECT_EQ(table.find(other), nullptr);
}

TEST_F(FlowTableTest, ExpiresInTheOrderOfTheLastDatagram) {
  FlowNode& first = add(1, 0s);
  FlowNode& second = add(2, 10s);
  table.touch(first, TimePoint(20s));

  EXPECT_EQ(table.next_deadline(), TimePoint(70s));
  EXPECT_EQ(table.expired(TimePoint(70s) - 1ns), nullptr);
  ASSERT_EQ(table.expired(TimePoint(70s)), &second);
  table.take(second);
  EXPECT_EQ(table.expired(TimePoint(79s)), nullptr);
  EXPECT_EQ(table.expired(TimePoint(80s)), &first);
}

TEST_F(FlowTableTest, AnsweredFlowsExpireSooner) {
  FlowNode& waiting = add(1, 0s);
  FlowNode& answered = add(2, 0s);
  table.touch(answered, TimePoint(1s), true);

  EXPECT_EQ(table.next_deadline(), TimePoint(6s));
  EXPECT_EQ(table.expired(TimePoint(6s)), &answered);
  // A further question makes it wait again.
  table.touch(answered, TimePoint(6s));
  EXPECT_EQ(table.expired(TimePoint(59s)), nullptr);
  EXPECT_EQ(table.expired(TimePoint(60s)), &waiting);
}

TEST_F(FlowTableTest, KnowsTheLeastRecentlyUsedOfBothKinds) {
  EXPECT_EQ(table.oldest(), nullptr);
  FlowNode& a = add(1, 0s);
  FlowNode& b = add(2, 1s);
  table.touch(a, TimePoint(2s), true);
  EXPECT_EQ(table.oldest(), &b);
  table.touch(b, TimePoint(3s));
  EXPECT_EQ(table.oldest(), &a);
}

TEST_F(FlowTableTest, TakenFlowsAreGone) {
  FlowNode& flow = add(1, 0s);
  auto owned = table.take(flow);
  EXPECT_EQ(owned.get(), &flow);
  EXPECT_EQ(table.size(), 0u);
  EXPECT_EQ(table.oldest(), nullptr);
  EXPECT_FALSE(table.next_deadline());
}

}  // namespace
}  // namespace edgemesh::proxy
