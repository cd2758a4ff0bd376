#include "tests/unit/http/h2_fixture.h"

namespace edgemesh::http {
namespace {

TEST_F(H2Test, StalledStreamsTogetherHoldABoundedAmount) {
  constexpr size_t kStreams = 200, kEach = 128 << 10, kWindow = 64 << 10, kLimit = 2 << 20;
  static io::SendPool pool(8 << 20);  // outlives what the loop still holds
  H2Options options;
  options.stream_window = options.connection_window = kWindow;
  options.send_budget = kLimit;
  options.send_pool = &pool;
  start({}, options);
  std::vector<std::unique_ptr<Collector>> near, far;
  std::string data = pattern(kEach);
  for (size_t i = 0; i < kStreams; ++i) {
    near.push_back(open());
    near.back()->send(data);
  }
  ASSERT_TRUE(until([&] { return at_server_.connects.size() == kStreams; }));
  turns();

  size_t taken = 0;
  for (const auto& stream : near) {
    EXPECT_GE(kEach - stream->unsent.size(), io::SendBudget::kMinimum);
    taken += kEach - stream->unsent.size();
  }
  EXPECT_GE(taken, kLimit / 2);
  EXPECT_LE(taken, kLimit + kStreams * io::SendBudget::kMinimum + kWindow);
  EXPECT_GE(pool.used(), kLimit / 2);

  for (auto& connect : at_server_.connects) far.push_back(std::make_unique<Collector>(connect->accept()));
  for (auto& stream : far) ASSERT_TRUE(until([&] { return stream->received == data; }));
  client_.reset();
  near.clear();
  turns();
  server_.reset();
  EXPECT_EQ(pool.used(), 0U);
}

}  // namespace
}  // namespace edgemesh::http
