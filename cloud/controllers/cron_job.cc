#include "cloud/controllers/cron_job.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/controllers/batch.h"
#include "cloud/controllers/types.h"
#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;
using std::chrono::seconds;
using std::chrono::sys_seconds;

constexpr size_t kMaxParallel = 8;
constexpr int kManyMissed = 100;
// The clock may be set meanwhile: no wait is longer.
constexpr seconds kLongestWait = std::chrono::minutes(5);
constexpr const char* kScheduledAt = "batch.kubernetes.io/cronjob-scheduled-timestamp";

std::string started(const SharedObject& job) {
  std::string time = kube::text_at(job->json(), "status", "startTime");
  if (time.empty()) time = kube::text_at(job->json(), "metadata", "creationTimestamp");
  return time + job->name;
}

Json reference_to(const SharedObject& job) {
  return {{"apiVersion", kJobs.api_version()},
          {"kind", kJobs.kind},
          {"name", job->name},
          {"namespace", job->ns},
          {"uid", job->uid},
          {"resourceVersion", job->version}};
}

// The same jobs: their versions change all the time.
bool same_active(const Json& wanted, const Json* have) {
  if (have == nullptr || !have->is_array()) return wanted.empty();
  if (have->size() != wanted.size()) return false;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (kube::text_at(wanted[i], "uid") != kube::text_at((*have)[i], "uid")) return false;
  }
  return true;
}

}  // namespace

CronJobController::CronJobController(Cluster& cluster)
    : cluster_(cluster),
      queue_(cluster.loop(), "cronjob", kMaxParallel,
             [this](const std::string& key, WorkQueue::Done done) {
               reconcile(key, std::move(done));
             }),
      events_(cluster, "cronjob-controller") {
  cluster.on_change(kCronJobs, [this](const SharedObject&, const SharedObject& after) {
    if (after != nullptr) queue_.add(after->key());
  });
  cluster.on_change(kJobs, [this](const SharedObject& before, const SharedObject& after) {
    const SharedObject& job = after != nullptr ? after : before;
    const SharedObject owner = cluster_.by_uid(job->controller);
    if (owner != nullptr && *owner->type == kCronJobs) queue_.add(owner->key());
  });
}

sys_seconds CronJobController::now() const {
  return std::chrono::floor<seconds>(cluster_.loop().clock().wall_now());
}

CronJobController::Jobs CronJobController::look(const ClusterObject& cron) const {
  Jobs out;
  for (const SharedObject& job : cluster_.controlled_by(cron.uid, kJobs)) {
    if (condition(job->json(), "Complete") == "True")
      out.succeeded.push_back(job);
    else if (condition(job->json(), "Failed") == "True")
      out.failed.push_back(job);
    else
      out.active.push_back(job);
  }
  for (auto* jobs : {&out.active, &out.succeeded, &out.failed}) {
    std::sort(jobs->begin(), jobs->end(),
              [](const SharedObject& a, const SharedObject& b) { return started(a) < started(b); });
  }
  return out;
}

void CronJobController::reconcile(const std::string& key, WorkQueue::Done done) {
  const SharedObject cron = cluster_.find(kCronJobs, key);
  if (cron == nullptr || cron->deleting()) return done({});
  const Jobs jobs = look(*cron);
  tidy(cron, jobs, [this, key, jobs, done = std::move(done)](Result<> result) {
    const SharedObject again = cluster_.find(kCronJobs, key);
    if (!result || again == nullptr || again->deleting()) return done(std::move(result));
    const Json* suspended = kube::find(again->json(), "spec", "suspend");
    if (suspended != nullptr && *suspended == Json(true)) return done({});
    run_due(again, jobs, done);
  });
}

void CronJobController::tidy(const SharedObject& cron, const Jobs& jobs, WorkQueue::Done done) {
  std::vector<SharedObject> surplus;
  auto limit = [&](const std::vector<SharedObject>& ended, const char* field, int64_t otherwise) {
    const auto keep =
        static_cast<size_t>(std::max<int64_t>(0, int_at(cron->json(), {"spec", field}, otherwise)));
    for (size_t i = 0; i + keep < ended.size(); ++i) {
      if (!ended[i]->deleting()) surplus.push_back(ended[i]);
    }
  };
  limit(jobs.succeeded, "successfulJobsHistoryLimit", 3);
  limit(jobs.failed, "failedJobsHistoryLimit", 1);
  Json status = Json::object();
  Json active = Json::array();
  for (const SharedObject& job : jobs.active) active.push_back(reference_to(job));
  if (!same_active(active, kube::find(cron->json(), "status", "active"))) status["active"] = active;
  std::string last = kube::text_at(cron->json(), "status", "lastSuccessfulTime");
  for (const SharedObject& job : jobs.succeeded)
    last = std::max(last, kube::text_at(job->json(), "status", "completionTime"));
  if (last != kube::text_at(cron->json(), "status", "lastSuccessfulTime"))
    status["lastSuccessfulTime"] = last;
  auto batch = Batch::make(surplus.size() + (status.empty() ? 0 : 1), std::move(done));
  for (const SharedObject& job : surplus) {
    events_.normal(*cron, "SuccessfulDelete", "Deleted job " + job->name);
    cluster_.remove(job, batch->part());
  }
  if (!status.empty()) cluster_.patch(cron, {{"status", status}}, batch->part(), "status");
}

void CronJobController::run_due(const SharedObject& cron, const Jobs& jobs, WorkQueue::Done done) {
  const Json& spec = *kube::find(cron->json(), "spec");
  const auto schedule = kube::CronSchedule::parse(kube::text_at(spec, "schedule"));
  if (!schedule) {
    events_.warning(*cron, "UnparseableSchedule",
                    "unparseable schedule: " + schedule.error().message);
    return done({});
  }
  const std::string zone_name = kube::text_at(spec, "timeZone");
  const auto zone = kube::TimeZone::load(zone_name.empty() ? "UTC" : zone_name);
  if (!zone) {
    events_.warning(*cron, "UnknownTimeZone", zone.error().message);
    return done({});
  }
  const sys_seconds time = now();
  if (const auto next = schedule->next(time, *zone)) {
    const Duration left =
        *next - cluster_.loop().clock().wall_now() + std::chrono::milliseconds(50);
    queue_.add_after(cron->key(), std::min<Duration>(left, kLongestWait));
  }
  std::string since = kube::text_at(cron->json(), "status", "lastScheduleTime");
  if (since.empty()) since = kube::text_at(cron->json(), "metadata", "creationTimestamp");
  sys_seconds from = std::chrono::floor<seconds>(kube::parse_rfc3339(since).value_or(time));
  const int64_t deadline = int_at(spec, {"startingDeadlineSeconds"}, -1);
  if (deadline >= 0) from = std::max(from, time - seconds(deadline));
  const auto due = schedule->last(from, time, *zone, kManyMissed);
  if (!due) return done({});
  if (due->missed_many) {
    events_.warning(*cron, "TooManyMissedTimes",
                    "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or "
                    "check clock skew");
  }
  const std::string policy = kube::text_at(spec, "concurrencyPolicy");
  if (policy == "Forbid" && !jobs.active.empty()) {
    events_.normal(*cron, "JobAlreadyActive",
                   "Not starting job because prior execution is running and concurrency policy is "
                   "Forbid");
    return done({});
  }
  const bool replaces = policy == "Replace";
  auto then = [this, cron, at = due->time, done = std::move(done)](Result<> result) {
    if (!result) return done(std::move(result));
    make_job(cron, at, done);
  };
  auto batch = Batch::make(replaces ? jobs.active.size() : 0, std::move(then));
  for (size_t i = 0; replaces && i < jobs.active.size(); ++i) {
    events_.normal(*cron, "SuccessfulDelete", "Deleted job " + jobs.active[i]->name);
    cluster_.remove(jobs.active[i], batch->part());
  }
}

void CronJobController::make_job(const SharedObject& cron, sys_seconds time, WorkQueue::Done done) {
  const Json* job_template = kube::find(cron->json(), "spec", "jobTemplate");
  if (job_template == nullptr) return done({});
  const int64_t minute = time.time_since_epoch().count() / 60;
  Json job{{"apiVersion", "batch/v1"},
           {"kind", "Job"},
           {"metadata",
            {{"name", fmt::format("{}-{}", cron->name, minute)},
             {"namespace", cron->ns},
             {"ownerReferences", Json::array({controller_reference(*cron)})}}}};
  for (const char* part : {"labels", "annotations"}) {
    if (const Json* given = kube::find(*job_template, "metadata", part))
      job["metadata"][part] = *given;
  }
  job["metadata"]["annotations"][kScheduledAt] = kube::rfc3339(time);
  if (const Json* spec = kube::find(*job_template, "spec")) job["spec"] = *spec;
  auto made = [this, cron, time, name = job["metadata"]["name"].get<std::string>(),
               done = std::move(done)](Result<SharedObject> result) {
    const bool there = !result && result.error().code == ErrorCode::kAlreadyExists;
    if (!result && !there) {
      events_.warning(*cron, "FailedCreate", "Error creating job: " + result.error().message);
      return done(fail(result.error()));
    }
    if (!there) events_.normal(*cron, "SuccessfulCreate", "Created job " + name);
    auto batch = Batch::make(1, done);
    cluster_.patch(cron, {{"status", {{"lastScheduleTime", kube::rfc3339(time)}}}}, batch->part(),
                   "status");
  };
  cluster_.create(kJobs, cron->ns, job, std::move(made));
}

}  // namespace edgemesh::cloud::controllers
