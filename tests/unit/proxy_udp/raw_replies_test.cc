#include "proxy/udp/raw_replies.h"

#include <gtest/gtest.h>

namespace edgemesh::proxy {
namespace {

// By the book: 16-bit words in network order, all of the pseudo header spelled out.
uint16_t sum_of(const SockAddr& from, const SockAddr& to, std::span<const uint8_t> datagram) {
  std::vector<uint8_t> bytes(from.ip.bytes(), from.ip.bytes() + from.ip.size());
  bytes.insert(bytes.end(), to.ip.bytes(), to.ip.bytes() + to.ip.size());
  const auto size = static_cast<uint32_t>(datagram.size());
  if (from.ip.is_v6()) {
    for (int shift : {24, 16, 8, 0}) bytes.push_back(static_cast<uint8_t>(size >> shift));
    bytes.insert(bytes.end(), {0, 0, 0, 17});
  } else {
    bytes.insert(bytes.end(), {0, 17, static_cast<uint8_t>(size >> 8), static_cast<uint8_t>(size)});
  }
  bytes.insert(bytes.end(), datagram.begin(), datagram.end());
  if (bytes.size() % 2 != 0) bytes.push_back(0);
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); i += 2) {
    sum += static_cast<uint32_t>(bytes[i] << 8 | bytes[i + 1]);
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return static_cast<uint16_t>(sum);
}

TEST(RawRepliesTest, HeadersAreWhatReceiversCheck) {
  const std::pair<const char*, const char*> ends[] = {{"10.96.0.10:53", "10.244.1.2:40000"},
                                                      {"[fd00:96::a]:443", "[2001:db8::2]:65535"}};
  for (auto [from_text, to_text] : ends) {
    SockAddr from = *SockAddr::parse(from_text), to = *SockAddr::parse(to_text);
    for (size_t size : {0, 1, 2, 3, 4, 5, 63, 1472, 65'507}) {
      std::vector<uint8_t> data(size);
      for (size_t i = 0; i < size; ++i) data[i] = static_cast<uint8_t>(i * 167 + 13);
      auto header = udp_header(from, to, data);
      EXPECT_EQ(header[0] << 8 | header[1], from.port);
      EXPECT_EQ(header[2] << 8 | header[3], to.port);
      EXPECT_EQ(static_cast<size_t>(header[4] << 8 | header[5]), size + 8);
      EXPECT_NE(header[6] << 8 | header[7], 0);
      std::vector<uint8_t> datagram(header.begin(), header.end());
      datagram.insert(datagram.end(), data.begin(), data.end());
      EXPECT_EQ(sum_of(from, to, datagram), 0xffff) << from_text << " " << size;
    }
  }
}

TEST(RawRepliesTest, ASumOfZeroIsSentAsAllOnes) {
  SockAddr from = *SockAddr::parse("10.0.0.1:1"), to = *SockAddr::parse("10.0.0.2:2");
  auto without = udp_header(from, to, std::vector<uint8_t>{0, 0});
  // The data that brings the sum to what would be sent as zero.
  std::vector<uint8_t> data{without[6], without[7]};
  auto header = udp_header(from, to, data);
  EXPECT_EQ(header[6] << 8 | header[7], 0xffff);
}

}  // namespace
}  // namespace edgemesh::proxy
