#include "proxy/exchange/overload.h"

#include <gtest/gtest.h>

namespace edgemesh::proxy {
namespace {

TEST(OverloadTest, ConnectionsUpToTheLimit) {
  Overload overload;
  EXPECT_TRUE(overload.take_connection());
  overload.set({.max_connections = 2}, 1);
  EXPECT_TRUE(overload.take_connection());
  EXPECT_FALSE(overload.take_connection());
  EXPECT_EQ(overload.refused(), 1U);
  overload.give_connection();
  EXPECT_TRUE(overload.take_connection());
  overload.set({}, 1);
  EXPECT_TRUE(overload.take_connection());
}

TEST(OverloadTest, NearTheLimitOfConnections) {
  Overload overload;
  overload.take_connection();
  EXPECT_FALSE(overload.many_connections());
  overload.set({.max_connections = 20}, 1);
  for (int i = 1; i < 17; ++i) overload.take_connection();
  EXPECT_FALSE(overload.many_connections());  // 17
  overload.take_connection();
  EXPECT_TRUE(overload.many_connections());
  overload.give_connection();
  EXPECT_FALSE(overload.many_connections());
}

TEST(OverloadTest, RefusalsBeginAndEnd) {
  Overload overload;
  overload.set({.max_connections = 1}, 1);
  overload.take_connection();
  EXPECT_FALSE(overload.note_refusals());
  overload.take_connection();
  EXPECT_TRUE(overload.note_refusals());
  EXPECT_TRUE(overload.refusing());
  overload.take_connection();
  EXPECT_FALSE(overload.note_refusals());  // still
  EXPECT_TRUE(overload.note_refusals());
  EXPECT_FALSE(overload.refusing());
}

TEST(OverloadTest, RequestsAreSharedByTheWorkers) {
  Overload overload;
  overload.set({.max_requests = 100}, 4);
  EXPECT_FALSE(overload.too_many_requests(25));
  EXPECT_TRUE(overload.too_many_requests(26));
  overload.set({.max_requests = 2}, 4);
  EXPECT_FALSE(overload.too_many_requests(1));  // one each at least
}

TEST(OverloadTest, MemoryHasThreeLevelsAndDoesNotFlap) {
  Overload overload;
  overload.set({.max_memory = 1000}, 1);
  EXPECT_FALSE(overload.note_memory(899));
  EXPECT_TRUE(overload.note_memory(900));
  EXPECT_EQ(overload.level(), Overload::kTight);
  EXPECT_TRUE(overload.take_connection());
  EXPECT_TRUE(overload.note_memory(1000));
  EXPECT_EQ(overload.level(), Overload::kShed);
  EXPECT_FALSE(overload.take_connection());
  EXPECT_FALSE(overload.note_memory(860));  // until it is well below
  EXPECT_EQ(overload.level(), Overload::kShed);
  EXPECT_TRUE(overload.note_memory(849));
  EXPECT_EQ(overload.level(), Overload::kFine);
  EXPECT_FALSE(overload.note_memory(880));
  EXPECT_EQ(overload.level(), Overload::kFine);
  overload.note_memory(2000);
  overload.set({}, 1);
  EXPECT_EQ(overload.level(), Overload::kFine);
}

TEST(OverloadTest, TheSystemSaysWhatIsInUse) {
  EXPECT_GT(resident_memory(), 1U << 20);
}

}  // namespace
}  // namespace edgemesh::proxy
