// ImageCollector: takes images off the node that no container has, when their disk is getting full:
// those that were not used for the longest time first, until there is room again. kubelet's
// thresholds: from 85 % down to 80 %. What sandboxes run on stays.
// Threads: the loop given.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "agent/cri/runtime_client.h"

namespace edgemesh::edged {

class ImageCollector {
 public:
  struct Usage {
    int64_t bytes = 0, free = 0;
  };
  struct Options {
    int high_percent = 85, low_percent = 80;
    Duration least_age = std::chrono::minutes(2);  // since it came, or was used
    Duration every = std::chrono::minutes(5);
    // Of the file system that a path is on; none: it cannot be told.
    std::function<std::optional<Usage>(const std::string& path)> usage;
  };
  static std::optional<Usage> usage_of(const std::string& path);

  ImageCollector(io::Loop& loop, cri::RuntimeClient& runtime, Options options);
  ~ImageCollector();

  void start();

 private:
  struct Known {
    TimePoint used;
    int64_t bytes = 0;
  };
  struct Round {
    std::string sandbox_image;
    std::set<std::string> in_use;  // ids and names
    int64_t too_much = 0;          // bytes to free
  };
  using RoundPtr = std::shared_ptr<Round>;

  void look();
  void ask_containers(const RoundPtr& round);
  void ask_images(const RoundPtr& round);
  void ask_disk(const RoundPtr& round);
  void remove_next(const RoundPtr& round);
  void finish() { busy_ = false; }

  io::Loop& loop_;
  cri::RuntimeClient& runtime_;
  Options options_;
  io::Timer timer_;
  bool busy_ = false;
  std::map<std::string, Known> images_;  // by id
  std::set<std::string> refused_;        // in this round
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::edged
