#include "kube/leader_elector.h"

#include <gtest/gtest.h>

#include "cloud/api/server.h"
#include "kube/json_util.h"
#include "kube/objects.h"
#include "tests/support/fake_kube.h"

namespace edgemesh::kube {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::seconds;

// What leaderelection of client-go keeps to: 15 s, 10 s, 2 s.
class LeaderElectorTest : public ::testing::Test {
 protected:
  struct Process {
    std::unique_ptr<LeaderElector> elector;
    int leads = 0, follows = 0;
    std::string leader;
  };
  void SetUp() override {
    loop_ = std::move(*io::Loop::create(clock_));
    kube_ = std::make_unique<test::FakeKube>(*loop_);
  }
  std::unique_ptr<Process> start(const std::string& identity, Client* client = nullptr) {
    auto out = std::make_unique<Process>();
    LeaderElector::Options options;
    options.name = "cloud";
    options.identity = identity;
    options.seed = 7;
    LeaderElector::Handlers handlers;
    handlers.on_leads = [p = out.get()] { ++p->leads; };
    handlers.on_follows = [p = out.get()] { ++p->follows; };
    handlers.on_new_leader = [p = out.get()](const std::string& who) { p->leader = who; };
    out->elector = std::make_unique<LeaderElector>(*loop_, client == nullptr ? *kube_ : *client,
                                                   options, std::move(handlers));
    out->elector->start();
    return out;
  }
  void pass(Duration time) {
    for (Duration done{}; done < time; done += milliseconds(100)) {
      clock_.advance(milliseconds(100));
      for (int i = 0; i < 4; ++i) loop_->run_once();
    }
  }
  json lease() {
    json out;
    kube_->get(kLeases, "kube-system", "cloud", [&](Result<std::string> text) {
      if (text) out = *parse_json(*text);
    });
    for (int i = 0; i < 4; ++i) loop_->run_once();
    return out["spec"];
  }
  ManualClock clock_;
  std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<test::FakeKube> kube_;
};

TEST_F(LeaderElectorTest, OneOfTwoLeadsAndKeepsTheLease) {
  auto a = start("a"), b = start("b");
  pass(seconds(1));
  EXPECT_EQ(a->elector->leads() + b->elector->leads(), 1);
  Process& first = a->elector->leads() ? *a : *b;
  Process& second = a->elector->leads() ? *b : *a;
  const json made = lease();
  EXPECT_EQ(made["leaseDurationSeconds"], 15);
  EXPECT_EQ(made["leaseTransitions"], 0);
  pass(seconds(60));
  EXPECT_TRUE(first.elector->leads());
  EXPECT_EQ(first.leads, 1);
  EXPECT_EQ(first.follows, 0);
  EXPECT_EQ(second.leads, 0);
  EXPECT_EQ(second.leader, made["holderIdentity"]);
  EXPECT_EQ(lease()["acquireTime"], made["acquireTime"]);
  EXPECT_GT(lease()["renewTime"].get<std::string>(), made["renewTime"].get<std::string>());
}

TEST_F(LeaderElectorTest, WhenItDiesTheOtherTakesOverAfterTheDuration) {
  auto a = start("a");
  pass(seconds(1));
  auto b = start("b");
  pass(seconds(5));
  ASSERT_TRUE(a->elector->leads());
  a.reset();
  pass(seconds(12));
  EXPECT_FALSE(b->elector->leads()) << "the lease runs still";
  pass(seconds(9));
  EXPECT_TRUE(b->elector->leads());
  EXPECT_EQ(lease()["leaseTransitions"], 1);
  EXPECT_EQ(lease()["holderIdentity"], "b");
}

TEST_F(LeaderElectorTest, GivenBackItIsTakenAtOnce) {
  auto a = start("a");
  pass(seconds(1));
  auto b = start("b");
  pass(seconds(5));
  bool stopped = false;
  a->elector->stop([&] { stopped = true; });
  pass(seconds(1));
  EXPECT_TRUE(stopped);
  EXPECT_EQ(a->follows, 1);
  pass(seconds(5));
  EXPECT_TRUE(b->elector->leads());
}

TEST_F(LeaderElectorTest, WhoCannotRenewLeadsNoMoreBeforeAnotherMay) {
  auto a = start("a");
  pass(seconds(5));
  ASSERT_TRUE(a->elector->leads());
  kube_->fail_with = Error{ErrorCode::kUnavailable, "away"};
  pass(seconds(7));
  EXPECT_TRUE(a->elector->leads());
  pass(seconds(6));
  EXPECT_FALSE(a->elector->leads()) << "at the deadline, before the 15 s are over";
  EXPECT_EQ(a->follows, 1);
  kube_->fail_with.reset();
  pass(seconds(5));
  EXPECT_TRUE(a->elector->leads()) << "its own lease it may take at once";
  EXPECT_EQ(a->leads, 2);
}

TEST_F(LeaderElectorTest, AnOddLeaseOfAnotherProgramIsTakenOver) {
  kube_->put(kLeases, {{"metadata", {{"namespace", "kube-system"}, {"name", "cloud"}}},
                       {"spec", {{"leaseDurationSeconds", "x"}}}});
  auto a = start("a");
  pass(seconds(1));
  EXPECT_TRUE(a->elector->leads());
  // Someone else writes himself in.
  kube_->put(kLeases, {{"metadata", {{"namespace", "kube-system"}, {"name", "cloud"}}},
                       {"spec", {{"leaseDurationSeconds", 15}, {"holderIdentity", "z"}}}});
  pass(seconds(3));
  EXPECT_FALSE(a->elector->leads());
  EXPECT_EQ(a->follows, 1);
}

TEST_F(LeaderElectorTest, OfManyThatTakeOverAtOnceOneLeads) {
  cloud::EmbeddedApi::Options options;
  options.store.path.clear();
  auto api = cloud::EmbeddedApi::open(*loop_, std::move(options));
  ASSERT_TRUE(api) << api.error().message;
  auto first = start("first", &(*api)->client());
  pass(seconds(1));
  ASSERT_TRUE(first->elector->leads());
  std::vector<std::unique_ptr<Process>> others;
  for (int i = 0; i < 5; ++i)  // with the same jitter: they ask at the same moments
    others.push_back(start(fmt::format("other-{}", i), &(*api)->client()));
  pass(seconds(3));
  first.reset();
  for (int i = 0; i < 300; ++i) {
    pass(milliseconds(100));
    int leading = 0;
    for (const auto& one : others) leading += one->elector->leads() ? 1 : 0;
    ASSERT_LE(leading, 1);
  }
  int leads = 0;
  for (const auto& one : others) leads += one->leads;
  EXPECT_EQ(leads, 1);
  others.clear();
}

}  // namespace
}  // namespace edgemesh::kube
