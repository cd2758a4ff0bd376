#include "discovery/dns_wire.h"

#include <gtest/gtest.h>

#include "discovery/dns_cache.h"
#include "tests/unit/discovery/dns_support.h"

namespace edgemesh::discovery {
namespace {

using dns::Parsed;
using namespace testing_parts;

Parsed parse(const Bytes& bytes) {
  dns::Query query;
  return dns::parse_query(bytes, query);
}

TEST(DnsWireTest, ParsesQueryWithEdns) {
  Bytes bytes = with_edns(raw_query("Www.Example.Com", dns::kAaaa), 4096);
  dns::Query query;

  ASSERT_EQ(dns::parse_query(bytes, query), Parsed::kQuery);

  EXPECT_EQ(text_of(query.name), "www.example.com.");
  EXPECT_EQ(query.type, dns::kAaaa);
  EXPECT_TRUE(query.edns);
  EXPECT_EQ(dns::udp_limit(query), 1232u);
}

TEST(DnsWireTest, RefusesWhatIsNoWholeQuery) {
  Bytes good = with_edns(raw_query("a.example", dns::kA), 1232);
  for (size_t n = 0; n < 12; ++n) EXPECT_EQ(parse({good.begin(), good.begin() + n}), Parsed::kDrop);
  for (size_t n = 12; n < good.size(); ++n)
    EXPECT_EQ(parse({good.begin(), good.begin() + n}), Parsed::kFormErr) << n;
  Bytes longer = good;
  longer.push_back(0);
  EXPECT_EQ(parse(longer), Parsed::kFormErr);
}

TEST(DnsWireTest, RefusesOddHeaders) {
  Bytes answer = raw_query("a", 1);
  answer[2] |= 0x80;
  EXPECT_EQ(parse(answer), Parsed::kDrop);
  Bytes update = raw_query("a", 1);
  update[2] |= 0x28;
  EXPECT_EQ(parse(update), Parsed::kNotImp);
  Bytes two = raw_query("a", 1);
  two[5] = 2;
  EXPECT_EQ(parse(two), Parsed::kFormErr);
  EXPECT_EQ(parse(with_edns(with_edns(raw_query("a", 1), 512), 512)), Parsed::kFormErr);
}

TEST(DnsWireTest, RefusesBadNames) {
  Bytes pointer = {0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 0x0c, 0, 1, 0, 1};
  EXPECT_EQ(parse(pointer), Parsed::kFormErr);
  EXPECT_EQ(parse(raw_query(std::string(64, 'a'), 1)), Parsed::kFormErr);
}

TEST(DnsWireTest, TakesTheLongestName) {
  std::string l63(63, 'a');
  std::string name = l63 + "." + l63 + "." + l63 + "." + std::string(61, 'b');  // 255 bytes on the wire
  EXPECT_EQ(parse(raw_query(name, 1)), Parsed::kQuery);
  EXPECT_EQ(parse(raw_query(name + "c", 1)), Parsed::kFormErr);
}

TEST(DnsWireTest, ExpandNameEndsOnPointersInACircle) {
  Bytes m(12, 0);
  Bytes circle = {1, 'a', 0xc0, 0x0c, 0xc0, 0x10};
  m.insert(m.end(), circle.begin(), circle.end());
  dns::Name name;
  EXPECT_FALSE(dns::expand_name(m, 12, name));
  EXPECT_FALSE(dns::expand_name(m, 16, name));
}

TEST(DnsWireTest, JoinRefusesWhatIsTooLong) {
  auto domain = *dns::Name::parse("cluster.local");
  std::string l63(63, 'x');
  EXPECT_TRUE(dns::Name::join({"a", "b"}, domain));
  EXPECT_FALSE(dns::Name::join({l63, l63, l63, l63}, domain));
  EXPECT_FALSE(dns::Name::join({""}, domain));
  EXPECT_FALSE(dns::Name::parse("a..b"));
  EXPECT_FALSE(dns::Name::parse(""));
}

TEST(DnsAnswerTest, OptBelongsToTheAdditionalSection) {
  for (size_t section = 0; section < 3; ++section) {
    Bytes m = raw_query("www.example.com", dns::kA);
    m[2] = 0x81;
    m[3] = 0x80;
    m[7 + 2 * section] = 1;
    Bytes question(m.begin() + dns::kHeaderBytes, m.end());
    for (int byte : {0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0}) m.push_back(static_cast<uint8_t>(byte));
    auto answer = dns::parse_answer(m, question, {}, TimePoint{});
    EXPECT_EQ(answer.has_value(), section == 2) << section;
  }
}

}  // namespace
}  // namespace edgemesh::discovery
