#include "cloud/controllers/job.h"

#include "cloud/controllers/job_indexes.h"
#include "cloud/controllers/job_pod.h"
#include "tests/unit/cloud_controllers/controllers_fixture.h"

namespace edgemesh::cloud::controllers {
namespace {

TEST(JobIndexes, AreWrittenAsRangesAndReadBack) {
  JobIndexes set;
  for (const int64_t i : {7, 3, 5, 4, 9, 8, 0}) set.add(i);
  set.add(4);
  EXPECT_EQ(set.text(), "0,3-5,7-9");
  EXPECT_EQ(set.size(), 7);
  EXPECT_EQ(set.first_missing(0), 1);
  EXPECT_EQ(set.first_missing(3), 6);
  const JobIndexes again = JobIndexes::parse(set.text(), 100);
  EXPECT_EQ(again.text(), set.text());
  EXPECT_EQ(again.size(), 7);
  EXPECT_TRUE(again.contains(8));
  EXPECT_FALSE(again.contains(6));
  EXPECT_EQ(JobIndexes::parse("0,2-9", 4).text(), "0,2,3")
      << "what is beyond the job's completions";
  EXPECT_EQ(JobIndexes::parse("x,,-3,5-2,1", 9).text(), "1");
}

class JobTest : public ControllersTest {
 protected:
  ControllerOptions options() const override {
    ControllerOptions out;
    out.job_options.first_retry = std::chrono::milliseconds(1);
    return out;
  }
  static json job(json spec = json::object(), const char* policy = "Never") {
    spec["template"] = {
        {"spec", {{"restartPolicy", policy}, {"containers", {{{"name", "c"}, {"image", "v1"}}}}}}};
    return {{"apiVersion", "batch/v1"},
            {"kind", "Job"},
            {"metadata", {{"name", "work"}, {"namespace", "default"}}},
            {"spec", spec}};
  }
  json now() { return get(kJobs, "work"); }
  int64_t status(const char* field) { return ControllersTest::status(now(), field); }
  bool is(const char* type) { return condition(now(), type) == "True"; }
  std::vector<json> running() {
    std::vector<json> out;
    for (const json& pod : list(kube::kPods)) {
      if (kube::text_at(pod, "status", "phase") == "Running" &&
          !pod["metadata"].contains("deletionTimestamp"))
        out.push_back(pod);
    }
    return out;
  }
  void end_pod(const json& pod, const char* phase, int code = 0) {
    kube::WriteOptions status;
    status.subresource = "status";
    const json ended{{"name", "c"}, {"state", {{"terminated", {{"exitCode", code}}}}}};
    patch(kube::kPods, "default", pod["metadata"]["name"], kube::PatchKind::kMerge,
          {{"status", {{"phase", phase}, {"containerStatuses", {ended}}}}}, status);
  }
  // Ends one that runs.
  void end_one(const char* phase, int code = 0) {
    wait([&] { return !running().empty(); });
    end_pod(running()[0], phase, code);
  }
};

TEST_F(JobTest, RunsItsPodsTwoAtATimeUntilEnoughHaveSucceeded) {
  add_node("edge-1");
  ASSERT_TRUE(create(kJobs, "default", job({{"completions", 3}, {"parallelism", 2}})));
  wait([&] { return running().size() == 2 && status("ready") == 2; });
  EXPECT_EQ(status("active"), 2);
  EXPECT_FALSE(kube::text_at(now(), "status", "startTime").empty());
  for (int i = 1; i <= 3; ++i) {
    end_one("Succeeded");
    wait([&] { return status("succeeded") == i; });
  }
  wait([&] { return is("Complete"); });
  EXPECT_EQ(status("active"), 0);
  EXPECT_FALSE(kube::text_at(now(), "status", "completionTime").empty());
  EXPECT_EQ(now()["status"].value("uncountedTerminatedPods", json::object()), json::object());
  const auto pods = list(kube::kPods);
  EXPECT_EQ(pods.size(), 3U) << "they stay, for their logs";
  for (const json& pod : pods) EXPECT_FALSE(pod["metadata"].contains("finalizers"));
}

TEST_F(JobTest, FailsWhenTooManyPodsFailed) {
  add_node("edge-1");
  ASSERT_TRUE(create(kJobs, "default", job({{"backoffLimit", 1}})));
  end_one("Failed", 1);
  wait([&] { return status("failed") == 1; });
  EXPECT_FALSE(is("Failed"));
  end_one("Failed", 1);
  wait([&] { return is("Failed"); });
  EXPECT_EQ(status("failed"), 2);
  EXPECT_EQ(now()["status"]["conditions"].back()["reason"], "BackoffLimitExceeded");
  for (int i = 0; i < 10; ++i) turn_once();
  EXPECT_TRUE(running().empty());
}

TEST_F(JobTest, RestartsOfAContainerCountLikeFailedPods) {
  add_node("edge-1");
  ASSERT_TRUE(create(kJobs, "default", job({{"backoffLimit", 2}}, "OnFailure")));
  wait([&] { return running().size() == 1; });
  kube::WriteOptions to_status;
  to_status.subresource = "status";
  patch(kube::kPods, "default", running()[0]["metadata"]["name"], kube::PatchKind::kMerge,
        {{"status", {{"containerStatuses", {{{"name", "c"}, {"restartCount", 2}}}}}}}, to_status);
  wait([&] { return is("Failed"); });
  wait([&] { return list(kube::kPods).empty(); });
}

TEST_F(JobTest, PodsThatAreDeletedAreCountedBeforeTheyGo) {
  add_node("edge-1");
  ASSERT_TRUE(create(kJobs, "default", job({{"completions", 2}, {"backoffLimit", 5}})));
  wait([&] { return running().size() == 1; });
  // Ended and deleted while nobody counts.
  controllers_.reset();
  const json first = running()[0];
  end_pod(first, "Succeeded");
  ApiCore::Deletion at_once;
  at_once.grace_s = 0;
  remove(kube::kPods, "default", first["metadata"]["name"], at_once);
  EXPECT_EQ(list(kube::kPods).size(), 1U) << "its finalizer holds it";
  begin(options());
  wait([&] { return status("succeeded") == 1; });
  wait([&] { return running().size() == 1; });
  remove(kube::kPods, "default", running()[0]["metadata"]["name"]);
  wait([&] { return status("failed") == 1; });
  end_one("Succeeded");
  wait([&] { return is("Complete"); });
  EXPECT_EQ(status("succeeded"), 2);
}

TEST_F(JobTest, ARestartBetweenTheStepsOfCountingCountsOnce) {
  add_node("edge-1");
  ASSERT_TRUE(create(kJobs, "default", job({{"completions", 3}, {"parallelism", 1}})));
  wait([&] { return running().size() == 1; });
  controllers_.reset();
  const json pod = running()[0];
  end_pod(pod, "Succeeded");
  // As it is after the first of two steps: the uid stands in the status, the finalizer is still on.
  kube::WriteOptions to_status;
  to_status.subresource = "status";
  patch(kJobs, "default", "work", kube::PatchKind::kMerge,
        {{"status", {{"uncountedTerminatedPods", {{"succeeded", {pod["metadata"]["uid"]}}}}}}},
        to_status);
  begin(options());
  wait([&] { return running().size() == 1; });
  EXPECT_EQ(status("succeeded"), 1);
  // And after the second: the finalizer is off, the number not written.
  controllers_.reset();
  const json next = running()[0];
  end_pod(next, "Succeeded");
  patch(kJobs, "default", "work", kube::PatchKind::kMerge,
        {{"status", {{"uncountedTerminatedPods", {{"succeeded", {next["metadata"]["uid"]}}}}}}},
        to_status);
  patch(kube::kPods, "default", next["metadata"]["name"], kube::PatchKind::kMerge,
        {{"metadata", {{"finalizers", nullptr}}}});
  begin(options());
  wait([&] { return running().size() == 1; });
  EXPECT_EQ(status("succeeded"), 2);
}

TEST_F(JobTest, AnIndexedJobRunsEveryIndexOnce) {
  add_node("edge-1");
  ASSERT_TRUE(create(kJobs, "default",
                     job({{"completions", 3}, {"parallelism", 3}, {"completionMode", "Indexed"}})));
  wait([&] { return running().size() == 3; });
  std::map<std::string, json> by_index;
  for (const json& pod : running()) {
    const std::string index =
        pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"];
    by_index[index] = pod;
    EXPECT_EQ(pod["spec"]["hostname"], "work-" + index);
    EXPECT_EQ(pod["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
    EXPECT_TRUE(pod["metadata"]["name"].get<std::string>().starts_with("work-" + index + "-"));
  }
  ASSERT_EQ(by_index.size(), 3U);
  end_pod(by_index["0"], "Succeeded");
  end_pod(by_index["2"], "Succeeded");
  wait([&] { return now()["status"].value("completedIndexes", "") == "0,2"; });
  end_pod(by_index["1"], "Failed", 1);
  wait([&] {
    return running().size() == 1 &&
           running()[0]["metadata"]["uid"] != by_index["1"]["metadata"]["uid"];
  });
  EXPECT_EQ(completion_index(*[&] {
              auto pod = std::make_shared<ClusterObject>();
              pod->value = std::make_shared<const json>(running()[0]);
              return pod;
            }()),
            1);
  end_one("Succeeded");
  wait([&] { return is("Complete"); });
  EXPECT_EQ(now()["status"]["completedIndexes"], "0-2");
  EXPECT_EQ(status("succeeded"), 3);
}

TEST_F(JobTest, ADeadlineEndsItAndItsPods) {
  add_node("edge-1");
  // Times have whole seconds: of two, one is left at least.
  ASSERT_TRUE(create(kJobs, "default", job({{"activeDeadlineSeconds", 2}})));
  wait([&] { return running().size() == 1; });
  wait([&] { return is("Failed"); });
  EXPECT_EQ(now()["status"]["conditions"].back()["reason"], "DeadlineExceeded");
  wait([&] { return list(kube::kPods).empty(); });
}

TEST_F(JobTest, SuspendedItHasNoPodsAndLosesNone) {
  add_node("edge-1");
  ASSERT_TRUE(create(kJobs, "default", job({{"completions", 2}, {"parallelism", 2}})));
  end_one("Succeeded");
  wait([&] { return status("succeeded") == 1 && running().size() == 1; });
  const auto suspend = [&](bool value) {
    patch(kJobs, "default", "work", kube::PatchKind::kMerge, {{"spec", {{"suspend", value}}}});
  };
  suspend(true);
  wait([&] { return is("Suspended") && running().empty() && status("active") == 0; });
  EXPECT_FALSE(now()["status"].contains("startTime"));
  EXPECT_EQ(status("failed"), 0) << "it was not their fault";
  suspend(false);
  end_one("Succeeded");
  wait([&] { return is("Complete"); });
  EXPECT_EQ(condition(now(), "Suspended"), "False");
}

TEST_F(JobTest, APolicyForFailedPodsIgnoresOrEnds) {
  add_node("edge-1");
  const json policy = json::parse(R"({"rules":[
      {"action":"Ignore","onPodConditions":[{"type":"DisruptionTarget"}]},
      {"action":"FailJob","onExitCodes":{"operator":"In","values":[42]}}]})");
  ASSERT_TRUE(create(kJobs, "default", job({{"backoffLimit", 0}, {"podFailurePolicy", policy}})));
  wait([&] { return running().size() == 1; });
  const json pod = running()[0];
  kube::WriteOptions to_status;
  to_status.subresource = "status";
  patch(kube::kPods, "default", pod["metadata"]["name"], kube::PatchKind::kMerge,
        {{"status",
          {{"phase", "Failed"},
           {"conditions", {{{"type", "DisruptionTarget"}, {"status", "True"}}}}}}},
        to_status);
  wait([&] { return running().size() == 1; });
  EXPECT_EQ(status("failed"), 0);
  end_one("Failed", 42);
  wait([&] { return is("Failed"); });
  EXPECT_EQ(now()["status"]["conditions"].back()["reason"], "PodFailurePolicy");
}

TEST_F(JobTest, AfterItsTimeToLiveItGoesWithItsPods) {
  add_node("edge-1");
  ASSERT_TRUE(create(kJobs, "default", job({{"ttlSecondsAfterFinished", 0}})));
  end_one("Succeeded");
  wait([&] { return now().is_null() && list(kube::kPods).empty(); });
}

TEST_F(JobTest, PodsOfADeletedJobAreNotHeld) {
  add_node("edge-1");
  ASSERT_TRUE(create(kJobs, "default", job({{"parallelism", 3}, {"completions", 3}})));
  wait([&] { return running().size() == 3; });
  remove(kJobs, "default", "work");
  wait([&] { return list(kube::kPods).empty(); });
}

}  // namespace
}  // namespace edgemesh::cloud::controllers
