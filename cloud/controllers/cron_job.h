// CronJobController: makes a Job when a CronJob's schedule says so. A job's name has its time in
// it, so a time is never run twice, whatever restarts. Of several missed times only the last one is
// made up for, within startingDeadlineSeconds. Threads: the cluster's loop.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "cloud/controllers/cluster.h"
#include "cloud/controllers/events.h"
#include "cloud/controllers/work_queue.h"
#include "kube/cron_schedule.h"

namespace edgemesh::cloud::controllers {

class CronJobController {
 public:
  explicit CronJobController(Cluster& cluster);
  void start() { queue_.start(); }

 private:
  struct Jobs {
    std::vector<SharedObject> active, succeeded, failed;  // the latter by their start
  };
  Jobs look(const ClusterObject& cron) const;
  void reconcile(const std::string& key, WorkQueue::Done done);
  // Finished jobs beyond the history's limits, and the status.
  void tidy(const SharedObject& cron, const Jobs& jobs, WorkQueue::Done done);
  void run_due(const SharedObject& cron, const Jobs& jobs, WorkQueue::Done done);
  void make_job(const SharedObject& cron, std::chrono::sys_seconds time, WorkQueue::Done done);
  std::chrono::sys_seconds now() const;

  Cluster& cluster_;
  WorkQueue queue_;
  Events events_;
};

}  // namespace edgemesh::cloud::controllers
