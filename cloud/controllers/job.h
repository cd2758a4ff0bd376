// JobController: runs pods of a Job until as many of them succeeded as it asks for, or until too
// many failed. A pod that ended is counted exactly once: it carries a finalizer until its uid
// stands in the status (uncountedTerminatedPods; of an Indexed job: its index in completedIndexes),
// and the uid leaves the status, as a number, when the finalizer is off. So a crash between two of
// these steps, or a user who deletes pods, loses and doubles nothing.
//
// Only pods that are not counted yet are looked at: what is done already costs nothing. A failed
// pod is followed by the next one after a wait that doubles. Threads: the cluster's loop.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/events.h"
#include "cloud/controllers/job_indexes.h"
#include "cloud/controllers/work_queue.h"

namespace edgemesh::cloud::controllers {

class JobController {
 public:
  struct Options {
    Duration first_retry = std::chrono::seconds(10);
    Duration last_retry = std::chrono::minutes(10);
  };
  explicit JobController(Cluster& cluster) : JobController(cluster, Options()) {}
  JobController(Cluster& cluster, Options options);
  void start();

 private:
  struct State {
    std::string key;
    std::set<std::string> pods;  // keys: not counted, or not ended
    int failures = 0;            // since the last success
    TimePoint failed_at{};
  };
  // One round.
  struct Round {
    SharedObject job;
    nlohmann::json conditions, start_time, completion_time;
    std::vector<SharedObject> active;
    std::vector<SharedObject> release;  // their finalizer goes when the status is written
    std::set<std::string> uncounted_succeeded, uncounted_failed;  // uids
    std::set<int64_t> busy;                                       // indexes with an active pod
    JobIndexes done;                                              // indexes
    int64_t succeeded = 0, failed = 0;                            // those that are counted
    int64_t ready = 0, terminating = 0, restarts = 0;
    bool suspended = false;
    std::string failure, failure_reason;  // why the job has failed
    std::vector<int64_t> create;          // indexes; -1 of a job without
    std::vector<SharedObject> quiet;      // go and count for nothing
    std::vector<SharedObject> remove;     // go, and count
    int64_t all_succeeded() const {
      return succeeded + static_cast<int64_t>(uncounted_succeeded.size());
    }
    int64_t all_failed() const { return failed + static_cast<int64_t>(uncounted_failed.size()); }
  };

  void on_pod(const SharedObject& before, const SharedObject& after);
  State& state_of(const SharedObject& job);
  void reconcile(const std::string& key, WorkQueue::Done done);
  void let_go(const std::string& pod, WorkQueue::Done done);
  void after_end(const SharedObject& job, WorkQueue::Done done);
  Round read(const SharedObject& job) const;
  void look(State& state, Round* round);
  void count_end(State& state, const SharedObject& pod, Round* round);
  void suspend_or_resume(Round* round);
  void judge(Round* round);
  bool reached(const Round& round) const;
  void manage(State& state, Round* round);
  void create_more(int64_t count, Round* round);
  void end(Round* round);
  nlohmann::json status_of(const Round& round) const;
  void write(Round round, WorkQueue::Done done);
  void act(const Round& round, WorkQueue::Done done);

  Cluster& cluster_;
  Options options_;
  WorkQueue queue_;
  WorkQueue orphans_;  // of pods whose job is gone
  Events events_;
  std::unordered_map<std::string, State> states_;  // by the job's uid
};

}  // namespace edgemesh::cloud::controllers
