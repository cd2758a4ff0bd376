#include "core/base/net_addr.h"

#include <gtest/gtest.h>

namespace edgemesh {
namespace {

TEST(NetAddrTest, ParsesAndPrintsAddresses) {
  for (const char* text : {"0.0.0.0", "10.96.0.1", "255.255.255.255", "::", "::1", "fd00::1:2"}) {
    auto ip = IpAddr::parse(text);
    ASSERT_TRUE(ip) << text;
    EXPECT_EQ(ip->to_string(), text);
  }
  for (const char* text : {"", "1.2.3", "1.2.3.4.5", "1.2.3.256", ":::1", "host", "1.2.3.4 "})
    EXPECT_FALSE(IpAddr::parse(text)) << text;
}

TEST(NetAddrTest, FoldsMappedIpv6ToIpv4) {
  EXPECT_EQ(*IpAddr::parse("::ffff:10.0.0.1"), *IpAddr::parse("10.0.0.1"));
}

TEST(NetAddrTest, ParsesSocketAddresses) {
  EXPECT_EQ(SockAddr::parse("1.2.3.4:80")->to_string(), "1.2.3.4:80");
  EXPECT_EQ(SockAddr::parse("[::1]:65535")->to_string(), "[::1]:65535");
  for (const char* text : {"1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1", "::1:80", "[::1]", "a:80"})
    EXPECT_FALSE(SockAddr::parse(text)) << text;
}

TEST(NetAddrTest, SurvivesARoundTripThroughTheKernelForm) {
  for (const char* text : {"1.2.3.4:80", "[fe80::1]:443"}) {
    auto addr = *SockAddr::parse(text);
    sockaddr_storage storage;
    auto len = addr.to_sockaddr(&storage);
    EXPECT_EQ(*SockAddr::from_sockaddr(reinterpret_cast<sockaddr*>(&storage), len), addr);
  }
}

TEST(NetAddrTest, DomainNames) {
  for (const char* text : {"cluster.local", "a", "x-1.example", "UPPER.case"}) EXPECT_TRUE(is_domain_name(text)) << text;
  for (const std::string& text : {std::string(), std::string("."), std::string("a."), std::string(".a"), std::string("a..b"),
                                  std::string("-a"), std::string("a-"), std::string("a b"), std::string("a/b"),
                                  std::string(64, 'a'), std::string(101, 'a') + "." + std::string(101, 'b')})
    EXPECT_FALSE(is_domain_name(text)) << text;
}

TEST(NetAddrTest, CidrContainsByPrefix) {
  auto block = *Cidr::parse("10.96.0.0/12");
  EXPECT_TRUE(block.contains(*IpAddr::parse("10.96.0.0")));
  EXPECT_TRUE(block.contains(*IpAddr::parse("10.111.255.255")));
  EXPECT_FALSE(block.contains(*IpAddr::parse("10.112.0.0")));
  EXPECT_FALSE(block.contains(*IpAddr::parse("::1")));
  EXPECT_TRUE(Cidr::parse("::/0")->contains(*IpAddr::parse("fd00::1")));
  for (const char* text : {"10.96.0.0", "10.96.0.1/12", "10.0.0.0/33", "10.0.0.0/-1", "fd00::/129", "/8"})
    EXPECT_FALSE(Cidr::parse(text)) << text;
}

}  // namespace
}  // namespace edgemesh
