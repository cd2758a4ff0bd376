// WorkQueue: keys that wait to be worked on, each once. A key is never worked on twice at the same
// time; what was added meanwhile is worked on once more afterwards. A failure is tried again after
// a growing wait. Threads: the loop given.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "core/base/function.h"
#include "core/base/result.h"
#include "core/io/loop.h"

namespace edgemesh::cloud::controllers {

class WorkQueue {
 public:
  using Done = std::function<void(Result<>)>;  // once
  using Work = std::function<void(const std::string& key, Done done)>;

  // `name` is for the log.
  WorkQueue(io::Loop& loop, std::string name, size_t max_parallel, Work work);
  ~WorkQueue();

  void add(const std::string& key);
  // Of several waits for one key the shortest counts.
  void add_after(const std::string& key, Duration wait);
  // Nothing is begun before.
  void start();
  bool idle() const { return queue_.empty() && running_.empty(); }

 private:
  void pump();
  void finish(const std::string& key, const Result<>& result);

  io::Loop& loop_;
  std::string name_;
  size_t max_parallel_;
  Work work_;
  bool started_ = false;
  bool scheduled_ = false;
  std::deque<std::string> queue_;
  std::set<std::string> queued_;
  std::set<std::string> running_, again_;
  std::unordered_map<std::string, int> failures_;
  std::set<std::pair<TimePoint, std::string>> later_;
  std::unordered_map<std::string, TimePoint> due_;  // of what is in later_
  io::Timer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud::controllers
