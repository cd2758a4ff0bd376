#include "core/bus/bus.h"

#include <gtest/gtest.h>

#include <thread>

namespace edgemesh::bus {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class Recorder : public Module {
 public:
  Recorder(std::string name, std::string group, std::vector<std::string>* log = nullptr)
      : name_(std::move(name)), group_(std::move(group)), log_(log) {}
  std::string_view name() const override { return name_; }
  std::string_view group() const override { return group_; }
  Result<> start(Bus& bus) override {
    bus_ = &bus;
    if (log_ != nullptr) log_->push_back("start " + name_);
    if (fails) return fail(ErrorCode::kUnavailable, "no disk");
    return {};
  }
  void stop() override {
    if (log_ != nullptr) log_->push_back("stop " + name_);
  }
  void on_message(Message message) override {
    if (answers) static_cast<void>(bus_->respond(reply_to(message, "\"OK\"")));
    received.push_back(std::move(message));
  }

  bool fails = false;
  bool answers = false;
  std::vector<Message> received;
  Bus* bus_ = nullptr;

 private:
  std::string name_, group_;
  std::vector<std::string>* log_;
};

class BusTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*io::Loop::create(clock_));
    bus_ = std::make_unique<Bus>(*loop_);
  }
  Recorder& add(const std::string& name, const std::string& group) {
    auto module = std::make_unique<Recorder>(name, group, &log_);
    Recorder& out = *module;
    EXPECT_TRUE(bus_->add(std::move(module)));
    return out;
  }
  void turn() {
    for (int i = 0; i < 3; ++i) loop_->run_once();
  }
  static Message message(const std::string& resource) {
    return make_message("test", "g", "update", resource);
  }

  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_;
  std::vector<std::string> log_;
  std::unique_ptr<Bus> bus_;
};

TEST_F(BusTest, ModulesStartInOrderAndStopInReverse) {
  add("a", "g");
  add("b", "g");
  ASSERT_TRUE(bus_->start());
  bus_.reset();

  EXPECT_EQ(log_, (std::vector<std::string>{"start a", "start b", "stop b", "stop a"}));
}

TEST_F(BusTest, AModuleThatCannotStartStopsTheOthersAndIsNamed) {
  add("a", "g");
  add("b", "g").fails = true;

  auto started = bus_->start();

  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().message, "module b: no disk");
  EXPECT_EQ(log_.back(), "stop a");
  EXPECT_FALSE(bus_->send("a", message("x")));
}

TEST_F(BusTest, ANameIsTakenOnce) {
  add("a", "g");
  EXPECT_FALSE(bus_->add(std::make_unique<Recorder>("a", "other")));
}

TEST_F(BusTest, MessagesArriveInOrderAndNotFromWithinSend) {
  Recorder& a = add("a", "g");
  ASSERT_TRUE(bus_->start());
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(bus_->send("a", message(std::to_string(i))));
  EXPECT_TRUE(a.received.empty());

  turn();

  ASSERT_EQ(a.received.size(), 100U);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a.received[static_cast<size_t>(i)].resource, std::to_string(i));
}

TEST_F(BusTest, AGroupGetsACopyEach) {
  Recorder& a = add("a", "g");
  Recorder& b = add("b", "g");
  Recorder& c = add("c", "other");
  ASSERT_TRUE(bus_->start());

  EXPECT_EQ(bus_->send_group("g", message("x")).value(), 2U);
  EXPECT_EQ(bus_->send_group("none", message("x")).value(), 0U);
  turn();

  EXPECT_EQ(a.received.size(), 1U);
  EXPECT_EQ(b.received.size(), 1U);
  EXPECT_TRUE(c.received.empty());
}

TEST_F(BusTest, ARequestGetsItsAnswer) {
  Recorder& a = add("a", "g");
  a.answers = true;
  ASSERT_TRUE(bus_->start());
  std::string content;
  bus_->request("a", message("x"), [&](Result<Message> answer) {
    ASSERT_TRUE(answer) << answer.error().message;
    content = answer->content;
    EXPECT_EQ(answer->operation, "response");
  });

  turn();

  EXPECT_EQ(content, "\"OK\"");
  ASSERT_EQ(a.received.size(), 1U);
  EXPECT_TRUE(a.received[0].sync);
}

TEST_F(BusTest, AnAnswerThatIsSentToTheRequesterIsTheAnswerToo) {
  Recorder& a = add("a", "g");
  Recorder& b = add("b", "g");
  ASSERT_TRUE(bus_->start());
  bool answered = false;
  bus_->request("a", message("x"), [&](Result<Message> answer) { answered = answer.has_value(); });
  turn();
  ASSERT_TRUE(bus_->send("b", reply_to(a.received.at(0), "1")));
  turn();

  EXPECT_TRUE(answered);
  EXPECT_TRUE(b.received.empty());
}

TEST_F(BusTest, ARequestWithoutAnswerTimesOut) {
  Recorder& a = add("a", "g");
  ASSERT_TRUE(bus_->start());
  Result<Message> result = fail(ErrorCode::kInternal, "not called");
  bus_->request("a", message("x"), [&](Result<Message> answer) { result = std::move(answer); }, seconds(5));
  turn();
  clock_.advance(milliseconds(4999));
  turn();
  EXPECT_EQ(result.error().code, ErrorCode::kInternal);
  clock_.advance(milliseconds(1));
  turn();

  EXPECT_EQ(result.error().code, ErrorCode::kTimeout);
  EXPECT_FALSE(bus_->respond(reply_to(a.received.at(0), "1")));
}

TEST_F(BusTest, ARequestToNobodyFailsLaterAndStoppingCancels) {
  add("a", "g");
  ASSERT_TRUE(bus_->start());
  std::vector<ErrorCode> codes;
  const auto note = [&](Result<Message> answer) { codes.push_back(answer.error().code); };
  bus_->request("none", message("x"), note);
  EXPECT_TRUE(codes.empty());
  turn();
  bus_->request("a", message("x"), note);
  bus_->stop();

  EXPECT_EQ(codes, (std::vector<ErrorCode>{ErrorCode::kNotFound, ErrorCode::kCancelled}));
}

TEST_F(BusTest, TheQueueIsBounded) {
  add("a", "g");
  ASSERT_TRUE(bus_->start());
  const Message m = message("x");
  for (size_t i = 0; i < Bus::kMaxQueued; ++i) ASSERT_TRUE(bus_->send("a", m));

  auto sent = bus_->send("a", m);
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code, ErrorCode::kResourceExhausted);
}

TEST_F(BusTest, OtherThreadsPost) {
  Recorder& a = add("a", "g");
  ASSERT_TRUE(bus_->start());
  std::thread other([&] {
    for (int i = 0; i < 10; ++i) bus_->post("a", message("x"));
  });
  other.join();

  EXPECT_TRUE(loop_->run_until([&] { return a.received.size() == 10; }, seconds(5)));
}

TEST_F(BusTest, AModuleMayStopTheBusInsideOfAMessage) {
  struct Stopper final : Recorder {
    using Recorder::Recorder;
    void on_message(Message) override { (*owner).reset(); }
    std::unique_ptr<Bus>* owner = nullptr;
  };
  Stopper stopper("s", "g");
  stopper.owner = &bus_;
  ASSERT_TRUE(bus_->add(stopper));
  ASSERT_TRUE(bus_->start());
  ASSERT_TRUE(bus_->send("s", message("x")));
  ASSERT_TRUE(bus_->send("s", message("y")));

  turn();

  EXPECT_EQ(bus_, nullptr);
}

TEST(MessageTest, IdsAreVersion4Uuids) {
  const std::string id = new_id();
  ASSERT_EQ(id.size(), 36U);
  EXPECT_EQ(id[14], '4');
  EXPECT_NE(std::string("89ab").find(id[19]), std::string::npos);
  EXPECT_NE(id, new_id());
}

}  // namespace
}  // namespace edgemesh::bus
