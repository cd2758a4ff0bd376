// Pods on a runtime in memory, from the metastore's word to the message for the cloud.
#include "agent/edged/edged_module.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "agent/edged/spec/labels.h"
#include "tests/support/fake_cri.h"
#include "tests/unit/agent_meta/fixture.h"

namespace edgemesh::edged {
namespace {

using namespace std::chrono_literals;
using Json = nlohmann::json;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class FakeParts final : public PodParts {
 public:
  Result<> prepare(const Pod&) override {
    ++prepared;
    return missing.empty() ? Result<>() : fail(ErrorCode::kNotFound, "{}", missing);
  }
  Result<pb::PodSandboxConfig> sandbox(const Pod& pod, uint32_t attempt) override {
    pb::PodSandboxConfig out;
    out.mutable_metadata()->set_name(pod.name);
    out.mutable_metadata()->set_uid(pod.uid);
    out.mutable_metadata()->set_attempt(attempt);
    (*out.mutable_labels())[kPodUidLabel] = pod.uid;
    (*out.mutable_labels())[kPodNameLabel] = pod.name;
    (*out.mutable_labels())[kPodNamespaceLabel] = pod.ns;
    return out;
  }
  Result<pb::ContainerConfig> container(const Pod& pod, const Container& container,
                                        uint32_t attempt, const PodView&) override {
    pb::ContainerConfig out;
    out.mutable_metadata()->set_name(container.name);
    out.mutable_metadata()->set_attempt(attempt);
    out.mutable_image()->set_image(container.image);
    (*out.mutable_labels())[kPodUidLabel] = pod.uid;
    (*out.mutable_labels())[kContainerNameLabel] = container.name;
    (*out.mutable_annotations())[kContainerHashAnnotation] = container.hash;
    return out;
  }
  std::vector<pb::AuthConfig> logins(const Pod&, const std::string&) override { return {}; }
  std::string last_words(const Pod&, const ContainerView&) override { return ""; }
  void tear_down(const Pod& pod) override { torn_down.push_back(pod.uid); }

  int prepared = 0;
  std::string missing;
  std::vector<std::string> torn_down;
};

class EdgedModuleTest : public agent::MetaFixture {
 protected:
  void SetUp() override {
    MetaFixture::SetUp();
    open_store();
    runtime = std::make_unique<test::FakeRuntime>(*loop_);
    runtime->add_image("web:1");
    boot();
  }
  void TearDown() override {
    bus_.reset();
    module.reset();
    outbox.reset();
  }
  // A start of the agent. The runtime's state stays.
  void boot() {
    TearDown();
    told.clear();
    outbox = std::make_unique<agent::Outbox>(*loop_, *store_, registry_);
    EdgedModule::Options options;
    options.node = "edge-1";
    options.host_ip = "192.0.2.1";
    module = std::make_unique<EdgedModule>(*loop_, *runtime, parts, *outbox, *store_, options,
                                           registry_);
    bus_ = std::make_unique<bus::Bus>(*loop_);
    ASSERT_TRUE(bus_->add(*module));
    ASSERT_TRUE(bus_->add(hub_));
  }
  void start() {
    module->on_objects_loaded();
    ASSERT_TRUE(bus_->start());
    ASSERT_TRUE(
        bus_->send(kEdgedModule, bus::make_message("edgehub", "edged", "connect", "node/connection",
                                                   "\"cloud_connected\"")));
    run(1s);
  }
  // Time goes by, in steps that let every timer and answer come.
  void run(Duration time) {
    for (Duration passed{}; passed < time; passed += 50ms) {
      for (int i = 0; i < 12; ++i) loop_->run_once();
      confirm();
      clock_.advance(50ms);
    }
    settle();
    confirm();
    settle();
  }
  // The cloud answers what has come since.
  void confirm() {
    for (const bus::Message& m : std::exchange(hub_.sent, {})) {
      told.push_back(m);
      bus_->respond(bus::reply_to(m, "\"OK\""));
    }
  }
  static Json pod_json(const Json& more = Json::object()) {
    Json container{{"name", "main"}, {"image", "web:1"}};
    container.update(more);
    return {{"metadata", {{"uid", "u1"}, {"namespace", "default"}, {"name", "web"}}},
            {"spec",
             {{"nodeName", "edge-1"},
              {"terminationGracePeriodSeconds", 7},
              {"containers", std::vector<Json>{container}}}}};
  }
  void give(const Json& pod) { module->on_object({"pod", "default", "web"}, pod.dump()); }
  void ask_to_delete(Json pod) {
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z";
    pod["metadata"]["deletionGracePeriodSeconds"] = 7;
    give(pod);
  }
  // The newest status that was sent.
  Json status() {
    Json out;
    for (const bus::Message& m : told)
      if (m.resource == "default/podstatus/web") out = Json::parse(m.content)["Status"];
    return out;
  }
  Json main_status() {
    Json all = status();
    return all.is_object() ? all["containerStatuses"][0] : Json::object();
  }
  std::vector<std::string> sent() const {
    std::vector<std::string> out;
    for (const bus::Message& m : told) out.push_back(m.operation + " " + m.resource);
    return out;
  }
  std::string only_container() const {
    return runtime->containers.empty() ? "" : runtime->containers.rbegin()->first;
  }

  std::unique_ptr<test::FakeRuntime> runtime;
  FakeParts parts;
  std::vector<bus::Message> told;  // the cloud, of all that was confirmed
  std::unique_ptr<agent::Outbox> outbox;
  std::unique_ptr<EdgedModule> module;
};

TEST_F(EdgedModuleTest, APodRunsAndTheCloudHearsOfIt) {
  start();
  give(pod_json());
  run(1s);
  EXPECT_THAT(runtime->calls,
              ElementsAre("RunPodSandbox web", "CreateContainer main", "StartContainer main"));
  const Json shown = status();
  EXPECT_EQ(shown["phase"], "Running");
  EXPECT_EQ(shown["podIP"].get<std::string>().substr(0, 8), "10.88.0.");
  EXPECT_EQ(shown["hostIP"], "192.0.2.1");
  EXPECT_EQ(main_status()["ready"], true);
  EXPECT_EQ(main_status()["restartCount"], 0);
}

TEST_F(EdgedModuleTest, ANewRunOfTheAgentAdoptsWhatRuns) {
  start();
  give(pod_json());
  run(1s);
  runtime->calls.clear();
  boot();
  give(pod_json());
  start();
  run(15s);
  EXPECT_THAT(runtime->calls, IsEmpty());
  EXPECT_EQ(status()["phase"], "Running");
}

TEST_F(EdgedModuleTest, ADeletedPodEndsAndThenItsObjectMayGo) {
  start();
  give(pod_json());
  run(1s);
  runtime->calls.clear();
  told.clear();
  runtime->hold("StopContainer");
  ask_to_delete(pod_json());
  run(1s);
  EXPECT_THAT(sent(), Not(Contains("delete default/pod/web"))) << "it still runs";
  runtime->release("StopContainer");
  run(1s);
  EXPECT_THAT(sent(), Contains("delete default/pod/web"));
  EXPECT_THAT(runtime->sandboxes, IsEmpty());
  EXPECT_THAT(parts.torn_down, ElementsAre("u1"));
  EXPECT_EQ(module->status().pods, 1U) << "until the cloud says that the object is gone";
  module->on_object_gone({"pod", "default", "web"}, "u1");
  run(1s);
  EXPECT_EQ(module->status().pods, 0U);
}

TEST_F(EdgedModuleTest, APodWhoseObjectIsGoneEndsAndNothingIsTold) {
  start();
  give(pod_json());
  run(1s);
  told.clear();
  module->on_object_gone({"pod", "default", "web"}, "u1");
  run(1s);
  EXPECT_THAT(runtime->sandboxes, IsEmpty());
  EXPECT_THAT(sent(), Not(Contains("delete default/pod/web")));
  EXPECT_THAT(sent(), Not(Contains("update default/podstatus/web")));
  EXPECT_EQ(module->status().pods, 0U);
}

TEST_F(EdgedModuleTest, AContainerThatEndsIsStartedAgainThenHeldBack) {
  start();
  give(pod_json());
  run(1s);
  runtime->exit_container(only_container(), 3);
  run(3s);
  EXPECT_EQ(main_status()["restartCount"], 1);
  EXPECT_EQ(main_status()["ready"], true);
  EXPECT_EQ(main_status()["lastState"]["terminated"]["exitCode"], 3);
  runtime->exit_container(only_container(), 3);
  run(3s);
  EXPECT_EQ(main_status()["state"]["waiting"]["reason"], "CrashLoopBackOff");
  run(10s);
  EXPECT_EQ(main_status()["restartCount"], 2);
  EXPECT_EQ(main_status()["ready"], true);
}

TEST_F(EdgedModuleTest, AnImageThatCannotBePulledIsTriedAgain) {
  start();
  give(pod_json({{"image", "absent:1"}}));
  run(2s);
  EXPECT_EQ(main_status()["state"]["waiting"]["reason"], "ImagePullBackOff");
  EXPECT_EQ(runtime->pulls.size(), 1U);
  runtime->registry.insert(test::FakeRuntime::full_name("absent:1"));
  run(12s);
  EXPECT_EQ(runtime->pulls.size(), 2U);
  EXPECT_EQ(status()["phase"], "Running");
}

TEST_F(EdgedModuleTest, WhatIsOnTheNodeIsUsedWhenTheRegistryCannotBeReached) {
  start();
  give(pod_json({{"imagePullPolicy", "Always"}}));
  run(2s);
  EXPECT_EQ(runtime->pulls.size(), 1U);
  EXPECT_EQ(status()["phase"], "Running");
}

TEST_F(EdgedModuleTest, AMissingConfigMapIsWaitedFor) {
  parts.missing = "configmap \"c\" not found";
  start();
  give(pod_json());
  run(1s);
  EXPECT_THAT(runtime->calls, IsEmpty());
  EXPECT_EQ(parts.prepared, 1);
  parts.missing.clear();
  module->on_object({"configmap", "default", "c"}, "{}");
  run(1s);
  EXPECT_EQ(status()["phase"], "Running");
}

TEST_F(EdgedModuleTest, LivenessEndsReadinessOnlyTells) {
  int code = 0;
  runtime->on_exec = [&](const std::string&, const std::vector<std::string>& command) {
    pb::ExecSyncResponse out;
    out.set_exit_code(command.front() == "live" ? code : command.front() == "ready" ? 1 : 0);
    return out;
  };
  const auto probe = [](const char* word) {
    return Json{{"exec", {{"command", std::vector<Json>{word}}}},
                {"periodSeconds", 1},
                {"failureThreshold", 2}};
  };
  start();
  give(pod_json({{"livenessProbe", probe("live")}, {"readinessProbe", probe("ready")}}));
  run(5s);
  EXPECT_EQ(main_status()["ready"], false);
  EXPECT_EQ(main_status()["restartCount"], 0);
  EXPECT_THAT(runtime->calls, Not(Contains("StopContainer main")));
  code = 1;
  run(3s);
  code = 0;
  run(5s);
  EXPECT_THAT(runtime->calls, Contains("StopContainer main"));
  EXPECT_EQ(main_status()["restartCount"], 1);
}

TEST_F(EdgedModuleTest, TheStopHookRunsBeforeTheSignal) {
  start();
  const Json hook{{"preStop", {{"exec", {{"command", std::vector<Json>{"bye"}}}}}}};
  give(pod_json({{"lifecycle", hook}}));
  run(1s);
  runtime->calls.clear();
  runtime->hold("ExecSync");
  ask_to_delete(pod_json({{"lifecycle", hook}}));
  run(1s);
  EXPECT_THAT(runtime->calls, ElementsAre("ExecSync main"));
  runtime->release("ExecSync");
  run(1s);
  EXPECT_THAT(runtime->calls, Contains("StopContainer main"));
  EXPECT_THAT(runtime->sandboxes, IsEmpty());
}

TEST_F(EdgedModuleTest, ADeadlineFailsThePodAndItStaysSo) {
  start();
  Json pod = pod_json();
  pod["spec"]["activeDeadlineSeconds"] = 20;
  give(pod);
  run(10s);
  EXPECT_EQ(status()["phase"], "Running");
  run(15s);
  EXPECT_EQ(status()["phase"], "Failed");
  EXPECT_EQ(status()["reason"], "DeadlineExceeded");
  EXPECT_THAT(sent(), Not(Contains("delete default/pod/web")));
  ask_to_delete(pod);
  run(1s);
  EXPECT_THAT(sent(), Contains("delete default/pod/web"));
}

TEST_F(EdgedModuleTest, ADeadlineCountsFromTheFirstStart) {
  start();
  Json pod = pod_json();
  pod["spec"]["activeDeadlineSeconds"] = 20;
  give(pod);
  run(10s);
  const std::string since = status()["startTime"];
  boot();
  give(pod);
  start();
  run(1s);
  EXPECT_EQ(status()["startTime"], since);
  run(15s);
  EXPECT_EQ(status()["reason"], "DeadlineExceeded");
}

TEST_F(EdgedModuleTest, StrangersAreEndedAfterAWhile) {
  give(pod_json());
  start();
  run(1s);
  boot();
  Json other = pod_json();
  other["metadata"]["uid"] = "u2";
  give(other);
  start();
  run(10s);
  EXPECT_EQ(runtime->sandboxes.size(), 2U);
  run(50s);
  ASSERT_EQ(runtime->sandboxes.size(), 1U);
  EXPECT_EQ(runtime->sandboxes.begin()->second.config.metadata().uid(), "u2");
}

// A metastore that was lost says nothing of what runs.
class BlankStoreTest : public EdgedModuleTest {
 protected:
  // Two pods run; then the agent starts on an empty metastore.
  void SetUp() override {
    EdgedModuleTest::SetUp();
    give(pod_json());
    give(second());
    start();
    run(1s);
    ASSERT_EQ(runtime->sandboxes.size(), 2U);
    TearDown();
    store_.reset();
    for (const char* end : {"", "-wal", "-shm"})
      std::filesystem::remove(dir_.path() + "/meta.db" + end);
    restart();
  }
  void restart() {
    TearDown();
    open_store();
    runtime->calls.clear();
    boot();
  }
  static Json second() {
    Json out = pod_json();
    out["metadata"]["uid"] = "u2";
    out["metadata"]["name"] = "db";
    return out;
  }
  using EdgedModuleTest::give;
  void give(const Json& pod) {
    module->on_object({"pod", "default", pod["metadata"]["name"].get<std::string>()}, pod.dump());
  }
};

TEST_F(BlankStoreTest, EndsNothingWhileTheCloudIsAway) {
  module->on_objects_loaded();
  ASSERT_TRUE(bus_->start());
  run(300s);
  EXPECT_THAT(runtime->calls, IsEmpty());
}

TEST_F(BlankStoreTest, EndsNothingBeforeTheCloudSaidWhatIsWanted) {
  start();
  give(pod_json());  // the others come slowly
  run(300s);
  EXPECT_THAT(runtime->calls, IsEmpty());
  EXPECT_EQ(runtime->sandboxes.size(), 2U);
}

TEST_F(BlankStoreTest, IsNotTrustedBecauseOnePodCame) {
  start();
  give(pod_json());
  run(60s);
  restart();
  give(pod_json());
  module->on_objects_loaded();
  ASSERT_TRUE(bus_->start());
  run(300s);
  EXPECT_THAT(runtime->calls, IsEmpty());
}

TEST_F(BlankStoreTest, WhatTheCloudNamesIsWaitedForAndTheRestIsEnded) {
  start();
  run(60s);
  module->on_pod_list({"u2"});
  run(40s);
  ASSERT_EQ(runtime->sandboxes.size(), 1U);
  EXPECT_EQ(runtime->sandboxes.begin()->second.config.metadata().uid(), "u2");
  runtime->calls.clear();
  run(300s);
  EXPECT_THAT(runtime->calls, IsEmpty()) << "its object is on its way";
  give(second());
  run(20s);
  EXPECT_THAT(runtime->calls, IsEmpty()) << "it is adopted";
}

TEST_F(BlankStoreTest, IsTrustedOnceAllThatRunsHasAnObject) {
  start();
  give(pod_json());
  give(second());
  run(20s);
  restart();
  give(second());
  module->on_objects_loaded();
  ASSERT_TRUE(bus_->start());
  run(100s);
  ASSERT_EQ(runtime->sandboxes.size(), 1U) << "the other was deleted";
  EXPECT_EQ(runtime->sandboxes.begin()->second.config.metadata().uid(), "u2");
}

TEST_F(EdgedModuleTest, ARuntimeThatIsAwayIsWaitedFor) {
  runtime->down = Error{ErrorCode::kUnavailable, "no such file", 0};
  start();
  give(pod_json());
  run(5s);
  EXPECT_FALSE(module->status().runtime);
  runtime->down.reset();
  run(3s);
  EXPECT_TRUE(module->status().runtime);
  EXPECT_EQ(status()["phase"], "Running");
}

}  // namespace
}  // namespace edgemesh::edged
