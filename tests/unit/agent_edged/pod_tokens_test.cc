#include "agent/edged/pod_tokens.h"

#include <gmock/gmock.h>

#include "kube/time.h"
#include "tests/unit/agent_meta/fixture.h"

namespace edgemesh::edged {
namespace {

using namespace std::chrono_literals;
using Json = nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class PodTokensTest : public agent::MetaFixture {
 protected:
  void SetUp() override {
    MetaFixture::SetUp();
    open_store();
    boot();
  }
  void TearDown() override {
    tokens_.reset();
    bus_.reset();
  }
  // A start of the agent.
  void boot() {
    TearDown();
    bus_ = std::make_unique<bus::Bus>(*loop_);
    ASSERT_TRUE(bus_->add(hub_));
    tokens_ = std::make_unique<PodTokens>(
        *bus_, *store_, [this] { return connected_; },
        [this](const std::string& uid) { news_.push_back(uid); });
    ASSERT_TRUE(bus_->start());
  }
  static Pod pod(const std::string& uid = "u1") {
    auto out = parse_pod(R"({"metadata":{"name":"web","namespace":"shop","uid":")" + uid + R"("},
      "spec":{"serviceAccountName":"bot","containers":[{"name":"c","image":"i"}]}})");
    EXPECT_TRUE(out);
    return *out;
  }
  Result<std::string> token(const std::string& uid = "u1", const std::string& audience = "") {
    return tokens_->token(pod(uid), audience, 3600);
  }
  // The cloud answers all that it was asked; returns how much that was.
  size_t give(const std::string& text, int64_t life = 3600) {
    const auto asked = take();
    for (const bus::Message& m : asked) {
      Json answer = Json::parse(m.content);
      answer["spec"]["expirationSeconds"] = life;
      answer["status"] = {
          {"token", text},
          {"expirationTimestamp", kube::rfc3339(clock_.wall_now() + std::chrono::seconds(life))}};
      bus_->respond(bus::reply_to(m, answer.dump()));
    }
    settle();
    return asked.size();
  }
  void pass(Duration time) {
    clock_.advance(time);
    settle();
  }

  bool connected_ = true;
  std::vector<std::string> news_;
  std::unique_ptr<PodTokens> tokens_;
};

TEST_F(PodTokensTest, ATokenIsAskedForOnceAndBoundToThePod) {
  auto first = token("u1", "vault");
  ASSERT_FALSE(first);
  EXPECT_EQ(first.error().code, ErrorCode::kUnavailable);
  EXPECT_FALSE(token("u1", "vault"));
  const auto asked = take();
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(asked[0].resource, "shop/serviceaccounttoken/bot");
  EXPECT_EQ(asked[0].operation, "query");
  const Json request = Json::parse(asked[0].content);
  EXPECT_EQ(request["spec"], Json::parse(R"({"audiences":["vault"],"expirationSeconds":3600,
    "boundObjectRef":{"kind":"Pod","apiVersion":"v1","name":"web","uid":"u1"}})"));
}

TEST_F(PodTokensTest, WhatCameIsKeptAndTold) {
  EXPECT_FALSE(token());
  EXPECT_EQ(give("one"), 1u);
  EXPECT_THAT(news_, ElementsAre("u1"));
  EXPECT_EQ(token().value_or(""), "one");
  EXPECT_THAT(take(), IsEmpty());
}

TEST_F(PodTokensTest, ItIsRenewedAfterFourFifthsOfItsLife) {
  EXPECT_FALSE(token());
  give("one");
  pass(2870s);
  EXPECT_EQ(give("early"), 0u);
  pass(20s);
  EXPECT_EQ(give("two"), 1u);
  EXPECT_THAT(news_, ElementsAre("u1", "u1"));
  EXPECT_EQ(token().value_or(""), "two");
}

TEST_F(PodTokensTest, ALongOneIsRenewedAfterADay) {
  EXPECT_FALSE(token());
  give("one", 30 * 24 * 3600);
  pass(23h + 59min);
  EXPECT_EQ(give("early"), 0u);
  pass(2min);
  EXPECT_EQ(give("two", 30 * 24 * 3600), 1u);
}

TEST_F(PodTokensTest, TheLastTokenServesWithoutTheCloud) {
  EXPECT_FALSE(token());
  give("one");
  settle();
  open_store();
  connected_ = false;
  boot();
  pass(48h);
  EXPECT_EQ(token().value_or(""), "one");
  EXPECT_THAT(take(), IsEmpty());

  connected_ = true;
  pass(PodTokens::kLookEvery);
  EXPECT_EQ(give("two"), 1u);
  EXPECT_EQ(token().value_or(""), "two");
}

TEST_F(PodTokensTest, ARefusalIsToldAndAskedAgainLater) {
  EXPECT_FALSE(token());
  for (const bus::Message& m : take())
    bus_->respond(bus::reply_to(m, R"({"ErrStatus":{"message":"no such account"}})"));
  settle();
  EXPECT_THAT(news_, ElementsAre("u1"));
  auto refused = token();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(refused.error().message, HasSubstr("\"bot\": the cloud gives none: no such account"));
  EXPECT_THAT(take(), IsEmpty());  // not at once
  pass(PodTokens::kLookEvery);
  EXPECT_EQ(give("one"), 1u);
  EXPECT_EQ(token().value_or(""), "one");
}

TEST_F(PodTokensTest, AnAnswerThatNeverComesIsAskedForAgain) {
  EXPECT_FALSE(token());
  EXPECT_EQ(take().size(), 1u);
  pass(11s);
  pass(PodTokens::kLookEvery);
  EXPECT_EQ(give("one"), 1u);
}

TEST_F(PodTokensTest, AWallClockThatWasSetBackMakesItDue) {
  EXPECT_FALSE(token());
  give("one");
  settle();
  ManualClock earlier;
  // The same store, read by a loop whose clock is hours behind.
  pass(4h);
  give("later");
  settle();
  bus_.reset();
  store_.reset();
  tokens_.reset();
  auto loop = std::move(*io::Loop::create(earlier));
  std::swap(loop, loop_);
  open_store();
  boot();
  EXPECT_EQ(token().value_or(""), "later");
  EXPECT_EQ(give("again"), 1u);
  TearDown();
  store_.reset();
}

TEST_F(PodTokensTest, TokensOfPodsThatAreGoneAreForgotten) {
  for (const char* uid : {"u1", "u10", "u2", "u3"}) EXPECT_FALSE(token(uid));
  give("one");
  tokens_->forget("u1");
  EXPECT_EQ(tokens_->size(), 3u);
  tokens_->forget_others({"u2"});
  EXPECT_EQ(tokens_->size(), 1u);
  settle();
  EXPECT_EQ(store_->count("service-token"), 1u);
  EXPECT_FALSE(token("u1"));
}

TEST_F(PodTokensTest, RequestsOnTheirWayAreLimited) {
  for (size_t i = 0; i < PodTokens::kMaxAsking + 4; ++i)
    EXPECT_FALSE(token("pod-" + std::to_string(i)));
  EXPECT_EQ(give("one"), PodTokens::kMaxAsking);
  EXPECT_EQ(give("one"), 4u);
  for (size_t i = tokens_->size(); i < PodTokens::kMaxTokens; ++i)
    EXPECT_FALSE(token("more-" + std::to_string(i)));
  auto over = token("over");
  ASSERT_FALSE(over);
  EXPECT_EQ(over.error().code, ErrorCode::kResourceExhausted);
}

}  // namespace
}  // namespace edgemesh::edged
