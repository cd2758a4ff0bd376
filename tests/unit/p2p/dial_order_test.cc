#include "p2p/dial_order.h"

#include <gtest/gtest.h>

#include "tests/support/test_pki.h"

namespace edgemesh::p2p {
namespace {

std::string order(std::initializer_list<const char*> peer, std::initializer_list<const char*> own,
                  const char* last = "") {
  std::vector<SockAddr> addresses;
  for (const char* text : peer) addresses.push_back(test::TestPki::take(SockAddr::parse(text)));
  std::vector<IpAddr> ours;
  for (const char* text : own) ours.push_back(test::TestPki::take(IpAddr::parse(text)));
  SockAddr worked;
  if (*last != '\0') worked = test::TestPki::take(SockAddr::parse(last));
  std::string out;
  for (const SockAddr& addr : dial_order(addresses, ours, worked)) out += addr.to_string() + " ";
  return out;
}

TEST(DialOrderTest, OwnNetworkComesFirst) {
  EXPECT_EQ(order({"203.0.113.1:1", "10.1.2.9:1", "172.17.0.1:1"}, {"10.1.2.3", "192.168.1.1"}),
            "10.1.2.9:1 203.0.113.1:1 172.17.0.1:1 ");
}

TEST(DialOrderTest, FamiliesTakeTurns) {
  EXPECT_EQ(order({"203.0.113.1:1", "203.0.113.2:1", "203.0.113.3:1", "[2001:db8::1]:1", "[2001:db8::2]:1"},
                  {"10.0.0.1", "2001:db8:1::1"}),
            "203.0.113.1:1 [2001:db8::1]:1 203.0.113.2:1 [2001:db8::2]:1 203.0.113.3:1 ");
}

TEST(DialOrderTest, FamilyThatWeLackIsTriedLast) {
  EXPECT_EQ(order({"[2001:db8::1]:1", "203.0.113.1:1", "203.0.113.2:1"}, {"10.0.0.1"}),
            "203.0.113.1:1 203.0.113.2:1 [2001:db8::1]:1 ");
  EXPECT_EQ(order({"[2001:db8::1]:1"}, {}), "[2001:db8::1]:1 ");
}

TEST(DialOrderTest, WhatWorkedLastComesFirstAndOnce) {
  EXPECT_EQ(order({"10.0.0.2:1", "203.0.113.1:1", "203.0.113.1:1"}, {"10.0.0.1"}, "203.0.113.1:1"),
            "203.0.113.1:1 10.0.0.2:1 ");
}

TEST(DialOrderTest, ListIsBounded) {
  std::vector<SockAddr> many;
  for (uint32_t i = 0; i < 100; ++i) many.push_back({IpAddr::v4(0xcb007100 + i), 1});
  EXPECT_EQ(dial_order(many, {}, {}).size(), kMaxDialAddresses);
}

}  // namespace
}  // namespace edgemesh::p2p
