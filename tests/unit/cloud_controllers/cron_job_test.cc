#include "cloud/controllers/cron_job.h"

#include "kube/time.h"
#include "tests/unit/cloud_controllers/controllers_fixture.h"

namespace edgemesh::cloud::controllers {
namespace {

class CronJobTest : public ControllersTest {
 protected:
  static json cron_job(json spec = json::object()) {
    spec["schedule"] = "@hourly";
    spec["jobTemplate"] =
        json::parse(R"({"metadata":{"labels":{"app":"nightly"}},"spec":{"template":{"spec":
        {"restartPolicy":"Never","containers":[{"name":"c","image":"v1"}]}}}})");
    return {{"apiVersion", "batch/v1"},
            {"kind", "CronJob"},
            {"metadata", {{"name", "nightly"}, {"namespace", "default"}}},
            {"spec", spec}};
  }
  json now() { return get(kCronJobs, "nightly"); }
  static std::string hours_ago(int hours) {
    return kube::rfc3339(std::chrono::system_clock::now() - std::chrono::hours(hours));
  }
  // As if it had last run then.
  void ran(int hours) {
    kube::WriteOptions status;
    status.subresource = "status";
    patch(kCronJobs, "default", "nightly", kube::PatchKind::kMerge,
          {{"status", {{"lastScheduleTime", hours_ago(hours)}}}}, status);
  }
  // As `kubectl create job --from=cronjob/nightly` makes it.
  void make_by_hand(const std::string& name, const char* ended = nullptr) {
    json job{{"metadata",
              {{"name", name},
               {"namespace", "default"},
               {"annotations", {{"cronjob.kubernetes.io/instantiate", "manual"}}},
               {"ownerReferences",
                {{{"apiVersion", "batch/v1"},
                  {"kind", "CronJob"},
                  {"name", "nightly"},
                  {"uid", now()["metadata"]["uid"]},
                  {"controller", true}}}}}},
             {"spec", now()["spec"]["jobTemplate"]["spec"]}};
    if (ended != nullptr) job["spec"]["suspend"] = true;
    ASSERT_TRUE(create(kJobs, "default", job));
    if (ended == nullptr) return;
    wait([&] { return condition(get(kJobs, name), "Suspended") == "True"; });
    kube::WriteOptions status;
    status.subresource = "status";
    patch(kJobs, "default", name, kube::PatchKind::kMerge,
          {{"status",
            {{"completionTime", "2026-01-01T00:00:00Z"},
             {"conditions", {{{"type", ended}, {"status", "True"}}}}}}},
          status);
  }
  std::vector<std::string> jobs() {
    std::vector<std::string> out;
    for (const json& job : list(kJobs)) out.push_back(job["metadata"]["name"]);
    return out;
  }
  bool told(const char* reason) {
    const auto events = list(kube::kEvents);
    return std::any_of(events.begin(), events.end(),
                       [&](const json& event) { return event["reason"] == reason; });
  }
};

TEST_F(CronJobTest, MakesOneJobOfWhatIsDue) {
  ASSERT_TRUE(create(kCronJobs, "default", cron_job()));
  for (int i = 0; i < 20; ++i) turn_once();
  EXPECT_TRUE(jobs().empty()) << "nothing is due yet";
  ran(3);
  wait([&] { return jobs().size() == 1; });
  const json job = list(kJobs)[0];
  const auto scheduled = kube::parse_rfc3339(
      job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]);
  ASSERT_TRUE(scheduled);
  const auto minute =
      std::chrono::duration_cast<std::chrono::minutes>(scheduled->time_since_epoch()).count();
  EXPECT_EQ(minute % 60, 0);
  EXPECT_EQ(job["metadata"]["name"], "nightly-" + std::to_string(minute));
  EXPECT_EQ(job["metadata"]["labels"]["app"], "nightly");
  EXPECT_EQ(job["metadata"]["ownerReferences"][0]["uid"], now()["metadata"]["uid"]);
  wait([&] {
    return kube::text_at(now(), "status", "lastScheduleTime") == kube::rfc3339(*scheduled);
  });
  wait([&] { return now()["status"].value("active", json::array()).size() == 1; });
  begin({});
  for (int i = 0; i < 20; ++i) turn_once();
  EXPECT_EQ(jobs().size(), 1U) << "not again after a restart";
  remove(kCronJobs, "default", "nightly");
  wait([&] { return jobs().empty(); });
}

TEST_F(CronJobTest, ForbidsASecondOneOrReplacesTheFirst) {
  ASSERT_TRUE(create(kCronJobs, "default", cron_job({{"concurrencyPolicy", "Forbid"}})));
  make_by_hand("mine");
  wait([&] { return now()["status"].value("active", json::array()).size() == 1; });
  ran(3);
  wait([&] { return told("JobAlreadyActive"); });
  EXPECT_EQ(jobs(), (std::vector<std::string>{"mine"}));
  patch(kCronJobs, "default", "nightly", kube::PatchKind::kMerge,
        {{"spec", {{"concurrencyPolicy", "Replace"}}}});
  wait([&] {
    const auto there = jobs();  // each look lets the controllers work
    return there.size() == 1 && there[0] != "mine";
  });
}

TEST_F(CronJobTest, SuspendedOrTooLateItMakesNone) {
  ASSERT_TRUE(create(kCronJobs, "default", cron_job({{"suspend", true}})));
  ran(3);
  for (int i = 0; i < 20; ++i) turn_once();
  EXPECT_TRUE(jobs().empty());
  // Unless the hour is struck this second.
  patch(kCronJobs, "default", "nightly", kube::PatchKind::kMerge,
        {{"spec", {{"suspend", false}, {"startingDeadlineSeconds", 1}}}});
  for (int i = 0; i < 20; ++i) turn_once();
  EXPECT_TRUE(jobs().empty());
}

TEST_F(CronJobTest, KeepsAsManyFinishedJobsAsItsLimitsSay) {
  ASSERT_TRUE(create(kCronJobs, "default", cron_job({{"successfulJobsHistoryLimit", 2}})));
  for (const char* name : {"a", "b", "c", "d"}) make_by_hand(name, "Complete");
  for (const char* name : {"x", "y"}) make_by_hand(name, "Failed");
  wait([&] { return jobs() == std::vector<std::string>{"c", "d", "y"}; });
  EXPECT_EQ(now()["status"]["lastSuccessfulTime"], "2026-01-01T00:00:00Z");
}

TEST_F(CronJobTest, TheApiRefusesWhatCannotBeRead) {
  json bad = cron_job();
  bad["spec"]["schedule"] = "61 * * * *";
  const auto refused = create(kCronJobs, "default", bad);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("spec.schedule"), std::string::npos);
  json nowhere = cron_job();
  nowhere["spec"]["timeZone"] = "Mars/Olympus";
  EXPECT_FALSE(create(kCronJobs, "default", nowhere));
  json zone = cron_job();
  zone["spec"]["schedule"] = "TZ=UTC 1 * * * *";
  EXPECT_FALSE(create(kCronJobs, "default", zone));
}

}  // namespace
}  // namespace edgemesh::cloud::controllers
