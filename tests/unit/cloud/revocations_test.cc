#include "cloud/revocations.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "cloud/ca.h"
#include "cloud/files.h"
#include "cloud/node_claims.h"
#include "tests/support/fake_kube.h"
#include "tests/support/temp_dir.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;
using std::chrono::seconds;

constexpr int64_t kLifetime = 1000;
constexpr int64_t kGrace = 500;

class RevocationsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*io::Loop::create(clock_));
    kube_ = std::make_unique<test::FakeKube>(*loop_);
    open();
  }
  void open() {
    list_.reset();
    auto made = Revocations::open(*loop_, *kube_, options(), registry_);
    ASSERT_TRUE(made) << made.error().message;
    list_ = std::move(*made);
    list_->set_on_change([this] { ++told_; });
    list_->start();
    settle();
  }
  RevocationOptions options() const {
    return {.path = dir_.path() + "/revoked",
            .lifetime = seconds(kLifetime),
            .renew_grace = seconds(kGrace),
            .max_entries = 3};
  }
  void settle() {
    for (int i = 0; i < 30; ++i) loop_->run_once();
    clock_.advance(std::chrono::milliseconds(60));  // the list is told a little later
    for (int i = 0; i < 10; ++i) loop_->run_once();
  }
  // As a claim writes it.
  void node(const std::string& name, int64_t not_before) {
    const Json claim{{"key", "k"}, {"issued", "then"}, {"notBefore", not_before}};
    kube_->put(kube::kNodes, {{"metadata", {{"name", name}, {"annotations", {{kCertificateAnnotation, claim.dump()}}}}}});
    settle();
  }
  void erase(const std::string& name) {
    kube_->erase(kube::kNodes, "", name);
    settle();
  }
  int64_t now() const {
    return std::chrono::duration_cast<seconds>(clock_.wall_now().time_since_epoch()).count();
  }
  int64_t issued_now() const { return now() - kBackdateSeconds; }

  ManualClock clock_;
  test::TempDir dir_;
  obs::Registry registry_;
  std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<test::FakeKube> kube_;
  std::unique_ptr<Revocations> list_;
  int told_ = 0;
};

TEST_F(RevocationsTest, ADeletedNodesCertificatesCountNoMore) {
  const int64_t issued = issued_now();
  node("a", issued);
  EXPECT_TRUE(list_->check("a", issued));
  EXPECT_EQ(told_, 0);

  erase("a");

  EXPECT_FALSE(list_->check("a", issued));
  EXPECT_FALSE(list_->check("a", issued_now())) << "renewed in the second of the deletion";
  EXPECT_TRUE(list_->check("b", issued));
  EXPECT_EQ(told_, 1);
  ASSERT_EQ(list_->list().size(), 1U);
  EXPECT_GT(list_->not_before_floor("a", false), issued_now() - 1);
}

TEST_F(RevocationsTest, ANodeWithoutACertificateIsNoMatter) {
  kube_->put(kube::kNodes, {{"metadata", {{"name", "kubelets-own"}}}});
  settle();
  erase("kubelets-own");
  EXPECT_TRUE(list_->list().empty());
}

TEST_F(RevocationsTest, WhoJoinsAgainIsGoodFromThenOn) {
  const int64_t first = issued_now();
  node("a", first);
  erase("a");
  const int64_t again = std::max(issued_now(), list_->not_before_floor("a", false));
  node("a", again);
  EXPECT_TRUE(list_->check("a", again));
  EXPECT_FALSE(list_->check("a", first));
}

TEST_F(RevocationsTest, ADeletionThatIsHeardOfAfterTheNextJoinDoesNotEndThat) {
  const int64_t first = issued_now();
  node("a", first);
  clock_.advance(seconds(20));
  const int64_t again = issued_now();
  // Deleted and joined again at another cloud; here both come late.
  clock_.advance(seconds(5));
  erase("a");
  EXPECT_FALSE(list_->check("a", again));
  node("a", again);
  EXPECT_TRUE(list_->check("a", again));
  EXPECT_FALSE(list_->check("a", first));
}

TEST_F(RevocationsTest, AReplacementEndsWhatWasIssuedBefore) {
  const int64_t first = issued_now();
  node("a", first);
  const int64_t second = std::max(issued_now(), list_->not_before_floor("a", true));
  EXPECT_GT(second, first) << "replaced within one second";
  node("a", second);
  EXPECT_FALSE(list_->check("a", first));
  EXPECT_TRUE(list_->check("a", second));
  EXPECT_EQ(told_, 1);
}

TEST_F(RevocationsTest, ANameThatWasGivenAwayTwiceInASecondEndsWithItsNode) {
  const int64_t last = issued_now() + 2;
  node("a", last - 2);
  node("a", last);
  erase("a");
  EXPECT_FALSE(list_->check("a", last));
}

TEST_F(RevocationsTest, WhatANodeWritesOnItselfNeitherBringsBackNorBlocksCertificates) {
  const int64_t first = issued_now();
  node("a", first);
  node("a", first + 10);  // given to another machine
  node("a", 1);
  EXPECT_FALSE(list_->check("a", first));
  node("a", std::numeric_limits<int64_t>::max());
  EXPECT_LE(list_->not_before_floor("a", true), now() + 1);
  erase("a");
  EXPECT_LE(list_->not_before_floor("a", false), now() + 1);
}

TEST_F(RevocationsTest, OnlyNodesWithoutADeletionAreMade) {
  const int64_t issued = issued_now();
  node("a", issued);
  EXPECT_TRUE(list_->may_create("b", issued));
  EXPECT_FALSE(list_->may_create("a", issued)) << "it is thought to be there";
  erase("a");
  EXPECT_FALSE(list_->may_create("a", issued)) << "it was deleted";
  EXPECT_TRUE(list_->may_create("a", issued + 10)) << "its certificate is a new one";
  node("b", issued_now());
  list_.reset();
  kube_->erase(kube::kNodes, "", "b");
  auto made = Revocations::open(*loop_, *kube_, options(), registry_);
  ASSERT_TRUE(made);
  EXPECT_FALSE((*made)->may_create("c", issued)) << "the nodes are not known yet";
}

TEST_F(RevocationsTest, WhoRenewsWhileItIsReplacedGainsNothing) {
  node("a", issued_now() - 1000);
  const int64_t second = std::max(issued_now(), list_->not_before_floor("a", true));
  clock_.advance(seconds(2));
  const int64_t renewed = std::max(issued_now(), list_->not_before_floor("a", false));
  EXPECT_TRUE(list_->check("a", renewed)) << "the replacement is not heard of yet";
  node("a", second);
  EXPECT_FALSE(list_->check("a", renewed));
  EXPECT_TRUE(list_->check("a", second));
  EXPECT_TRUE(list_->check("a", list_->not_before_floor("a", false))) << "the new one may renew at once";
}

TEST_F(RevocationsTest, AllIsKnownAfterARestart) {
  const int64_t issued = issued_now();
  node("a", issued);
  node("b", issued);
  erase("a");
  list_.reset();
  kube_->erase(kube::kNodes, "", "b");  // while nobody looks
  open();
  EXPECT_FALSE(list_->check("a", issued));
  EXPECT_FALSE(list_->check("b", issued));
}

TEST_F(RevocationsTest, NodesThatAnotherApiDoesNotHaveAreNotTakenForDeleted) {
  const auto cluster = [this](const std::string& uid) {
    kube_->put(kube::kNamespaces, {{"metadata", {{"name", "kube-system"}, {"uid", uid}}}});
  };
  cluster("one");
  open();
  const int64_t issued = issued_now();
  node("a", issued);
  node("b", issued);
  erase("a");
  list_.reset();
  kube_->erase(kube::kNodes, "", "b");
  cluster("two");
  open();
  EXPECT_TRUE(list_->check("b", issued));
  EXPECT_TRUE(list_->may_create("b", issued)) << "its next report makes its Node";
  EXPECT_FALSE(list_->check("a", issued)) << "what was revoked stays so";
  node("c", issued);
  list_.reset();
  kube_->erase(kube::kNodes, "", "c");
  open();
  EXPECT_FALSE(list_->check("c", issued)) << "the same API as before";
}

TEST_F(RevocationsTest, TheFileIsWrittenBesideTheLoop) {
  const auto on_disk = [&] {
    const auto text = read_file(options().path);
    const Json json = text ? Json::parse(*text, nullptr, false) : Json();
    return json.is_object() ? json["revoked"].size() : 0;
  };
  for (const char* name : {"a", "b"}) node(name, issued_now());
  const size_t before = on_disk();
  // The informer's handlers run here: when they have returned the list is told, the disk comes later.
  kube_->erase(kube::kNodes, "", "a");
  kube_->erase(kube::kNodes, "", "b");
  ASSERT_TRUE(loop_->run_until([&] { return list_->list().size() == 2; }, seconds(5)));
  EXPECT_EQ(before, 0U);
  EXPECT_TRUE(loop_->run_until([&] { return on_disk() == 2; }, seconds(10)));
}

TEST_F(RevocationsTest, AFileThatCannotBeWrittenIsTriedAgain) {
  node("a", issued_now());
  ASSERT_EQ(::mkdir((options().path + ".new").c_str(), 0700), 0);  // where the new state goes first
  erase("a");
  ASSERT_TRUE(loop_->run_until([&] { return told_ > 0; }, seconds(5)));
  settle();
  ASSERT_EQ(::rmdir((options().path + ".new").c_str()), 0);
  const auto written = [&] {
    clock_.advance(std::chrono::milliseconds(500));
    const auto text = read_file(options().path);
    return text && text->find(R"("revoked":{"a")") != std::string::npos;
  };
  EXPECT_TRUE(loop_->run_until(written, seconds(10)));
}

TEST_F(RevocationsTest, AListThatCannotBeReadStopsTheStart) {
  list_.reset();
  ASSERT_TRUE(write_file(options().path, "{\"known\":", 0600));
  auto made = Revocations::open(*loop_, *kube_, options(), registry_);
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message.find("revoked"), std::string::npos) << made.error().message;
}

TEST_F(RevocationsTest, EntriesEndWithTheCertificates) {
  const int64_t issued = issued_now();
  node("a", issued);
  erase("a");
  clock_.advance(seconds(kLifetime + 10));
  settle();
  EXPECT_TRUE(list_->list().empty()) << "agents see by themselves that it has run out";
  EXPECT_FALSE(list_->check("a", issued)) << "it could still be renewed";
  clock_.advance(seconds(kGrace + 3600));
  settle();
  EXPECT_TRUE(list_->check("a", issued));
}

TEST_F(RevocationsTest, TheListIsBounded) {
  for (int i = 0; i < 5; ++i) {
    node("n" + std::to_string(i), issued_now());
    erase("n" + std::to_string(i));
    clock_.advance(seconds(2));
  }
  const auto left = list_->list();
  ASSERT_EQ(left.size(), 3U);
  EXPECT_EQ(left.front().node, "n2") << "the oldest go first";
}

}  // namespace
}  // namespace edgemesh::cloud
