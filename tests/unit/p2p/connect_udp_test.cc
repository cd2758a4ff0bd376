#include "p2p/connect_udp.h"

#include <gtest/gtest.h>

namespace edgemesh::p2p {
namespace {

TEST(ConnectUdpTest, PathsAreThoseOfTheDefaultTemplate) {
  EXPECT_EQ(connect_udp_path(*SockAddr::parse("192.0.2.6:443")),
            "/.well-known/masque/udp/192.0.2.6/443/");
  EXPECT_EQ(connect_udp_path(*SockAddr::parse("[2001:db8::42]:53")),
            "/.well-known/masque/udp/2001%3Adb8%3A%3A42/53/");
}

TEST(ConnectUdpTest, TargetsAreRead) {
  for (const char* text : {"192.0.2.6:443", "[2001:db8::42]:53", "[::1]:65535", "10.0.0.1:1"}) {
    SockAddr target = *SockAddr::parse(text);
    EXPECT_EQ(connect_udp_target(connect_udp_path(target)), target);
  }
  EXPECT_EQ(connect_udp_target("/.well-known/masque/udp/2001%3adb8%3a%3a42/53/"),
            *SockAddr::parse("[2001:db8::42]:53"));
}

TEST(ConnectUdpTest, OtherPathsAreNoTargets) {
  const std::string prefix = "/.well-known/masque/udp/";
  for (const char* bad :
       {"", "192.0.2.6", "192.0.2.6/", "192.0.2.6/443", "192.0.2.6/0/", "192.0.2.6/65536/",
        "192.0.2.6/44a/", "192.0.2.6/443/x", "192.0.2.6//443/", "/443/", "a.example/443/",
        "2001%3/443/", "2001%/443/", "2001%zz/443/", "192.0.2.6/-1/", "192.0.2.6/ 1/"})
    EXPECT_FALSE(connect_udp_target(prefix + bad)) << bad;
  EXPECT_FALSE(connect_udp_target("/other/192.0.2.6/443/"));
  EXPECT_FALSE(connect_udp_target(prefix + std::string(10'000, '1') + "/443/"));
}

}  // namespace
}  // namespace edgemesh::p2p
