// Events: what a controller tells users about an object (`kubectl describe`, `kubectl events`). The
// same said again within ten minutes is counted in the first event, which is written again at most
// every few seconds. Told to nobody when too many are on their way: an event is news, not state.
// Threads: the cluster's loop.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "cloud/controllers/cluster.h"

namespace edgemesh::cloud::controllers {

class Events {
 public:
  // `component` is who says so, as "daemonset-controller".
  Events(Cluster& cluster, std::string component);
  ~Events();
  void normal(const ClusterObject& about, const std::string& reason, const std::string& message) {
    tell(about, "Normal", reason, message);
  }
  void warning(const ClusterObject& about, const std::string& reason, const std::string& message) {
    tell(about, "Warning", reason, message);
  }

 private:
  struct Told {
    SharedObject event;  // null: on its way
    int64_t count = 1;
    TimePoint first{}, written{};
  };
  void tell(const ClusterObject& about, const char* type, const std::string& reason,
            const std::string& message);
  void say_again(Told& told);
  nlohmann::json make(const ClusterObject& about, const char* type, const std::string& reason,
                      const std::string& message) const;

  Cluster& cluster_;
  std::string component_;
  std::unordered_map<std::string, Told> told_;
  size_t in_flight_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud::controllers
