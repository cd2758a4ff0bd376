#include "agent/edged/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "agent/edged/status.h"

namespace edgemesh::edged {
namespace {

using namespace std::chrono_literals;
using Json = nlohmann::json;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using State = ContainerView::State;

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kWall = 1'700'000'000 * kSecond;

class PlanTest : public ::testing::Test {
 protected:
  void make_pod(const std::string& policy, const std::vector<Json>& containers,
                const std::vector<Json>& init = {}) {
    Json spec{{"restartPolicy", policy}, {"containers", containers}, {"initContainers", init}};
    auto parsed = parse_pod(Json{
        {"metadata", {{"uid", "u1"}, {"namespace", "default"}, {"name", "web"}}},
        {"spec", spec}}.dump());
    ASSERT_TRUE(parsed) << parsed.error().message;
    pod = std::move(*parsed);
  }
  static Json c(const std::string& name, bool sidecar = false) {
    Json out{{"name", name}, {"image", "web:1"}};
    if (sidecar) out["restartPolicy"] = "Always";
    return out;
  }
  void sandbox(uint32_t attempt = 0, bool ready = true) {
    SandboxView s;
    s.id = "s" + std::to_string(attempt);
    s.attempt = attempt;
    s.ready = ready;
    s.created = kWall - 100 * kSecond + attempt * kSecond;
    s.ips = {"10.0.0.7"};
    view.put(s);
  }
  ContainerView& has(const std::string& name, State state, uint32_t attempt = 0, int exit_code = 0,
                     Duration ended_before = 0s, uint32_t in_sandbox = 0) {
    ContainerView v;
    v.id = fmt::format("{}-{}", name, attempt);
    v.sandbox = "s" + std::to_string(in_sandbox);
    v.name = name;
    v.state = state;
    v.attempt = attempt;
    v.created = kWall - 90 * kSecond + attempt * kSecond;
    v.started = v.created;
    v.exit_code = exit_code;
    if (state == State::kExited) v.finished = kWall - ended_before.count();
    view.put(v);
    for (ContainerView& have : view.containers)
      if (have.id == v.id) return have;
    return view.containers.front();
  }
  Plan plan() {
    PlanInput in{.pod = pod, .view = view, .backoff = backoff, .now = now};
    in.wall_ns = kWall;
    in.terminating = terminating;
    in.busy = busy;
    in.refused = refused;
    in.probes = [this](const ContainerView& v) {
      const auto it = verdicts.find(v.name);
      return it == verdicts.end() ? ProbeVerdict() : it->second;
    };
    return make_plan(in);
  }
  static std::vector<std::string> starts(const Plan& p) {
    std::vector<std::string> out;
    for (const auto& s : p.start) out.push_back(fmt::format("{}#{}", s.container->name, s.attempt));
    return out;
  }
  static std::vector<std::string> stops(const Plan& p) {
    std::vector<std::string> out;
    for (const auto& s : p.stop) out.push_back(s.id);
    return out;
  }
  Json status(const Plan& p) {
    StatusInput in{.pod = pod, .view = view};
    for (const auto& [name, message] : p.waiting) in.waiting[name] = {"CrashLoopBackOff", message};
    in.busy = busy;
    in.initialized = p.initialized;
    in.over = p.ended;
    in.now_s = kWall / kSecond;
    in.host_ip = "192.0.2.1";
    return make_status(in);
  }
  static std::string condition(const Json& status, const std::string& type) {
    for (const Json& one : status["conditions"])
      if (one["type"] == type) return one["status"];
    return "";
  }

  Pod pod;
  PodView view;
  Backoff backoff;
  TimePoint now{1000h};
  bool terminating = false;
  std::set<std::string> busy;
  std::map<std::string, TimePoint> refused;
  std::map<std::string, ProbeVerdict> verdicts;
};

TEST_F(PlanTest, SandboxThenContainers) {
  make_pod("Always", {c("a"), c("b")});
  Plan first = plan();
  EXPECT_EQ(first.sandbox, Plan::Sandbox::kMake);
  EXPECT_EQ(first.sandbox_attempt, 0U);
  EXPECT_THAT(first.start, IsEmpty());
  Json shown = status(first);
  EXPECT_EQ(shown["phase"], "Pending");
  EXPECT_EQ(shown["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
  sandbox();
  EXPECT_THAT(starts(plan()), ElementsAre("a#0", "b#0"));
  busy = {"a"};
  EXPECT_THAT(starts(plan()), ElementsAre("b#0"));
  busy.clear();
  has("a", State::kRunning);
  has("b", State::kRunning);
  const Plan done = plan();
  EXPECT_THAT(done.start, IsEmpty());
  EXPECT_THAT(done.stop, IsEmpty());
  EXPECT_EQ(done.sandbox, Plan::Sandbox::kKeep);
  shown = status(done);
  EXPECT_EQ(shown["phase"], "Running");
  EXPECT_EQ(shown["podIP"], "10.0.0.7");
  EXPECT_EQ(condition(shown, "Ready"), "True");
}

TEST_F(PlanTest, AFailedSandboxWaits) {
  make_pod("Always", {c("a")});
  refused[""] = now + 5s;
  const Plan p = plan();
  EXPECT_EQ(p.sandbox, Plan::Sandbox::kKeep);
  EXPECT_EQ(p.look_again, now + 5s);
}

TEST_F(PlanTest, InitContainersOneAfterTheOther) {
  make_pod("Always", {c("app")}, {c("i1"), c("i2")});
  sandbox();
  EXPECT_THAT(starts(plan()), ElementsAre("i1#0"));
  has("i1", State::kRunning);
  EXPECT_THAT(plan().start, IsEmpty());
  EXPECT_EQ(status(plan())["containerStatuses"][0]["state"]["waiting"]["reason"],
            "PodInitializing");
  has("i1", State::kExited, 0, 0);
  EXPECT_THAT(starts(plan()), ElementsAre("i2#0"));
  has("i2", State::kExited, 0, 1);
  EXPECT_THAT(starts(plan()), ElementsAre("i2#1")) << "the first failure does not wait";
  backoff.next(backoff_key(pod, pod.init_containers[1]), now, now);
  const Plan waits = plan();
  EXPECT_THAT(waits.start, IsEmpty());
  EXPECT_EQ(waits.look_again, now + 10s);
  has("i2", State::kExited, 1, 0);
  const Plan apps = plan();
  EXPECT_THAT(starts(apps), ElementsAre("app#0"));
  EXPECT_TRUE(apps.initialized);
  has("app", State::kRunning);
  // An init container that the runtime has forgotten is not run again beside the app.
  view.erase_container("i1-0");
  EXPECT_THAT(plan().start, IsEmpty());
}

TEST_F(PlanTest, AnInitContainerThatFailsEndsAPodThatNeverRestarts) {
  make_pod("Never", {c("app")}, {c("i1")});
  sandbox();
  has("i1", State::kExited, 0, 3);
  const Plan p = plan();
  EXPECT_THAT(p.start, IsEmpty());
  EXPECT_TRUE(p.ended);
  EXPECT_THAT(p.stop_sandboxes, ElementsAre("s0"));
  EXPECT_EQ(status(p)["phase"], "Failed");
}

TEST_F(PlanTest, SidecarsStartFirstAndEndLast) {
  make_pod("Never", {c("app")}, {c("side", true), c("init")});
  sandbox();
  EXPECT_THAT(starts(plan()), ElementsAre("side#0"));
  has("side", State::kRunning);
  verdicts["side"].started = false;
  EXPECT_THAT(plan().start, IsEmpty()) << "its startup probe has not passed";
  verdicts.clear();
  EXPECT_THAT(starts(plan()), ElementsAre("init#0"));
  has("init", State::kExited);
  EXPECT_THAT(starts(plan()), ElementsAre("app#0"));
  has("app", State::kRunning);
  has("side", State::kExited, 0, 1);
  EXPECT_THAT(starts(plan()), ElementsAre("side#1")) << "a sidecar runs as long as the pod";
  has("side", State::kRunning, 1);
  has("app", State::kExited);
  const Plan p = plan();
  EXPECT_THAT(stops(p), ElementsAre("side-1"));
  EXPECT_FALSE(p.ended);
  has("side", State::kExited, 1, 143);
  const Plan last = plan();
  EXPECT_TRUE(last.ended);
  EXPECT_THAT(last.stop_sandboxes, ElementsAre("s0"));
  EXPECT_EQ(status(last)["phase"], "Succeeded");
}

TEST_F(PlanTest, RestartsByPolicy) {
  const auto restarts = [&](const std::string& policy, int exit_code) {
    view = PodView();
    make_pod(policy, {c("a")});
    sandbox();
    has("a", State::kExited, 4, exit_code);
    return starts(plan());
  };
  EXPECT_THAT(restarts("Always", 0), ElementsAre("a#5"));
  EXPECT_THAT(restarts("Always", 1), ElementsAre("a#5"));
  EXPECT_THAT(restarts("OnFailure", 0), IsEmpty());
  EXPECT_THAT(restarts("OnFailure", 1), ElementsAre("a#5"));
  EXPECT_THAT(restarts("Never", 1), IsEmpty());
  EXPECT_EQ(status(plan())["phase"], "Failed");
}

TEST_F(PlanTest, CrashLoopWaitsLongerEachTime) {
  make_pod("Always", {c("a")});
  sandbox();
  const std::string key = backoff_key(pod, pod.containers[0]);
  has("a", State::kExited, 0, 2);
  EXPECT_THAT(starts(plan()), ElementsAre("a#1"));
  backoff.next(key, now, now);
  has("a", State::kExited, 1, 2, 4s);
  Plan p = plan();
  EXPECT_THAT(p.start, IsEmpty());
  EXPECT_EQ(p.look_again, now + 6s);
  const Json shown = status(p);
  const Json& one = shown["containerStatuses"][0];
  EXPECT_EQ(one["state"]["waiting"]["reason"], "CrashLoopBackOff");
  EXPECT_EQ(one["state"]["waiting"]["message"],
            "back-off 10s restarting failed container=a pod=web_default(u1)");
  EXPECT_EQ(one["lastState"]["terminated"]["exitCode"], 2);
  EXPECT_EQ(one["restartCount"], 1);
  EXPECT_EQ(shown["phase"], "Running");
  EXPECT_EQ(condition(shown, "Ready"), "False");
  now += 6s;
  backoff.next(key, now - 10s, now);
  EXPECT_EQ(backoff.wait_of(key), 20s);
  for (int i = 0; i < 10; ++i) {
    now += 6min;
    backoff.next(key, now, now);
  }
  EXPECT_EQ(backoff.wait_of(key), 5min);
  now += 11min;
  EXPECT_EQ(backoff.ready_at(key, now), now) << "it held for ten minutes";
}

TEST_F(PlanTest, ADeadSandboxIsReplacedAndEverythingStartsAgain) {
  make_pod("Always", {c("app")}, {c("init")});
  sandbox(0, false);
  has("init", State::kExited, 0, 0);
  has("app", State::kExited, 0, 255);
  const Plan p = plan();
  EXPECT_EQ(p.sandbox, Plan::Sandbox::kMake);
  EXPECT_EQ(p.sandbox_attempt, 1U);
  sandbox(1);
  EXPECT_THAT(starts(plan()), ElementsAre("init#1"));
  has("init", State::kExited, 1, 0, 0s, 1);
  const Plan apps = plan();
  EXPECT_THAT(starts(apps), ElementsAre("app#1")) << "no back-off: it was not its fault";
  has("app", State::kRunning, 1, 0, 0s, 1);
  const Plan last = plan();
  EXPECT_THAT(last.remove_containers, ElementsAre("init-0"));
  EXPECT_THAT(last.remove_sandboxes, IsEmpty()) << "its dead container is still shown as lastState";
}

TEST_F(PlanTest, APodThatNeverRestartsGetsNoSecondSandbox) {
  make_pod("Never", {c("app")});
  sandbox(0, false);
  has("app", State::kExited, 0, 255);
  const Plan p = plan();
  EXPECT_EQ(p.sandbox, Plan::Sandbox::kKeep);
  EXPECT_TRUE(p.ended);
  EXPECT_EQ(status(p)["phase"], "Failed");
}

TEST_F(PlanTest, OneThatEndedWellIsNotRunAgainInANewSandbox) {
  make_pod("OnFailure", {c("done"), c("runs")});
  sandbox(0, false);
  has("done", State::kExited, 0, 0);
  has("runs", State::kExited, 0, 255);
  EXPECT_EQ(plan().sandbox, Plan::Sandbox::kMake);
  sandbox(1);
  EXPECT_THAT(starts(plan()), ElementsAre("runs#1"));
  has("runs", State::kExited, 1, 0, 0s, 1);
  EXPECT_TRUE(plan().ended);
  EXPECT_EQ(status(plan())["phase"], "Succeeded");
}

TEST_F(PlanTest, UnhealthyAndChangedContainersAreStopped) {
  make_pod("Always", {c("a"), c("b")});
  sandbox();
  has("a", State::kRunning);
  has("b", State::kRunning).hash = "of another image";
  verdicts["a"] = {true, true, false, "Liveness probe failed"};
  EXPECT_THAT(stops(plan()), ElementsAre("a-0", "b-0"));
}

TEST_F(PlanTest, TheEndStopsSidecarsLastThenTheSandbox) {
  make_pod("Always", {c("app")}, {c("side", true)});
  sandbox();
  has("side", State::kRunning);
  has("app", State::kRunning);
  terminating = true;
  EXPECT_THAT(stops(plan()), ElementsAre("app-0"));
  has("app", State::kExited, 0, 0);
  EXPECT_THAT(stops(plan()), ElementsAre("side-0"));
  has("side", State::kExited, 0, 0);
  EXPECT_THAT(plan().stop_sandboxes, ElementsAre("s0"));
  EXPECT_FALSE(plan().ended);
  view.sandboxes.front().ready = false;
  EXPECT_TRUE(plan().ended);
  EXPECT_THAT(plan().start, IsEmpty());
}

TEST_F(PlanTest, OneThatWasMadeButNotStartedIsMadeAgain) {
  make_pod("Always", {c("a")});
  sandbox();
  has("a", State::kCreated, 3);
  const Plan p = plan();
  EXPECT_THAT(p.remove_containers, ElementsAre("a-3"));
  EXPECT_THAT(starts(p), ElementsAre("a#3"));
}

TEST_F(PlanTest, DeadContainersAreKeptAsFarAsTheyTellSomething) {
  make_pod("Always", {c("a")});
  sandbox();
  for (uint32_t i = 0; i < 3; ++i) has("a", State::kExited, i, 1);
  has("a", State::kRunning, 3);
  EXPECT_THAT(plan().remove_containers, ElementsAre("a-1", "a-0"));
}

}  // namespace
}  // namespace edgemesh::edged
