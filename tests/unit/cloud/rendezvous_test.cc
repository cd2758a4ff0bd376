#include "cloud/rendezvous.h"

#include <gtest/gtest.h>

#include "tests/unit/cloud/fake_link.h"

namespace edgemesh::cloud {
namespace {

class RendezvousTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*io::Loop::create(clock_));
    link_.nodes = {"edge-1", "edge-2"};
  }
  Rendezvous make(RendezvousOptions options = {}) {
    return Rendezvous(*loop_, link_, options, registry_);
  }
  static channel::Message signal(const std::string& to, std::string content = R"({"a":1})") {
    channel::Message message;
    message.id = channel::new_id();
    message.source = "mesh";
    message.group = "mesh";
    message.operation = "signal";
    message.resource = "peer/" + to;
    message.content = std::move(content);
    return message;
  }
  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_;
  obs::Registry registry_;
  test::FakeLink link_;
};

TEST_F(RendezvousTest, PassesASignalWithTheSendersName) {
  auto rendezvous = make();

  rendezvous.on_signal("edge-1", signal("edge-2", R"({"from":"edge-9","sdp":"x"})"));

  ASSERT_EQ(link_.sent["edge-2"].size(), 1U);
  const channel::Message& got = link_.sent["edge-2"][0];
  EXPECT_EQ(got.operation, "signal");
  EXPECT_EQ(got.group, "mesh");
  EXPECT_EQ(got.resource, "peer/edge-1");
  EXPECT_EQ(got.content, R"({"from":"edge-9","sdp":"x"})");
  EXPECT_TRUE(link_.sent["edge-1"].empty());
}

TEST_F(RendezvousTest, TellsTheSenderWhenTheOtherIsNotThere) {
  auto rendezvous = make();

  rendezvous.on_signal("edge-1", signal("edge-3"));

  ASSERT_EQ(link_.sent["edge-1"].size(), 1U);
  const channel::Message& got = link_.sent["edge-1"][0];
  EXPECT_EQ(got.operation, "error");
  EXPECT_EQ(got.resource, "peer/edge-3");
  EXPECT_EQ(got.content, R"({"reason":"node edge-3 is not connected"})");
}

TEST_F(RendezvousTest, RefusesItselfBadNamesAndLargeContents) {
  auto rendezvous = make({.max_bytes = 100});

  rendezvous.on_signal("edge-1", signal("edge-1"));
  rendezvous.on_signal("edge-1", signal("../x"));
  rendezvous.on_signal("edge-1", signal("edge-2", '"' + std::string(200, 'x') + '"'));

  EXPECT_EQ(link_.sent["edge-1"].size(), 3U);
  EXPECT_TRUE(link_.sent["edge-2"].empty());
  for (const auto& message : link_.sent["edge-1"]) EXPECT_EQ(message.operation, "error");
}

TEST_F(RendezvousTest, LimitsASenderAndSparesTheOthers) {
  link_.nodes.insert("edge-3");
  auto rendezvous = make({.sender_rate = {.per_second = 10, .burst = 20}});

  for (int i = 0; i < 1000; ++i) rendezvous.on_signal("edge-1", signal("edge-2"));
  rendezvous.on_signal("edge-3", signal("edge-2"));

  EXPECT_EQ(link_.sent["edge-2"].size(), 21U);
  EXPECT_EQ(link_.sent["edge-2"].back().resource, "peer/edge-3");
  EXPECT_LE(link_.sent["edge-1"].size(), 50U);
}

}  // namespace
}  // namespace edgemesh::cloud
