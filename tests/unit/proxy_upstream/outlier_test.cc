#include "proxy/upstream/outlier.h"

#include <gtest/gtest.h>

#include "tests/unit/proxy_upstream/cluster_fixture.h"

namespace edgemesh::proxy {
namespace {

using std::chrono::seconds;

class OutlierTest : public testing::Test {
 protected:
  OutlierTest() {
    options_.consecutive_5xx = 3;
    options_.base_ejection = seconds(30);
    options_.max_ejection = seconds(80);
    options_.max_ejection_percent = 30;
  }
  void start(int n) {
    cluster_.config.outlier = std::make_shared<model::OutlierDetection>(options_);
    cluster_.set(endpoints(n));
  }
  void report(int n, Outcome outcome, int times = 1) {
    for (int i = 0; i < times; ++i) report_outcome(cluster_.host(n), outcome);
  }
  bool out(int n) { return cluster_.host(n).shared().has(SharedHost::kEjected); }
  void sweep_after(Duration wait) {
    cluster_.clock.advance(wait);
    sweep_outliers(*cluster_.hosts, cluster_.clock.now());
  }

  model::OutlierDetection options_;
  TestCluster cluster_;
};

TEST_F(OutlierTest, FailuresInARowEjectAndTimeBringsBack) {
  start(4);
  report(1, Outcome::kServerError, 2);
  report(1, Outcome::kSuccess);
  report(1, Outcome::kServerError, 2);
  EXPECT_FALSE(out(1));

  report(1, Outcome::kServerError);
  EXPECT_TRUE(out(1));
  EXPECT_EQ(cluster_.count(300).count(1), 0u);

  sweep_after(seconds(29));
  EXPECT_TRUE(out(1));
  sweep_after(seconds(2));
  EXPECT_FALSE(out(1));
  EXPECT_EQ(cluster_.count(400)[1], 100);
}

TEST_F(OutlierTest, EachEjectionInARowLastsLongerUpToTheMost) {
  start(4);
  for (int expected : {30, 60, 80, 80}) {
    report(2, Outcome::kServerError, 3);
    ASSERT_TRUE(out(2));
    sweep_after(seconds(expected) - std::chrono::milliseconds(1));
    ASSERT_TRUE(out(2)) << expected;
    sweep_after(std::chrono::milliseconds(2));
    ASSERT_FALSE(out(2)) << expected;
  }
  // Calm intervals are forgiven one by one.
  for (int i = 0; i < 4; ++i) sweep_after(seconds(10));
  report(2, Outcome::kServerError, 3);
  sweep_after(seconds(31));
  EXPECT_FALSE(out(2));
}

TEST_F(OutlierTest, NotMoreThanTheShareIsOutButOneAlwaysMayBe) {
  start(10);
  for (int n = 1; n <= 5; ++n) report(n, Outcome::kServerError, 3);
  EXPECT_TRUE(out(1) && out(2) && out(3));
  EXPECT_FALSE(out(4) || out(5));

  TestCluster small;
  options_.max_ejection_percent = 1;
  small.config.outlier = std::make_shared<model::OutlierDetection>(options_);
  small.set(endpoints(2));
  for (int n = 1; n <= 2; ++n)
    for (int i = 0; i < 3; ++i) report_outcome(small.host(n), Outcome::kServerError);
  EXPECT_TRUE(small.host(1).shared().has(SharedHost::kEjected));
  EXPECT_FALSE(small.host(2).shared().has(SharedHost::kEjected));
}

TEST_F(OutlierTest, GatewayErrorsHaveTheirOwnRow) {
  options_.consecutive_5xx = 0;
  options_.consecutive_gateway = 2;
  start(4);
  report(1, Outcome::kServerError, 10);
  EXPECT_FALSE(out(1));
  report(1, Outcome::kGatewayError);
  report(1, Outcome::kServerError);
  report(1, Outcome::kGatewayError);
  EXPECT_FALSE(out(1));
  report(1, Outcome::kGatewayError);
  EXPECT_TRUE(out(1));
}

TEST_F(OutlierTest, LocalFailuresCountLike503OrApart) {
  start(4);
  report(1, Outcome::kLocalFailure, 3);
  EXPECT_TRUE(out(1));

  options_.split_local_origin = true;
  options_.consecutive_local_origin = 2;
  TestCluster split;
  split.config.outlier = std::make_shared<model::OutlierDetection>(options_);
  split.set(endpoints(4));
  report_outcome(split.host(1), Outcome::kServerError);
  report_outcome(split.host(1), Outcome::kServerError);
  report_outcome(split.host(1), Outcome::kLocalFailure);
  report_outcome(split.host(1), Outcome::kConnected);
  report_outcome(split.host(1), Outcome::kLocalFailure);
  EXPECT_FALSE(split.host(1).shared().has(SharedHost::kEjected));
  report_outcome(split.host(1), Outcome::kLocalFailure);
  EXPECT_TRUE(split.host(1).shared().has(SharedHost::kEjected));
}

TEST_F(OutlierTest, SuccessRateFarBelowTheOthersEjects) {
  options_.consecutive_5xx = 0;
  options_.enforce_success_rate = 100;
  options_.success_rate_min_hosts = 5;
  options_.success_rate_min_requests = 100;
  start(6);
  for (int n = 1; n <= 6; ++n) report(n, Outcome::kSuccess, n == 4 ? 60 : 99);
  for (int n = 1; n <= 6; ++n) report(n, Outcome::kServerError, n == 4 ? 40 : 1);
  sweep_after(seconds(10));
  for (int n = 1; n <= 6; ++n) EXPECT_EQ(out(n), n == 4) << n;
  EXPECT_EQ(cluster_.host(4).shared().success_rate, 60);

  // The next interval has too few requests to judge.
  report(5, Outcome::kServerError, 50);
  sweep_after(seconds(10));
  EXPECT_FALSE(out(5));
}

TEST_F(OutlierTest, RemovedEndpointsLeaveTheCount) {
  start(10);
  for (int n = 1; n <= 3; ++n) report(n, Outcome::kServerError, 3);
  auto list = endpoints(10);
  list.erase(list.begin(), list.begin() + 3);
  cluster_.set(list);
  sweep_after(seconds(10));
  EXPECT_EQ(cluster_.hosts->shared()->ejected, 0u);
  report(5, Outcome::kServerError, 3);
  EXPECT_TRUE(out(5));
}

}  // namespace
}  // namespace edgemesh::proxy
