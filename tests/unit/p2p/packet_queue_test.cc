#include "p2p/packet_queue.h"

#include <gtest/gtest.h>

#include <string>

namespace edgemesh::p2p {
namespace {

std::string trains(std::initializer_list<size_t> sizes) {
  PacketQueue queue;
  uint8_t value = 0;
  for (size_t size : sizes) queue.push(std::vector<uint8_t>(size, ++value));
  std::string out;
  uint8_t expected = 0;
  queue.each_train([&](std::span<const uint8_t> train, size_t segment) {
    out += std::to_string(train.size()) + "/" + std::to_string(segment) + " ";
    while (!train.empty()) {
      auto one = train.first(std::min(segment, train.size()));
      train = train.subspan(one.size());
      ++expected;
      EXPECT_TRUE(std::all_of(one.begin(), one.end(), [&](uint8_t b) { return b == expected; }));
    }
    return true;
  });
  return out;
}

TEST(PacketQueueTest, EqualPacketsMakeATrain) {
  EXPECT_EQ(trains({}), "");
  EXPECT_EQ(trains({100}), "100/100 ");
  EXPECT_EQ(trains({100, 100, 100}), "300/100 ");
  EXPECT_EQ(trains({100, 100, 40, 100, 100}), "240/100 200/100 ");  // a shorter one ends a train
  EXPECT_EQ(trains({40, 100, 100, 101}), "40/40 200/100 101/101 ");  // a longer one begins another
}

TEST(PacketQueueTest, TrainsAreBoundedAndMayBeLeft) {
  PacketQueue queue;
  for (size_t i = 0; i < 150; ++i) queue.push(std::vector<uint8_t>(10));
  std::vector<size_t> sizes;
  queue.each_train([&](std::span<const uint8_t> train, size_t) {
    sizes.push_back(train.size());
    return sizes.size() < 2;
  });
  EXPECT_EQ(sizes, (std::vector<size_t>{640, 640}));
  queue.clear();
  EXPECT_TRUE(queue.empty());
  queue.push({});
  EXPECT_TRUE(queue.empty());
}

}  // namespace
}  // namespace edgemesh::p2p
