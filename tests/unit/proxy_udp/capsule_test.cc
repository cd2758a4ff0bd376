#include "proxy/udp/capsule.h"

#include <gtest/gtest.h>

#include <string>

#include "core/io/stream.h"

namespace edgemesh::proxy {
namespace {

std::string capsule(std::string_view payload) {
  uint8_t head[kCapsuleOverhead];
  const size_t n = put_capsule_header(payload.size(), head);
  return std::string(io::as_text({head, n})) + std::string(payload);
}

struct Read {
  std::vector<std::string> payloads;
  bool ok = true;
  bool may_end = false;
};

// Feeds it in pieces of `step` bytes.
Read read(const std::string& bytes, size_t step) {
  Read out;
  CapsuleReader reader;
  for (size_t at = 0; at < bytes.size() && out.ok; at += step) {
    const std::string piece = bytes.substr(at, step);
    out.ok = reader
                 .feed(io::as_bytes(piece),
                       [&](std::span<const uint8_t> payload) {
                         out.payloads.emplace_back(io::as_text(payload));
                       })
                 .has_value();
  }
  out.may_end = reader.may_end();
  return out;
}

TEST(CapsuleTest, AreWrittenAsTheStandardSays) {
  EXPECT_EQ(capsule("abc"), std::string("\x00\x04\x00"
                                        "abc",
                                        6));
  EXPECT_EQ(capsule("").size(), 3u);
  // 100 + 1 no longer fit into six bits.
  EXPECT_EQ(capsule(std::string(100, 'x')).substr(0, 4), std::string("\x00\x40\x65\x00", 4));
  EXPECT_EQ(capsule(std::string(kMaxUdpPayload, 'x')).size(), kMaxUdpPayload + kCapsuleOverhead);
}

TEST(CapsuleTest, ComeBackWholeHoweverTheyAreCut) {
  std::vector<std::string> payloads{"",
                                    "a",
                                    std::string(1200, 'b'),
                                    "",
                                    std::string(62, 'c'),
                                    std::string(63, 'd'),
                                    std::string(20'000, 'e')};
  std::string bytes;
  for (const auto& payload : payloads) bytes += capsule(payload);
  for (size_t step : {size_t{1}, size_t{2}, size_t{3}, size_t{7}, size_t{1000}, bytes.size()}) {
    Read got = read(bytes, step);
    EXPECT_TRUE(got.ok);
    EXPECT_TRUE(got.may_end);
    EXPECT_EQ(got.payloads, payloads) << step;
  }
}

TEST(CapsuleTest, TheLargestIsTakenAndNoLargerOne) {
  Read got = read(capsule(std::string(kMaxUdpPayload, 'x')), 50'000);
  ASSERT_EQ(got.payloads.size(), 1u);
  EXPECT_EQ(got.payloads[0].size(), kMaxUdpPayload);
  EXPECT_FALSE(read(capsule(std::string(kMaxUdpPayload + 1, 'x')), 100'000).ok);
  EXPECT_FALSE(read(std::string("\x00\xff\xff\xff\xff\xff\xff\xff\xff", 9), 9).ok);
}

TEST(CapsuleTest, OtherTypesAndContextsArePassedOver) {
  const std::string unknown = std::string("\x29\x05zzzzz", 7);          // a type that is reserved
  const std::string other_context = std::string("\x00\x04\x02zzz", 6);  // context 2
  const std::string empty_unknown = std::string("\x29\x00", 2);
  for (size_t step : {size_t{1}, size_t{4}, size_t{100}}) {
    Read got = read(unknown + capsule("a") + other_context + empty_unknown + capsule("b"), step);
    EXPECT_TRUE(got.ok);
    EXPECT_TRUE(got.may_end);
    EXPECT_EQ(got.payloads, (std::vector<std::string>{"a", "b"})) << step;
  }
}

TEST(CapsuleTest, HugeCapsulesOfOtherTypesAreNotKept) {
  CapsuleReader reader;
  auto none = [](std::span<const uint8_t>) { FAIL(); };
  ASSERT_TRUE(
      reader.feed(io::as_bytes(std::string("\x29\xff\xff\xff\xff\xff\xff\xff\xff", 9)), none));
  const std::string zeros(1 << 20, '\0');
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(reader.feed(io::as_bytes(zeros), none));
  EXPECT_FALSE(reader.may_end());
}

TEST(CapsuleTest, ADatagramWithoutContextIsAnError) {
  EXPECT_FALSE(read(std::string("\x00\x00", 2), 2).ok);
  EXPECT_FALSE(read(std::string("\x00\x00", 2), 1).ok);
  EXPECT_FALSE(read(std::string("\x00\x01\x40", 3), 3).ok);
}

TEST(CapsuleTest, MayNotEndInTheMiddle) {
  const std::string whole = capsule("abc");
  for (size_t n = 1; n < whole.size(); ++n) EXPECT_FALSE(read(whole.substr(0, n), n).may_end) << n;
}

}  // namespace
}  // namespace edgemesh::proxy
