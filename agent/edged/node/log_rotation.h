// LogRotation: keeps the logs of containers from filling the disk: a file beyond its size is put
// aside with the time in its name, the runtime opens a new one, and of those put aside only the
// newest stay. kubelet's names, so that tools find them.
// Threads: the loop given; blocking for renames.
#pragma once

#include <memory>
#include <string>

#include "agent/cri/runtime_client.h"

namespace edgemesh::edged {

class LogRotation {
 public:
  struct Options {
    std::string log_root = "/var/log/pods";
    int64_t most_bytes = 10 << 20;
    size_t most_files = 5;  // with the one being written
    Duration every = std::chrono::seconds(10);
  };
  LogRotation(io::Loop& loop, cri::RuntimeClient& runtime, Options options);
  ~LogRotation();

  void start() { timer_.start_repeating(options_.every); }

 private:
  void look();
  void rotate(const std::string& container, const std::string& path);
  void drop_old(const std::string& path) const;

  io::Loop& loop_;
  cri::RuntimeClient& runtime_;
  Options options_;
  io::Timer timer_;
  bool busy_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::edged
