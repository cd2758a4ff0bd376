// Stats: what the node and its pods use, as kubelet's /stats/summary has it (the part that
// `kubectl top` needs: CPU and memory). Usage of CPU is between two looks: the one that is asked
// for and the one before if that was not long ago, else a second look a moment later. Nothing is
// looked at while nobody asks. Threads: the loop given; small reads of /proc.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/cri/runtime_client.h"
#include "core/base/function.h"
#include "core/io/loop.h"

namespace edgemesh::streams {

// At one time; CPU is the sum since the start.
struct UsageSample {
  int64_t time = 0;  // Unix nanoseconds
  uint64_t cpu_nanos = 0;
  uint64_t memory = 0;  // working set, bytes
};
struct ContainerUsage {
  std::string uid, ns, pod, name;
  UsageSample sample;
};
struct UsageLook {
  UsageSample node;
  std::map<std::string, ContainerUsage> containers;  // by id
};

// Of /proc/stat and /proc/meminfo; `root` is put before the paths.
UsageSample read_node_usage(int64_t now, const std::string& root = "");
// JSON. Containers that `before` does not have are left out: their CPU use is not known yet.
std::string render_summary(const std::string& node, const UsageLook& before, const UsageLook& now);

class Stats {
 public:
  struct Options {
    Duration fresh = std::chrono::minutes(1);  // how old the look before may be
    Duration apart = std::chrono::seconds(1);  // two looks at least
  };
  Stats(io::Loop& loop, cri::RuntimeClient& runtime, std::string node, Options options);
  ~Stats();

  using Done = UniqueFunction<void(Result<std::string>)>;
  void summary(Done done);

 private:
  void look();
  void on_look(Result<UsageLook> look);
  void finish(const Result<std::string>& result);

  io::Loop& loop_;
  cri::RuntimeClient& runtime_;
  std::string node_;
  Options options_;
  std::vector<Done> waiting_;
  UsageLook before_, last_;
  TimePoint before_at_{}, last_at_{};
  bool have_last_ = false;
  io::Timer again_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::streams
