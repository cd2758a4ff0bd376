#include "proxy/udp/icmp_replies.h"

#include <gtest/gtest.h>

#include "udp_fixture.h"

namespace edgemesh::proxy::testing_parts {
namespace {

// Zero over what has a right checksum in it.
uint16_t checked(std::string_view part) {
  return internet_checksum(as_span(part));
}

TEST(IcmpRepliesTest, AnIpv4MessageNamesTheDatagram) {
  const std::string m = icmp_port_unreachable(addr("10.1.2.3:4660"), addr("10.96.0.10:53"));
  ASSERT_EQ(m.size(), 8u + 20 + 8);
  EXPECT_EQ(m.substr(0, 2), std::string("\x03\x03", 2));
  EXPECT_EQ(checked(m), 0);
  const std::string inner = m.substr(8, 20);
  EXPECT_EQ(checked(inner), 0);
  EXPECT_EQ(inner[0], '\x45');
  EXPECT_EQ(inner.substr(2, 2), std::string("\0\x1c", 2));
  EXPECT_EQ(inner[9], 17);
  EXPECT_EQ(inner.substr(12), std::string("\x0a\x01\x02\x03\x0a\x60\x00\x0a", 8));
  EXPECT_EQ(m.substr(28), std::string("\x12\x34\x00\x35\x00\x08\x00\x00", 8));
}

TEST(IcmpRepliesTest, AnIpv6MessageNamesTheDatagram) {
  const SockAddr client = addr("[fd00::1]:4660"), destination = addr("[fd00:96::a]:53");
  const std::string m = icmp_port_unreachable(client, destination);
  ASSERT_EQ(m.size(), 8u + 40 + 8);
  EXPECT_EQ(m.substr(0, 8), std::string("\x01\x04\0\0\0\0\0\0", 8));
  EXPECT_EQ(m.substr(8, 8), std::string("\x60\0\0\0\0\x08\x11\x40", 8));
  EXPECT_EQ(m.substr(16, 16), as_string({client.ip.bytes(), 16}));
  EXPECT_EQ(m.substr(32, 16), as_string({destination.ip.bytes(), 16}));
  EXPECT_EQ(m.substr(48), std::string("\x12\x34\x00\x35\x00\x08\x00\x00", 8));
}

TEST(IcmpRepliesTest, AreLimitedInRate) {
  IcmpReplies replies;
  TimePoint now{std::chrono::hours(1)};
  int sent = 0;
  for (int i = 0; i < 1000; ++i) sent += replies.allow(now);
  EXPECT_EQ(sent, static_cast<int>(IcmpReplies::kBurst));
  now += std::chrono::milliseconds(10);
  sent = 0;
  for (int i = 0; i < 1000; ++i) sent += replies.allow(now);
  EXPECT_NEAR(sent, 10, 1);
}

}  // namespace
}  // namespace edgemesh::proxy::testing_parts
