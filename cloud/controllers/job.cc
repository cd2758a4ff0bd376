#include "cloud/controllers/job.h"

#include <algorithm>

#include "cloud/controllers/batch.h"
#include "cloud/controllers/job_pod.h"
#include "cloud/controllers/pods.h"
#include "cloud/controllers/types.h"
#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::cloud::controllers {
namespace {

using Json = nlohmann::json;
using std::chrono::seconds;

constexpr size_t kMaxParallel = 8;
constexpr int64_t kBatch = 100;        // pods made in one go; the rest in the next round
constexpr size_t kMaxUncounted = 500;  // uids that stand in a status
constexpr int kMaxDoublings = 20;
constexpr int64_t kUnlimited = INT64_MAX;

bool has(const ClusterObject& job, const char* type) {
  return condition(job.json(), type) == "True";
}

bool is_finished(const ClusterObject& job) {
  return has(job, "Complete") || has(job, "Failed");
}

// kUnlimited: one success is enough, and it is over when all pods have ended.
int64_t completions_of(const ClusterObject& job) {
  return int_at(job.json(), {"spec", "completions"}, kUnlimited);
}

std::set<std::string> uids_at(const ClusterObject& job, const char* which) {
  std::set<std::string> out;
  const Json* list = kube::find(job.json(), "status", "uncountedTerminatedPods", which);
  for (size_t i = 0; list != nullptr && list->is_array() && i < list->size(); ++i) {
    if ((*list)[i].is_string()) out.insert((*list)[i].get<std::string>());
  }
  return out;
}

Json or_null(int64_t value) {
  return value == 0 ? Json() : Json(value);
}

Json copy_at(const ClusterObject& job, const char* field) {
  const Json* value = kube::find(job.json(), "status", field);
  return value == nullptr ? Json() : *value;
}

// As a merge patch that changes nothing.
bool is_same(const Json& patch, const Json* have) {
  if (!patch.is_object()) return have == nullptr ? patch.is_null() : *have == patch;
  for (const auto& [name, value] : patch.items()) {
    if (!is_same(value, have == nullptr ? nullptr : kube::find(*have, name))) return false;
  }
  return have != nullptr || patch.empty();
}

}  // namespace

JobController::JobController(Cluster& cluster, Options options)
    : cluster_(cluster),
      options_(options),
      queue_(cluster.loop(), "job", kMaxParallel,
             [this](const std::string& key, WorkQueue::Done done) {
               reconcile(key, std::move(done));
             }),
      orphans_(
          cluster.loop(), "job pods", kMaxParallel,
          [this](const std::string& key, WorkQueue::Done done) { let_go(key, std::move(done)); }),
      events_(cluster, "job-controller") {
  cluster.on_change(kJobs, [this](const SharedObject& before, const SharedObject& after) {
    if (after != nullptr) return queue_.add(after->key());
    const auto it = states_.find(before->uid);
    if (it == states_.end()) return;
    for (const std::string& pod : it->second.pods) orphans_.add(pod);
    states_.erase(it);
  });
  cluster.on_change(kube::kPods, [this](const SharedObject& before, const SharedObject& after) {
    on_pod(before, after);
  });
}

void JobController::start() {
  queue_.start();
  orphans_.start();
}

void JobController::on_pod(const SharedObject& before, const SharedObject& after) {
  const SharedObject& pod = after != nullptr ? after : before;
  if (pod->controller.empty()) return;
  const auto it = states_.find(pod->controller);
  if (it != states_.end()) {
    if (after != nullptr && (is_tracked(*after) || pod_is_active(*after)))
      it->second.pods.insert(after->key());
    queue_.add(it->second.key);
    return;
  }
  const SharedObject owner = cluster_.by_uid(pod->controller);
  if (owner != nullptr && *owner->type == kJobs) return queue_.add(owner->key());
  if (after != nullptr && owner == nullptr && is_tracked(*after)) orphans_.add(after->key());
}

// A pod whose job is gone waits for nobody.
void JobController::let_go(const std::string& key, WorkQueue::Done done) {
  const SharedObject pod = cluster_.find(kube::kPods, key);
  if (pod == nullptr || !is_tracked(*pod) || cluster_.by_uid(pod->controller) != nullptr)
    return done({});
  auto batch = Batch::make(1, std::move(done));
  cluster_.patch(pod, without_tracking(*pod), batch->part());
}

JobController::State& JobController::state_of(const SharedObject& job) {
  const auto [it, fresh] = states_.try_emplace(job->uid);
  if (!fresh) return it->second;
  it->second.key = job->key();
  for (const SharedObject& pod : cluster_.controlled_by(job->uid, kube::kPods))
    it->second.pods.insert(pod->key());
  return it->second;
}

void JobController::reconcile(const std::string& key, WorkQueue::Done done) {
  const SharedObject job = cluster_.find(kJobs, key);
  if (job == nullptr) return done({});
  State& state = state_of(job);
  if (is_finished(*job)) return after_end(job, std::move(done));
  Round round = read(job);
  look(state, &round);
  if (!job->deleting()) {
    suspend_or_resume(&round);
    judge(&round);
    if (round.failure_reason.empty() && !reached(round))
      manage(state, &round);
    else
      end(&round);
  }
  write(std::move(round), std::move(done));
}

// What the status says, and whom of those that were not counted can be by now.
JobController::Round JobController::read(const SharedObject& job) const {
  Round round;
  round.job = job;
  round.conditions = copy_at(*job, "conditions");
  round.start_time = copy_at(*job, "startTime");
  round.completion_time = copy_at(*job, "completionTime");
  round.succeeded = int_at(job->json(), {"status", "succeeded"}, 0);
  round.failed = int_at(job->json(), {"status", "failed"}, 0);
  auto settle = [&](const char* which, std::set<std::string>* uncounted, int64_t* counted) {
    for (const std::string& uid : uids_at(*job, which)) {
      const SharedObject pod = cluster_.by_uid(uid);
      if (pod != nullptr && is_tracked(*pod))
        uncounted->insert(uid);
      else
        ++*counted;
    }
  };
  settle("succeeded", &round.uncounted_succeeded, &round.succeeded);
  settle("failed", &round.uncounted_failed, &round.failed);
  if (is_indexed(*job)) {
    round.done = JobIndexes::parse(kube::text_at(job->json(), "status", "completedIndexes"),
                                   completions_of(*job));
    round.succeeded = round.done.size();
  }
  return round;
}

void JobController::look(State& state, Round* round) {
  for (auto it = state.pods.begin(); it != state.pods.end();) {
    const SharedObject pod = cluster_.find(kube::kPods, *it);
    const bool mine = pod != nullptr && pod->controller == round->job->uid;
    const std::string phase = mine ? kube::text_at(pod->json(), "status", "phase") : "";
    const bool ended = phase == "Succeeded" || phase == "Failed";
    if (!mine || (ended && !is_tracked(*pod))) {
      it = state.pods.erase(it);
      continue;
    }
    ++it;
    const PodEnd end = end_of_pod(*round->job, *pod);
    if (pod->deleting() && !ended) ++round->terminating;
    if (end == PodEnd::kNotYet) round->busy.insert(completion_index(*pod));
    if (pod_is_active(*pod)) {
      round->active.push_back(pod);
      round->ready += pod_is_ready(*pod) ? 1 : 0;
      round->restarts += restarts_of(*pod);
    } else if (end != PodEnd::kNotYet && is_tracked(*pod)) {
      count_end(state, pod, round);
    }
  }
}

void JobController::count_end(State& state, const SharedObject& pod, Round* round) {
  const bool known =
      round->uncounted_succeeded.contains(pod->uid) || round->uncounted_failed.contains(pod->uid);
  if (known) return round->release.push_back(pod);
  if (round->uncounted_succeeded.size() + round->uncounted_failed.size() >= kMaxUncounted) return;
  const int64_t index = completion_index(*pod);
  if (end_of_pod(*round->job, *pod) == PodEnd::kSucceeded) {
    state.failures = 0;
    if (!is_indexed(*round->job)) {
      round->uncounted_succeeded.insert(pod->uid);
    } else if (index >= 0 && index < completions_of(*round->job)) {
      round->done.add(index);
      round->succeeded = round->done.size();
    }
    return round->release.push_back(pod);
  }
  const FailureAction action = failure_action(*round->job, *pod);
  round->release.push_back(pod);
  if (action.kind == FailureAction::Kind::kIgnore) return;
  if (action.kind == FailureAction::Kind::kFailJob) {
    round->failure_reason = "PodFailurePolicy";
    round->failure = action.message;
  }
  round->uncounted_failed.insert(pod->uid);
  ++state.failures;
  state.failed_at = cluster_.loop().now();
}

void JobController::suspend_or_resume(Round* round) {
  const Json* wish = kube::find(round->job->json(), "spec", "suspend");
  round->suspended = wish != nullptr && *wish == Json(true);
  const std::string now = kube::rfc3339(cluster_.loop().clock().wall_now());
  const bool was = has(*round->job, "Suspended");
  if (round->suspended && !was) {
    set_condition(round->conditions, "Suspended", "True", "JobSuspended", "Job suspended", now);
    events_.normal(*round->job, "Suspended", "Job suspended");
  }
  if (!round->suspended && was) {
    set_condition(round->conditions, "Suspended", "False", "JobResumed", "Job resumed", now);
    events_.normal(*round->job, "Resumed", "Job resumed");
  }
  if (round->suspended)
    round->start_time = nullptr;
  else if (!round->start_time.is_string())
    round->start_time = now;
}

bool JobController::reached(const Round& round) const {
  const int64_t wanted = completions_of(*round.job);
  if (wanted != kUnlimited) return round.all_succeeded() >= wanted;
  return round.all_succeeded() > 0 && round.active.empty();
}

// Has it failed?
void JobController::judge(Round* round) {
  const Json& job = round->job->json();
  if (has(*round->job, "FailureTarget")) {
    for (const Json& one : round->conditions) {
      if (kube::text_at(one, "type") != "FailureTarget") continue;
      round->failure_reason = kube::text_at(one, "reason");
      round->failure = kube::text_at(one, "message");
    }
  }
  if (!round->failure_reason.empty() || has(*round->job, "SuccessCriteriaMet")) return;
  const int64_t limit = int_at(job, {"spec", "backoffLimit"}, 6);
  const bool on_failure =
      kube::text_at(job, "spec", "template", "spec", "restartPolicy") == "OnFailure";
  const bool restarted =
      on_failure && round->restarts > 0 && (limit == 0 || round->restarts >= limit);
  if (round->all_failed() > limit || restarted) {
    round->failure_reason = "BackoffLimitExceeded";
    round->failure = "Job has reached the specified backoff limit";
    return;
  }
  const int64_t deadline = int_at(job, {"spec", "activeDeadlineSeconds"}, kUnlimited);
  const auto start =
      round->start_time.is_string() ? kube::parse_rfc3339(round->start_time) : std::nullopt;
  if (deadline == kUnlimited || !start || round->suspended) return;
  const auto left = *start + seconds(deadline) - cluster_.loop().clock().wall_now();
  if (left > seconds(0)) {
    queue_.add_after(round->job->key(), std::chrono::duration_cast<Duration>(left));
    return;
  }
  round->failure_reason = "DeadlineExceeded";
  round->failure = "Job was active longer than specified deadline";
}

// How many pods should run, and which go when there are too many.
void JobController::manage(State& state, Round* round) {
  if (round->suspended) {
    round->quiet = round->active;
    return;
  }
  const int64_t parallel = int_at(round->job->json(), {"spec", "parallelism"}, 1);
  const int64_t completions = completions_of(*round->job);
  const auto active = static_cast<int64_t>(round->active.size());
  int64_t wanted = std::min(parallel, completions - round->all_succeeded());
  // One has succeeded: the others come to their end, and no more begin.
  if (completions == kUnlimited)
    wanted = round->all_succeeded() > 0 ? std::min(parallel, active) : parallel;
  if (active > wanted) {
    std::vector<SharedObject> going = round->active;
    std::stable_sort(going.begin(), going.end(), [](const SharedObject& a, const SharedObject& b) {
      return pod_is_ready(*a) < pod_is_ready(*b);
    });
    going.resize(static_cast<size_t>(active - wanted));
    round->quiet = std::move(going);
    return;
  }
  const bool waits = kube::text_at(round->job->json(), "spec", "podReplacementPolicy") == "Failed";
  const int64_t missing = wanted - active - (waits ? round->terminating : 0);
  if (missing <= 0) return;
  if (state.failures > 0) {
    const Duration pause = std::min<Duration>(
        options_.first_retry * (1 << std::min(state.failures - 1, kMaxDoublings)),
        options_.last_retry);
    const Duration left = state.failed_at + pause - cluster_.loop().now();
    if (left > Duration{}) return queue_.add_after(round->job->key(), left);
  }
  create_more(std::min(missing, kBatch), round);
}

void JobController::create_more(int64_t count, Round* round) {
  if (!is_indexed(*round->job)) {
    round->create.assign(static_cast<size_t>(count), -1);
    return;
  }
  const int64_t completions = completions_of(*round->job);
  for (int64_t i = round->done.first_missing(0); i < completions && count > 0;
       i = round->done.first_missing(i + 1)) {
    if (round->busy.contains(i)) continue;
    round->create.push_back(i);
    --count;
  }
}

// The job is over: first its pods end and are counted, then it says so.
void JobController::end(Round* round) {
  const bool failed = !round->failure_reason.empty();
  const std::string now = kube::rfc3339(cluster_.loop().clock().wall_now());
  const std::string reason = failed ? round->failure_reason : "CompletionsReached";
  const std::string message = failed ? round->failure : "Reached expected number of succeeded pods";
  set_condition(round->conditions, failed ? "FailureTarget" : "SuccessCriteriaMet", "True", reason,
                message, now);
  (failed ? round->remove : round->quiet) = round->active;
  const bool counted = round->uncounted_failed.empty() && round->uncounted_succeeded.empty();
  if (!round->active.empty() || !round->release.empty() || !counted) return;
  if (failed) {
    set_condition(round->conditions, "Failed", "True", reason, message, now);
    events_.warning(*round->job, reason, message);
    return;
  }
  set_condition(round->conditions, "Complete", "True", reason, message, now);
  round->completion_time = now;
  events_.normal(*round->job, "Completed", "Job completed");
}

Json JobController::status_of(const Round& round) const {
  auto uids = [](const std::set<std::string>& from) { return from.empty() ? Json() : Json(from); };
  const auto active = static_cast<int64_t>(round.active.size() + round.create.size()) -
                      static_cast<int64_t>(round.quiet.size() + round.remove.size());
  Json status{
      {"active", or_null(active)},
      {"ready", round.ready},
      {"terminating", round.terminating},
      {"succeeded", or_null(round.succeeded)},
      {"failed", or_null(round.failed)},
      {"uncountedTerminatedPods",
       {{"succeeded", uids(round.uncounted_succeeded)}, {"failed", uids(round.uncounted_failed)}}},
      {"startTime", round.start_time},
      {"completionTime", round.completion_time},
      {"conditions", round.conditions}};
  if (is_indexed(*round.job)) {
    const std::string done = round.done.text();
    status["completedIndexes"] = done.empty() ? Json() : Json(done);
  }
  return status;
}

void JobController::write(Round round, WorkQueue::Done done) {
  Json status = status_of(round);
  if (is_same(status, kube::find(round.job->json(), "status"))) return act(round, std::move(done));
  const SharedObject job = round.job;
  auto batch =
      Batch::make(1, [this, round = std::move(round), done = std::move(done)](Result<> result) {
        if (!result) return done(std::move(result));
        act(round, done);
      });
  cluster_.patch(job, {{"status", std::move(status)}}, batch->part(), "status");
}

void JobController::act(const Round& round, WorkQueue::Done done) {
  const SharedObject job = round.job;
  auto batch = Batch::make(
      round.release.size() + round.quiet.size() + round.remove.size() + round.create.size(),
      [this, key = job->key(), again = round.create.size() == static_cast<size_t>(kBatch),
       done = std::move(done)](Result<> result) {
        if (again) queue_.add(key);
        done(std::move(result));
      });
  for (const SharedObject& pod : round.release)
    cluster_.patch(pod, without_tracking(*pod), batch->part());
  for (const SharedObject& pod : round.remove) {
    events_.normal(*job, "SuccessfulDelete", "Deleted pod: " + pod->name);
    cluster_.remove(pod, batch->part());
  }
  for (const SharedObject& pod : round.quiet) {
    events_.normal(*job, "SuccessfulDelete", "Deleted pod: " + pod->name);
    cluster_.patch(pod, without_tracking(*pod),
                   [this, pod, part = batch->part()](Result<SharedObject> result) mutable {
                     if (!result) return part(std::move(result));
                     cluster_.remove(pod, std::move(part));
                   });
  }
  for (const int64_t index : round.create) {
    cluster_.create(kube::kPods, job->ns, job_pod(*job, index),
                    [this, job, part = batch->part()](Result<SharedObject> pod) mutable {
                      if (pod && *pod != nullptr)
                        events_.normal(*job, "SuccessfulCreate", "Created pod: " + (*pod)->name);
                      else if (!pod)
                        events_.warning(*job, "FailedCreate",
                                        "Error creating: " + pod.error().message);
                      part(std::move(pod));
                    });
  }
}

// Nothing is counted any more; its time to live may end.
void JobController::after_end(const SharedObject& job, WorkQueue::Done done) {
  std::vector<SharedObject> held;
  for (const std::string& key : state_of(job).pods) {
    const SharedObject pod = cluster_.find(kube::kPods, key);
    if (pod != nullptr && is_tracked(*pod)) held.push_back(pod);
  }
  const int64_t ttl = int_at(job->json(), {"spec", "ttlSecondsAfterFinished"}, kUnlimited);
  bool over = false;
  if (ttl != kUnlimited && !job->deleting()) {
    const auto now = cluster_.loop().clock().wall_now();
    auto finished = now;
    for (const Json& one : copy_at(*job, "conditions")) {
      const std::string type = kube::text_at(one, "type");
      if (type == "Complete" || type == "Failed")
        finished = kube::parse_rfc3339(kube::text_at(one, "lastTransitionTime")).value_or(now);
    }
    const auto left = finished + seconds(ttl) - now;
    over = left <= seconds(0);
    if (!over) queue_.add_after(job->key(), std::chrono::duration_cast<Duration>(left));
  }
  auto batch = Batch::make(held.size() + (over ? 1 : 0), std::move(done));
  for (const SharedObject& pod : held) cluster_.patch(pod, without_tracking(*pod), batch->part());
  if (over) cluster_.remove(job, batch->part());
}

}  // namespace edgemesh::cloud::controllers
