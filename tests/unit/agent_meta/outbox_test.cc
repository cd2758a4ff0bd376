#include "agent/meta/outbox.h"

#include "tests/unit/agent_meta/fixture.h"

namespace edgemesh::agent {
namespace {

using std::chrono::seconds;

class OutboxTest : public MetaFixture {
 protected:
  void SetUp() override {
    MetaFixture::SetUp();
    boot();
  }
  void TearDown() override {
    outbox_->stop();
    bus_->stop();
  }
  void boot(Outbox::Options options = {}) {
    if (bus_) bus_->stop();
    bus_.reset();
    outbox_.reset();
    hub_.sent.clear();
    answers_.clear();
    open_store();
    bus_ = std::make_unique<bus::Bus>(*loop_);
    ASSERT_TRUE(bus_->add(hub_));
    ASSERT_TRUE(bus_->start());
    outbox_ = std::make_unique<Outbox>(*loop_, *store_, options, registry_);
    outbox_->on_answer([this](const std::string& resource, const std::string& operation,
                              const Result<std::string>& content) {
      answers_.push_back(operation + " " + resource +
                         (content ? " ok" : " " + content.error().message));
    });
    ASSERT_TRUE(outbox_->start(*bus_));
  }
  void put(const std::string& name, const std::string& status, bool answered = true) {
    Outbox::Item item;
    item.resource = "default/podstatus/" + name;
    item.operation = "update";
    item.content = Json{{"phase", status}}.dump();
    item.answered = answered;
    ASSERT_TRUE(outbox_->put(std::move(item)));
  }
  void answer(const bus::Message& to, const Json& content = "OK",
              const std::string& operation = "response") {
    bus::Message reply = bus::reply_to(to, content.dump());
    reply.operation = operation;
    bus_->respond(std::move(reply));
    settle();
  }
  void pass(Duration time) {
    clock_.advance(time);
    settle();
  }
  std::unique_ptr<Outbox> outbox_;
  std::vector<std::string> answers_;
};

TEST_F(OutboxTest, KeepsWhatIsNotConfirmedOverARestartAndAnOutage) {
  put("web", "Running");
  EXPECT_TRUE(take().empty()) << "there is no connection";
  boot();
  EXPECT_EQ(outbox_->size(), 1U);
  outbox_->on_connection(true);
  const auto sent = take();
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].group, "meta");
  EXPECT_EQ(sent[0].source, "edged");
  EXPECT_EQ(sent[0].operation, "update");
  EXPECT_EQ(sent[0].resource, "default/podstatus/web");
  EXPECT_EQ(Json::parse(sent[0].content)["phase"], "Running");
  answer(sent[0]);
  EXPECT_EQ(outbox_->size(), 0U);
  EXPECT_EQ(answers_, (std::vector<std::string>{"update default/podstatus/web ok"}));
  boot();
  EXPECT_EQ(outbox_->size(), 0U);
}

TEST_F(OutboxTest, TheNewestContentAloneIsSent) {
  for (int i = 0; i < 100; ++i) put("web", std::to_string(i));
  outbox_->on_connection(true);
  auto sent = take();
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(Json::parse(sent[0].content)["phase"], "99");
  // Replaced while it is on its way.
  put("web", "100");
  EXPECT_TRUE(take().empty());
  answer(sent[0]);
  sent = take();
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(Json::parse(sent[0].content)["phase"], "100");
  answer(sent[0]);
  EXPECT_EQ(outbox_->size(), 0U);
}

TEST_F(OutboxTest, IsSentAgainWithoutAnAnswerAndAfterAReconnect) {
  outbox_->on_connection(true);
  put("web", "Running");
  ASSERT_EQ(take().size(), 1U);
  pass(seconds(9));
  EXPECT_TRUE(take().empty());
  pass(seconds(1));  // no answer
  pass(seconds(1));  // the first wait
  ASSERT_EQ(take().size(), 1U);
  pass(seconds(10));
  outbox_->on_connection(false);
  pass(seconds(100));
  EXPECT_TRUE(take().empty());
  outbox_->on_connection(true);
  const auto sent = take();
  ASSERT_EQ(sent.size(), 1U);
  answer(sent[0]);
  EXPECT_EQ(outbox_->size(), 0U);
}

TEST_F(OutboxTest, ARefusalForGoodEndsItAndOthersAreTriedAgain) {
  outbox_->on_connection(true);
  put("gone", "x");
  put("later", "x");
  auto sent = take();
  ASSERT_EQ(sent.size(), 2U);
  answer(sent[0], Json::parse(R"({"ErrStatus":{"code":404,"message":"pods \"gone\" not found"}})"));
  answer(sent[1],
         Json::parse(R"({"Object":null,"Err":{"ErrStatus":{"code":503,"message":"busy"}}})"));
  EXPECT_EQ(answers_,
            (std::vector<std::string>{"update default/podstatus/gone pods \"gone\" not found"}));
  EXPECT_EQ(outbox_->size(), 1U);
  pass(seconds(1));
  sent = take();
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].resource, "default/podstatus/later");
  answer(sent[0], Json{{"reason", "no connection"}}, "error");
  EXPECT_EQ(outbox_->size(), 1U);
}

TEST_F(OutboxTest, WhatKubeEdgeDoesNotAnswerIsDoneWhenItIsSent) {
  put("event", "x", false);
  EXPECT_EQ(outbox_->size(), 1U);
  outbox_->on_connection(true);
  EXPECT_EQ(take().size(), 1U);
  EXPECT_EQ(outbox_->size(), 0U);
}

TEST_F(OutboxTest, ABurstLosesNothingInOrderAndWithinTheWindow) {
  for (int i = 0; i < 1000; ++i) put("p" + std::to_string(i), "x");
  boot();
  outbox_->on_connection(true);
  int next = 0;
  while (outbox_->size() > 0) {
    const auto sent = take();
    ASSERT_FALSE(sent.empty());
    EXPECT_LE(outbox_->in_flight(), 32U);
    for (const auto& message : sent) {
      EXPECT_EQ(message.resource, "default/podstatus/p" + std::to_string(next++));
      bus_->respond(bus::reply_to(message, "\"OK\""));
    }
  }
  EXPECT_EQ(next, 1000);
}

TEST_F(OutboxTest, IsBoundedAndCanBeTakenBack) {
  Outbox::Options options;
  options.max_messages = 2;
  boot(options);
  put("a", "x");
  put("b", "x");
  put("a", "y");
  EXPECT_FALSE(
      outbox_->put({.resource = "default/podstatus/c", .operation = "update", .content = "{}"}));
  outbox_->cancel("default/podstatus/a", "update");
  put("c", "x");
  EXPECT_EQ(outbox_->size(), 2U);
}

}  // namespace
}  // namespace edgemesh::agent
